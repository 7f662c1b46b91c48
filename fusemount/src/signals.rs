//! What the signals that wait for a process mean for an operation it waits for, as /proc tells.
//!
//! The kernel reports any signal to a file system, also those that programs get all the time and do not
//! expect to end a read (timers, children, Go's preemption). So the report only is the reason to look.

/// What the waiting signals ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing that concerns an operation.
    GoOn,
    /// The program wants to be told to stop: it catches one of the signals that people end programs with.
    Asked,
    /// The process ends as soon as the operation does.
    Fatal,
}

/// Bit of a signal in the masks of /proc/pid/status.
const fn bit(signal: libc::c_int) -> u64 {
    1 << (signal - 1)
}

/// Signals that do not end a process that does nothing about them (signal(7)).
const HARMLESS: u64 = bit(libc::SIGCHLD)
    | bit(libc::SIGCONT)
    | bit(libc::SIGURG)
    | bit(libc::SIGWINCH)
    | bit(libc::SIGSTOP)
    | bit(libc::SIGTSTP)
    | bit(libc::SIGTTIN)
    | bit(libc::SIGTTOU);

/// Signals by which people and service managers ask a program to end.
const REQUESTS_TO_STOP: u64 = bit(libc::SIGHUP) | bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGTERM);

/// The verdict on a thread with this /proc/pid/status. A mask that is not there counts as empty.
pub(crate) fn verdict(status: &str) -> Verdict {
    let mask = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|text| u64::from_str_radix(text.trim(), 16).ok()).unwrap_or(0)
    };
    let waiting = mask("SigPnd") | mask("ShdPnd");
    // The kernel turns a signal that ends a process into SIGKILL for each of its threads.
    if waiting & bit(libc::SIGKILL) != 0 {
        return Verdict::Fatal;
    }
    let effective = waiting & !mask("SigBlk") & !mask("SigIgn");
    let caught = mask("SigCgt");
    if effective & !caught & !HARMLESS != 0 {
        Verdict::Fatal
    } else if effective & caught & REQUESTS_TO_STOP != 0 {
        Verdict::Asked
    } else {
        Verdict::GoOn
    }
}

/// The verdict on thread `pid`. One that cannot be seen from here (it is in a pid namespace beside ours) is
/// left to wait.
pub(crate) fn verdict_on(pid: u32) -> Verdict {
    match std::fs::read_to_string(format!("/proc/{pid}/status")) {
        Ok(status) => verdict(&status),
        Err(_) => Verdict::GoOn,
    }
}

/// The flag of a thread that is on its way out (PF_EXITING, include/linux/sched.h).
const EXITING: u64 = 0x4;

/// Fields of /proc/pid/stat behind the program's name, counted from the state, which is field 3 (proc(5)).
const FLAGS_FIELD: usize = 9 - 3;
const EXIT_CODE_FIELD: usize = 52 - 3;

/// Whether the thread with this /proc/pid/stat is being ended by a signal. One that exits by itself is not.
pub(crate) fn is_dying(stat: &str) -> bool {
    // The name may have anything in it, parentheses and spaces too.
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let field = |n| fields.split_ascii_whitespace().nth(n).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
    // The lower seven bits of an exit code are the signal (wait(2)).
    field(FLAGS_FIELD) & EXITING != 0 && field(EXIT_CODE_FIELD) & 0x7f != 0
}

/// Whether thread `pid` is being ended by a signal.
pub(crate) fn is_dying_now(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| is_dying(&stat))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(pending: u64, shared: u64, blocked: u64, ignored: u64, caught: u64) -> String {
        format!(
            "Name:\tSigPnd: x\nPid:\t7\nSigPnd:\t{pending:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\n"
        )
    }

    #[test]
    fn a_kill_ends_whatever_the_masks_say() {
        let kill = bit(libc::SIGKILL);
        assert_eq!(verdict(&status(kill, 0, !0, !0, !0)), Verdict::Fatal);
        assert_eq!(verdict(&status(0, kill, 0, 0, 0)), Verdict::Fatal);
    }

    #[test]
    fn signals_that_nobody_catches_end_unless_they_are_harmless() {
        for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGALRM, libc::SIGPIPE, libc::SIGUSR1, 40] {
            assert_eq!(verdict(&status(0, bit(signal), 0, 0, 0)), Verdict::Fatal, "{signal}");
        }
        for signal in [libc::SIGCHLD, libc::SIGURG, libc::SIGWINCH, libc::SIGTSTP, libc::SIGCONT] {
            assert_eq!(verdict(&status(bit(signal), 0, 0, 0, 0)), Verdict::GoOn, "{signal}");
        }
    }

    #[test]
    fn a_program_that_catches_a_request_to_stop_is_told_and_one_that_catches_a_timer_is_not() {
        for signal in [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM] {
            let s = bit(signal);
            assert_eq!(verdict(&status(0, s, 0, 0, s)), Verdict::Asked, "{signal}");
        }
        for signal in [libc::SIGALRM, libc::SIGCHLD, libc::SIGURG, libc::SIGUSR1, libc::SIGPROF] {
            let s = bit(signal);
            assert_eq!(verdict(&status(s, 0, 0, 0, s)), Verdict::GoOn, "{signal}");
        }
    }

    #[test]
    fn blocked_and_ignored_signals_change_nothing() {
        let int = bit(libc::SIGINT);
        assert_eq!(verdict(&status(0, int, int, 0, 0)), Verdict::GoOn);
        assert_eq!(verdict(&status(int, 0, 0, int, 0)), Verdict::GoOn);
        assert_eq!(verdict(&status(0, int, int, 0, int)), Verdict::GoOn);
    }

    #[test]
    fn what_cannot_be_read_changes_nothing() {
        assert_eq!(verdict(""), Verdict::GoOn);
        assert_eq!(verdict("SigPnd:\tnonsense\nShdPnd"), Verdict::GoOn);
        assert_eq!(verdict_on(0), Verdict::GoOn);
        assert_eq!(verdict_on(std::process::id()), Verdict::GoOn);
        assert!(!is_dying(""));
        assert!(!is_dying("1 (x"));
        assert!(!is_dying_now(std::process::id()));
    }

    fn stat(flags: u64, exit_code: u64) -> String {
        let before = "0 ".repeat(FLAGS_FIELD - 1);
        let between = "0 ".repeat(EXIT_CODE_FIELD - FLAGS_FIELD - 1);
        format!("12 (a ) (b) R {before}{flags} {between}{exit_code}\n")
    }

    #[test]
    fn only_a_process_that_exits_by_a_signal_is_dying() {
        assert!(is_dying(&stat(0x0040_0004, 9)));
        assert!(is_dying(&stat(0x4, 0x80 | 11)), "with a core dump");
        assert!(!is_dying(&stat(0x4, 0)), "exit(0)");
        assert!(!is_dying(&stat(0x4, 3 << 8)), "exit(3)");
        assert!(!is_dying(&stat(0x0040_0000, 9)), "not exiting");
    }
}
