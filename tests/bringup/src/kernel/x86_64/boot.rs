//! From the first 64-bit instruction to ring 0.

use super::{Hardware, load};
use crate::kernel;
use crate::kernel::memory::{self, PAGES, Pages};
use core::arch::global_asm;
use core::arch::x86_64::__cpuid_count;
use pagetables::{Attrs, Error, KernelTables, Template, VirtRange, X86_64};
use ring0_x86_64::cpu::{CPU_STRIDE, Cpu, FpMode, KERNEL_HALF};
use ring0_x86_64::features::{Features, Leaf};
use ring0_x86_64::tables::selector;
use ring0_x86_64::{entry, stack};
use x86_64::registers::control::{Cr0Flags, Cr4Flags};
use x86_64::registers::model_specific::EferFlags;

global_asm!(
    include_str!("boot.S"),
    PAE = const Cr4Flags::PHYSICAL_ADDRESS_EXTENSION.bits(),
    EFER_MSR = const EFER_MSR,
    // No-execute too: the tables of ring 0 use it.
    EFER = const EferFlags::LONG_MODE_ENABLE.union(EferFlags::NO_EXECUTE_ENABLE).bits(),
    PAGING = const Cr0Flags::PAGING.bits(),
    CODE = const selector::KERNEL_CODE,
    DATA = const selector::KERNEL_DATA,
    CODE_DESCRIPTOR = const ring0_x86_64::tables::KERNEL_CODE,
    DATA_DESCRIPTOR = const ring0_x86_64::tables::KERNEL_DATA,
    boot = sym boot,
);

/// Extended feature enables. `x86_64` keeps the numbers of its registers to itself.
const EFER_MSR: u32 = 0xc000_0080;

unsafe extern "C" {
    static __ring0_text_start: u8;
    static __ring0_text_end: u8;
}

/// Called by boot.S on the boot stack, with the first GiB mapped to itself.
extern "C" fn boot() -> ! {
    Hardware::init_devices();
    let features = features();
    // This function never returns: what lies on its stack stays.
    let (hardware, kernel_stack) = match prepare(&features) {
        Ok(prepared) => prepared,
        Err(error) => panic!("building the kernel's tables: {error}"),
    };
    let arg = core::ptr::from_ref(&hardware) as usize;
    // SAFETY: a mapped stack that nobody uses; the block is initialised, and mapped in the template like the image, the
    // pool and the boot stack.
    unsafe {
        (*hardware.cpu).context_sp = stack::prepare(kernel_stack, enter, arg);
        load::ring0(hardware.cpu, hardware.template.root(), &features)
    }
}

/// What [`Features`] asks for.
fn features() -> Features {
    let leaf = |function, index| {
        let out = __cpuid_count(function, index);
        Leaf { function, index, eax: out.eax, ebx: out.ebx, ecx: out.ecx, edx: out.edx }
    };
    let leaves = [(1, 0), (7, 0), (0xd, 0), (0xd, 1), (0x8000_0001, 0), (0x8000_0008, 0)];
    Features::from_leaves(&leaves.map(|(function, index)| leaf(function, index)))
}

/// Builds the kernel's tables and the per-CPU block; returns them with the end of the kernel's stack.
fn prepare(features: &Features) -> Result<(Hardware, u64), Error> {
    let cpu_page = PAGES.take(CPU_STRIDE / pagetables::PAGE_SIZE)?;
    let cpu = cpu_page as *mut Cpu;
    let mode = match (features.xsave, features.xsaveopt) {
        (_, true) => FpMode::Xsaveopt,
        (true, false) => FpMode::Xsave,
        (false, false) => FpMode::Fxsave,
    };
    // SAFETY: zeroed pages of the pool, taken for this.
    unsafe {
        (*cpu).init(mode, features.xcr0, features.fsgsbase);
        // Nobody runs this ring 0 from outside: its exits go on with the context in `context_sp`.
        (*cpu).hosted = 0;
        entry::install(&mut *cpu);
    }
    let mut tables: KernelTables<X86_64, &'static Pages> = KernelTables::new(&PAGES)?;
    memory::map_image(&mut tables, Attrs::GLOBAL)?;
    let kernel_stack = memory::new_stack(&mut tables)?;
    let fault_stack = memory::new_stack(&mut tables)?;
    let (text, text_end) = (&raw const __ring0_text_start as u64, &raw const __ring0_text_end as u64);
    let global = Attrs::GLOBAL;
    memory::map(&mut tables, text | KERNEL_HALF, text, text_end - text, Attrs::EXECUTE | global)?;
    memory::map(&mut tables, cpu_page | KERNEL_HALF, cpu_page, CPU_STRIDE, Attrs::WRITE | global)?;
    let template = freeze(tables)?;
    Ok((Hardware { cpu, template, fault_stack }, kernel_stack))
}

/// Programs' tables share the first 4 GiB and the kernel half.
fn freeze(tables: KernelTables<X86_64, &'static Pages>) -> Result<Template<X86_64, &'static Pages>, Error> {
    let range = |start, bytes| VirtRange::new::<X86_64>(start, bytes).map_err(|_| Error::Frozen);
    tables.freeze(&[range(0, 4 << 30)?, range(KERNEL_HALF, 1 << 39)?])
}

/// First on the kernel's stack.
extern "C" fn enter(hardware: usize) -> ! {
    // SAFETY: `boot` passes what lies on its stack for ever. The block is this CPU's, and from here on `context_sp` is
    // what continues when kernel code faults.
    unsafe {
        let hardware = &*(hardware as *const Hardware);
        let arg = core::ptr::from_ref(hardware) as usize;
        (*hardware.cpu).context_sp = stack::prepare(hardware.fault_stack, fault, arg);
        kernel::main(hardware)
    }
}

/// First on the fault stack.
extern "C" fn fault(hardware: usize) -> ! {
    // SAFETY: as for `enter`.
    kernel::faulted(unsafe { &*(hardware as *const Hardware) })
}
