#[cfg(debug_assertions)]
use super::{Rank, held};
use crate::abi::Result;
use std::sync::{Arc, OnceLock};

/// What is told of host calls that may take for ever: a network file system that hangs, a device that takes nothing.
pub trait HostCalls: Send + Sync {
    /// The calling task is about to make one. Called without a lock held: it may have to wait.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    fn begin(&self) -> Result<()>;

    /// It has been made.
    fn end(&self);
}

/// The way to make such host calls, for all who make them; until it is connected they are just made.
#[derive(Default)]
pub struct HostLine(OnceLock<Arc<dyn HostCalls>>);

impl HostLine {
    /// A line that tells `calls`.
    pub fn to(calls: Arc<dyn HostCalls>) -> Self {
        HostLine(OnceLock::from(calls))
    }

    /// Has `calls` told of all host calls from now on. Once.
    pub fn connect(&self, calls: Arc<dyn HostCalls>) {
        let _second = self.0.set(calls);
    }

    /// Makes a host call that may hang. `call` parks nowhere and takes no lock.
    ///
    /// # Errors
    /// EINTR once the calling program is to end, or those of `call`.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn call<T>(&self, call: impl FnOnce() -> Result<T>) -> Result<T> {
        let _making = self.enter()?;
        call()
    }

    /// The same in two steps, for who has to tell these errors from the host's: the call is to be made before the result is
    /// dropped.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    #[inline]
    #[cfg_attr(debug_assertions, track_caller)]
    pub fn enter(&self) -> Result<HostCall<'_>> {
        #[cfg(debug_assertions)]
        held::none("a host call that may hang is made", |rank| !rank.waits_for_pages());
        let calls = self.0.get();
        if let Some(calls) = calls {
            calls.begin()?;
        }
        // No lock is taken inside, as if one were held that comes after them.
        #[cfg(debug_assertions)]
        held::taken(NO_LOCK, Rank::HostCall);
        Ok(HostCall(calls.map(|calls| &**calls)))
    }
}

/// Stands for the host call where locks have their addresses.
#[cfg(debug_assertions)]
const NO_LOCK: usize = 0;

/// A host call that may hang is being made.
#[must_use]
pub struct HostCall<'a>(Option<&'a dyn HostCalls>);

impl Drop for HostCall<'_> {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::released(NO_LOCK);
        if let Some(calls) = self.0 {
            calls.end();
        }
    }
}
