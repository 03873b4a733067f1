//! GDT, TSS and IDT (SDM vol. 3A, 3.4.5, 6.14, 7.7).

/// Selectors, the same values that Linux gives user code. SYSCALL and SYSRET dictate the order: STAR names kernel code
/// (data follows) and the slot two below user code.
pub mod selector {
    /// 64-bit kernel code.
    pub const KERNEL_CODE: u16 = 0x10;
    /// Kernel data.
    pub const KERNEL_DATA: u16 = 0x18;
    /// Where a 32-bit user code segment would be. Absent: `syscall` from 32-bit code would enter ring 0 through CSTAR.
    pub const USER_CODE32: u16 = 0x23;
    /// User data.
    pub const USER_DATA: u16 = 0x2b;
    /// 64-bit user code.
    pub const USER_CODE: u16 = 0x33;
    /// The TSS.
    pub const TSS: u16 = 0x38;
}

/// Descriptor of kernel code. Descriptors are flat, with accessed already set so that the processor never writes to them.
pub const KERNEL_CODE: u64 = 0x00af_9b00_0000_ffff;
/// Descriptor of kernel data.
pub const KERNEL_DATA: u64 = 0x00cf_9300_0000_ffff;
const USER_DATA: u64 = 0x00cf_f300_0000_ffff;
const USER_CODE: u64 = 0x00af_fb00_0000_ffff;

/// The global descriptor table.
#[repr(C, align(16))]
pub struct Gdt([u64; 9]);

/// Limit for GDTR.
pub const GDT_LIMIT: u16 = (size_of::<[u64; 9]>() - 1) as u16;

impl Gdt {
    /// A table whose TSS descriptor names the TSS at `tss`.
    pub const fn new(tss: u64) -> Gdt {
        let limit = TSS_LIMIT as u64;
        // 64-bit TSS, available: what LTR wants (SDM vol. 3A, 7.2.3). A vCPU that is given TR directly never looks here.
        let low = limit | (tss & 0xff_ffff) << 16 | 0x89 << 40 | (tss >> 24 & 0xff) << 56;
        Gdt([0, 0, KERNEL_CODE, KERNEL_DATA, 0, USER_DATA, USER_CODE, low, tss >> 32])
    }

    /// The raw descriptors.
    pub const fn raw(&self) -> &[u64; 9] {
        &self.0
    }
}

/// The 64-bit task-state segment.
#[repr(C, packed(4))]
pub struct Tss {
    reserved0: u32,
    rsp: [u64; 3],
    reserved1: u64,
    ist: [u64; 7],
    reserved2: [u32; 2],
    reserved3: u16,
    /// Beyond the limit: no port is open to user code.
    iomap_base: u16,
}

/// Limit of the TSS: no I/O permission bitmap.
pub const TSS_LIMIT: u32 = (size_of::<Tss>() - 1) as u32;

const _: () = assert!(size_of::<Tss>() == 104);

impl Tss {
    /// A TSS with interrupt stacks 1 to 4 ending at the given addresses.
    pub const fn new(tops: [u64; 4]) -> Tss {
        let ist = [tops[0], tops[1], tops[2], tops[3], 0, 0, 0];
        Tss {
            reserved0: 0,
            rsp: [tops[0]; 3],
            reserved1: 0,
            ist,
            reserved2: [0; 2],
            reserved3: 0,
            iomap_base: size_of::<Tss>() as u16,
        }
    }
}

/// Interrupt-stack-table slots.
pub mod ist {
    /// Faults, traps, interrupts.
    pub const TRAP: u8 = 1;
    /// NMI.
    pub const NMI: u8 = 2;
    /// #DF.
    pub const DOUBLE_FAULT: u8 = 3;
    /// #DB, #MC.
    pub const DEBUG: u8 = 4;
}

/// An interrupt gate.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gate {
    low: u64,
    high: u64,
}

impl Gate {
    /// A present 64-bit interrupt gate (IF cleared on entry) to `handler`; `int n` reaches it from ring `dpl`.
    pub const fn new(handler: u64, ist: u8, dpl: u8) -> Gate {
        let kind = 0x8e | (dpl as u64) << 5;
        let low = handler & 0xffff
            | (selector::KERNEL_CODE as u64) << 16
            | (ist as u64) << 32
            | kind << 40
            | (handler >> 16 & 0xffff) << 48;
        Gate { low, high: handler >> 32 }
    }
}

/// Limit for IDTR.
pub const IDT_LIMIT: u16 = (256 * size_of::<Gate>() - 1) as u16;

/// The stack and the privilege level that may use `int n` for each vector that has a handler.
pub const fn gate_parameters(vector: u8) -> Option<(u8, u8)> {
    match vector {
        1 | 18 => Some((ist::DEBUG, 0)),
        2 => Some((ist::NMI, 0)),
        3 | 4 => Some((ist::TRAP, 3)),
        8 => Some((ist::DOUBLE_FAULT, 0)),
        0..=20 | 21 | 29 | 30 | crate::trap::KICK => Some((ist::TRAP, 0)),
        _ => None,
    }
}

/// Whether the processor pushes an error code for the vector (SDM vol. 3A, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(vector, 8 | 10..=14 | 17 | 21 | 29 | 30)
}

#[cfg(test)]
mod tests {
    use super::{Gate, Gdt, Tss};

    #[test]
    fn tss_descriptor_carries_base_and_limit() {
        let gdt = Gdt::new(0xffff_8050_1234_5678);
        assert_eq!(gdt.raw()[7], 0x1200_8934_5678_0067);
        assert_eq!(gdt.raw()[8], 0xffff_8050);
    }

    #[test]
    fn gates_split_the_handler_address() {
        let gate = Gate::new(0xffff_8000_7012_3456, 2, 3);
        assert_eq!(gate.low, 0x7012_ee02_0010_3456);
        assert_eq!(gate.high, 0xffff_8000);
    }

    #[test]
    fn no_port_is_open() {
        assert!(usize::from(Tss::new([0; 4]).iomap_base) >= size_of::<Tss>());
    }
}
