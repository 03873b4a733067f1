//! The order of locks, and where none may be held.

use crate::sync::{HostLine, Lock, Rank, Reach, no_lock_is_held};

/// What a panic of `body` says.
fn complaint(body: impl FnOnce() + Send) -> String {
    let ended = std::thread::scope(|scope| scope.spawn(body).join());
    let payload = ended.expect_err("nothing is wrong");
    payload.downcast_ref::<String>().expect("a formatted message").clone()
}

#[test]
fn a_lock_out_of_order_is_told_with_both_ranks() {
    let (outer, inner) = (Lock::new(Rank::Tree, ()), Lock::new(Rank::Group, ()));
    let said = complaint(|| {
        let _inner = inner.lock();
        let _outer = outer.lock();
    });
    let expected = "lock order: Tree is taken while Group is held, which was taken at ";
    assert!(said.starts_with(expected), "{said}");
    assert!(said.contains("lock.rs:"), "{said}");
    // The panic released it, here and in the order.
    let _outer = outer.lock();
    let _inner = inner.lock();
}

#[test]
fn the_order_is_that_of_all_that_is_held() {
    let [first, second, third] = [Rank::Tree, Rank::Group, Rank::Pending].map(|rank| Lock::new(rank, ()));
    let said = complaint(|| {
        let (_first, last) = (first.lock(), third.lock());
        // Let go of in any order.
        drop(last);
        let (middle, _last) = (second.lock(), third.lock());
        drop(middle);
        let _middle = second.lock();
    });
    assert!(said.starts_with("lock order: Group is taken while Pending is held"), "{said}");
}

#[test]
fn two_of_a_kind_are_taken_explicitly() {
    let [one, other] = [1, 2].map(|value| Lock::new(Rank::DentryChildren, value));
    let said = complaint(|| {
        let _one = one.lock();
        let _other = other.lock();
    });
    assert!(said.starts_with("lock order: DentryChildren is taken while DentryChildren is held"), "{said}");
    let outer = one.lock();
    assert_eq!((*outer, *other.lock_nested()), (1, 2));
    drop(outer);
    let inner = Lock::new(Rank::Heap, ());
    let said = complaint(|| {
        let _inner = inner.lock();
        let _nested = one.lock_nested();
    });
    assert!(said.starts_with("lock order: DentryChildren is taken while Heap is held"), "{said}");
}

#[test]
fn a_free_lock_may_be_tried_in_any_order_and_counts() {
    let (outer, inner) = (Lock::new(Rank::Tree, ()), Lock::new(Rank::Group, ()));
    let said = complaint(|| {
        let _inner = inner.lock();
        drop(outer.try_lock().expect("it is free"));
        let _inner = inner.lock();
    });
    assert!(said.starts_with("lock order: Group is taken while Group is held"), "{said}");
}

#[test]
fn nobody_parks_or_calls_the_host_with_a_lock() {
    let lock = Lock::new(Rank::Tree, 1);
    let said = complaint(|| {
        let _held = lock.lock();
        no_lock_is_held();
    });
    assert!(said.starts_with("a task leaves its worker while Tree is held"), "{said}");
    let said = complaint(|| {
        let _held = lock.lock();
        HostLine::new(Reach::Near).call(|| Ok(())).expect("nothing refuses");
    });
    assert!(said.starts_with("a host call that may hang is made while Tree is held"), "{said}");
    // And none is taken inside, but the heap's.
    let said = complaint(|| {
        let locked = HostLine::new(Reach::Near).call(|| Ok(Box::new(*lock.lock())));
        drop(locked);
    });
    assert!(said.starts_with("lock order: Tree is taken while HostCall is held"), "{said}");
    no_lock_is_held();
}
