//! What the host told this process at its start.

/// The random bytes that the host puts on a process's first stack (AT_RANDOM), as they are there.
pub fn auxv_random() -> [u8; 16] {
    // SAFETY: Linux passes the address of 16 bytes, which stay as long as the process.
    unsafe { (auxval(libc::AT_RANDOM) as *const [u8; 16]).read_volatile() }
}

/// A value of the auxiliary vector, 0 if it is not there (getauxval(3)).
pub fn auxval(kind: u64) -> u64 {
    // SAFETY: reads libc's copy of the vector; any kind is allowed.
    unsafe { libc::getauxval(kind) }
}
