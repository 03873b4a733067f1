//! Short locks and wait queues.
//!
//! [`Lock`] is never held across a park: it spins briefly, then waits on a host futex (its holder may be a
//! worker that dropped to native). The order in which locks are taken is that of [`Rank`]; debug builds check it, and that
//! none is held across a park or in a host call that may hang. What such a call is made under is a [`LongLock`]: who wants it
//! parks. Things to wait for own a [`WaitQueue`]; who waits registers a [`Waiter`] whose [`Wake`] target is made runnable by
//! [`WaitQueue::notify`].

#[cfg(debug_assertions)]
mod held;
mod hostcall;
mod lock;
mod long;
mod pause;
pub mod primitive;
mod rank;
#[cfg(test)]
mod tests;
mod wait;

pub use hostcall::{HostCall, HostCalls, HostLine, HostLines, Reach};
pub use lock::{Lock, LockGuard};
pub use long::{LongGuard, LongLock};
pub use pause::Pause;
pub use rank::Rank;
pub use wait::{WaitQueue, Waiter, Wake, event};

/// Where the caller is about to give up its worker: debug builds see to it that it holds no lock.
///
/// # Panics
/// In debug builds, where it does.
#[inline(always)]
#[cfg_attr(debug_assertions, track_caller)]
pub fn no_lock_is_held() {
    #[cfg(debug_assertions)]
    held::none("a task leaves its worker", |_| true);
}
