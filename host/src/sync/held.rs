//! What the calling thread holds: the check of the order of locks, in debug builds only.
//!
//! Locks are not held across a park, so that the list is the host thread's, whoever runs on it. No address of it outlives
//! a function here: the task that called one may go on elsewhere. Nothing here allocates, since the heap has a lock, too.

use super::Rank;
use core::cell::Cell;
use core::panic::Location;

/// Most that one thread holds at a time.
const MOST: usize = 24;

/// What is held: where it is, and where it was taken.
type Entry = Option<(usize, Rank, &'static Location<'static>)>;

thread_local! {
    static HELD: [Cell<Entry>; MOST] = const { [const { Cell::new(None) }; MOST] };
}

/// Of what the thread holds and `counts`, what comes last in the order.
#[inline(never)]
fn last(counts: fn(Rank) -> bool) -> Entry {
    HELD.with(|held| {
        let held = held.iter().filter_map(Cell::get).filter(|&(_, rank, _)| counts(rank));
        held.max_by_key(|&(_, rank, _)| rank)
    })
}

/// Before the caller waits for a lock.
///
/// # Panics
/// Where one is held that comes later in the order, or as late unless this one is `nested` in it. While the thread panics
/// already nothing is checked.
#[inline(never)]
#[track_caller]
pub(super) fn check(rank: Rank, nested: bool) {
    let Some((_, before, at)) = last(|_| true) else { return };
    if (if nested { rank < before } else { rank <= before }) && !std::thread::panicking() {
        panic!("lock order: {rank:?} is taken while {before:?} is held, which was taken at {at}");
    }
}

/// Notes that what is at `address` was taken.
///
/// # Panics
/// If more is held than there is any reason to.
#[inline(never)]
#[track_caller]
pub(super) fn taken(address: usize, rank: Rank) {
    let entry = Some((address, rank, Location::caller()));
    let noted =
        HELD.with(|held| held.iter().find(|place| place.get().is_none()).map(|place| place.set(entry)));
    assert!(noted.is_some(), "more than {MOST} locks are held");
}

/// Notes that what is at `address` is let go of.
///
/// # Panics
/// If the thread does not hold it.
#[inline(never)]
pub(super) fn released(address: usize) {
    let forgotten = HELD.with(|held| {
        let place = held.iter().find(|place| place.get().is_some_and(|(taken, ..)| taken == address));
        place.map(|place| place.set(None))
    });
    assert!(forgotten.is_some(), "a lock is released by a thread that did not take it");
}

/// Before `what`, which no lock that `counts` may be held in.
///
/// # Panics
/// Where one is.
#[inline(never)]
#[track_caller]
pub(super) fn none(what: &str, counts: fn(Rank) -> bool) {
    let Some((_, rank, at)) = last(counts) else { return };
    if !std::thread::panicking() {
        panic!("{what} while {rank:?} is held, which was taken at {at}");
    }
}
