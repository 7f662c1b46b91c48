//! Ranges and preconditions of HTTP (RFC 9110, sections 13 and 14), as far as the gateway has them.

use actix_web::http::header::HttpDate;
use dfs_proto::Attr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// What a request asks of a file that is there.
#[derive(Clone, Copy, Debug, Default)]
pub struct Conditions<'a> {
    /// `If-Match`
    pub if_match: Option<&'a str>,
    /// `If-None-Match`
    pub if_none_match: Option<&'a str>,
    /// `If-Range`
    pub if_range: Option<&'a str>,
    /// `Range`
    pub range: Option<&'a str>,
}

/// What is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// 200
    Whole,
    /// 206
    Part(std::ops::Range<u64>),
    /// 304
    NotModified,
    /// 412
    PreconditionFailed,
    /// 416
    NotSatisfiable,
}

/// The strong validator of a file's content: `"INO-VERSION"`.
pub fn etag(attr: &Attr) -> String {
    format!("\"{}-{}\"", attr.ino, attr.version)
}

/// The time of the last change of content, as HTTP writes it: whole seconds.
pub fn last_modified(attr: &Attr) -> SystemTime {
    u64::try_from(attr.mtime.secs).map_or(UNIX_EPOCH, |secs| UNIX_EPOCH + Duration::from_secs(secs))
}

impl Conditions<'_> {
    /// What is to be sent of a file with these attributes.
    pub fn judge(&self, attr: &Attr) -> Answer {
        let tag = etag(attr);
        if self.if_match.is_some_and(|list| !names(list, &tag, false)) {
            return Answer::PreconditionFailed;
        }
        if self.if_none_match.is_some_and(|list| names(list, &tag, true)) {
            return Answer::NotModified;
        }
        let range = self.range.filter(|_| self.if_range.is_none_or(|v| is_current(v, &tag, attr)));
        match range.map(|text| parse_range(text, attr.size)) {
            None | Some(Range::Ignored) => Answer::Whole,
            Some(Range::Within(range)) => Answer::Part(range),
            Some(Range::Beyond) => Answer::NotSatisfiable,
        }
    }
}

/// Whether a list of entity tags names `tag`. Weak tags count only in a weak comparison.
fn names(list: &str, tag: &str, weakly: bool) -> bool {
    list.trim() == "*"
        || list.split(',').map(str::trim).any(|one| match one.strip_prefix("W/") {
            Some(weak) => weakly && weak == tag,
            None => one == tag,
        })
}

/// Whether the validator of `If-Range` is that of the content as it is.
fn is_current(validator: &str, tag: &str, attr: &Attr) -> bool {
    let validator = validator.trim();
    if validator.starts_with('"') || validator.starts_with("W/") {
        return validator == tag;
    }
    validator.parse::<HttpDate>().is_ok_and(|date| SystemTime::from(date) == last_modified(attr))
}

#[derive(Debug, PartialEq, Eq)]
enum Range {
    /// Not understood, or several: the whole is sent, as the RFC allows.
    Ignored,
    Within(std::ops::Range<u64>),
    Beyond,
}

fn parse_range(text: &str, size: u64) -> Range {
    let Some((first, last)) = text.trim().strip_prefix("bytes=").and_then(|r| r.split_once('-')) else {
        return Range::Ignored;
    };
    let number = |text: &str| {
        let text = text.trim();
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        // A number that no u64 can hold is beyond every file.
        is_number.then(|| text.parse::<u64>().unwrap_or(u64::MAX))
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => Range::Ignored,
        (Some(first), _) if first >= size && (number(last).is_some() || last.trim().is_empty()) => {
            Range::Beyond
        }
        (Some(first), Some(last)) => Range::Within(first..last.saturating_add(1).min(size)),
        (Some(first), None) if last.trim().is_empty() => Range::Within(first..size),
        (None, Some(0)) if first.trim().is_empty() => Range::Beyond,
        (None, Some(count)) if first.trim().is_empty() => match size {
            0 => Range::Beyond,
            _ => Range::Within(size.saturating_sub(count)..size),
        },
        _ => Range::Ignored,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dfs_proto::{FileKind, Ino, Timestamp, Version};
    use proptest::prelude::*;

    fn attr(size: u64) -> Attr {
        let time = Timestamp { secs: 1_700_000_000, nanos: 5 };
        Attr {
            ino: Ino(7),
            kind: FileKind::File,
            mode: 0o644,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size,
            allocated: size,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            version: Version(3),
            parent: Ino(0),
            collision: None,
            has_acl: false,
        }
    }

    #[test]
    fn single_ranges_are_understood() {
        for (text, expected) in [
            ("bytes=0-0", Range::Within(0..1)),
            ("bytes=2-5", Range::Within(2..6)),
            ("bytes=2-", Range::Within(2..10)),
            ("bytes=-3", Range::Within(7..10)),
            ("bytes=-99", Range::Within(0..10)),
            ("bytes=5-99", Range::Within(5..10)),
            ("bytes=10-", Range::Beyond),
            ("bytes=10-12", Range::Beyond),
            ("bytes=-0", Range::Beyond),
            ("bytes=99999999999999999999-", Range::Beyond),
            ("bytes=5-2", Range::Ignored),
            ("bytes=0-1,3-4", Range::Ignored),
            ("bytes=", Range::Ignored),
            ("bytes=-", Range::Ignored),
            ("bytes=x-2", Range::Ignored),
            ("lines=1-2", Range::Ignored),
        ] {
            assert_eq!(parse_range(text, 10), expected, "{text}");
        }
        assert_eq!(parse_range("bytes=0-", 0), Range::Beyond);
        assert_eq!(parse_range("bytes=-5", 0), Range::Beyond);
    }

    proptest! {
        #[test]
        fn ranges_lie_within_the_file(text in "bytes=[0-9]{0,21}-[0-9]{0,21}", size: u64) {
            if let Range::Within(range) = parse_range(&text, size) {
                prop_assert!(range.start < range.end && range.end <= size);
            }
        }
    }

    #[test]
    fn preconditions_compare_the_tag_of_the_content() {
        let attr = attr(10);
        let judge = |conditions: Conditions<'_>| conditions.judge(&attr);
        let with = Conditions::default();
        for (list, expected) in [
            ("\"7-3\"", Answer::NotModified),
            ("W/\"7-3\"", Answer::NotModified),
            ("\"1-1\", \"7-3\"", Answer::NotModified),
            ("*", Answer::NotModified),
            ("\"7-2\"", Answer::Whole),
        ] {
            assert_eq!(judge(Conditions { if_none_match: Some(list), ..with }), expected, "{list}");
        }
        for (list, expected) in [
            ("\"7-3\"", Answer::Whole),
            ("*", Answer::Whole),
            ("W/\"7-3\"", Answer::PreconditionFailed),
            ("\"7-2\"", Answer::PreconditionFailed),
        ] {
            assert_eq!(judge(Conditions { if_match: Some(list), ..with }), expected, "{list}");
        }
    }

    #[test]
    fn a_range_of_another_content_is_not_sent() {
        let attr = attr(10);
        let date = HttpDate::from(last_modified(&attr)).to_string();
        for (validator, expected) in [
            ("\"7-3\"", Answer::Part(0..5)),
            ("\"7-2\"", Answer::Whole),
            ("W/\"7-3\"", Answer::Whole),
            (date.as_str(), Answer::Part(0..5)),
            ("Thu, 01 Jan 1970 00:00:00 GMT", Answer::Whole),
        ] {
            let conditions =
                Conditions { if_range: Some(validator), range: Some("bytes=0-4"), ..Conditions::default() };
            assert_eq!(conditions.judge(&attr), expected, "{validator}");
        }
    }
}
