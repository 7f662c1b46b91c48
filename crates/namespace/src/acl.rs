//! POSIX access control lists (acl(5)): their form in extended attributes, and what they and modes make of each
//! other. Pure; where lists are kept is known to [`crate::access`].
//!
//! The form is that of the kernel (`linux/posix_acl_xattr.h`): a version of 4 bytes, then 8 bytes for each entry,
//! all little-endian. Lists are taken and refused as `posix_acl_valid` of the kernel does.

/// `POSIX_ACL_XATTR_VERSION`.
const VERSION: u32 = 2;
const HEADER_BYTES: usize = 4;
const ENTRY_BYTES: usize = 8;
/// `ACL_UNDEFINED_ID`, in entries that name nobody.
const NO_ID: u32 = u32::MAX;
/// Read, write, execute.
const RWX: u16 = 0o7;
/// The bits of a mode that a list stands for.
pub const PERMISSIONS: u16 = 0o777;

/// Whom an entry is for, in the order that entries have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Tag {
    /// `ACL_USER_OBJ`: the owner.
    Owner,
    /// `ACL_USER`
    User(u32),
    /// `ACL_GROUP_OBJ`: the group of the file.
    OwningGroup,
    /// `ACL_GROUP`
    Group(u32),
    /// `ACL_MASK`: bounds what users and groups are given.
    Mask,
    /// `ACL_OTHER`
    Others,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    tag: Tag,
    /// Of [`RWX`].
    permissions: u16,
}

/// A valid list: owner, named users, group, named groups, mask (which there is when anybody is named) and others,
/// in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acl {
    entries: Vec<Entry>,
}

impl Acl {
    /// Reads the value of an attribute. `None` for a list without entries, which stands for no list; the error
    /// says what is wrong.
    pub fn parse(value: &[u8]) -> Result<Option<Acl>, &'static str> {
        let Some((version, rest)) = value.split_first_chunk::<HEADER_BYTES>() else {
            return Err("is shorter than its header");
        };
        if u32::from_le_bytes(*version) != VERSION {
            return Err("is not of version 2");
        }
        let (entries, rest) = rest.as_chunks::<ENTRY_BYTES>();
        if !rest.is_empty() {
            return Err("ends within an entry");
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let entries = entries.iter().map(Entry::parse).collect::<Result<Vec<_>, _>>()?;
        check_order(&entries)?;
        Ok(Some(Acl { entries }))
    }

    /// The value of an attribute.
    pub fn encode(&self) -> Vec<u8> {
        let mut value = Vec::with_capacity(HEADER_BYTES + ENTRY_BYTES * self.entries.len());
        value.extend(VERSION.to_le_bytes());
        for entry in &self.entries {
            let (tag, id) = entry.tag.to_wire();
            value.extend(tag.to_le_bytes());
            value.extend(entry.permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    /// The permission bits of a mode that go with the list: the group's are those of the mask when there is one
    /// (acl(5), CORRESPONDENCE BETWEEN ACL ENTRIES AND FILE PERMISSION BITS).
    pub fn permissions(&self) -> u16 {
        let mut owner = 0;
        let mut group = 0;
        let mut others = 0;
        for entry in &self.entries {
            match entry.tag {
                Tag::Owner => owner = entry.permissions,
                // The mask comes after the group.
                Tag::OwningGroup | Tag::Mask => group = entry.permissions,
                Tag::Others => others = entry.permissions,
                Tag::User(_) | Tag::Group(_) => {}
            }
        }
        owner << 6 | group << 3 | others
    }

    /// Whether the permission bits of a mode say all that the list says.
    pub fn is_mode_alone(&self) -> bool {
        self.entries.iter().all(|entry| matches!(entry.tag, Tag::Owner | Tag::OwningGroup | Tag::Others))
    }

    /// chmod(2): the list gets the permission bits of the mode, those of the group in the mask when there is one.
    pub fn set_permissions(&mut self, mode: u16) {
        let has_mask = self.entries.iter().any(|entry| entry.tag == Tag::Mask);
        for entry in &mut self.entries {
            match entry.tag {
                Tag::Owner => entry.permissions = mode >> 6 & RWX,
                Tag::OwningGroup if has_mask => {}
                Tag::OwningGroup | Tag::Mask => entry.permissions = mode >> 3 & RWX,
                Tag::Others => entry.permissions = mode & RWX,
                Tag::User(_) | Tag::Group(_) => {}
            }
        }
    }

    /// The list of something new, made with `mode` in a directory of which this is the default list: what both
    /// give (acl(5), OBJECT CREATION AND DEFAULT ACLs).
    pub fn inherited(&self, mode: u16) -> Acl {
        let mut acl = self.clone();
        acl.set_permissions(self.permissions() & mode);
        acl
    }
}

impl Entry {
    fn parse(bytes: &[u8; ENTRY_BYTES]) -> Result<Entry, &'static str> {
        let [t0, t1, p0, p1, id @ ..] = *bytes;
        let permissions = u16::from_le_bytes([p0, p1]);
        if permissions & !RWX != 0 {
            return Err("has an entry with permissions that there are not");
        }
        let tag = Tag::from_wire(u16::from_le_bytes([t0, t1]), u32::from_le_bytes(id))?;
        Ok(Entry { tag, permissions })
    }
}

impl Tag {
    fn from_wire(tag: u16, id: u32) -> Result<Tag, &'static str> {
        match tag {
            0x01 => Ok(Tag::Owner),
            0x02 | 0x08 if id == NO_ID => Err("has an entry for a user or group of no number"),
            0x02 => Ok(Tag::User(id)),
            0x04 => Ok(Tag::OwningGroup),
            0x08 => Ok(Tag::Group(id)),
            0x10 => Ok(Tag::Mask),
            0x20 => Ok(Tag::Others),
            _ => Err("has an entry of an unknown kind"),
        }
    }

    fn to_wire(self) -> (u16, u32) {
        match self {
            Tag::Owner => (0x01, NO_ID),
            Tag::User(id) => (0x02, id),
            Tag::OwningGroup => (0x04, NO_ID),
            Tag::Group(id) => (0x08, id),
            Tag::Mask => (0x10, NO_ID),
            Tag::Others => (0x20, NO_ID),
        }
    }

    /// Place in a list.
    fn rank(self) -> u8 {
        match self {
            Tag::Owner => 0,
            Tag::User(_) => 1,
            Tag::OwningGroup => 2,
            Tag::Group(_) => 3,
            Tag::Mask => 4,
            Tag::Others => 5,
        }
    }
}

fn check_order(entries: &[Entry]) -> Result<(), &'static str> {
    let in_order = |pair: &[Entry]| {
        let (first, second) = (pair[0].tag, pair[1].tag);
        let may_repeat = matches!(first, Tag::User(_) | Tag::Group(_));
        first.rank() < second.rank() || (may_repeat && first.rank() == second.rank())
    };
    if !entries.windows(2).all(in_order) {
        return Err("has its entries in the wrong order, or one twice");
    }
    let has = |rank: u8| entries.iter().any(|entry| entry.tag.rank() == rank);
    if ![Tag::Owner, Tag::OwningGroup, Tag::Others].iter().all(|tag| has(tag.rank())) {
        return Err("lacks the entry of the owner, the group or others");
    }
    let names_somebody = entries.iter().any(|entry| matches!(entry.tag, Tag::User(_) | Tag::Group(_)));
    if names_somebody && !has(Tag::Mask.rank()) {
        return Err("names users or groups and has no mask");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A value of entries (kind, permissions, id).
    fn value(entries: &[(u16, u16, u32)]) -> Vec<u8> {
        let mut value = VERSION.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            value.extend(tag.to_le_bytes());
            value.extend(permissions.to_le_bytes());
            value.extend(id.to_le_bytes());
        }
        value
    }

    fn parse(entries: &[(u16, u16, u32)]) -> Acl {
        Acl::parse(&value(entries)).unwrap().unwrap()
    }

    const OWNER: (u16, u16, u32) = (0x01, 7, NO_ID);
    const GROUP: (u16, u16, u32) = (0x04, 5, NO_ID);
    const OTHERS: (u16, u16, u32) = (0x20, 1, NO_ID);
    const USER: (u16, u16, u32) = (0x02, 6, 1000);
    const TEAM: (u16, u16, u32) = (0x08, 4, 50);
    const MASK: (u16, u16, u32) = (0x10, 3, NO_ID);

    #[test]
    fn a_list_of_three_is_a_mode() {
        let acl = parse(&[OWNER, GROUP, OTHERS]);
        assert_eq!(acl.permissions(), 0o751);
        assert!(acl.is_mode_alone());
    }

    #[test]
    fn with_a_mask_the_bits_of_the_group_are_the_mask() {
        for entries in [&[OWNER, GROUP, MASK, OTHERS][..], &[OWNER, USER, GROUP, TEAM, MASK, OTHERS]] {
            let acl = parse(entries);
            assert_eq!(acl.permissions(), 0o731);
            assert!(!acl.is_mode_alone());
        }
    }

    #[test]
    fn no_entries_are_no_list() {
        assert_eq!(Acl::parse(&value(&[])), Ok(None));
    }

    #[test]
    fn chmod_changes_the_mask_and_leaves_the_group() {
        let mut acl = parse(&[OWNER, USER, GROUP, MASK, OTHERS]);
        acl.set_permissions(0o4642);
        let expected = [(0x01, 6, NO_ID), USER, GROUP, (0x10, 4, NO_ID), (0x20, 2, NO_ID)];
        assert_eq!(acl, parse(&expected));
    }

    #[test]
    fn what_is_new_gets_what_the_list_and_the_mode_both_give() {
        let acl = parse(&[OWNER, USER, GROUP, MASK, OTHERS]).inherited(0o666);
        let expected = [(0x01, 6, NO_ID), USER, GROUP, (0x10, 2, NO_ID), (0x20, 0, NO_ID)];
        assert_eq!(acl, parse(&expected));
        assert_eq!(
            parse(&[OWNER, GROUP, OTHERS]).inherited(0o666),
            parse(&[(0x01, 6, NO_ID), (0x04, 4, NO_ID), (0x20, 0, NO_ID),])
        );
    }

    #[test]
    fn lists_that_the_kernel_refuses_are_refused() {
        let no_user = (0x02, 6, NO_ID);
        for entries in [
            &[OWNER, GROUP][..],
            &[OWNER, OTHERS],
            &[GROUP, OTHERS],
            &[OWNER, USER, GROUP, OTHERS],
            &[OWNER, GROUP, TEAM, OTHERS],
            &[OWNER, GROUP, USER, MASK, OTHERS],
            &[OWNER, OWNER, GROUP, OTHERS],
            &[OWNER, GROUP, MASK, MASK, OTHERS],
            &[OWNER, GROUP, OTHERS, MASK],
            &[OWNER, GROUP, OTHERS, OTHERS],
            &[OTHERS, GROUP, OWNER],
            &[OWNER, no_user, GROUP, MASK, OTHERS],
            &[(0x01, 8, NO_ID), GROUP, OTHERS],
            &[OWNER, GROUP, (0x20, 0o17, NO_ID)],
            &[OWNER, GROUP, OTHERS, (0x40, 0, NO_ID)],
            &[(0, 0, 0), OWNER, GROUP, OTHERS],
        ] {
            assert!(Acl::parse(&value(entries)).is_err(), "{entries:?}");
        }
        let good = value(&[OWNER, GROUP, OTHERS]);
        for bad in [&[][..], &good[..3], &good[..good.len() - 1], &[&good[..], &[0]].concat()] {
            assert!(Acl::parse(bad).is_err(), "{bad:?}");
        }
        for version in [0, 1, 3, u32::MAX] {
            let mut other = good.clone();
            other[..4].copy_from_slice(&version.to_le_bytes());
            assert!(Acl::parse(&other).is_err(), "version {version}");
        }
    }

    fn some_acl() -> impl Strategy<Value = Acl> {
        let named = || proptest::collection::vec((0..8u16, 0..NO_ID), 0..4);
        (0..8u16, named(), 0..8u16, named(), proptest::option::of(0..8u16), 0..8u16).prop_map(
            |(owner, users, group, groups, mask, others)| {
                let mask = mask.or((users.len() + groups.len() > 0).then_some(7));
                let entries = [(0x01, owner, NO_ID)].into_iter();
                let entries = entries.chain(users.into_iter().map(|(p, id)| (0x02, p, id)));
                let entries = entries.chain([(0x04, group, NO_ID)]);
                let entries = entries.chain(groups.into_iter().map(|(p, id)| (0x08, p, id)));
                let entries = entries.chain(mask.map(|p| (0x10, p, NO_ID))).chain([(0x20, others, NO_ID)]);
                parse(&entries.collect::<Vec<_>>())
            },
        )
    }

    fn named(acl: &Acl) -> Vec<Entry> {
        let is_named = |entry: &&Entry| matches!(entry.tag, Tag::User(_) | Tag::Group(_));
        acl.entries.iter().filter(is_named).copied().collect()
    }

    proptest! {
        #[test]
        fn a_list_comes_back_from_its_value(acl in some_acl()) {
            prop_assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl)));
        }

        #[test]
        fn any_bytes_are_refused_or_mean_a_valid_list(
            entries in proptest::collection::vec((0..6u32, 0..9u16, 0..3u32), 0..7),
            cut in 0..8usize,
        ) {
            let entries: Vec<_> = entries.into_iter().map(|(tag, p, id)| (1 << tag, p, id)).collect();
            let mut bytes = value(&entries);
            bytes.truncate(bytes.len() - cut.min(bytes.len()));
            if let Ok(Some(acl)) = Acl::parse(&bytes) {
                prop_assert_eq!(check_order(&acl.entries), Ok(()));
                prop_assert_eq!(Acl::parse(&acl.encode()), Ok(Some(acl)));
            }
        }

        #[test]
        fn after_chmod_list_and_mode_agree_and_nobody_named_changes(acl in some_acl(), mode in 0..0o10000u16) {
            let mut changed = acl.clone();
            changed.set_permissions(mode);
            prop_assert_eq!(changed.permissions(), mode & PERMISSIONS);
            prop_assert_eq!(named(&changed), named(&acl));
            prop_assert_eq!(check_order(&changed.entries), Ok(()));
        }

        #[test]
        fn what_is_inherited_never_gives_more_than_list_or_mode(acl in some_acl(), mode in 0..0o10000u16) {
            let inherited = acl.inherited(mode);
            prop_assert_eq!(inherited.permissions(), acl.permissions() & mode);
            prop_assert_eq!(named(&inherited), named(&acl));
        }
    }
}
