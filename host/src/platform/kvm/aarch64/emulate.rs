//! Instructions that Linux emulates for programs on aarch64: reads of the ID registers
//! (Documentation/arch/arm64/cpu-feature-registers.rst).
//!
//! The values are those the host shows to its own programs, less what ring 0 does not save and restore: a program must
//! not find SVE and then fault on it.

use crate::arch::UserRegs;
use crate::platform::kvm::space::Space;
use crate::platform::{AddressSpace, Frame, Prot};
use core::arch::asm;

/// `mrs xt, S3_0_C0_CRm_op2`: the bits that are fixed, and their values (ARM DDI 0487, C5.2.6).
const MRS_ID_MASK: u32 = 0xffff_f000;
const MRS_ID: u32 = 0xd538_0000;
/// AT_HWCAP: the host emulates these reads (HWCAP_CPUID).
const HWCAP_CPUID: u64 = 1 << 11;

/// Values by CRm and op2.
#[derive(Clone, Copy)]
pub(in crate::platform::kvm) struct IdRegisters([[u64; 8]; 8]);

macro_rules! read {
    ($crm:literal, $($op2:literal)*) => {
        [$({
            let value: u64;
            // SAFETY: a register read that the host emulates: HWCAP_CPUID says so.
            unsafe {
                asm!(concat!("mrs {}, S3_0_C0_C", $crm, "_", $op2), out(reg) value,
                    options(nomem, nostack, preserves_flags));
            }
            value
        }),*]
    };
}

/// (CRm, op2, the fields that programs may not see): ID_AA64PFR0 SVE; ID_AA64PFR1 BT, MTE, SME; ID_AA64ZFR0 and
/// ID_AA64SMFR0; ID_AA64ISAR1 APA, API, GPA, GPI; ID_AA64ISAR2 GPA3, APA3 (ARM DDI 0487, D19.2).
const HIDDEN: [(usize, usize, u64); 6] = [
    (4, 0, 0xf << 32),
    (4, 1, 0xf | 0xf << 8 | 0xf << 24),
    (4, 4, !0),
    (4, 5, !0),
    (6, 1, 0xff << 4 | 0xff << 24),
    (6, 2, 0xff << 8),
];

impl IdRegisters {
    /// Reads the host's. Call it natively: at EL1 the registers are the VM's own.
    pub(super) fn read() -> Self {
        // SAFETY: reads the auxiliary vector.
        if unsafe { libc::getauxval(libc::AT_HWCAP) } & HWCAP_CPUID == 0 {
            return IdRegisters([[0; 8]; 8]);
        }
        // Of CRm 0 only MIDR, MPIDR and REVIDR can be read, of CRm 1 (AArch32 features) nothing.
        let [midr] = read!("0", "0");
        let [mpidr, revidr] = read!("0", "5" "6");
        let mut values = [
            [midr, 0, 0, 0, 0, mpidr, revidr, 0],
            [0; 8],
            read!("2", "0" "1" "2" "3" "4" "5" "6" "7"),
            read!("3", "0" "1" "2" "3" "4" "5" "6" "7"),
            read!("4", "0" "1" "2" "3" "4" "5" "6" "7"),
            read!("5", "0" "1" "2" "3" "4" "5" "6" "7"),
            read!("6", "0" "1" "2" "3" "4" "5" "6" "7"),
            read!("7", "0" "1" "2" "3" "4" "5" "6" "7"),
        ];
        for (crm, op2, fields) in HIDDEN {
            values[crm][op2] &= !fields;
        }
        IdRegisters(values)
    }

    fn value(&self, crm: usize, op2: usize) -> Option<u64> {
        let readable = matches!((crm, op2), (2..8, _) | (0, 0 | 5 | 6));
        readable.then(|| self.0[crm & 7][op2 & 7])
    }
}

/// Emulates the instruction at the program counter, if it is one of these.
pub(super) fn instruction(space: &Space, regs: &mut UserRegs) -> bool {
    let Some(word) = fetch(space, regs.pc) else { return false };
    if word & MRS_ID_MASK != MRS_ID {
        return false;
    }
    let field = |shift: u32, bits: u32| (word >> shift & ((1 << bits) - 1)) as usize;
    let Some(value) = space.id_registers().value(field(8, 4), field(5, 3)) else { return false };
    // Register 31 is the zero register.
    if let Some(target) = regs.x.get_mut(field(0, 5)) {
        *target = value;
    }
    regs.pc += 4;
    true
}

fn fetch(space: &Space, pc: u64) -> Option<u32> {
    let (Frame(frame), prot) = space.lookup(pc)?;
    if !pc.is_multiple_of(4) || !prot.contains(Prot::EXEC) {
        return None;
    }
    // SAFETY: a frame that the space maps is arena memory; the word is aligned and does not leave it. Other threads of the
    // program may write it: any value will do.
    Some(unsafe { ((frame | pc & 0xfff) as *const u32).read_volatile() })
}
