use super::{Caps, Cred, NO_ID, Withheld};
use crate::abi::Errno;

#[test]
fn dropping_root_drops_capabilities() {
    let mut cred = Cred::root();
    cred.set_resuid(1000, 1000, 1000).unwrap();
    assert_eq!((cred.permitted, cred.effective), (Caps::empty(), Caps::empty()));
    assert_eq!(cred.set_uid(0), Err(Errno::EPERM));
}

#[test]
fn saved_id_allows_the_way_back() {
    let mut cred = Cred::root();
    cred.set_reuid(NO_ID, 1000).unwrap();
    assert_eq!((cred.uid.effective, cred.uid.saved, cred.effective), (1000, 1000, Caps::empty()));
    let mut cred = Cred::root();
    cred.set_resuid(NO_ID, 1000, NO_ID).unwrap();
    assert!(!cred.has(Caps::CHOWN));
    cred.set_resuid(NO_ID, 0, NO_ID).unwrap();
    assert!(cred.has(Caps::CHOWN));
}

#[test]
fn exec_of_a_setuid_file() {
    let user = Cred::user(1000, 1000, &[]);
    assert_eq!(user.after_exec(None, None, || None).permitted, Caps::empty());
    let root = user.after_exec(Some(0), None, || None);
    assert_eq!((root.uid.real, root.uid.effective, root.effective), (1000, 0, Caps::ALL));
}

#[test]
fn a_steered_program_gets_nothing_new() {
    let user = Cred::user(1000, 1000, &[]);
    let steered = user.after_exec(Some(0), Some(0), || Some(Withheld::Steered));
    assert_eq!((steered.uid, steered.gid), (user.uid, user.gid));
    assert_eq!((steered.permitted, steered.effective), (Caps::empty(), Caps::empty()));
    // Who may become anybody anyway does, with the capabilities that it had.
    let mut some = user.clone();
    (some.permitted, some.effective) = (Caps::SETUID | Caps::CHOWN, Caps::SETUID);
    let steered = some.after_exec(Some(0), None, || Some(Withheld::Steered));
    assert_eq!((steered.uid.effective, steered.effective), (0, Caps::SETUID | Caps::CHOWN));
}

#[test]
fn root_gets_nothing_back_where_no_privileges_are_new() {
    let mut root = Cred::root();
    assert_eq!(root.after_exec(None, None, || Some(Withheld::NoNewPrivileges)).permitted, Caps::ALL);
    (root.permitted, root.effective) = (Caps::CHOWN, Caps::CHOWN);
    assert_eq!(root.after_exec(None, None, || None).permitted, Caps::ALL);
    assert_eq!(root.after_exec(None, None, || Some(Withheld::NoNewPrivileges)).effective, Caps::CHOWN);
}

#[test]
fn ambient_capabilities_end_with_root() {
    let mut cred = Cred::root();
    (cred.inheritable, cred.ambient) = (Caps::CHOWN, Caps::CHOWN);
    cred.securebits = super::securebits::KEEP_CAPS;
    cred.set_resuid(1000, 1000, 1000).unwrap();
    assert_eq!((cred.ambient, cred.permitted), (Caps::empty(), Caps::ALL));
    assert_eq!(cred.after_exec(None, None, || None).permitted, Caps::empty());
}
