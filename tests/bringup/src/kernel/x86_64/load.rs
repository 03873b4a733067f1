//! Loads the state that ring 0 starts with: what KVM_SET_SREGS and KVM_SET_MSRS do for a vCPU.

use crate::kernel::memory::Pages;
use core::arch::asm;
use core::mem::offset_of;
use pagetables::Template;
use ring0_x86_64::cpu::{Cpu, KERNEL_HALF};
use ring0_x86_64::features::Features;
use ring0_x86_64::tables::{GDT_LIMIT, IDT_LIMIT, selector};
use ring0_x86_64::{entry, init};
use x86_64::instructions::tables::{DescriptorTablePointer, lgdt, lidt, load_tss};
use x86_64::registers::control::{Cr0, Cr3, Cr3Flags, Cr4};
use x86_64::registers::model_specific::{Efer, GsBase, Msr};
use x86_64::registers::segmentation::{DS, ES, FS, GS, Segment, SegmentSelector};
use x86_64::registers::xcontrol::XCr0;
use x86_64::structures::paging::PhysFrame;
use x86_64::{PhysAddr, VirtAddr};

/// Installs ring 0 and continues the context at `Cpu::context_sp`.
///
/// # Safety
/// `cpu` is initialised and `root` maps it, the entry code, the code that runs and its stack, as `ring0_x86_64::cpu` says;
/// nothing that only the current tables map is needed any more. `context_sp` names a suspended stack.
pub(super) unsafe fn ring0(cpu: *mut Cpu, root: u64, features: &Features) -> ! {
    let high = cpu as u64 | KERNEL_HALF;
    let pointer = |limit, offset: usize| DescriptorTablePointer {
        limit,
        base: VirtAddr::new_truncate(high + offset as u64),
    };
    // SAFETY: the caller's. CR4 comes before XCR0 (OSXSAVE) and CR3 (global pages, SMEP and SMAP concern user pages
    // only, which no table has yet); no-execute is on already.
    unsafe {
        Efer::write_raw(init::EFER);
        Cr4::write_raw(features.cr4());
        if features.xsave {
            XCr0::write_raw(features.xcr0);
        }
        load_root(root);
        Cr0::write_raw(init::CR0);
        // CS and SS keep their selectors, which mean the same in the boot code's table.
        lgdt(&pointer(GDT_LIMIT, offset_of!(Cpu, gdt)));
        lidt(&pointer(IDT_LIMIT, offset_of!(Cpu, idt)));
        load_tss(SegmentSelector(selector::TSS));
        let data = SegmentSelector(selector::USER_DATA);
        DS::set_reg(data);
        ES::set_reg(data);
        FS::set_reg(data);
        GS::set_reg(data);
        for (msr, value) in init::msrs(entry::syscall_entry(&*cpu) | KERNEL_HALF) {
            Msr::new(msr).write(value);
        }
        GsBase::write(VirtAddr::new_truncate(high));
        asm!("jmp {}", in(reg) entry::start() | KERNEL_HALF, options(noreturn));
    }
}

/// Loads the kernel's own table.
pub(super) fn root(template: &Template<pagetables::X86_64, &'static Pages>) {
    // SAFETY: the template is what every table here is a copy of, so nothing that the kernel uses changes.
    unsafe { load_root(template.root()) };
}

/// # Safety
/// The table maps everything that is in use.
unsafe fn load_root(root: u64) {
    let frame = PhysFrame::containing_address(PhysAddr::new_truncate(root));
    // SAFETY: the caller's.
    unsafe { Cr3::write(frame, Cr3Flags::empty()) };
}
