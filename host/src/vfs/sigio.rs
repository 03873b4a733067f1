//! Signal-driven I/O (fcntl(2), F_SETOWN, F_SETSIG, O_ASYNC): who gets the signals of an open file, and which.
//!
//! This is what is kept at the file; the kernel sends them.

use crate::sync::{Lock, Rank, WaitQueue, Waiter};
use std::any::Any;
use std::sync::{Arc, Weak};

/// What an owner's number means.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Whom {
    /// A thread.
    #[default]
    Thread,
    /// A process.
    Process,
    /// The processes of a group.
    Group,
}

/// Who gets the signals.
#[derive(Clone, Default)]
pub struct Owner {
    /// What `id` is.
    pub whom: Whom,
    /// Its number; 0 for nobody.
    pub id: i32,
    /// The thread or process itself, as the number may come to mean another.
    pub itself: Option<Weak<dyn Any + Send + Sync>>,
    /// Who made it the owner: real and effective user.
    pub by: (u32, u32),
}

#[derive(Default)]
struct State {
    owner: Owner,
    /// 0 is SIGIO, without a word on what happened.
    signal: i32,
    waiter: Option<Arc<Waiter>>,
    /// What sends SIGURG.
    urgent: Option<Arc<Waiter>>,
}

/// The signals of one open file. Most have none.
pub struct SignalDriven(Lock<Option<Box<State>>>);

impl Default for SignalDriven {
    fn default() -> Self {
        SignalDriven(Lock::new(Rank::SignalDriven, None))
    }
}

impl SignalDriven {
    /// The owner.
    pub fn owner(&self) -> Owner {
        self.0.lock().as_ref().map_or_else(Owner::default, |state| state.owner.clone())
    }

    /// Changes it.
    pub fn set_owner(&self, owner: Owner) {
        self.0.lock().get_or_insert_default().owner = owner;
    }

    /// The signal (F_GETSIG).
    pub fn signal(&self) -> i32 {
        self.0.lock().as_ref().map_or(0, |state| state.signal)
    }

    /// Chooses it (F_SETSIG).
    pub fn set_signal(&self, signal: i32) {
        self.0.lock().get_or_insert_default().signal = signal;
    }

    /// Starts: `waiter` sends them from now on, on the `queue` of the file; if one does already it stays.
    pub fn start(&self, queue: &WaitQueue, waiter: Arc<Waiter>) {
        let mut state = self.0.lock();
        let state = state.get_or_insert_default();
        if state.waiter.is_none() {
            queue.register_outside(&waiter);
            state.waiter = Some(waiter);
        }
    }

    /// Has `waiter` send SIGURG from now on, unless one does already.
    pub fn heed(&self, queue: &WaitQueue, waiter: Arc<Waiter>) {
        let mut state = self.0.lock();
        let state = state.get_or_insert_default();
        if state.urgent.is_none() {
            queue.register_outside(&waiter);
            state.urgent = Some(waiter);
        }
    }

    /// Ends.
    pub fn stop(&self, queue: &WaitQueue) {
        let waiter = self.0.lock().as_mut().and_then(|state| state.waiter.take());
        if let Some(waiter) = waiter {
            queue.unregister(&waiter);
        }
    }
}
