use super::{HostFd, Listed, What, list};
use crate::hostsys::file;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Mutex;

/// A listing counts as a use while it is made.
static ALONE: Mutex<()> = Mutex::new(());

fn of(fd: i32) -> Option<Listed> {
    list().into_iter().find(|listed| listed.fd == fd)
}

fn is_open(fd: i32) -> bool {
    file::fcntl(fd, libc::F_GETFD, 0).is_ok()
}

#[test]
fn the_last_use_closes() {
    let _alone = ALONE.lock();
    let first = file::event_counter().unwrap();
    let number = first.raw();
    let second = first.clone();
    assert_eq!(of(number), Some(Listed { fd: number, uses: 2, what: "event counter".to_owned() }));
    drop(first);
    assert_eq!(of(number).map(|listed| listed.uses), Some(1));
    assert!(is_open(second.raw()));
    // Other tests may take the number at once: what is looked at is the pipe's other end.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let writer = HostFd::given(OwnedFd::from(writer), "a test").unwrap();
    drop(writer.clone());
    drop(writer);
    assert_eq!(std::io::Read::read(&mut reader, &mut [0]).unwrap(), 0);
}

#[test]
fn what_is_lent_stays_open() {
    let _alone = ALONE.lock();
    let (reader, _writer) = std::io::pipe().unwrap();
    let number = reader.as_raw_fd();
    let lent = HostFd::lent(number, What::Given("a test")).unwrap();
    let again = HostFd::lent(number, What::Given("somebody else")).unwrap();
    assert_eq!(of(number), Some(Listed { fd: number, uses: 2, what: "given by a test".to_owned() }));
    drop((lent, again));
    assert!(of(number).is_none() && is_open(number));
}

#[test]
fn what_is_handed_over_is_listed_no_more() {
    let _alone = ALONE.lock();
    let counter = file::event_counter().unwrap();
    let number = counter.raw();
    let other = counter.clone();
    assert!(other.hand_over().is_err());
    assert_eq!(of(number).map(|listed| listed.uses), Some(1));
    let owned = counter.hand_over().unwrap();
    assert!(of(number).is_none() && is_open(owned.as_raw_fd()));
}

#[test]
fn numbers_beyond_the_table_are_refused() {
    assert!(HostFd::lent(super::MOST as i32, What::Accepted).is_err());
    assert!(HostFd::lent(-1, What::Accepted).is_err());
    assert!(HostFd::inherited(super::MOST as i32, "a test").is_err());
}

/// Numbers go from thread to thread while others list them.
#[test]
fn threads_share_the_table() {
    let _alone = ALONE.lock();
    let makers = (0..4).map(|_| {
        std::thread::spawn(|| {
            for _ in 0..2000 {
                let made = file::event_counter().unwrap();
                let used = made.clone();
                drop(made);
                assert_eq!(file::write(used.raw(), &1_u64.to_ne_bytes()), Ok(8));
                let mut count = [0; 8];
                assert_eq!(file::read(used.raw(), &mut count), Ok(8));
                assert_eq!(u64::from_ne_bytes(count), 1);
            }
        })
    });
    let makers: Vec<_> = makers.collect();
    while makers.iter().any(|maker| !maker.is_finished()) {
        assert!(list().iter().all(|listed| listed.fd >= 0 && listed.uses < 1000));
    }
    makers.into_iter().for_each(|maker| maker.join().unwrap());
}
