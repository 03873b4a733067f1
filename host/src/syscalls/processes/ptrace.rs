//! ptrace: requests and their data. What they do is in [`kernel::trace`](crate::kernel::trace).

use crate::abi::{Errno, Result};
use crate::arch::regset::{self, RegisterSet};
use crate::kernel::Current;
use crate::kernel::signal::{NSIG, SIGINFO_SIZE, SigInfo, SigSet};
use crate::kernel::trace::{Options, Resume, SyscallInfo};
use crate::mm::Iovec;
use crate::syscalls::Args;
use linux_raw_sys::ptrace as sys;

/// ptrace(2)
pub(crate) fn ptrace(cur: &mut Current, args: &Args) -> Result<u64> {
    let (request, pid) = (args.uint(0), args.int(1));
    let (addr, data) = (args.addr(2), args.addr(3));
    // As Linux, which takes all of the word.
    if args.addr(0) != u64::from(request) {
        return Err(Errno::EIO);
    }
    // What belongs to nobody is found nowhere.
    let pid = if request == sys::PTRACE_TRACEME { 0 } else { cur.id_of(pid)? };
    match request {
        sys::PTRACE_TRACEME => cur.trace_me(),
        sys::PTRACE_ATTACH => cur.attach(pid, None),
        sys::PTRACE_SEIZE => seize(cur, pid, addr, data),
        sys::PTRACE_KILL => cur.kill_tracee(pid),
        sys::PTRACE_INTERRUPT => cur.interrupt_tracee(pid),
        sys::PTRACE_LISTEN => cur.listen_to(pid),
        sys::PTRACE_DETACH => cur.detach(pid, data),
        sys::PTRACE_CONT => cur.resume(pid, Resume::Freely, data),
        sys::PTRACE_SYSCALL => cur.resume(pid, Resume::ToCall, data),
        sys::PTRACE_SINGLESTEP => cur.resume(pid, Resume::Step, data),
        sys::PTRACE_SETOPTIONS => cur.set_trace_options(pid, data),
        sys::PTRACE_GET_SYSCALL_INFO => return syscall_info(cur, pid, addr, data),
        _ => transfer(cur, request, pid, [addr, data]),
    }
    .map(|()| 0)
}

fn seize(cur: &mut Current, pid: i32, addr: u64, data: u64) -> Result<()> {
    if cur.kernel.task(pid).is_none() && cur.kernel.process(pid).is_none() {
        return Err(Errno::ESRCH);
    }
    if addr != 0 || data & !u64::from(sys::PTRACE_O_MASK) != 0 {
        return Err(Errno::EIO);
    }
    cur.attach(pid, Some(Options::of(data)?))
}

/// Requests that carry something from or to a stopped tracee.
fn transfer(cur: &mut Current, request: u32, pid: i32, [addr, data]: [u64; 2]) -> Result<()> {
    match request {
        sys::PTRACE_PEEKTEXT | sys::PTRACE_PEEKDATA => {
            let word = cur.tracee_memory(pid)?.peek(addr)?;
            cur.mm().write_val(data, &word)
        }
        sys::PTRACE_POKETEXT | sys::PTRACE_POKEDATA => cur.tracee_memory(pid)?.poke(addr, data),
        sys::PTRACE_PEEKUSR => {
            let word = cur.with_tracee_registers(pid, |regs| regset::peek_user(regs, addr))?;
            cur.mm().write_val(data, &word)
        }
        sys::PTRACE_POKEUSR => cur.with_tracee_registers(pid, |regs| regset::poke_user(regs, addr, data)),
        sys::PTRACE_GETEVENTMSG => {
            let message = cur.event_message(pid)?;
            cur.mm().write_val(data, &message)
        }
        sys::PTRACE_GETSIGINFO => {
            let info = cur.stop_info(pid)?.to_bytes();
            cur.mm().write(data, &info)
        }
        sys::PTRACE_SETSIGINFO => {
            let mut bytes = [0; SIGINFO_SIZE];
            cur.mm().read(data, &mut bytes)?;
            let signo = i32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]);
            cur.set_stop_info(pid, SigInfo::from_bytes(signo, &bytes))
        }
        sys::PTRACE_GETSIGMASK | sys::PTRACE_SETSIGMASK if addr != u64::from(NSIG as u32 / 8) => {
            cur.check_stopped(pid)?;
            Err(Errno::EINVAL)
        }
        sys::PTRACE_GETSIGMASK => {
            let set = cur.tracee_mask(pid)?;
            cur.mm().write_val(data, &set.0)
        }
        sys::PTRACE_SETSIGMASK => {
            let set = SigSet(cur.mm().read_val(data)?);
            cur.set_tracee_mask(pid, set)
        }
        sys::PTRACE_GETREGSET | sys::PTRACE_SETREGSET => {
            register_set(cur, request == sys::PTRACE_SETREGSET, pid, [addr, data])
        }
        _ => registers(cur, request, pid, data),
    }
}

/// Requests for a register set as a whole, which not every architecture has, and those that there are none of.
fn registers(cur: &mut Current, request: u32, pid: i32, data: u64) -> Result<()> {
    let (set, changes) = match regset::whole(request) {
        Some(found) => found,
        None => {
            cur.check_stopped(pid)?;
            return Err(Errno::EIO);
        }
    };
    let mut bytes = cur.tracee_registers(pid, set)?;
    if !changes {
        return cur.mm().write(data, &bytes);
    }
    cur.mm().read(data, &mut bytes)?;
    cur.set_tracee_registers(pid, set, &bytes)
}

/// PTRACE_GETREGSET and PTRACE_SETREGSET: as much of the set as the vector has room for.
fn register_set(cur: &mut Current, changes: bool, pid: i32, [note, at]: [u64; 2]) -> Result<()> {
    cur.check_stopped(pid)?;
    let mut vector: Iovec = cur.mm().read_val(at)?;
    let (set, unit) = RegisterSet::of(note).ok_or(Errno::EINVAL)?;
    if !vector.len.is_multiple_of(unit as u64) {
        return Err(Errno::EINVAL);
    }
    let mut bytes = cur.tracee_registers(pid, set)?;
    bytes.truncate(vector.len.min(bytes.len() as u64) as usize);
    vector.len = bytes.len() as u64;
    if changes {
        cur.mm().read(vector.base, &mut bytes)?;
        cur.set_tracee_registers(pid, set, &bytes)?;
    } else {
        cur.mm().write(vector.base, &bytes)?;
    }
    cur.mm().write_val(at.wrapping_add(8), &vector.len)
}

/// PTRACE_GET_SYSCALL_INFO: `size` bytes at most, of how many there are.
fn syscall_info(cur: &mut Current, pid: i32, size: u64, at: u64) -> Result<u64> {
    let bytes = encode(&cur.syscall_info(pid)?);
    let len = size.min(bytes.len() as u64) as usize;
    cur.mm().write(at, &bytes[..len])?;
    Ok(bytes.len() as u64)
}

/// `struct ptrace_syscall_info`, up to the last member that means something.
fn encode(info: &SyscallInfo) -> Vec<u8> {
    let operation = match (info.entry, info.exit) {
        (Some(_), _) => sys::PTRACE_SYSCALL_INFO_ENTRY,
        (_, Some(_)) => sys::PTRACE_SYSCALL_INFO_EXIT,
        _ => sys::PTRACE_SYSCALL_INFO_NONE,
    };
    let mut bytes = operation.to_ne_bytes().to_vec();
    bytes.extend(info.arch.to_ne_bytes());
    bytes.extend([info.ip, info.sp].iter().flat_map(|word| word.to_ne_bytes()));
    if let Some((number, args)) = info.entry {
        bytes.extend([number].iter().chain(&args).flat_map(|word| word.to_ne_bytes()));
    }
    if let Some(result) = info.exit {
        const MAX_ERRNO: i64 = 4095;
        bytes.extend(result.to_ne_bytes());
        bytes.push((-MAX_ERRNO..0).contains(&result).into());
    }
    bytes
}
