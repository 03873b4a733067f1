//! Descriptors that are only handles on names (O_PATH).

use super::FileOps;
use linux_raw_sys::general as c;
use std::any::Any;

/// What an O_PATH descriptor does: nothing.
pub(super) struct PathOps;

impl FileOps for PathOps {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self) -> u32 {
        c::POLLNVAL
    }
}
