//! /proc/sysvipc: the System V objects that whoever opens them sees, permissions or not.

use super::ipc_limits::ipc;
use crate::fs::pseudo::{Dir, Opened, Text, next_ino};
use crate::kernel::Kernel;
use crate::kernel::ipc::IpcNamespace;
use crate::kernel::pids::PidNamespace;
use crate::vfs::Inode;
use std::fmt::Write;
use std::sync::Arc;

fn table(
    kernel: &Arc<Kernel>,
    head: &'static str,
    pids: &Arc<PidNamespace>,
    rows: fn(&IpcNamespace, &PidNamespace, &mut String) -> std::fmt::Result,
) -> Arc<dyn Inode> {
    let (kernel, pids) = (Arc::downgrade(kernel), pids.clone());
    Text::opened(next_ino(), move |caller| {
        let (ipc, _) = ipc(&kernel, caller)?;
        let pids = pids.clone();
        Ok(Opened::new(move || {
            let mut text = String::from(head);
            // A string takes everything.
            let _ = rows(&ipc, &pids, &mut text);
            Ok(text.into_bytes())
        }))
    })
}

fn shm(ipc: &IpcNamespace, pids: &PidNamespace, out: &mut String) -> std::fmt::Result {
    for s in ipc.segments() {
        let p = s.perm;
        writeln!(
            out,
            "{:10} {:10}  {:4o} {:21} {:5} {:5}  {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10} {:21} {:21}",
            p.key,
            p.id,
            p.mode,
            s.size,
            pids.number_of(s.creator),
            pids.number_of(s.last_pid),
            s.attached,
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.atime,
            s.dtime,
            s.ctime,
            s.resident,
            // There is no swap.
            0
        )?;
    }
    Ok(())
}

fn sem(ipc: &IpcNamespace, _: &PidNamespace, out: &mut String) -> std::fmt::Result {
    for s in ipc.semaphore_sets() {
        let p = s.perm;
        writeln!(
            out,
            "{:10} {:10}  {:4o} {:10} {:5} {:5} {:5} {:5} {:10} {:10}",
            p.key, p.id, p.mode, s.count, p.uid, p.gid, p.cuid, p.cgid, s.otime, s.ctime
        )?;
    }
    Ok(())
}

fn msg(ipc: &IpcNamespace, pids: &PidNamespace, out: &mut String) -> std::fmt::Result {
    for s in ipc.queues() {
        let p = s.perm;
        writeln!(
            out,
            "{:10} {:10}  {:4o}  {:10} {:10} {:5} {:5} {:5} {:5} {:5} {:5} {:10} {:10} {:10}",
            p.key,
            p.id,
            p.mode,
            s.bytes,
            s.messages,
            pids.number_of(s.sender),
            pids.number_of(s.receiver),
            p.uid,
            p.gid,
            p.cuid,
            p.cgid,
            s.stime,
            s.rtime,
            s.ctime
        )?;
    }
    Ok(())
}

/// The directory.
pub(super) fn directory(kernel: &Arc<Kernel>, pids: &Arc<PidNamespace>) -> Arc<dyn Inode> {
    const SHM: &str = concat!(
        "       key      shmid perms                  size  cpid  lpid nattch   uid   gid  cuid  cgid",
        "      atime      dtime      ctime                   rss                  swap\n"
    );
    const SEM: &str =
        "       key      semid perms      nsems   uid   gid  cuid  cgid      otime      ctime\n";
    const MSG: &str = concat!(
        "       key      msqid perms      cbytes       qnum lspid lrpid   uid   gid  cuid  cgid",
        "      stime      rtime      ctime\n"
    );
    Dir::new(vec![
        ("shm", table(kernel, SHM, pids, shm)),
        ("sem", table(kernel, SEM, pids, sem)),
        ("msg", table(kernel, MSG, pids, msg)),
    ])
}
