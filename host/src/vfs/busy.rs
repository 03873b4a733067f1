//! Files that are written and files that are executed: nobody may do both at a time (ETXTBSY).
//!
//! An inode counts who has it open for writing, or below zero which programs run it (in its `Meta`). What holds a claim is
//! what Linux 6.1 holds: an open file and every mapping of it the one, an address space the other (of its program alone:
//! interpreters and libraries are claimed while they are loaded only). A layer's files are its own, whatever lies below:
//! what the host runs or writes does not count, as a program that writes here changes nothing there.

use super::Inode;
use crate::abi::{Errno, Result};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering::Relaxed};

/// Writers of a file, or below zero its users as a program.
#[derive(Default)]
pub(super) struct Users(AtomicI32);

impl Users {
    /// Counts one more to a side, unless the other one has somebody.
    fn join(&self, side: i32) -> Result<()> {
        let one_more = |users: i32| (users.signum() != -side).then_some(users + side);
        self.0.fetch_update(Relaxed, Relaxed, one_more).map_or(Err(Errno::ETXTBSY), |_| Ok(()))
    }

    fn leave(&self, side: i32) {
        self.0.fetch_sub(side, Relaxed);
    }
}

const WRITER: i32 = 1;
const PROGRAM: i32 = -1;

/// Keeps a file from being executed.
pub struct Writing(Arc<dyn Inode>);

impl Writing {
    /// # Errors
    /// ETXTBSY while it is.
    pub fn claim(inode: &Arc<dyn Inode>) -> Result<Writing> {
        inode.meta().users.join(WRITER)?;
        Ok(Writing(inode.clone()))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        self.0.meta().users.leave(WRITER);
    }
}

/// Keeps a file from being written.
pub struct Executing(Arc<dyn Inode>);

impl Executing {
    /// # Errors
    /// ETXTBSY while it is open for writing.
    pub fn claim(inode: &Arc<dyn Inode>) -> Result<Executing> {
        inode.meta().users.join(PROGRAM)?;
        Ok(Executing(inode.clone()))
    }
}

impl Drop for Executing {
    fn drop(&mut self) {
        self.0.meta().users.leave(PROGRAM);
    }
}

#[cfg(test)]
mod tests {
    use super::{PROGRAM, Users, WRITER};
    use crate::abi::Errno;

    #[test]
    fn one_side_at_a_time() {
        let users = Users::default();
        for (side, other) in [(WRITER, PROGRAM), (PROGRAM, WRITER)] {
            users.join(side).unwrap();
            users.join(side).unwrap();
            assert_eq!(users.join(other), Err(Errno::ETXTBSY));
            users.leave(side);
            assert_eq!(users.join(other), Err(Errno::ETXTBSY));
            users.leave(side);
        }
        users.join(WRITER).unwrap();
    }
}
