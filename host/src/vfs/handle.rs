//! Descriptors that are only handles on names (O_PATH).

use super::{File, FileOps, Namespace, Path};
use linux_raw_sys::general as c;
use std::any::Any;
use std::sync::Arc;

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

/// The same on a detached tree of mounts, which ends with it unless it has been mounted somewhere (open_tree(2), fsmount(2)).
struct TreeOps {
    _home: Arc<Namespace>,
}

impl FileOps for TreeOps {
    fn as_any(&self) -> &dyn Any {
        self
    }

    fn poll(&self) -> u32 {
        c::POLLNVAL
    }
}

/// A handle on a name.
pub fn open_handle(path: Path) -> Arc<File> {
    File::new(Arc::new(PathOps), c::O_PATH, path)
}

/// A handle on the root of a detached tree.
pub fn open_detached((home, root): (Arc<Namespace>, Path)) -> Arc<File> {
    File::new(Arc::new(TreeOps { _home: home }), c::O_PATH, root)
}
