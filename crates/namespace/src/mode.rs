//! Bits of a mode that change by themselves (inode(7), chown(2)).

/// The bits that a row keeps.
pub const BITS: u16 = 0o7777;
/// Set-user-id.
pub const SET_UID: u16 = 0o4000;
/// Set-group-id.
pub const SET_GID: u16 = 0o2000;
/// Execute permission of the group.
pub const GROUP_EXEC: u16 = 0o0010;

/// The mode after an owner changed: set-user-id goes, and so does set-group-id where the
/// group may execute (without that it is no set-group-id bit but a mark for mandatory locking).
pub fn without_set_id(mode: u16) -> u16 {
    let gone = if mode & GROUP_EXEC != 0 { SET_UID | SET_GID } else { SET_UID };
    mode & !gone
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_group_id_stays_where_the_group_may_not_execute() {
        assert_eq!(without_set_id(0o6755), 0o755);
        assert_eq!(without_set_id(0o6745), 0o2745);
        assert_eq!(without_set_id(0o1644), 0o1644);
    }
}
