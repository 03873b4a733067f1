//! Files by name and by descriptor: opening, reading, writing, what is known of them, and their directories.

pub(super) mod cached;
pub(super) mod cwd;
pub(super) mod dir;
pub(super) mod fscontext;
pub(super) mod inotify;
pub(super) mod link;
pub(super) mod mode;
pub(super) mod mounts;
pub(super) mod names;
pub(super) mod old;
pub(super) mod open;
pub(super) mod rw;
pub(super) mod size;
pub(super) mod stat;
pub(super) mod statmount;
pub(super) mod sync;
pub(super) mod trees;
pub(super) mod utime;
pub(super) mod vectors;
pub(super) mod xattr;
