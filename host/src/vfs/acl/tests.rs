//! Lists against a second reading of acl(5): the algorithm of "ACCESS CHECK ALGORITHM", step by step.

use super::{Acl, Asker, Entry, Tag, Want};
use crate::abi::Errno;
use crate::cred::userns::UserNs;
use proptest::prelude::*;

fn list(entries: &[(u16, u16, u32)]) -> Vec<u8> {
    let mut value = 2_u32.to_le_bytes().to_vec();
    for (tag, perm, id) in entries {
        value.extend(tag.to_le_bytes());
        value.extend(perm.to_le_bytes());
        value.extend(id.to_le_bytes());
    }
    value
}

fn parsed(entries: &[(u16, u16, u32)]) -> Acl {
    Acl::parse(&list(entries), &UserNs::FIRST).unwrap().unwrap()
}

#[test]
fn only_what_makes_sense_is_kept() {
    let none = u32::MAX;
    let minimal = parsed(&[(1, 7, none), (4, 5, none), (32, 0, none)]);
    assert_eq!((minimal.check(), minimal.bits()), (Ok(()), (0o750, true)));
    let more = [(1, 6, none), (2, 7, 5), (4, 4, none), (8, 6, 9), (16, 6, none), (32, 1, none)];
    assert_eq!((parsed(&more).check(), parsed(&more).bits()), (Ok(()), (0o661, false)));
    assert_eq!(parsed(&more).show(&UserNs::FIRST), list(&more));
    for bad in [
        &more[1..],
        &more[..5],
        &[more[0], more[1], more[2], more[5]],
        &[more[0], more[2], more[1], more[4], more[5]],
        &[more[0], more[0], more[2], more[5]],
        &[(1, 8, none), more[2], more[5]],
    ] {
        assert_eq!(parsed(bad).check(), Err(Errno::EINVAL), "{bad:?}");
    }
    let long = |count: u32| {
        let mut all = vec![more[0]];
        all.extend((0..count).map(|id| (2, 7, id)));
        all.extend([more[2], more[4], more[5]]);
        parsed(&all).check()
    };
    assert_eq!((long(508), long(509)), (Ok(()), Err(Errno::ENOSPC)));
    for (value, errno) in [
        (&list(&more)[..3], Errno::EINVAL),
        (&list(&more)[..9], Errno::EINVAL),
        (&[1, 0, 0, 0][..], Errno::EOPNOTSUPP),
        (&list(&[(3, 0, 0)])[..], Errno::EINVAL),
    ] {
        assert_eq!(Acl::parse(value, &UserNs::FIRST), Err(errno));
    }
    assert_eq!(Acl::parse(&[], &UserNs::FIRST), Ok(None));
    assert_eq!(Acl::parse(&list(&[]), &UserNs::FIRST), Ok(None));
}

#[test]
fn bits_are_followed_and_inherited() {
    let none = u32::MAX;
    let masked = parsed(&[(1, 7, none), (2, 7, 5), (4, 5, none), (16, 7, none), (32, 5, none)]);
    assert_eq!(masked.with_bits(0o640).bits(), (0o640, false));
    assert_eq!(masked.with_bits(0o640).perm_of(Tag::OwningGroup), Some(5));
    let (perm, own) = masked.inherited(0o2666);
    assert_eq!((perm, own.unwrap().bits().0), (0o2664, 0o664));
    let plain = parsed(&[(1, 7, none), (4, 5, none), (32, 0, none)]);
    assert_eq!(plain.inherited(0o666), (0o640, None));
}

/// acl(5), as it is written.
fn by_the_book(acl: &Acl, who: &Asker<'_>, want: u16) -> bool {
    let perm = |tag| acl.0.iter().find(|entry| entry.tag == tag).map(|entry| entry.perm);
    let mask = perm(Tag::Mask).unwrap_or(7);
    if let Some(user) = acl.0.iter().find(|entry| entry.tag == Tag::User && entry.id == who.uid) {
        return user.perm & mask & want == want;
    }
    let member = |gid| who.gid == gid || who.groups.contains(&gid);
    let matching: Vec<&Entry> = acl
        .0
        .iter()
        .filter(|entry| match entry.tag {
            Tag::OwningGroup => member(who.owners.1),
            Tag::Group => member(entry.id),
            _ => false,
        })
        .collect();
    if !matching.is_empty() {
        return matching.iter().any(|entry| entry.perm & mask & want == want);
    }
    perm(Tag::Others).is_some_and(|perm| perm & want == want)
}

proptest! {
    #[test]
    fn it_lets_those_whom_the_book_lets(
        users in proptest::collection::vec((0_u32..6, 0_u16..8), 0..4),
        groups in proptest::collection::vec((0_u32..6, 0_u16..8), 0..4),
        perms in (0_u16..8, 0_u16..8, 0_u16..8, 0_u16..8),
        who in (0_u32..6, 0_u32..6, proptest::collection::btree_set(0_u32..6, 0..3)),
        file_group in 0_u32..6,
        want in 1_u32..8,
    ) {
        let none = u32::MAX;
        let mut all = vec![(1, perms.0, none)];
        let mut known = std::collections::BTreeSet::new();
        all.extend(users.iter().filter(|(id, _)| known.insert(*id)).map(|(id, perm)| (2, *perm, *id)));
        all.push((4, perms.1, none));
        known.clear();
        all.extend(groups.iter().filter(|(id, _)| known.insert(*id)).map(|(id, perm)| (8, *perm, *id)));
        if all.len() > 2 {
            all.push((16, perms.2, none));
        }
        all.push((32, perms.3, none));
        let acl = parsed(&all);
        prop_assert_eq!(acl.check(), Ok(()));
        let groups: Vec<u32> = who.2.into_iter().collect();
        let who = Asker { uid: who.0, gid: who.1, groups: &groups, owners: (99, file_group) };
        prop_assert_eq!(acl.allows(&who, Want::from_bits_truncate(want)), by_the_book(&acl, &who, want as u16));
    }
}
