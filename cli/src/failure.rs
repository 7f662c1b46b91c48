//! Why a command did not do what it was asked to: one line that says what happened to what, and what to do.

use dfs_client::ClientError;
use dfs_proto::{ErrorCode, WireError};
use serde_json::json;
use std::fmt::Display;
use std::io;
use std::process::ExitCode;

/// Exit status for wrong usage, as clap has it.
const USAGE: u8 = 2;
/// Exit status after SIGINT, as shells have it.
const INTERRUPTED: u8 = 130;

/// A failure as people see it.
#[derive(Debug)]
pub(crate) struct Failure {
    message: String,
    hint: Option<&'static str>,
    code: Option<ErrorCode>,
    exit: u8,
}

impl Failure {
    pub(crate) fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), hint: None, code: None, exit: 1 }
    }

    /// The command line cannot be meant like this.
    pub(crate) fn usage(message: impl Into<String>) -> Failure {
        Failure { exit: USAGE, ..Failure::new(message) }
    }

    /// A signal ended the command.
    pub(crate) fn interrupted() -> Failure {
        Failure { exit: INTERRUPTED, ..Failure::new("interrupted; nothing half done was left here") }
    }

    /// Whoever reads standard output has heard enough (`dfs ls | head`): nothing to complain about.
    fn reader_gone() -> Failure {
        Failure { exit: 0, ..Failure::new("") }
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Failure {
        self.hint = Some(hint);
        self
    }

    fn of_code(what: &str, error: impl Display, code: ErrorCode) -> Failure {
        Failure { hint: hint(code), code: Some(code), ..Failure::new(format!("cannot {what}: {error}")) }
    }

    fn text(&self) -> String {
        match self.hint {
            Some(hint) => format!("{}; {hint}", self.message),
            None => self.message.clone(),
        }
    }

    /// Tells it on standard error; the exit status to end with.
    pub(crate) fn report(&self, json: bool) -> ExitCode {
        if !self.message.is_empty() {
            if json {
                let error = json!({ "error": { "code": self.code, "message": self.text() } });
                eprintln!("{error}");
            } else {
                eprintln!("dfs: {}", self.text());
            }
        }
        ExitCode::from(self.exit)
    }
}

/// What to do about errors that have a usual cure.
fn hint(code: ErrorCode) -> Option<&'static str> {
    use ErrorCode::*;
    match code {
        Unreachable => Some(
            "is the master running? `dfs up` starts a cluster here, --master HOST:PORT names another one",
        ),
        NotFound => Some("`dfs ls` shows what is there"),
        IsDirectory => Some("name a file in it"),
        NotEmpty => Some("`dfs rm -r` removes a directory with all that is in it"),
        NoNodes => Some("`dfs node ls` shows the storage nodes; start one"),
        NoSpace => Some("add a storage node or remove files; `dfs status` shows the room that is left"),
        NoGoodCopy => Some("`dfs stat` shows where the copies should be; start the nodes that hold them"),
        Timeout | Unavailable => Some("try again; `dfs status` shows how the cluster is doing"),
        SessionExpired => Some("try again"),
        Exists | NotDirectory | NoAttribute | InvalidName | NameTooLong | InvalidArgument | TooLarge
        | ValueTooLarge | TooManyLinks | NotPermitted | NotSupported | Deadlock | TooManyLocks | LockLost
        | Stale | Malformed | BodyTooLarge | Truncated | ChecksumMismatch | Unauthorized | Conflict
        | Sealed | UnknownVolume | Corrupt | Io | Internal => None,
    }
}

/// Says what was being done when an error came up.
pub(crate) trait OrFail<T> {
    /// `what` goes on from "cannot": `get /a.txt`.
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure>;
}

impl<T> OrFail<T> for Result<T, ClientError> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::of_code(&what(), &e, e.code()))
    }
}

impl<T> OrFail<T> for Result<T, WireError> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::of_code(&what(), &e, e.code))
    }
}

impl<T> OrFail<T> for io::Result<T> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Failure::reader_gone(),
            _ => Failure::new(format!("cannot {}: {e}", what())),
        })
    }
}

impl<T> OrFail<T> for anyhow::Result<T> {
    fn or_fail(self, what: impl FnOnce() -> String) -> Result<T, Failure> {
        self.map_err(|e| Failure::new(format!("cannot {}: {e:#}", what())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_says_what_happened_to_what_and_what_to_do() {
        let error: Result<(), _> = Err(ClientError::local(ErrorCode::NotFound, "no such file"));
        let failure = error.or_fail(|| "get /a.txt".to_owned()).unwrap_err();
        assert_eq!(
            failure.text(),
            "cannot get /a.txt: no such file (not_found); `dfs ls` shows what is there"
        );
        assert_eq!(failure.exit, 1);
    }

    #[test]
    fn a_reader_that_left_is_no_failure() {
        let error: io::Result<()> = Err(io::ErrorKind::BrokenPipe.into());
        assert_eq!(error.or_fail(|| "write".to_owned()).unwrap_err().exit, 0);
    }
}
