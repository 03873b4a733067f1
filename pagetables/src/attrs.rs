//! What a mapping allows, without saying how hardware encodes it.

bitflags::bitflags! {
    /// Rights and kind of a leaf.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Attrs: u8 {
        /// Can be read. Every present leaf can.
        const READ = 1;
        /// Can be written.
        const WRITE = 2;
        /// Instructions can be fetched: by user mode if `USER`, else by the kernel.
        const EXECUTE = 4;
        /// For user mode.
        const USER = 8;
        /// The same in every address space: survives a change of root.
        const GLOBAL = 16;
        /// Device registers rather than memory.
        const DEVICE = 32;
    }
}

impl Attrs {
    /// Whether anything at all is allowed; if not, the entry is zero.
    pub(crate) const fn is_accessible(self) -> bool {
        self.bits() & (Attrs::READ.bits() | Attrs::WRITE.bits() | Attrs::EXECUTE.bits()) != 0
    }
}

bitflags::bitflags! {
    /// What user mode may do with a page. Empty is PROT_NONE; write and execute imply read.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Rights: u8 {
        /// PROT_READ.
        const READ = 1;
        /// PROT_WRITE.
        const WRITE = 2;
        /// PROT_EXEC.
        const EXECUTE = 4;
    }
}

impl Rights {
    /// As attributes of a user leaf: never global, never device.
    #[inline]
    pub(crate) const fn attrs(self) -> Attrs {
        if self.is_empty() {
            Attrs::empty()
        } else {
            Attrs::from_bits_retain(self.bits() | Attrs::READ.bits() | Attrs::USER.bits())
        }
    }
}

impl From<Attrs> for Rights {
    fn from(attrs: Attrs) -> Rights {
        Rights::from_bits_truncate(attrs.bits())
    }
}
