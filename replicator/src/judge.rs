//! What an error of a pull or a repair means for its order. Pure.
//!
//! The target answers for itself and for the source that it reads from. Errors that this program met on its
//! own way to the target say nothing about sources; those that the target answered may be the source's.

use dfs_client::ClientError;
use dfs_proto::ErrorCode;

/// What becomes of an order that no source could serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Then {
    /// It never works as it is: give it up. The master orders anew what is still wanted.
    Bury,
    /// Somebody has to make room first.
    RetryLate,
    /// It may pass.
    RetrySoon,
}

/// What to do after one source failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Judgement {
    /// Whether another source may do better. If not, `then` is what counts, whatever came before.
    pub(crate) next_source: bool,
    /// What the error means when no other source does better.
    pub(crate) then: Then,
}

/// Judges an error of [`dfs_client::NodeClient::pull`] or `repair`.
pub(crate) fn judge(error: &ClientError) -> Judgement {
    match error {
        ClientError::Remote(answer) => judge_answer(answer.code),
        // The target itself cannot be talked to: no source helps.
        ClientError::Unreachable { .. } | ClientError::Timeout { .. } | ClientError::BadAnswer { .. } => {
            Judgement { next_source: false, then: Then::RetrySoon }
        }
        ClientError::NoGoodCopy { .. } | ClientError::NotStored { .. } => judge_answer(error.code()),
    }
}

/// Judges a code that the target answered.
fn judge_answer(code: ErrorCode) -> Judgement {
    use ErrorCode::*;
    match code {
        // The source is away or its records are bad, or one of the two nodes has a bad time.
        Unreachable | Timeout | Corrupt | Truncated | ChecksumMismatch | NoGoodCopy | Unavailable
        | NoNodes | Io | Internal => Judgement { next_source: true, then: Then::RetrySoon },
        // The source does not have it. Another one may; if none has, the master's picture is out of date.
        NotFound | UnknownVolume => Judgement { next_source: true, then: Then::Bury },
        NoSpace => Judgement { next_source: false, then: Then::RetryLate },
        // The order is not, or no longer, one that this target obeys.
        Unauthorized | Sealed | Stale | SessionExpired | NotPermitted | NotSupported | Conflict | Exists
        | NotDirectory | IsDirectory | NotEmpty | NoAttribute | InvalidName | NameTooLong
        | InvalidArgument | TooLarge | ValueTooLarge | TooManyLinks | Deadlock | TooManyLocks | LockLost
        | Malformed | BodyTooLarge => Judgement { next_source: false, then: Then::Bury },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn judgement(next_source: bool, then: Then) -> Judgement {
        Judgement { next_source, then }
    }

    #[test]
    fn answers_of_the_target_are_judged_by_their_code() {
        use ErrorCode::*;
        for (codes, expected) in [
            (
                &[Unreachable, Timeout, Corrupt, Truncated, ChecksumMismatch, NoGoodCopy, Unavailable][..],
                judgement(true, Then::RetrySoon),
            ),
            (&[NoNodes, Io, Internal][..], judgement(true, Then::RetrySoon)),
            (&[NotFound, UnknownVolume][..], judgement(true, Then::Bury)),
            (&[NoSpace][..], judgement(false, Then::RetryLate)),
            (
                &[Unauthorized, Sealed, Stale, Malformed, InvalidArgument, NotPermitted, NotSupported][..],
                judgement(false, Then::Bury),
            ),
            (&[Conflict, BodyTooLarge, TooLarge, SessionExpired][..], judgement(false, Then::Bury)),
        ] {
            for code in codes {
                assert_eq!(judge(&ClientError::local(*code, "x")), expected, "{code}");
            }
        }
    }

    #[test]
    fn a_target_that_cannot_be_talked_to_is_not_the_sources_fault() {
        let server = || "http://t".to_owned();
        for error in [
            ClientError::Unreachable { server: server(), reason: "refused".into() },
            ClientError::Timeout { server: server(), what: "POST".into(), deadline_ms: 1 },
            ClientError::BadAnswer { server: server(), what: "POST".into(), reason: "html".into() },
        ] {
            assert_eq!(judge(&error), judgement(false, Then::RetrySoon), "{error}");
        }
    }

    #[test]
    fn hope_is_ordered() {
        assert!(Then::RetrySoon > Then::RetryLate && Then::RetryLate > Then::Bury);
    }
}
