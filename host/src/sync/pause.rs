use crate::abi::Result;

/// What long work for a program asks now and then, wherever in the kernel it is done: everything whose length a program
/// chooses, at least every few milliseconds.
pub trait Pause: Send + Sync {
    /// Lets others go first if it is time to. Called without a lock held: they may want it.
    ///
    /// # Errors
    /// EINTR once the program that the work is for is to end.
    fn pause(&self) -> Result<()>;

    /// The same by work that has to be done even if the program is to end: that of its end.
    fn give_way(&self);

    /// Lets others go first in any case: the caller waits for one of them.
    fn step_aside(&self);
}
