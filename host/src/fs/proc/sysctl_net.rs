//! /proc/sys/net: settings of the network that whoever opens a file is in.

use super::opener::Opener;
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::fs::pseudo::{Dir, Opened, Text, next_ino};
use crate::kernel::Kernel;
use crate::net::Namespace;
use crate::net::namespace::Settings;
use crate::net::options::BUFFER;
use crate::vfs::Inode;
use std::fmt::Display;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Weak};

/// Ports have smaller numbers.
const PORTS: u32 = 65_536;
/// The largest group id of a range (`GID_T_MAX` of Linux's net/ipv4).
const MOST_GROUP: u32 = i32::MAX as u32;

fn fixed(value: impl Display) -> Arc<dyn Inode> {
    Text::fixed(format!("{value}\n"))
}

/// A setting that can be changed: what it says, and what becomes of numbers that were written.
fn setting(
    kernel: &Arc<Kernel>,
    show: fn(&Settings) -> Vec<u32>,
    set: fn(&Settings, &[u32]) -> Result<()>,
) -> Arc<dyn Inode> {
    let kernel: Weak<Kernel> = Arc::downgrade(kernel);
    Text::writable(next_ino(), move |caller| {
        let opener = Opener::find(&kernel, caller)?;
        let privileged = opener.has(Caps::NET_ADMIN);
        let network: Arc<Namespace> = opener.namespaces.network.of.clone();
        let shown = network.clone();
        let read = move || {
            let words: Vec<_> = show(&shown.settings).iter().map(u32::to_string).collect();
            Ok((words.join("\t") + "\n").into_bytes())
        };
        Ok(Opened::new(read).writable(move |text| {
            if !privileged {
                return Err(Errno::EPERM);
            }
            let text = std::str::from_utf8(text).map_err(|_| Errno::EINVAL)?;
            let numbers: std::result::Result<Vec<u32>, _> = text.split_whitespace().map(str::parse).collect();
            set(&network.settings, &numbers.map_err(|_| Errno::EINVAL)?)
        }))
    })
}

fn one(numbers: &[u32], most: u32) -> Result<u32> {
    match numbers {
        [number] if *number <= most => Ok(*number),
        _ => Err(Errno::EINVAL),
    }
}

fn both((first, last): &(AtomicU32, AtomicU32)) -> Vec<u32> {
    [first, last].map(|number| number.load(Ordering::Relaxed)).to_vec()
}

fn set_both((first, last): &(AtomicU32, AtomicU32), to: [u32; 2]) {
    first.store(to[0], Ordering::Relaxed);
    last.store(to[1], Ordering::Relaxed);
}

/// Groups whose members may make ping sockets (icmp(7)); an empty range is always shown as the same one.
fn set_groups(settings: &Settings, numbers: &[u32]) -> Result<()> {
    let [first, last] = numbers else { return Err(Errno::EINVAL) };
    if *last > MOST_GROUP {
        return Err(Errno::EINVAL);
    }
    set_both(&settings.ping_groups, if first > last { [1, 0] } else { [*first, *last] });
    Ok(())
}

fn set_ports(settings: &Settings, numbers: &[u32]) -> Result<()> {
    let [first, last] = numbers else { return Err(Errno::EINVAL) };
    if *first == 0 || first > last || *last >= PORTS {
        return Err(Errno::EINVAL);
    }
    set_both(&settings.local_ports, [*first, *last]);
    Ok(())
}

/// The directory.
pub(super) fn directory(kernel: &Arc<Kernel>) -> Arc<dyn Inode> {
    let backlog = setting(
        kernel,
        |settings| vec![settings.backlog_max.load(Ordering::Relaxed)],
        |settings, numbers| {
            settings.backlog_max.store(one(numbers, i32::MAX as u32)?, Ordering::Relaxed);
            Ok(())
        },
    );
    let low = setting(
        kernel,
        |settings| vec![settings.unprivileged_ports.load(Ordering::Relaxed)],
        |settings, numbers| {
            settings.unprivileged_ports.store(one(numbers, PORTS - 1)?, Ordering::Relaxed);
            Ok(())
        },
    );
    let core = Dir::new(vec![
        ("somaxconn", backlog),
        ("rmem_default", fixed(BUFFER)),
        ("rmem_max", fixed(BUFFER)),
        ("wmem_default", fixed(BUFFER)),
        ("wmem_max", fixed(BUFFER)),
    ]);
    let ipv4 = Dir::new(vec![
        ("ip_local_port_range", setting(kernel, |settings| both(&settings.local_ports), set_ports)),
        ("ping_group_range", setting(kernel, |settings| both(&settings.ping_groups), set_groups)),
        ("ip_unprivileged_port_start", low),
        ("ip_default_ttl", fixed(64)),
        // Nothing is passed on.
        ("ip_forward", fixed(0)),
        ("tcp_available_congestion_control", fixed("reno cubic")),
        ("tcp_congestion_control", fixed("cubic")),
        ("tcp_fin_timeout", fixed(60)),
        ("tcp_keepalive_intvl", fixed(75)),
        ("tcp_keepalive_probes", fixed(9)),
        ("tcp_keepalive_time", fixed(7200)),
        ("tcp_rmem", fixed("4096\t131072\t6291456")),
        ("tcp_syn_retries", fixed(6)),
        ("tcp_wmem", fixed("4096\t16384\t4194304")),
    ]);
    let on = || Dir::new(vec![("disable_ipv6", fixed(0)), ("forwarding", fixed(0))]) as Arc<dyn Inode>;
    let conf = Dir::new(vec![("all", on()), ("default", on()), ("lo", on())]);
    let ipv6 = Dir::new(vec![("bindv6only", fixed(0)), ("conf", conf)]);
    Dir::new(vec![("core", core), ("ipv4", ipv4), ("ipv6", ipv6)])
}
