//! Page tables: x86_64 4-level paging and the VMSAv8-64 format of aarch64 (4 KiB granule, 48-bit addresses).
//!
//! Both formats have the same shape (four levels of 512 eight-byte entries; pages of 4 KiB, 2 MiB and 1 GiB), so
//! one walker serves both and a [`Format`] only says what the bits mean. Both are always compiled and tested,
//! whatever the host.
//!
//! | type | what it is |
//! |---|---|
//! | [`KernelTables`] | a table that may hold anything: the image, the arena, the kernel half |
//! | [`Template`] | a frozen `KernelTables`: the part that every application's table shares |
//! | [`PageTables`] | an application's table: a copy of the template's few upper nodes, and user pages |
//! | [`UserRange`] | page-aligned user addresses; cannot name the windows of image and arena |
//! | [`Flush`] | what an edit left behind in TLBs |
//! | [`Retired`] | table pages that hardware may still be walking |
//!
//! # Rules that the code keeps
//! 1. A user operation takes a [`UserRange`], writes user-readable leaves only, and never follows an entry marked
//!    frozen. So every present lower-half leaf outside the windows is readable by user mode (SMAP and PAN then
//!    cover all of them), and nothing that a program asks for changes the shared part.
//! 2. "No access" is an all-zero entry. Write and execute imply read.
//! 3. Entries are written with single atomic stores: hardware and [`PageTables::lookup`] may read at any moment.
//!    Edits are exclusive (`&mut self`); the caller's lock provides that.
//! 4. A table page that became empty is unlinked at once and *retired*; it goes back to its allocator only through
//!    [`Retired::free`], after the flush that makes sure no CPU walks it. It is all zero then.
//! 5. How many entries of a table are in use is kept in bits of the entry above it that hardware ignores. So
//!    unmapping one page costs the same in a full table and in an empty one.
//!
//! Nothing here executes a privileged instruction: flushing is the caller's business. The walker never allocates
//! except through [`TableAlloc`].
#![no_std]

mod addr;
mod attrs;
mod edit;
mod flush;
mod format;
mod kernel;
#[expect(unsafe_code, reason = "turns table addresses into references")]
mod node;
mod template;
mod tree;
mod user;
mod walk;

pub use addr::{PAGE_SIZE, PageSize, RangeError, UserRange, VirtAddr, VirtRange, Windows};
pub use attrs::{Attrs, Rights};
pub use flush::Flush;
pub use format::{Aarch64, Format, X86_64};
pub use kernel::KernelTables;
pub use node::TableAlloc;
pub use template::Template;
pub use tree::{Error, Mapping, Retired};
pub use user::PageTables;
