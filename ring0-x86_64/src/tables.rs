//! GDT, TSS and IDT (SDM vol. 3A, 3.4.5, 6.14, 7.7).

use crate::trap::vector;
use x86_64::VirtAddr;
use x86_64::structures::gdt::DescriptorFlags;
pub use x86_64::structures::tss::TaskStateSegment as Tss;

/// Selectors, the same values that Linux gives user code. SYSCALL and SYSRET dictate the order: STAR names kernel code
/// (data follows) and the slot two below user code.
pub mod selector {
    use x86_64::PrivilegeLevel::{Ring0, Ring3};
    use x86_64::structures::gdt::SegmentSelector;

    /// 64-bit kernel code.
    pub const KERNEL_CODE: u16 = SegmentSelector::new(2, Ring0).0;
    /// Kernel data.
    pub const KERNEL_DATA: u16 = SegmentSelector::new(3, Ring0).0;
    /// Where a 32-bit user code segment would be. Absent: `syscall` from 32-bit code would enter ring 0 through CSTAR.
    pub const USER_CODE32: u16 = SegmentSelector::new(4, Ring3).0;
    /// User data.
    pub const USER_DATA: u16 = SegmentSelector::new(5, Ring3).0;
    /// 64-bit user code.
    pub const USER_CODE: u16 = SegmentSelector::new(6, Ring3).0;
    /// The TSS.
    pub const TSS: u16 = SegmentSelector::new(7, Ring0).0;
}

/// Descriptor of kernel code. Descriptors are flat, with accessed already set so that the processor never writes to them.
pub const KERNEL_CODE: u64 = DescriptorFlags::KERNEL_CODE64.bits();
/// Descriptor of kernel data.
pub const KERNEL_DATA: u64 = DescriptorFlags::KERNEL_DATA.bits();
const USER_DATA: u64 = DescriptorFlags::USER_DATA.bits();
const USER_CODE: u64 = DescriptorFlags::USER_CODE64.bits();
/// Type of a 64-bit TSS that is available: what LTR wants (SDM vol. 3A, 3.5, 7.2.3).
const TSS_AVAILABLE: u64 = 0b1001 << 40;

/// The global descriptor table.
#[repr(C, align(16))]
pub struct Gdt([u64; 9]);

/// Limit for GDTR.
pub const GDT_LIMIT: u16 = (size_of::<[u64; 9]>() - 1) as u16;

impl Gdt {
    /// A table whose TSS descriptor names the TSS at `tss`.
    pub const fn new(tss: u64) -> Gdt {
        let limit = TSS_LIMIT as u64;
        // A vCPU that is given TR directly never looks here.
        let base =
            tss << 16 & DescriptorFlags::BASE_0_23.bits() | tss << 32 & DescriptorFlags::BASE_24_31.bits();
        let low = limit | base | DescriptorFlags::PRESENT.bits() | TSS_AVAILABLE;
        Gdt([0, 0, KERNEL_CODE, KERNEL_DATA, 0, USER_DATA, USER_CODE, low, tss >> 32])
    }

    /// The raw descriptors.
    pub const fn raw(&self) -> &[u64; 9] {
        &self.0
    }
}

/// Limit of the TSS: no I/O permission bitmap.
pub const TSS_LIMIT: u32 = (size_of::<Tss>() - 1) as u32;

const _: () = assert!(size_of::<Tss>() == 104);

/// A TSS with interrupt stacks 1 to 4 ending at the given addresses, which are canonical. Its I/O permission bitmap begins
/// beyond the limit, so that no port is open to user code.
pub const fn tss(tops: [u64; 4]) -> Tss {
    let mut tss = Tss::new();
    let mut slot = 0;
    while slot < tops.len() {
        tss.interrupt_stack_table[slot] = VirtAddr::new_truncate(tops[slot]);
        slot += 1;
    }
    tss.privilege_stack_table = [tss.interrupt_stack_table[0]; 3];
    tss
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
        vector::DEBUG | vector::MACHINE_CHECK => Some((ist::DEBUG, 0)),
        vector::NMI => Some((ist::NMI, 0)),
        vector::BREAKPOINT | vector::OVERFLOW => Some((ist::TRAP, 3)),
        vector::DOUBLE_FAULT => Some((ist::DOUBLE_FAULT, 0)),
        0..=vector::CONTROL_PROTECTION | vector::VMM_COMMUNICATION | vector::SECURITY | crate::trap::KICK => {
            Some((ist::TRAP, 0))
        }
        _ => None,
    }
}

/// Whether the processor pushes an error code for the vector (SDM vol. 3A, table 6-1).
pub const fn has_error_code(vector: u8) -> bool {
    matches!(
        vector,
        vector::DOUBLE_FAULT | vector::INVALID_TSS
            ..=vector::PAGE_FAULT
                | vector::ALIGNMENT_CHECK
                | vector::CONTROL_PROTECTION
                | vector::VMM_COMMUNICATION
                | vector::SECURITY
    )
}

#[cfg(test)]
mod tests {
    extern crate std;

    use super::{Gate, Gdt, gate_parameters, has_error_code, selector, tss};
    use std::vec::Vec;

    #[test]
    fn selectors_and_descriptors_are_linuxs() {
        let all = [selector::KERNEL_CODE, selector::KERNEL_DATA, selector::USER_CODE32];
        assert_eq!(all, [0x10, 0x18, 0x23]);
        assert_eq!([selector::USER_DATA, selector::USER_CODE, selector::TSS], [0x2b, 0x33, 0x38]);
        let [_, _, kernel_code, kernel_data, absent, user_data, user_code, ..] = *Gdt::new(0).raw();
        assert_eq!((kernel_code, kernel_data), (0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff));
        assert_eq!((absent, user_data, user_code), (0, 0x00cf_f300_0000_ffff, 0x00af_fb00_0000_ffff));
    }

    #[test]
    fn vectors_have_stacks_and_error_codes() {
        let with_code: Vec<u8> = (0..=255).filter(|vector| has_error_code(*vector)).collect();
        assert_eq!(with_code, [8, 10, 11, 12, 13, 14, 17, 21, 29, 30]);
        let has_gate = |vector: &u8| gate_parameters(*vector).is_some();
        assert!((0..22).all(|vector| has_gate(&vector)));
        assert!((22..=255).filter(has_gate).eq([29, 30, 32]));
        let [debug, nmi, breakpoint, double, page] = [1, 2, 3, 8, 14].map(gate_parameters);
        assert_eq!([debug, gate_parameters(18)], [Some((4, 0)); 2]);
        assert_eq!([nmi, double, page], [Some((2, 0)), Some((3, 0)), Some((1, 0))]);
        assert_eq!([breakpoint, gate_parameters(4)], [Some((1, 3)); 2]);
    }

    #[test]
    fn interrupt_stacks_are_where_they_are_said_to_be() {
        let high = 0xffff_8050_0000_0000;
        let tss = tss([high, high + 1, high + 2, high + 3]);
        let (rings, interrupts) = (tss.privilege_stack_table, tss.interrupt_stack_table);
        assert!(rings.iter().all(|top| top.as_u64() == high));
        assert_eq!(interrupts.map(|top| top.as_u64()), [high, high + 1, high + 2, high + 3, 0, 0, 0]);
    }

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
        assert!(usize::from(tss([0; 4]).iomap_base) > super::TSS_LIMIT as usize);
    }
}
