//! Paths of requests as names.

use dfs_proto::limits::PATH_BYTES_MAX;
use dfs_proto::{ErrorCode, Name, WireError};
use percent_encoding::percent_decode_str;

/// What a request's path names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Names from the root; empty for the root itself.
    pub names: Vec<Name>,
    /// Whether it ends with a slash, or is the root: a directory is meant.
    pub is_directory: bool,
}

impl Request {
    /// Reads the raw, still percent-encoded path of a request below `prefix`. The encoding is undone once,
    /// within each name, so `%2F` is part of a name (and refused) and never a separator. `.` and `..` are
    /// refused in every spelling.
    pub fn parse(raw: &str, prefix: &str) -> Result<Request, WireError> {
        let tail = raw.strip_prefix(prefix).filter(|t| t.is_empty() || t.starts_with('/'));
        let Some(tail) = tail else {
            let message = format!("the path has to begin with {prefix}/, written as it is");
            return Err(WireError::new(ErrorCode::Malformed, message));
        };
        let mut names = Vec::new();
        let mut bytes = 0;
        for part in tail.split('/').filter(|part| !part.is_empty()) {
            let name = Name::new(percent_decode_str(part).collect::<Vec<u8>>())?;
            bytes += name.as_bytes().len() + 1;
            if bytes > PATH_BYTES_MAX {
                let message = format!("a path may have {PATH_BYTES_MAX} bytes");
                return Err(WireError::new(ErrorCode::NameTooLong, message));
            }
            names.push(name);
        }
        Ok(Request { is_directory: tail.is_empty() || tail.ends_with('/'), names })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(raw: &str) -> Vec<Vec<u8>> {
        let request = Request::parse(raw, "/files").unwrap();
        request.names.iter().map(|n| n.as_bytes().to_vec()).collect()
    }

    #[test]
    fn names_are_decoded_once() {
        assert_eq!(names("/files/a%20b/%25c"), [b"a b".to_vec(), b"%c".to_vec()]);
        assert_eq!(names("/files/%252e%252e"), [b"%2e%2e".to_vec()]);
        assert_eq!(names("/files/%ff%FE"), [vec![0xff, 0xfe]]);
        assert_eq!(names("/files//a///b/"), [b"a".to_vec(), b"b".to_vec()]);
        assert!(names("/files").is_empty() && names("/files/").is_empty());
    }

    #[test]
    fn a_trailing_slash_means_a_directory() {
        let is_directory = |raw| Request::parse(raw, "/files").unwrap().is_directory;
        assert!(is_directory("/files") && is_directory("/files/") && is_directory("/files/a/"));
        assert!(!is_directory("/files/a"));
    }

    #[test]
    fn what_could_lead_elsewhere_is_refused() {
        let long = format!("/files/{}", "x".repeat(256));
        let deep = format!("/files{}", "/x".repeat(2_100));
        for (raw, code) in [
            ("/files/../etc", ErrorCode::InvalidName),
            ("/files/%2e%2E/etc", ErrorCode::InvalidName),
            ("/files/a/./b", ErrorCode::InvalidName),
            ("/files/a%2Fb", ErrorCode::InvalidName),
            ("/files/a%00b", ErrorCode::InvalidName),
            ("/filesx", ErrorCode::Malformed),
            (long.as_str(), ErrorCode::NameTooLong),
            (deep.as_str(), ErrorCode::NameTooLong),
        ] {
            assert_eq!(Request::parse(raw, "/files").unwrap_err().code, code, "{raw}");
        }
    }
}
