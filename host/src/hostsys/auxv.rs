//! What the host told this process at its start.

/// A value of the auxiliary vector, 0 if it is not there (getauxval(3)).
pub fn auxval(kind: u64) -> u64 {
    // SAFETY: reads libc's copy of the vector; any kind is allowed.
    unsafe { libc::getauxval(kind) }
}
