//! Locks and wait queues.

use crate::primitive::{AtomicU32, Ordering, wait, wake};
use crate::sync::{Lock, Rank, WaitQueue, Waiter, Wake};
use crate::{Bug, holds, holds_up_to};
use loom::sync::Arc;
use loom::thread;

#[test]
fn a_lock_is_one_threads_at_a_time_and_is_passed_on() {
    holds(&[Bug::Torn, Bug::NoFutexWakes], || {
        let lock = std::sync::Arc::new(Lock::new(Rank::Heap, 0));
        drop(lock.lock());
        let add = |lock: &Lock<i32>| {
            let mut value = lock.lock();
            let now = *value;
            thread::yield_now();
            *value = now + 1;
        };
        let other = {
            let lock = lock.clone();
            thread::spawn(move || add(&lock))
        };
        add(&lock);
        other.join().expect("it ends");
        assert_eq!(*lock.lock(), 2);
    });
}

/// A thread that sleeps as a task does: a wake that comes before it does is remembered.
struct Sleeper(AtomicU32);

impl Sleeper {
    fn sleep(&self) {
        wait(&self.0, 0, None);
        self.0.swap(0, Ordering::SeqCst);
    }
}

impl Wake for Sleeper {
    fn wake(&self) {
        self.0.store(1, Ordering::SeqCst);
        wake(&self.0, 1);
    }
}

struct World {
    queue: WaitQueue,
    ready: AtomicU32,
    sleeper: std::sync::Arc<Sleeper>,
}

fn world() -> Arc<World> {
    let sleeper = std::sync::Arc::new(Sleeper(AtomicU32::new(0)));
    let world = World { queue: WaitQueue::new(), ready: AtomicU32::new(0), sleeper };
    // All of it is made here, before there are other threads.
    let first = Waiter::new(world.sleeper.clone(), 0);
    world.queue.register(&first);
    world.queue.unregister(&first);
    assert!(world.queue.is_empty() && world.queue.version() == 0);
    assert_eq!((world.ready.load(Ordering::Relaxed), world.sleeper.0.load(Ordering::Relaxed)), (0, 0));
    Arc::new(world)
}

fn waits_until_ready(register: fn(&WaitQueue, &std::sync::Arc<Waiter>)) {
    let world = world();
    let notifier = {
        let world = world.clone();
        thread::spawn(move || {
            world.ready.store(1, Ordering::Relaxed);
            world.queue.notify(1);
        })
    };
    let waiter = Waiter::new(world.sleeper.clone(), 1);
    let version = world.queue.version();
    if world.ready.load(Ordering::Relaxed) == 0 {
        register(&world.queue, &waiter);
        // What is the same need not be looked at again; a wake that gets lost here is one for ever.
        while world.queue.version() == version && world.ready.load(Ordering::Relaxed) == 0 {
            world.sleeper.sleep();
        }
        world.queue.unregister(&waiter);
    }
    notifier.join().expect("it ends");
    assert!(world.queue.is_empty());
}

#[test]
fn who_registers_is_woken_or_sees_why_not() {
    holds_up_to(Some(5), &[Bug::NoFences, Bug::NoFutexWakes], || {
        waits_until_ready(|queue, waiter| queue.register(waiter));
    });
}

#[test]
fn who_registers_for_one_wake_gets_it_or_sees_why_not() {
    holds_up_to(Some(5), &[Bug::NoFences, Bug::NoFutexWakes], || {
        waits_until_ready(|queue, waiter| queue.register_once(waiter, 1));
    });
}

#[test]
fn a_time_out_beside_a_wake_leaves_nobody_in_the_queue() {
    holds_up_to(Some(3), &[Bug::NoFutexWakes], || {
        let world = world();
        let notifier = {
            let world = world.clone();
            thread::spawn(move || world.queue.notify(1))
        };
        let timer = {
            let world = world.clone();
            thread::spawn(move || world.sleeper.wake())
        };
        let waiter = Waiter::new(world.sleeper.clone(), 1);
        world.queue.register_once(&waiter, 1);
        world.sleeper.sleep();
        world.queue.unregister(&waiter);
        notifier.join().expect("it ends");
        timer.join().expect("it ends");
        assert!(world.queue.is_empty());
    });
}
