//! Files whose end takes long, closed by a thread of the host's kernel.

use super::fd::{HostFd, What};
use super::syscall;
use crate::abi::Result;
use core::mem::offset_of;
use linux_raw_sys::io_uring::{IORING_SETUP_R_DISABLED, io_uring_params, io_uring_register_op};

/// Words of `struct io_uring_params`.
const PARAMS: usize = size_of::<io_uring_params>() / size_of::<u32>();

/// Takes a reference to `file` that the host's kernel drops by itself, after the end of the process that holds the
/// returned descriptor or after that has been closed. So nobody waits for what the last close of the file waits for, and
/// no process is needed that outlives this one.
///
/// The descriptor is an io_uring's, for what becomes of an io_uring's files only: it is made disabled and stays so, takes
/// no work, and none of its memory is mapped.
///
/// # Errors
/// Whatever keeps a process from having an io_uring; its absence changes nothing but who waits.
pub fn leave_to_kernel(file: &HostFd) -> Result<HostFd> {
    let mut params = [0; PARAMS];
    params[offset_of!(io_uring_params, flags) / size_of::<u32>()] = IORING_SETUP_R_DISABLED;
    // SAFETY: a whole `struct io_uring_params`, valid for reading and writing across the call.
    let ring = unsafe { syscall(libc::SYS_io_uring_setup, [1, params.as_mut_ptr() as u64, 0, 0, 0, 0]) }?;
    let ring = HostFd::new(ring, What::Made("io_uring"))?;
    let files = [file.raw()];
    let operation = io_uring_register_op::IORING_REGISTER_FILES as u64;
    let args = [ring.raw() as u64, operation, files.as_ptr() as u64, 1, 0, 0];
    // SAFETY: an array of one descriptor, alive across the call.
    unsafe { syscall(libc::SYS_io_uring_register, args) }?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use super::leave_to_kernel;
    use crate::hostsys::fd::HostFd;
    use std::io::Read;

    /// The other end of a pipe sees the last close.
    #[test]
    fn the_kernel_closes_what_it_was_left() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let writer = HostFd::given(writer.into(), "a test").unwrap();
        // Hosts may have no io_uring.
        let Ok(ring) = leave_to_kernel(&writer) else { return };
        drop(writer);
        drop(ring);
        assert_eq!(reader.read(&mut [0]).unwrap(), 0);
    }
}
