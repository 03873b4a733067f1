//! Core dumps: what a process leaves behind that a signal ends whose default is to dump (core(5)).
//!
//! | module | what |
//! |---|---|
//! | `pattern` | what the file is called: the settings, and names made by them |
//! | `gather` | the other threads: they hand over their registers and wait |
//! | `areas` | which memory is taken |
//! | `notes` | what is said of threads and process |
//! | `image` | the ELF file: headers, notes, memory |
//! | `sink` | where it goes, and how much of it |
//!
//! # In which order
//! The thread that takes the signal ([`Current::die`]) marks its process as ending, as any end does; so nothing is delivered any
//! more but SIGKILL, no thread is born and no program is begun. The other threads come by on their way out, leave their registers
//! and park. Then it writes the file with its own credentials, in its own working directory, in pieces, others going first in
//! between, and lets the others go. SIGKILL ends that at the next piece; the file stays as far as it is.
//!
//! A dump is of one process, as in Linux since 5.16: others that share its memory are not stopped, and go on.
//!
//! # What is not there
//! Patterns that begin with `|` are refused when they are written: there is no process outside all namespaces here to run a
//! program in. fs.suid_dumpable is 0 for good: who has changed who he is leaves nothing behind.

mod areas;
mod gather;
mod image;
mod notes;
mod pattern;
mod sink;

pub use areas::FILTERS;
pub(super) use gather::{Gathering, leave};
pub use pattern::Settings;

use super::limits;
use super::signal::{SigInfo, begin_exit};
use super::task::work;
use super::{Current, WaitStatus};
use crate::abi::Result;
use core::sync::atomic::Ordering;
use sink::Sink;

/// A dump that may not be larger is not begun (`ELF_EXEC_PAGESIZE`).
const LEAST: u64 = 4096;

impl Current {
    /// Ends the process by a signal whose default is to dump core, which it does if it may. To be called without a lock,
    /// on the way back to the program.
    pub(super) fn die(&mut self, info: &SigInfo) {
        if self.may_dump() && self.begin_dump(info.signo) {
            // Whatever happens, the others are let go.
            let gathering = gather::Guard::new(&self.task);
            let dumped = self.gather() && self.dump(info).is_ok();
            gathering.end(WaitStatus::killed(info.signo, dumped));
        }
        let mut state = self.task.group.state.lock();
        begin_exit(&mut state, WaitStatus::killed(info.signo, false));
        self.task.work.fetch_or(work::KILL, Ordering::SeqCst);
    }

    fn may_dump(&self) -> bool {
        self.limit(limits::CORE) >= LEAST && self.mm().is_dumpable()
    }

    /// Writes the file.
    ///
    /// # Errors
    /// What forbids to make it. Once it is there it counts, however far it gets.
    fn dump(&mut self, info: &SigInfo) -> Result<()> {
        let name = self.core_name(info.signo);
        let file = self.make_core_file(&name)?;
        let most = (self.limit(limits::CORE), self.limit(limits::FSIZE));
        let sched = self.kernel.sched.clone();
        let mut sink = Sink::new(&file, &sched, most);
        let _as_far_as_it_goes = self.write_image(info, &mut sink).and_then(|()| sink.finish());
        Ok(())
    }
}
