//! What ioctl(2) says of interfaces (netdevice(7)).

use super::Namespace;
use super::interfaces::{Interface, Own};
use crate::abi::{Errno, Result};
use crate::cred::Caps;
use crate::vfs::Ioctl;
use linux_raw_sys::ioctl as i;
use linux_raw_sys::net as n;
use std::net::{IpAddr, Ipv4Addr};

/// sizeof(struct ifreq), and of the name in front.
const REQUEST: usize = 40;
const NAME: usize = 16;
/// `IFF_UP`.
const UP: u32 = 1;
/// `IFF_RUNNING`.
const RUNNING: u32 = 0x40;
/// What drivers have for themselves (linux/sockios.h).
const SIOCDEVPRIVATE_LAST: u32 = i::SIOCDEVPRIVATE + 15;
const SIOCETHTOOL: u32 = 0x8946;
const SIOCGMIIPHY: u32 = 0x8947;
const SIOCGMIIREG: u32 = 0x8948;
const SIOCSMIIREG: u32 = 0x8949;
const SIOCBONDSLAVEINFOQUERY: u32 = 0x8993;
const SIOCBONDINFOQUERY: u32 = 0x8994;
const SIOCSHWTSTAMP: u32 = 0x89b0;
const SIOCGHWTSTAMP: u32 = 0x89b1;
/// Whether there is a link (linux/ethtool.h).
const ETHTOOL_GLINK: u32 = 0xa;
/// Commands for everybody: GSET, GDRVINFO, GMSGLVL, GCOALESCE, GRINGPARAM, GPAUSEPARAM, GRXCSUM, GTXCSUM, GSG, GSTRINGS, GTSO,
/// GPERMADDR, GUFO, GGSO, GFLAGS, GPFLAGS, GRXFH, GGRO, GRXRINGS, GRXCLSRLCNT, GRXCLSRULE, GRXCLSRLALL, GRXFHINDIR, GSSET_INFO,
/// GFEATURES, GCHANNELS, GET_TS_INFO, GEEE, GTUNABLE, GRSSH, GLINKSETTINGS, PHY_GTUNABLE, GFECPARAM, GSTATS, GPHYSTATS.
const ETHTOOL_READS: [u32; 35] = [
    0x1, 0x3, 0x7, 0xe, 0x10, 0x12, 0x14, 0x16, 0x18, 0x1b, 0x1e, 0x20, 0x21, 0x23, 0x25, 0x27, 0x29, 0x2b,
    0x2d, 0x2e, 0x2f, 0x30, 0x38, 0x37, 0x3a, 0x3c, 0x41, 0x44, 0x48, 0x46, 0x4c, 0x4e, 0x50, 0x1d, 0x4a,
];
/// What is of a family: an IPv4 address.
const INET: u16 = n::AF_INET as u16;

/// ioctl(2) on a socket.
///
/// # Errors
/// ENOTTY for what is no request of these; ENODEV, EADDRNOTAVAIL, EPERM, EOPNOTSUPP, EFAULT.
pub fn ioctl(network: &Namespace, call: &Ioctl<'_>) -> Result<u64> {
    match call.request {
        i::SIOCGIFCONF => return list(network, call),
        i::SIOCGIFNAME => return name(network, call),
        i::SIOCGIFFLAGS | i::SIOCSIFFLAGS | i::SIOCGIFMTU | i::SIOCGIFHWADDR | i::SIOCGIFINDEX => {}
        i::SIOCGIFMETRIC | i::SIOCGIFTXQLEN | i::SIOCGIFADDR | i::SIOCGIFDSTADDR => {}
        i::SIOCGIFBRDADDR | i::SIOCGIFNETMASK | i::SIOCGIFMAP | i::SIOCGIFSLAVE => {}
        SIOCETHTOOL | SIOCGHWTSTAMP | SIOCBONDINFOQUERY | SIOCBONDSLAVEINFOQUERY => {}
        i::SIOCDEVPRIVATE..=SIOCDEVPRIVATE_LAST => {}
        _ if is_for_admins(call.request) => {
            if !call.cred.has_in(&network.owner, Caps::NET_ADMIN) {
                return Err(Errno::EPERM);
            }
        }
        i::SIOCADDRT | i::SIOCDELRT => {
            let may = call.cred.has_in(&network.owner, Caps::NET_ADMIN);
            return Err(if may { Errno::EOPNOTSUPP } else { Errno::EPERM });
        }
        _ => return Err(Errno::ENOTTY),
    }
    let mut request: [u8; REQUEST] = call.mm.read_val(call.arg)?;
    let end = request[..NAME - 1].iter().position(|byte| *byte == 0).unwrap_or(NAME - 1);
    let wanted = String::from_utf8_lossy(&request[..end]).into_owned();
    // Of an interface with several addresses each has a name.
    let plain = wanted.split(':').next().unwrap_or_default().to_owned();
    let known = network.interfaces().links().find(|link| link.name == plain).ok_or(Errno::ENODEV)?;
    if let Some(done) = change(network, call, &known, &request) {
        return done;
    }
    if call.request == SIOCETHTOOL {
        return driver(network, call, &known, &request);
    }
    let value = value(network, call.request, &known, &wanted)?;
    request[NAME..NAME + value.len()].copy_from_slice(&value);
    call.mm.write(call.arg, &request)?;
    Ok(0)
}

/// Whether a request is made by who administers the network only: what changes an interface, and its transceiver's registers.
fn is_for_admins(request: u32) -> bool {
    matches!(
        request,
        i::SIOCSIFADDR
            | i::SIOCSIFDSTADDR
            | i::SIOCSIFBRDADDR
            | i::SIOCSIFNETMASK
            | i::SIOCSIFMTU
            | i::SIOCSIFMETRIC
            | i::SIOCSIFHWADDR
            | i::SIOCSIFHWBROADCAST
            | i::SIOCSIFMAP
            | i::SIOCSIFNAME
            | i::SIOCSIFTXQLEN
            | i::SIOCSIFSLAVE
            | i::SIOCADDMULTI
            | i::SIOCDELMULTI
            | SIOCGMIIPHY
            | SIOCGMIIREG
            | SIOCSMIIREG
            | SIOCSHWTSTAMP
    )
}

/// SIOCETHTOOL: what a driver says of an interface (ethtool(8)). There are none here: only whether its link is up is known. What
/// may be asked without rights is what reads settings alone (dev_ethtool).
fn driver(network: &Namespace, call: &Ioctl<'_>, known: &Interface, request: &[u8; REQUEST]) -> Result<u64> {
    let at = u64::from_ne_bytes(std::array::from_fn(|i| request[NAME + i]));
    let command: u32 = call.mm.read_val(at)?;
    if command == ETHTOOL_GLINK {
        let running = u32::from(known.flags & RUNNING != 0);
        call.mm.write_val(at, &[command, running])?;
        return Ok(0);
    }
    let reads = ETHTOOL_READS.contains(&command);
    let may = reads || call.cred.has_in(&network.owner, Caps::NET_ADMIN);
    Err(if may { Errno::EOPNOTSUPP } else { Errno::EPERM })
}

/// Requests that change an interface; `None` for others. Who may not change it was refused before, but for its flags.
fn change(
    network: &Namespace,
    call: &Ioctl<'_>,
    known: &Interface,
    request: &[u8; REQUEST],
) -> Option<Result<u64>> {
    let word = u32::from_ne_bytes(std::array::from_fn(|i| request[NAME + i]));
    let name = &known.name;
    let done = match call.request {
        i::SIOCSIFFLAGS if !call.cred.has_in(&network.owner, Caps::NET_ADMIN) => Err(Errno::EPERM),
        i::SIOCSIFFLAGS if word & UP == known.flags & UP => Ok(()),
        i::SIOCSIFFLAGS => network.switch_link(name, word & UP != 0),
        i::SIOCSIFMTU => network.set_mtu(name, word),
        i::SIOCSIFTXQLEN if word > i32::MAX as u32 => Err(Errno::EINVAL),
        i::SIOCSIFTXQLEN => network.set_queue(name, word),
        i::SIOCSIFNAME => {
            let new = request[NAME..2 * NAME - 1].split(|&byte| byte == 0).next().unwrap_or_default();
            std::str::from_utf8(new).map_err(|_| Errno::EINVAL).and_then(|new| network.rename_link(name, new))
        }
        _ => return None,
    };
    Some(done.map(|()| 0))
}

fn sockaddr(ip: Ipv4Addr) -> Vec<u8> {
    [&INET.to_ne_bytes()[..], &[0; 2], &ip.octets(), &[0; 8]].concat()
}

/// The IPv4 address that a name is of: the first, where it is just the interface's.
fn own_address(network: &Namespace, known: &Interface, wanted: &str) -> Result<(Own, Ipv4Addr)> {
    let interfaces = network.interfaces();
    let all = interfaces.addresses().filter(|own| own.index == known.index);
    let mut all = all.filter_map(|own| match own.ip {
        IpAddr::V4(ip) => Some((own, ip)),
        IpAddr::V6(_) => None,
    });
    all.find(|(own, _)| own.label.as_deref().is_none_or(|label| label == wanted)).ok_or(Errno::EADDRNOTAVAIL)
}

fn value(network: &Namespace, request: u32, known: &Interface, wanted: &str) -> Result<Vec<u8>> {
    let int = |value: u32| value.to_ne_bytes().to_vec();
    Ok(match request {
        i::SIOCGIFFLAGS => (known.flags as u16).to_ne_bytes().to_vec(),
        i::SIOCGIFMTU => int(known.mtu),
        i::SIOCGIFINDEX => int(known.index),
        i::SIOCGIFMETRIC => int(0),
        // It has neither memory nor ports.
        i::SIOCGIFMAP => vec![0; size_of::<n::ifmap>()],
        i::SIOCGIFSLAVE => return Err(Errno::EINVAL),
        SIOCGHWTSTAMP | SIOCBONDINFOQUERY | SIOCBONDSLAVEINFOQUERY => return Err(Errno::EOPNOTSUPP),
        i::SIOCDEVPRIVATE..=SIOCDEVPRIVATE_LAST => return Err(Errno::EOPNOTSUPP),
        // Addresses are changed by netlink(7) alone.
        _ if is_for_admins(request) => return Err(Errno::EOPNOTSUPP),
        i::SIOCGIFTXQLEN => int(known.queue),
        i::SIOCGIFHWADDR => {
            let mut value = known.hardware.to_ne_bytes().to_vec();
            value.extend(known.address.iter().take(14));
            value.resize(16, 0);
            value
        }
        i::SIOCGIFADDR | i::SIOCGIFDSTADDR => sockaddr(own_address(network, known, wanted)?.1),
        i::SIOCGIFBRDADDR => {
            let own = own_address(network, known, wanted)?.0;
            sockaddr(own.broadcast.unwrap_or(Ipv4Addr::UNSPECIFIED))
        }
        _ => {
            let prefix = u32::from(own_address(network, known, wanted)?.0.prefix.min(32));
            sockaddr(Ipv4Addr::from(u32::MAX.checked_shl(32 - prefix).unwrap_or(0)))
        }
    })
}

/// SIOCGIFNAME: the name of a number.
fn name(network: &Namespace, call: &Ioctl<'_>) -> Result<u64> {
    let mut request: [u8; REQUEST] = call.mm.read_val(call.arg)?;
    let index = u32::from_ne_bytes(std::array::from_fn(|i| request[NAME + i]));
    let known = network.interfaces().links().find(|link| link.index == index).ok_or(Errno::ENODEV)?;
    request[..NAME].fill(0);
    let name = known.name.as_bytes();
    let len = name.len().min(NAME - 1);
    request[..len].copy_from_slice(&name[..len]);
    call.mm.write(call.arg, &request)?;
    Ok(0)
}

/// SIOCGIFCONF: all that have an IPv4 address; how much room that takes, where no place for it is given.
fn list(network: &Namespace, call: &Ioctl<'_>) -> Result<u64> {
    let [len, at]: [u64; 2] = call.mm.read_val(call.arg)?;
    let room = len as u32 as i32;
    let mut all = Vec::new();
    for own in network.interfaces().addresses() {
        let IpAddr::V4(ip) = own.ip else { continue };
        let name = own.label.unwrap_or_default();
        let mut entry = name.into_bytes();
        entry.resize(NAME, 0);
        entry[NAME - 1] = 0;
        entry.extend(sockaddr(ip));
        entry.resize(REQUEST, 0);
        if at == 0 || all.len() + REQUEST <= usize::try_from(room).unwrap_or(0) {
            all.extend(entry);
        }
    }
    if at != 0 {
        call.mm.write(at, &all)?;
    }
    call.mm.write_val(call.arg, &(all.len() as i32))?;
    Ok(0)
}
