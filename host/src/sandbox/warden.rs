//! A warden's own jail: it has what it is connected with, the log, and the right to make sockets.

use super::jail;
use crate::hostsys::poll;
use crate::warden;

/// Is the warden that standard input leads to, until its sandbox has ended.
pub fn run() {
    // A terminal's are for its sandbox, with which it ends. The filter's own is not to be blocked.
    poll::block_signals(!(1 << (libc::SIGSYS - 1)));
    // Without it nothing is permitted: its sandbox finds nobody to ask.
    if jail::confine_warden().is_ok() {
        warden::serve();
    }
}
