//! The lock that is held for long, where nobody can park.

use crate::sync::{HostLine, LongLock, Reach};
use std::sync::atomic::{AtomicUsize, Ordering};

#[test]
fn one_has_it_at_a_time_and_all_get_it() {
    const EACH: usize = 300;
    let (lock, line) = (LongLock::default(), HostLine::new(Reach::Near));
    let (inside, count) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                for _ in 0..EACH {
                    let _held = lock.lock(&line).expect("nobody is ended");
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    count.fetch_add(1, Ordering::Relaxed);
                    std::thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::Relaxed), 3 * EACH);
}
