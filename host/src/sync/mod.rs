//! Short locks and wait queues.
//!
//! [`Lock`] is never held across a park: it spins briefly, then waits on a host futex (its holder may be a
//! worker that dropped to native). Things to wait for own a [`WaitQueue`]; who waits registers a [`Waiter`]
//! whose [`Wake`] target is made runnable by [`WaitQueue::notify`].

mod hostcall;
mod lock;
mod pause;
mod wait;

pub use hostcall::{HostCall, HostCalls, HostLine};
pub use lock::{Lock, LockGuard};
pub use pause::Pause;
pub use wait::{WaitQueue, Waiter, Wake, event};
