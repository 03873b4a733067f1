//! The guest's virtual counter is the host's.
//!
//! Kernel code reads CNTVCT_EL0 in either engine and takes it for one clock, and programs read it as they would natively.
//! Linux 6.4 and later can be told to subtract nothing. Before, the counter can only be *set*, by an ioctl that takes
//! time between our reading of the host's counter and KVM's: so it is set, compared, and set again until the error
//! is lost in the time that the comparison takes, which is far less than a change of engine. Kernel code's clock hides the
//! rest.

use crate::arch::counter;
use crate::hostsys;
use crate::platform::kvm::machine::{Error, failed};
use kvm_bindings::kvm_arm_counter_offset;
use kvm_ioctls::{Cap, VcpuFd, VmFd};
use std::os::fd::AsRawFd;

/// KVM_ARM_SET_COUNTER_OFFSET: `_IOW(KVMIO, 0xb5, struct kvm_arm_counter_offset)`.
const KVM_ARM_SET_COUNTER_OFFSET: u64 = 0x4010_aeb5;
/// KVM's id of the virtual counter (KVM_REG_ARM_TIMER_CNT).
const TIMER_COUNT: u64 = 0x6030_0000_0013_df1a;
/// How often to try.
const TRIES: u32 = 64;
/// After how many of them twice the error will do.
const TRIES_PER_BIT: u32 = 8;

/// Makes the guest's counter the host's, on all vCPUs of the VM: they share the offset, and creating another one
/// would reset it.
pub(super) fn synchronise(vm: &VmFd, vcpu: &VcpuFd) -> Result<(), Error> {
    if vm.check_extension(Cap::CounterOffset) {
        let zero = kvm_arm_counter_offset { counter_offset: 0, reserved: 0 };
        let args = [vm.as_raw_fd() as u64, KVM_ARM_SET_COUNTER_OFFSET, &raw const zero as u64, 0, 0, 0];
        // SAFETY: the ioctl reads the structure.
        if unsafe { hostsys::syscall(libc::SYS_ioctl, args) }.is_ok() {
            return Ok(());
        }
    }
    // What the ioctl takes from our reading to KVM's, as each attempt says: the median, since an interruption in between
    // makes nonsense of one. No setting is kept that was not compared, so what counts as agreement grows with time.
    let mut latencies: Vec<i64> = Vec::new();
    let mut lead = 0;
    for attempt in 0..TRIES {
        latencies.sort_unstable();
        let latency = latencies.get(latencies.len() / 2).copied().unwrap_or(0);
        set(vcpu, latency)?;
        let (error, ahead) = compare(vcpu)?;
        lead = ahead;
        if error.unsigned_abs() <= 1 << (attempt / TRIES_PER_BIT) {
            break;
        }
        latencies.push(latency - error);
    }
    crate::time::counters_may_be_apart(lead);
    Ok(())
}

fn set(vcpu: &VcpuFd, latency: i64) -> Result<(), Error> {
    let value = counter::read().wrapping_add_signed(latency);
    vcpu.set_one_reg(TIMER_COUNT, &value.to_le_bytes()).map(drop).map_err(failed("KVM_SET_ONE_REG"))
}

/// How far the guest's counter is ahead, probably and at most: the tightest of three readings between two of the host's.
fn compare(vcpu: &VcpuFd) -> Result<(i64, u64), Error> {
    let mut best = (0, 0, u64::MAX);
    for _ in 0..3 {
        let mut value = [0; 8];
        let before = counter::read();
        vcpu.get_one_reg(TIMER_COUNT, &mut value).map_err(failed("KVM_GET_ONE_REG"))?;
        let half = counter::read().wrapping_sub(before) / 2;
        if half < best.2 {
            let ahead = u64::from_le_bytes(value).wrapping_sub(before) as i64;
            best = (ahead - half as i64, ahead.max(0) as u64, half);
        }
    }
    Ok((best.0, best.1))
}
