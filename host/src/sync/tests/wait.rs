//! Wait queues.

use crate::sync::{WaitQueue, Waiter, Wake};
use proptest::prelude::*;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

#[derive(Default)]
struct Count(AtomicU32);

impl Wake for Count {
    fn wake(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn waiter(mask: u32) -> (Arc<Count>, Arc<Waiter>) {
    let count = Arc::new(Count::default());
    (count.clone(), Waiter::new(count, mask))
}

#[test]
fn notify_respects_masks_and_unregister() {
    let queue = WaitQueue::new();
    let (reader, on_read) = waiter(1);
    let (writer, on_write) = waiter(4);
    queue.register(&on_read);
    queue.register_for(&on_write, 4);
    queue.notify(1);
    assert_eq!((reader.0.load(Ordering::Relaxed), writer.0.load(Ordering::Relaxed)), (1, 0));
    queue.unregister(&on_read);
    queue.notify(5);
    assert_eq!((reader.0.load(Ordering::Relaxed), writer.0.load(Ordering::Relaxed)), (1, 1));
    queue.unregister(&on_write);
    assert!(queue.is_empty());
}

#[test]
fn a_waiter_leaves_with_all_its_registrations_and_nobody_elses() {
    let queue = WaitQueue::new();
    let all: Vec<_> = (0..4).map(|_| waiter(1)).collect();
    for (_, waiter) in &all {
        queue.register(waiter);
    }
    queue.register(&all[0].1);
    // The oldest, then one from the middle.
    queue.unregister(&all[0].1);
    queue.unregister(&all[2].1);
    queue.notify(1);
    let woken: Vec<u32> = all.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [0, 1, 0, 1]);
    queue.unregister(&all[3].1);
    queue.unregister(&all[1].1);
    assert!(queue.is_empty());
}

#[test]
fn a_waiter_for_one_wake_leaves_with_it() {
    let queue = WaitQueue::new();
    let all: Vec<_> = (0..3).map(|_| waiter(1)).collect();
    queue.register_once(&all[0].1, 1);
    queue.register(&all[1].1);
    queue.register_once(&all[2].1, 4);
    let version = queue.version();
    queue.notify(1);
    queue.notify(1);
    assert_eq!(queue.version(), version + 2);
    queue.unregister(&all[1].1);
    assert!(!queue.is_empty());
    queue.notify(5);
    assert!(queue.is_empty());
    let woken: Vec<u32> = all.iter().map(|(count, _)| count.0.load(Ordering::Relaxed)).collect();
    assert_eq!(woken, [1, 2, 1]);
}

/// What a host thread that waits as a task does is woken by.
#[derive(Default)]
struct Parked(AtomicU32);

impl Wake for Parked {
    fn wake(&self) {
        self.0.store(1, Ordering::SeqCst);
        crate::hostsys::futex::wake(&self.0, 1);
    }
}

#[test]
fn no_wake_is_lost_between_registering_and_sleeping() {
    // Two sides take turns through two queues, as the two ends of two pipes: any wake that is lost ends the test.
    const ROUNDS: u32 = 30_000;
    const PATIENCE: Duration = Duration::from_secs(20);
    let turn = AtomicU32::new(0);
    let queues = [WaitQueue::new(), WaitQueue::new()];
    let side = |own: u32| {
        let parked = Arc::new(Parked::default());
        let waiter = Waiter::new(parked.clone(), 1);
        for round in 0..ROUNDS {
            let mine = 2 * round + own;
            let queue = &queues[own as usize];
            // Every way of waiting in turn.
            let mut seen = Some(queue.version()).filter(|_| round % 3 == 0);
            while turn.load(Ordering::Relaxed) != mine {
                if round % 3 == 1 {
                    queue.register(&waiter);
                } else {
                    queue.register_once(&waiter, 1);
                }
                if seen.take() != Some(queue.version()) && turn.load(Ordering::Relaxed) == mine {
                    queue.unregister(&waiter);
                    break;
                }
                let since = std::time::Instant::now();
                crate::hostsys::futex::wait(&parked.0, 0, Some(PATIENCE));
                parked.0.swap(0, Ordering::SeqCst);
                assert!(since.elapsed() < PATIENCE, "the wake of round {round} was lost");
                queue.unregister(&waiter);
            }
            turn.store(mine + 1, Ordering::Relaxed);
            queues[1 - own as usize].notify(1);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(|| side(0));
        side(1);
    });
    assert_eq!(turn.load(Ordering::SeqCst), 2 * ROUNDS);
}

/// Few waiters are looked through, many are found: so many at least are many.
const FEW: usize = 32;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    /// A queue is a list of who waits for what, however long it is.
    #[test]
    fn queues_of_any_length_are_lists(
        steps in prop::collection::vec((0..4_u8, 0..6_usize, 1..4_u32), 0..4 * FEW)
    ) {
        let queue = WaitQueue::new();
        let counts: Vec<Arc<Count>> = (0..6).map(|_| Arc::default()).collect();
        let waiters: Vec<_> = counts.iter().map(|count| Waiter::new(count.clone(), !0)).collect();
        // Who, for what, whether once.
        let mut list: Vec<(usize, u32, bool)> = Vec::new();
        let mut expected = [0; 6];
        for (step, who, mask) in steps {
            match step {
                0 => {
                    queue.register_for(&waiters[who], mask);
                    list.push((who, mask, false));
                }
                1 => {
                    queue.register_once(&waiters[who], mask);
                    list.push((who, mask, true));
                }
                2 if list.len() > FEW + 8 || mask == 1 => {
                    queue.unregister(&waiters[who]);
                    list.retain(|entry| entry.0 != who);
                }
                _ if list.len() > 2 * FEW || mask == 2 => {
                    queue.notify(mask);
                    for entry in list.iter().filter(|entry| entry.1 & mask != 0) {
                        expected[entry.0] += 1;
                    }
                    list.retain(|entry| !entry.2 || entry.1 & mask == 0);
                }
                _ => {}
            }
        }
        let woken: Vec<u32> = counts.iter().map(|count| count.0.load(Ordering::Relaxed)).collect();
        prop_assert_eq!(&woken[..], &expected[..]);
    }
}
