use super::{Count, IdKind, MAX_LEVEL, UserNs};
use crate::abi::Errno;
use crate::cred::{Caps, Cred};

fn inside(by: &Cred) -> Cred {
    by.in_new_namespace(1, &Count::default()).unwrap()
}

fn map(of: &Cred, kind: IdKind, text: &str, by: &Cred) -> Result<(), Errno> {
    of.user_ns.set_map(kind, text.as_bytes(), by, by)
}

#[test]
fn capabilities_count_in_their_own_namespace_and_below() {
    let user = Cred::user(1000, 1000, &[]);
    let own = inside(&user);
    let below = inside(&{
        map(&own, IdKind::User, "0 1000 1", &own).unwrap();
        own.user_ns.set_setgroups(false).unwrap();
        map(&own, IdKind::Group, "0 1000 1", &own).unwrap();
        own.clone()
    });
    assert!(!own.has(Caps::SYS_ADMIN) && own.has_own(Caps::SYS_ADMIN));
    assert!(own.has_in(&own.user_ns, Caps::SYS_ADMIN) && own.has_in(&below.user_ns, Caps::SYS_ADMIN));
    assert!(!below.has_in(&own.user_ns, Caps::SYS_ADMIN) && !below.has_in(&UserNs::FIRST, Caps::SYS_ADMIN));
    // Its owner has them all, without any where he is; somebody else there has not.
    assert!(user.has_in(&own.user_ns, Caps::SYS_ADMIN) && user.has_in(&below.user_ns, Caps::SYS_ADMIN));
    let other = Cred::user(1001, 1001, &[]);
    assert!(!other.has_in(&own.user_ns, Caps::SYS_ADMIN) && !other.has_in(&below.user_ns, Caps::SYS_ADMIN));
    assert!(Cred::root().has_in(&below.user_ns, Caps::SYS_ADMIN));
    // Its sister has nothing of it.
    let sister = inside(&user);
    assert!(!sister.has_in(&own.user_ns, Caps::KILL) && !own.has_in(&sister.user_ns, Caps::KILL));
}

#[test]
fn one_may_name_oneself_and_nobody_else() {
    let user = Cred::user(1000, 1000, &[]);
    let own = inside(&user);
    for text in ["0 0 1", "0 1001 1", "0 1000 2", "0 1000 1\n1 1001 1"] {
        assert_eq!(map(&own, IdKind::User, text, &own), Err(Errno::EPERM), "{text}");
    }
    assert_eq!(map(&own, IdKind::User, "7 1000 1", &own), Ok(()));
    assert_eq!(map(&own, IdKind::User, "7 1000 1", &own), Err(Errno::EPERM));
    assert_eq!(map(&own, IdKind::Group, "0 1000 1", &own), Err(Errno::EPERM));
    assert_eq!(own.user_ns.set_setgroups(false), Ok(()));
    assert_eq!(own.user_ns.set_setgroups(true), Err(Errno::EPERM));
    assert_eq!(map(&own, IdKind::Group, "0 1000 1", &own), Ok(()));
    assert!(!own.user_ns.has_groups());
    assert_eq!(
        (own.user_ns.uid_of(1000), own.user_ns.uid(7), own.user_ns.uid(0)),
        (Some(7), Some(1000), None)
    );
    assert_eq!(own.user_ns.show((0, 1000)), (65534, 0));
}

#[test]
fn who_may_become_others_may_name_them() {
    let root = Cred::root();
    let own = inside(&Cred::user(1000, 1000, &[]));
    assert_eq!(map(&own, IdKind::User, "0 100000 65536", &root), Ok(()));
    assert_eq!(map(&own, IdKind::Group, "0 100000 65536", &root), Ok(()));
    assert!(own.user_ns.has_groups());
    assert_eq!(own.user_ns.set_setgroups(false), Err(Errno::EPERM));
    // Below, only what is known above has a name.
    let mut made = own.clone();
    (made.uid, made.gid) = (crate::cred::Ids::all(100_000), crate::cred::Ids::all(100_000));
    let below = inside(&made);
    assert_eq!(map(&below, IdKind::User, "0 65536 1", &made), Err(Errno::EPERM));
    assert_eq!(map(&below, IdKind::User, "5 1 100", &made), Ok(()));
    assert_eq!(below.user_ns.uid(5), Some(100_001));
    assert_eq!(below.user_ns.show_map(IdKind::User, &below.user_ns), "         5          1        100\n");
    assert_eq!(below.user_ns.show_map(IdKind::User, &UserNs::FIRST), "         5     100001        100\n");
}

#[test]
fn root_is_named_by_who_could_give_files_capabilities() {
    let mut weak = Cred::root();
    weak.effective -= Caps::SETFCAP;
    let own = inside(&weak);
    assert_eq!(map(&own, IdKind::User, "0 0 1", &own), Err(Errno::EPERM));
    assert_eq!(map(&own, IdKind::User, "0 0 1", &weak), Err(Errno::EPERM));
    assert_eq!(map(&own, IdKind::User, "0 0 1", &Cred::root()), Ok(()));
}

#[test]
fn they_nest_as_deep_as_linux_lets_them_and_are_counted() {
    let count = Count::default();
    let mut at = Cred::root();
    for level in 0..MAX_LEVEL {
        let above = at;
        at = above.in_new_namespace(u64::from(level), &count).unwrap();
        for kind in [IdKind::User, IdKind::Group] {
            at.user_ns.set_map(kind, b"0 0 4294967295", &above, &above).unwrap();
        }
    }
    assert_eq!(at.in_new_namespace(99, &count).err(), Some(Errno::ENOSPC));
    assert_eq!(count.all(), MAX_LEVEL as usize);
    drop(at);
    assert_eq!(count.all(), 0);
}

#[test]
fn who_has_no_name_makes_none() {
    let own = inside(&Cred::user(1000, 1000, &[]));
    assert_eq!(own.in_new_namespace(2, &Count::default()).err(), Some(Errno::EPERM));
}
