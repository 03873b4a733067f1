//! The harnesses: what proves that Pillbox works on machines that have no usable KVM of their own.
//!
//! | module | owns |
//! |---|---|
//! | [`bare`] | bare-metal images on emulated boards |
//! | [`arch`] | the two architectures and what differs between their machines |
//! | [`packages`] | fetching kernels, emulators and user lands from the distribution, once |
//! | [`setup`] | everything a fresh machine lacks |
//! | [`cases`] | what is checked of a sandbox, wherever it runs |
//! | [`procs`] | processes, as /proc shows them |
//! | [`local`] | a step on this machine, which ends in time |
//! | [`guest`] | a Linux guest with nested KVM: its file tree, its orders, its boot, its answers |
//!
//! The binaries are thin: `nested` is the command line over [`guest`], `init` is process 1 of such a
//! guest. Nothing here is linked into `pillbox`.

pub mod arch;
pub mod bare;
pub mod cases;
pub mod guest;
pub mod local;
pub mod packages;
pub mod procs;
pub mod setup;
pub mod words;
