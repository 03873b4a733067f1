//! /sys: as much as programs look for (CPU lists).

use super::numbers::{mask, ranges};
use super::pseudo::{Dir, Text};
use crate::kernel::Kernel;
use crate::vfs::{Dentry, Inode, Superblock, makedev};
use std::sync::Arc;

/// `IFF_RUNNING`, which these files leave out; ARPHRD_LOOPBACK.
const IFF_RUNNING: u32 = 0x40;
const LOOPBACK: u16 = 772;
const SYSFS_MAGIC: u64 = 0x6265_6572;

fn fixed(text: &str) -> Arc<dyn Inode> {
    Text::fixed(format!("{text}\n"))
}

/// class/net: the interfaces.
fn interfaces(kernel: &Arc<Kernel>) -> Vec<(String, Arc<dyn Inode>)> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":");
    kernel
        .interfaces()
        .links()
        .map(|link| {
            let running = link.flags & IFF_RUNNING != 0;
            let state = if link.hardware == LOOPBACK {
                "unknown"
            } else if running {
                "up"
            } else {
                "down"
            };
            let statistics = Dir::new(vec![
                ("rx_bytes", fixed(&link.received[0].to_string())),
                ("rx_packets", fixed(&link.received[1].to_string())),
                ("rx_errors", fixed(&link.received[2].to_string())),
                ("rx_dropped", fixed(&link.received[3].to_string())),
                ("tx_bytes", fixed(&link.sent[0].to_string())),
                ("tx_packets", fixed(&link.sent[1].to_string())),
                ("tx_errors", fixed(&link.sent[2].to_string())),
                ("tx_dropped", fixed(&link.sent[3].to_string())),
            ]);
            let files = Dir::new(vec![
                ("address", fixed(&hex(&link.address))),
                ("addr_len", fixed(&link.address.len().to_string())),
                ("broadcast", fixed(&hex(&link.broadcast))),
                ("carrier", fixed(if running { "1" } else { "0" })),
                ("flags", fixed(&format!("0x{:x}", link.flags & 0xffff & !IFF_RUNNING))),
                ("ifindex", fixed(&link.index.to_string())),
                ("iflink", fixed(&link.index.to_string())),
                ("mtu", fixed(&link.mtu.to_string())),
                ("operstate", fixed(state)),
                ("statistics", statistics),
                ("tx_queue_len", fixed(&link.queue.to_string())),
                ("type", fixed(&link.hardware.to_string())),
            ]);
            (link.name, files as Arc<dyn Inode>)
        })
        .collect()
}

/// The root directory of a new /sys.
pub fn root(kernel: &Arc<Kernel>) -> Arc<Dentry> {
    let dir = Dir::late(kernel, entries);
    Dentry::root(&Superblock::volatile(makedev(0, 24), "sysfs", SYSFS_MAGIC), dir, b"/")
}

fn entries(kernel: &Arc<Kernel>) -> Vec<(&'static str, Arc<dyn Inode>)> {
    let count = kernel.sched.worker_count();
    let all = u64::MAX >> (64 - count);
    let (list, bits) = (ranges(all), mask(all, count));
    let mut cpus: Vec<(String, Arc<dyn Inode>)> = vec![
        ("online".to_owned(), fixed(&list)),
        ("possible".to_owned(), fixed(&list)),
        ("present".to_owned(), fixed(&list)),
        ("offline".to_owned(), fixed("")),
        ("kernel_max".to_owned(), fixed(&(count - 1).to_string())),
    ];
    for cpu in 0..count {
        let id = cpu.to_string();
        let topology = Dir::new(vec![
            ("core_id", fixed(&id)),
            ("physical_package_id", fixed("0")),
            ("thread_siblings", fixed(&mask(1 << cpu, count))),
            ("thread_siblings_list", fixed(&id)),
            ("core_siblings", fixed(&bits)),
            ("core_siblings_list", fixed(&list)),
        ]);
        cpus.push((format!("cpu{cpu}"), Dir::new(vec![("topology", topology), ("online", fixed("1"))])));
    }
    let cpus = Dir::new(cpus.iter().map(|(name, inode)| (name.as_str(), inode.clone())).collect());
    let node0 =
        Dir::new(vec![("cpulist", fixed(&list)), ("cpumap", fixed(&bits)), ("distance", fixed("10"))]);
    let node = Dir::new(vec![("online", fixed("0")), ("possible", fixed("0")), ("node0", node0)]);
    let system = Dir::new(vec![("cpu", cpus), ("node", node)]);
    vec![
        ("devices", Dir::new(vec![("system", system)])),
        ("fs", Dir::new(vec![("cgroup", Dir::new(Vec::new()))])),
        ("class", Dir::new(vec![("net", Dir::late(kernel, interfaces)), ("block", Dir::new(Vec::new()))])),
        ("block", Dir::new(Vec::new())),
        ("bus", Dir::new(Vec::new())),
    ]
}
