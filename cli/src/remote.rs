//! Paths in the cluster.

use dfs_proto::{Name, WireError};
use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt;

/// A path from the cluster's root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemotePath {
    names: Vec<Name>,
    directory: bool,
}

impl RemotePath {
    /// Reads what was typed; any bytes are welcome that can be a path. Errors: see [`Name::split_path`].
    pub(crate) fn parse(typed: OsString) -> Result<RemotePath, WireError> {
        let bytes = typed.into_vec();
        let names = Name::split_path(&bytes)?;
        let directory = names.is_empty() || bytes.ends_with(b"/");
        Ok(RemotePath { names, directory })
    }

    pub(crate) fn root() -> RemotePath {
        RemotePath { names: Vec::new(), directory: true }
    }

    /// Whether it can only mean a directory: the root, or written with a `/` at its end.
    pub(crate) fn is_directory(&self) -> bool {
        self.directory
    }

    /// The names from the root on.
    pub(crate) fn names(&self) -> &[Name] {
        &self.names
    }

    /// The directory that holds it and its name there; `None` for the root.
    pub(crate) fn split_last(&self) -> Option<(RemotePath, &Name)> {
        let (name, above) = self.names.split_last()?;
        Some((RemotePath { names: above.to_vec(), directory: true }, name))
    }

    /// The entry `name` of this directory.
    pub(crate) fn join(&self, name: &Name) -> RemotePath {
        let mut names = self.names.clone();
        names.push(name.clone());
        RemotePath { names, directory: false }
    }

    /// The bytes of the path, with a leading `/`.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        if self.names.is_empty() {
            return b"/".to_vec();
        }
        self.names.iter().flat_map(|n| [b"/", n.as_bytes()].concat()).collect()
    }
}

/// As names are shown: control characters escaped.
impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.names.is_empty() {
            return f.write_str("/");
        }
        self.names.iter().try_for_each(|name| write!(f, "/{name}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(typed: &[u8]) -> RemotePath {
        RemotePath::parse(OsString::from_vec(typed.to_vec())).unwrap()
    }

    #[test]
    fn a_trailing_slash_means_a_directory() {
        assert!(path(b"docs/").is_directory());
        assert!(path(b"").is_directory());
        assert!(!path(b"/docs").is_directory());
    }

    #[test]
    fn any_bytes_but_control_characters_are_shown_as_they_are() {
        assert_eq!(path(b"a \"b\"/c\nd").to_string(), "/a \"b\"/c\\nd");
        assert_eq!(path(b"x/\xff").to_bytes(), b"/x/\xff");
        assert_eq!(RemotePath::root().to_string(), "/");
    }
}
