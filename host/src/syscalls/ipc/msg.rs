//! msgget, msgsnd, msgrcv, msgctl.

use super::{Args, IPC_INFO, IPC_RMID, IPC_SET, StatusOf, owner, raw_perm};
use crate::abi::ipc::RawPerm;
use crate::abi::{Errno, Result};
use crate::kernel::Current;
use crate::kernel::ipc::flags::NOWAIT;
use crate::kernel::ipc::msg::{How, Which};
use zerocopy::{FromBytes, Immutable, IntoBytes};

const MSG_STAT: i32 = 11;
const MSG_INFO: i32 = 12;
const MSG_STAT_ANY: i32 = 13;

const MSG_NOERROR: u32 = 0o10000;
const MSG_EXCEPT: u32 = 0o20000;
const MSG_COPY: u32 = 0o40000;

/// What `struct msginfo` says of things that are not limited (MSGPOOL, MSGSSZ, MSGSEG).
const POOL_KB: i32 = 512_000;
const SEGMENT_SIZE: i32 = 16;
const SEGMENTS: u16 = 0xffff;

/// Where the text of a message begins, behind its type.
const TEXT: u64 = 8;

/// `struct msqid64_ds`.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable)]
#[repr(C)]
struct RawStatus {
    perm: RawPerm,
    stime: i64,
    rtime: i64,
    ctime: i64,
    bytes: u64,
    messages: u64,
    max_bytes: u64,
    sender: i32,
    receiver: i32,
    unused: [u64; 2],
}

/// `struct msginfo`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct RawInfo {
    pool: i32,
    map: i32,
    max: i32,
    mnb: i32,
    mni: i32,
    ssz: i32,
    tql: i32,
    seg: u16,
    pad: u16,
}

/// msgget(2)
pub(in crate::syscalls) fn msgget(cur: &mut Current, args: &Args) -> Result<u64> {
    cur.task.ipc().queue(args.int(0), args.uint(1), &cur.cred()).map(|id| id as u64)
}

/// msgsnd(2)
pub(in crate::syscalls) fn msgsnd(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, addr, len, flags) = (args.int(0), args.addr(1), args.long(2), args.uint(3));
    let kind: i64 = cur.mm().read_val(addr)?;
    let ipc = cur.task.ipc();
    let max = i64::from(ipc.limits.lock().msgmax);
    if !(0..=max).contains(&len) || id < 0 || kind < 1 {
        return Err(Errno::EINVAL);
    }
    let text = cur.mm().read_vec(addr.wrapping_add(TEXT), len as usize)?;
    let message = ipc.message(kind, text.into())?;
    cur.send_message(id, message, flags & NOWAIT == 0).map(|()| 0)
}

fn which(kind: i64, flags: u32) -> Which {
    match kind {
        _ if flags & MSG_COPY != 0 => Which::Copy(kind),
        0 => Which::Any,
        i64::MIN..0 => Which::UpTo(kind.checked_neg().unwrap_or(i64::MAX)),
        _ if flags & MSG_EXCEPT != 0 => Which::Except(kind),
        _ => Which::Of(kind),
    }
}

/// msgrcv(2)
pub(in crate::syscalls) fn msgrcv(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, addr, flags) = (args.int(0), args.addr(1), args.uint(4));
    let room = usize::try_from(args.long(2)).map_err(|_| Errno::EINVAL)?;
    if id < 0 {
        return Err(Errno::EINVAL);
    }
    if flags & MSG_COPY != 0 {
        if flags & MSG_EXCEPT != 0 || flags & NOWAIT == 0 {
            return Err(Errno::EINVAL);
        }
        // Linux takes the buffer's old bytes along, and finds out in this way that it is one.
        let max = cur.task.ipc().limits.lock().msgmax as usize;
        cur.mm().read_vec::<u8>(addr, room.min(max))?;
    }
    let how = How {
        which: which(args.long(3), flags),
        room,
        cut: flags & MSG_NOERROR != 0,
        wait: flags & NOWAIT == 0,
    };
    let message = cur.receive_message(id, how)?;
    let text = &message.text[..message.text.len().min(room)];
    cur.mm().write_val(addr, &message.kind)?;
    cur.mm().write(addr.wrapping_add(TEXT), text)?;
    Ok(text.len() as u64)
}

/// msgctl(2)
pub(in crate::syscalls) fn msgctl(cur: &mut Current, args: &Args) -> Result<u64> {
    let (id, command, addr) = (args.int(0), args.int(1), args.addr(2));
    if id < 0 || command < 0 {
        return Err(Errno::EINVAL);
    }
    let (ipc, cred) = (cur.task.ipc(), cur.cred());
    if let Some(of) = StatusOf::command(command, MSG_STAT, MSG_STAT_ANY) {
        let status = ipc.queue_status(id, of.by_index, of.who(&cred))?;
        let raw = RawStatus {
            perm: raw_perm(&status.perm, &cred),
            stime: status.stime,
            rtime: status.rtime,
            ctime: status.ctime,
            bytes: status.bytes,
            messages: status.messages,
            max_bytes: status.max_bytes,
            sender: cur.number_of(status.sender),
            receiver: cur.number_of(status.receiver),
            unused: [0; 2],
        };
        cur.mm().write_val(addr, &raw)?;
        return Ok(of.result(&status.perm));
    }
    match command {
        IPC_INFO | MSG_INFO => info(cur, command == MSG_INFO, addr),
        IPC_SET => {
            let raw: RawStatus = cur.mm().read_val(addr)?;
            ipc.set_queue(id, owner(&raw.perm, &cred), raw.perm.mode, raw.max_bytes, &cred).map(|()| 0)
        }
        IPC_RMID => ipc.remove_queue(id, &cred).map(|()| 0),
        _ => Err(Errno::EINVAL),
    }
}

/// The limits; with `used` what there is in place of three of them.
fn info(cur: &Current, used: bool, addr: u64) -> Result<u64> {
    let ipc = cur.task.ipc();
    let limits = *ipc.limits.lock();
    let mnb = limits.msgmnb as i32;
    let (mut pool, mut map, mut tql) = (POOL_KB, mnb, mnb);
    if used {
        let queues = ipc.queues();
        pool = queues.len() as i32;
        map = queues.iter().map(|queue| queue.messages).sum::<u64>() as i32;
        tql = queues.iter().map(|queue| queue.bytes).sum::<u64>() as i32;
    }
    let (max, mni) = (limits.msgmax as i32, limits.msgmni as i32);
    let raw = RawInfo { pool, map, max, mnb, mni, ssz: SEGMENT_SIZE, tql, seg: SEGMENTS, pad: 0 };
    cur.mm().write_val(addr, &raw)?;
    Ok(ipc.highest_queue())
}
