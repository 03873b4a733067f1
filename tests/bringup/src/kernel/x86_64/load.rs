//! Loads the state that ring 0 starts with: what KVM_SET_SREGS and KVM_SET_MSRS do for a vCPU.

use crate::kernel::memory::Pages;
use core::arch::asm;
use core::mem::offset_of;
use pagetables::{Template, X86_64};
use ring0_x86_64::cpu::{Cpu, KERNEL_HALF};
use ring0_x86_64::features::Features;
use ring0_x86_64::tables::{GDT_LIMIT, IDT_LIMIT, selector};
use ring0_x86_64::{entry, init};

/// Extended feature enables.
pub(super) const EFER: u32 = 0xc000_0080;
/// The base of GS.
const GS_BASE: u32 = 0xc000_0101;

/// Operand of LGDT and LIDT.
#[repr(C, packed)]
struct Pointer {
    limit: u16,
    base: u64,
}

/// Installs ring 0 and continues the context at `Cpu::context_sp`.
///
/// # Safety
/// `cpu` is initialised and `root` maps it, the entry code, the code that runs and its stack, as `ring0_x86_64::cpu` says;
/// nothing that only the current tables map is needed any more. `context_sp` names a suspended stack.
pub(super) unsafe fn ring0(cpu: *mut Cpu, root: u64, features: &Features) -> ! {
    let high = cpu as u64 | KERNEL_HALF;
    let pointer = |limit, offset: usize| Pointer { limit, base: high + offset as u64 };
    let gdt = pointer(GDT_LIMIT, offset_of!(Cpu, gdt));
    let idt = pointer(IDT_LIMIT, offset_of!(Cpu, idt));
    // SAFETY: the caller's. CR4 comes before XCR0 (OSXSAVE) and CR3 (global pages, SMEP and SMAP concern user pages
    // only, which no table has yet); no-execute is on already.
    unsafe {
        write_msr(EFER, init::EFER);
        asm!("mov cr4, {}", in(reg) features.cr4(), options(nostack));
        if features.xsave {
            let (low, high) = (features.xcr0 as u32, (features.xcr0 >> 32) as u32);
            asm!("xsetbv", in("ecx") 0, in("eax") low, in("edx") high, options(nostack));
        }
        asm!("mov cr3, {}", in(reg) root, options(nostack));
        asm!("mov cr0, {}", in(reg) init::CR0, options(nostack));
        // CS and SS keep their selectors, which mean the same in the boot code's table.
        asm!("lgdt [{}]", in(reg) &raw const gdt, options(nostack));
        asm!("lidt [{}]", in(reg) &raw const idt, options(nostack));
        asm!("ltr {:x}", in(reg) selector::TSS, options(nostack));
        let data = selector::USER_DATA;
        asm!("mov ds, {0:e}", "mov es, {0:e}", "mov fs, {0:e}", "mov gs, {0:e}", in(reg) u32::from(data));
        for (msr, value) in init::msrs(entry::syscall_entry(&*cpu) | KERNEL_HALF) {
            write_msr(msr, value);
        }
        write_msr(GS_BASE, high);
        asm!("jmp {}", in(reg) entry::start() | KERNEL_HALF, options(noreturn));
    }
}

/// Loads the kernel's own table.
pub(super) fn root(template: &Template<X86_64, &'static Pages>) {
    // SAFETY: the template is what every table here is a copy of, so nothing that the kernel uses changes.
    unsafe { asm!("mov cr3, {}", in(reg) template.root(), options(nostack)) };
}

/// # Safety
/// The register exists and the value means no harm.
unsafe fn write_msr(msr: u32, value: u64) {
    // SAFETY: the caller's.
    unsafe {
        asm!("wrmsr", in("ecx") msr, in("eax") value as u32, in("edx") (value >> 32) as u32, options(nostack));
    }
}
