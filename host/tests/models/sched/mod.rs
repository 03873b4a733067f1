//! Tasks that park, and workers that the host keeps: as in `host`, and what holds of them.

#[path = "../../../src/kernel/sched/in_host.rs"]
mod in_host;
#[path = "../../../src/kernel/sched/state.rs"]
mod state;

use crate::primitive::{AtomicU32, Ordering, wait, wake};
use crate::{Bug, holds, holds_up_to};
use in_host::InHost;
use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;
use state::RunState;

/// A task, its queue with room for one, and what it waits for.
struct Parking {
    state: RunState,
    queued: AtomicU32,
    due: AtomicU32,
}

impl Parking {
    fn enqueue(&self) {
        assert_eq!(self.queued.swap(1, Ordering::SeqCst), 0, "it is queued twice");
        wake(&self.queued, 1);
    }

    /// A worker takes it out of the queue and runs it.
    fn run(&self) {
        while self.queued.load(Ordering::SeqCst) == 0 {
            wait(&self.queued, 0, None);
        }
        self.queued.store(0, Ordering::SeqCst);
        self.state.run();
    }

    fn park(&self) {
        if self.state.take_wake() {
            return;
        }
        if !self.state.park() {
            self.state.queue();
            self.enqueue();
        }
        self.run();
    }

    fn wake(&self) {
        if self.state.notify() {
            self.enqueue();
        }
    }
}

#[test]
fn a_wake_is_never_lost_and_queues_once() {
    holds_up_to(Some(2), &[Bug::Torn], || {
        let task =
            Arc::new(Parking { state: RunState::new(), queued: AtomicU32::new(1), due: AtomicU32::new(0) });
        assert!(!task.state.is_parked() && task.due.load(Ordering::Relaxed) == 0);
        task.run();
        let wakers = [1, 2].map(|bit| {
            let task = task.clone();
            thread::spawn(move || {
                task.due.fetch_add(bit, Ordering::Relaxed);
                task.wake();
            })
        });
        while task.due.load(Ordering::Relaxed) != 3 {
            task.park();
        }
        for waker in wakers {
            waker.join().expect("it ends");
        }
        assert!(task.state.is_on_worker());
    });
}

/// What only who has the CPU may touch: loom sees two that do.
struct Cpu(UnsafeCell<u32>);

impl Cpu {
    fn run_a_task(&self) {
        self.0.with_mut(|_| ());
    }
}

// SAFETY: loom's cells check accesses themselves, and fail the model.
#[expect(unsafe_code, reason = "a cell that loom watches")]
unsafe impl Sync for Cpu {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a cell that loom watches")]
unsafe impl Send for Cpu {}

#[test]
fn a_cpu_is_one_workers_whether_the_host_keeps_it_or_not() {
    holds(&[Bug::Torn], || {
        let shared = Arc::new((InHost::new(), Cpu(UnsafeCell::new(0))));
        assert!(!shared.0.is_kept());
        let ticker = {
            let shared = shared.clone();
            thread::spawn(move || {
                if shared.0.replace() {
                    // The spare.
                    shared.1.run_a_task();
                }
            })
        };
        let mut lost = false;
        for _ in 0..2 {
            if lost {
                break;
            }
            shared.1.run_a_task();
            shared.0.begin();
            lost = shared.0.end();
        }
        if !lost {
            shared.1.run_a_task();
        }
        ticker.join().expect("it ends");
    });
}
