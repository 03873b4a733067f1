use super::WaitQueue;
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
    fn begin(&self, reach: Reach) -> Result<()>;

    /// It has been made.
    fn end(&self, reach: Reach);

    /// Waits on `queue` until `ready`, which is asked after each event there. Called without a lock held. False where nobody
    /// runs who could wait so.
    ///
    /// # Errors
    /// EINTR once the calling program is to end.
    fn wait(&self, queue: &WaitQueue, ready: &mut dyn FnMut() -> bool) -> Result<bool>;
}

/// Who answers a host call. There are places for those of each, whoever of the others does not answer any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// The host's kernel itself. It may have to wait for a disk.
    Near,
    /// Somebody whom the host asks: a file system's server, a process.
    Far,
    /// Whoever is at the other end of what was given to the sandbox: a terminal, a pipe.
    Given,
}

/// The way to make such host calls, for all who make them; until it is connected they are just made.
pub struct HostLine {
    calls: OnceLock<Arc<dyn HostCalls>>,
    reach: Reach,
}

/// All ways.
pub struct HostLines {
    /// To what the host's kernel does itself.
    pub near: HostLine,
    /// To what it asks others for.
    pub far: HostLine,
    /// To what was given.
    pub given: HostLine,
}

impl Default for HostLines {
    fn default() -> Self {
        HostLines {
            near: HostLine::new(Reach::Near),
            far: HostLine::new(Reach::Far),
            given: HostLine::new(Reach::Given),
        }
    }
}

impl HostLines {
    /// Has `calls` told of all host calls from now on. Once.
    pub fn connect(&self, calls: &Arc<dyn HostCalls>) {
        for line in [&self.near, &self.far, &self.given] {
            let _second = line.calls.set(calls.clone());
        }
    }
}

impl HostLine {
    /// A line that is not connected.
    pub fn new(reach: Reach) -> Self {
        HostLine { calls: OnceLock::new(), reach }
    }

    /// A line to what was given, that tells `calls`.
    pub fn to(calls: Arc<dyn HostCalls>) -> Self {
        HostLine { calls: OnceLock::from(calls), reach: Reach::Given }
    }

    /// [`HostCalls::wait`]; false also before it is connected.
    pub(super) fn wait(&self, queue: &WaitQueue, ready: &mut dyn FnMut() -> bool) -> Result<bool> {
        self.calls.get().map_or(Ok(false), |calls| calls.wait(queue, ready))
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
        held::none("a host call that may hang is made", |_| true);
        let calls = self.calls.get();
        if let Some(calls) = calls {
            calls.begin(self.reach)?;
        }
        // No lock is taken inside, as if one were held that comes after them.
        #[cfg(debug_assertions)]
        held::taken(NO_LOCK, Rank::HostCall);
        Ok(HostCall(calls.map(|calls| (&**calls, self.reach))))
    }
}

/// Stands for the host call where locks have their addresses.
#[cfg(debug_assertions)]
const NO_LOCK: usize = 0;

/// A host call that may hang is being made.
#[must_use]
pub struct HostCall<'a>(Option<(&'a dyn HostCalls, Reach)>);

impl Drop for HostCall<'_> {
    fn drop(&mut self) {
        #[cfg(debug_assertions)]
        held::released(NO_LOCK);
        if let Some((calls, reach)) = self.0 {
            calls.end(reach);
        }
    }
}
