//! Options of the level SOL_SOCKET that all families have, and how options come and go.

use super::{Core, Kind, Namespace, Socket};
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::mm::Mm;
use crate::time::{Given, NSEC_PER_USEC};
use linux_raw_sys::net as n;

/// net.core.wmem_default and rmem_default, and wmem_max and rmem_max: most that can be asked for.
pub const BUFFER: u32 = 212_992;
/// SOCK_MIN_SNDBUF and SOCK_MIN_RCVBUF.
const LEAST_SEND: u32 = 2 * (2048 + 256);
const LEAST_RECEIVE: u32 = 2304;

/// What setsockopt(2) has set.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// SO_RCVTIMEO, ns.
    pub receive_timeout: Option<u64>,
    /// SO_SNDTIMEO, ns.
    pub send_timeout: Option<u64>,
    /// SO_RCVLOWAT.
    pub receive_low: u32,
    /// SO_RCVBUF.
    pub receive_buffer: u32,
    /// SO_SNDBUF.
    pub send_buffer: u32,
    /// Whether the program has chosen SO_RCVBUF, and SO_SNDBUF: buffers then do not grow with use.
    pub fixed: (bool, bool),
    /// SO_PRIORITY.
    pub priority: i32,
    /// SO_MARK.
    pub mark: i32,
    /// SO_BINDTODEVICE: the number of an interface, or 0.
    pub device: u32,
    /// SO_LINGER: whether, and seconds.
    pub linger: (bool, i32),
    /// Options that are on or off: a bit for each number.
    pub switches: u64,
}

impl Default for Options {
    fn default() -> Self {
        Options {
            receive_timeout: None,
            send_timeout: None,
            receive_low: 1,
            receive_buffer: BUFFER,
            send_buffer: BUFFER,
            fixed: (false, false),
            priority: 0,
            mark: 0,
            device: 0,
            linger: (false, 0),
            switches: 0,
        }
    }
}

impl Options {
    /// Whether one of the options is on that are on or off.
    pub fn is_on(&self, name: u32) -> bool {
        name < 64 && self.switches & 1 << name != 0
    }

    /// Turns one on that is on from the start.
    pub fn turn_on(&mut self, name: u32) {
        self.switches |= 1 << name;
    }
}

/// What a program sets an option to.
pub struct Value<'a> {
    /// The program's memory.
    pub mm: &'a Mm,
    /// Where it lies there.
    pub addr: u64,
    /// Its length in bytes.
    pub len: usize,
}

impl Value<'_> {
    /// The first `N` bytes.
    ///
    /// # Errors
    /// EINVAL if it is shorter, EFAULT.
    pub fn bytes<const N: usize>(&self) -> Result<[u8; N]> {
        if self.len < N {
            return Err(Errno::EINVAL);
        }
        self.mm.read_val(self.addr)
    }

    /// An int.
    ///
    /// # Errors
    /// As [`bytes`](Self::bytes).
    pub fn int(&self) -> Result<i32> {
        self.bytes().map(i32::from_ne_bytes)
    }

    /// As much of it as there is, `max` bytes at most.
    ///
    /// # Errors
    /// EFAULT.
    pub fn text(&self, max: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; self.len.min(max)];
        self.mm.read(self.addr, &mut bytes)?;
        Ok(bytes)
    }

    /// A `struct timeval` in nanoseconds. None is for ever; what lies in the past is at once.
    fn timeval(&self) -> Result<Option<u64>> {
        let bytes: [u8; 16] = self.bytes()?;
        let word = |at: usize| i64::from_ne_bytes(std::array::from_fn(|i| bytes[at + i]));
        let (sec, usec) = (word(0), word(8));
        if sec < 0 && (0..1_000_000).contains(&usec) {
            return Ok(Some(0));
        }
        let ns = Given::from_parts(sec, usec, NSEC_PER_USEC).map(Given::ns).ok_or(Errno::EDOM)?;
        Ok(Some(ns).filter(|&ns| ns > 0))
    }
}

/// What an option is.
pub enum Answer {
    /// Its bytes; a program with less room gets what fits.
    Value(Vec<u8>),
    /// It needs so many bytes and is of no use in parts: ERANGE.
    TooLong(usize),
}

impl Answer {
    /// An int.
    pub fn int(value: i32) -> Answer {
        Answer::Value(value.to_ne_bytes().to_vec())
    }

    /// Several.
    pub fn ints(values: &[i32]) -> Answer {
        Answer::Value(values.iter().flat_map(|value| value.to_ne_bytes()).collect())
    }
}

/// The size that a value of SO_SNDBUF, SO_RCVBUF or one of their forcing kin asks for: twice of what it says, which is what
/// getsockopt shows.
///
/// # Errors
/// EPERM, EINVAL, EFAULT.
pub fn buffer_size(cred: &Cred, name: u32, value: i32) -> Result<u32> {
    let force = matches!(name, n::SO_SNDBUFFORCE | n::SO_RCVBUFFORCE);
    if force && !cred.has(Caps::NET_ADMIN) {
        return Err(Errno::EPERM);
    }
    let asked = if force { value.max(0) as u32 } else { (value as u32).min(BUFFER) };
    let least = if matches!(name, n::SO_SNDBUF | n::SO_SNDBUFFORCE) { LEAST_SEND } else { LEAST_RECEIVE };
    Ok(asked.min(i32::MAX as u32 / 2).saturating_mul(2).max(least))
}

/// Sets an option of the level SOL_SOCKET.
///
/// # Errors
/// ENOPROTOOPT, EINVAL, EDOM, EPERM, ENODEV, EFAULT.
pub fn set(core: &Core, network: &Namespace, cred: &Cred, name: u32, value: &Value<'_>) -> Result<()> {
    if name == n::SO_BINDTODEVICE {
        return bind_to_device(core, network, cred, value);
    }
    if value.len < 4 {
        return Err(Errno::EINVAL);
    }
    if matches!(name, n::SO_RCVTIMEO_OLD | n::SO_SNDTIMEO_OLD | n::SO_LINGER) {
        return set_time(core, name, value);
    }
    let value = value.int()?;
    let may_force = cred.has(Caps::NET_ADMIN);
    let mut options = core.options.lock();
    match name {
        n::SO_RCVLOWAT => {
            options.receive_low = match value {
                ..0 => i32::MAX as u32,
                0 => 1,
                _ => value as u32,
            }
        }
        n::SO_SNDBUF | n::SO_SNDBUFFORCE => {
            options.send_buffer = buffer_size(cred, name, value)?;
            options.fixed.1 = true;
        }
        n::SO_RCVBUF | n::SO_RCVBUFFORCE => {
            options.receive_buffer = buffer_size(cred, name, value)?;
            options.fixed.0 = true;
        }
        n::SO_PRIORITY if (0..=6).contains(&value) || may_force => options.priority = value,
        n::SO_PRIORITY | n::SO_MARK if !may_force => return Err(Errno::EPERM),
        n::SO_MARK => options.mark = value,
        n::SO_BINDTOIFINDEX => {
            // Nobody asks whether there is such an interface.
            let device = u32::try_from(value).map_err(|_| Errno::EINVAL)?;
            may_change_device(&options, network, cred)?;
            options.device = device;
        }
        name if is_switch(name) && value != 0 => options.switches |= 1 << name,
        name if is_switch(name) => options.switches &= !(1 << name),
        _ => return Err(Errno::ENOPROTOOPT),
    }
    Ok(())
}

/// Those that say how long.
fn set_time(core: &Core, name: u32, value: &Value<'_>) -> Result<()> {
    if name == n::SO_LINGER {
        let bytes: [u8; 8] = value.bytes()?;
        let [on, seconds] = [0, 4].map(|at| i32::from_ne_bytes(std::array::from_fn(|i| bytes[at + i])));
        let mut options = core.options.lock();
        // Switched off it keeps the seconds of before.
        options.linger = (on != 0, if on != 0 { seconds } else { options.linger.1 });
        return Ok(());
    }
    let timeout = value.timeval()?;
    let mut options = core.options.lock();
    if name == n::SO_RCVTIMEO_OLD {
        options.receive_timeout = timeout;
    } else {
        options.send_timeout = timeout;
    }
    Ok(())
}

/// IFNAMSIZ.
const NAME_LEN: usize = 16;

/// Who is not privileged may choose a device, and not another afterwards (Linux 5.7).
fn may_change_device(options: &Options, network: &Namespace, cred: &Cred) -> Result<()> {
    let may = options.device == 0 || cred.has_in(&network.owner, Caps::NET_RAW);
    if may { Ok(()) } else { Err(Errno::EPERM) }
}

/// SO_BINDTODEVICE (socket(7)): by the name of an interface; none ends it.
fn bind_to_device(core: &Core, network: &Namespace, cred: &Cred, value: &Value<'_>) -> Result<()> {
    let text = value.text(NAME_LEN - 1)?;
    let name = text.split(|byte| *byte == 0).next().unwrap_or_default();
    let device = match name {
        [] => 0,
        _ => {
            let known = network.interfaces().links().find(|link| link.name.as_bytes() == name);
            known.ok_or(Errno::ENODEV)?.index
        }
    };
    let mut options = core.options.lock();
    may_change_device(&options, network, cred)?;
    options.device = device;
    Ok(())
}

/// The name of the interface that a socket is bound to; empty if there is none.
fn device_name(device: u32, network: &Namespace, room: usize) -> Result<Answer> {
    if device == 0 {
        return Ok(Answer::Value(Vec::new()));
    }
    if room < NAME_LEN {
        return Err(Errno::EINVAL);
    }
    let known = network.interfaces().links().find(|link| link.index == device).ok_or(Errno::ENODEV)?;
    Ok(Answer::Value([known.name.as_bytes(), &[0]].concat()))
}

/// Options that are on or off, most of which mean something to some families only.
fn is_switch(name: u32) -> bool {
    matches!(
        name,
        n::SO_REUSEADDR
            | n::SO_KEEPALIVE
            | n::SO_REUSEPORT
            | n::SO_DONTROUTE
            | n::SO_OOBINLINE
            | n::SO_TIMESTAMP_OLD
            | n::SO_PASSSEC
            | n::SO_BROADCAST
            | n::SO_NO_CHECK
    )
}

/// What an option of the level SOL_SOCKET is.
///
/// # Errors
/// ENOPROTOOPT, EINVAL, ENODEV.
pub fn get(socket: &dyn Socket, network: &Namespace, name: u32, room: usize) -> Result<Answer> {
    let core = socket.core();
    let options = *core.options.lock();
    let value = match name {
        n::SO_RCVTIMEO_OLD | n::SO_SNDTIMEO_OLD => {
            let timeout =
                if name == n::SO_RCVTIMEO_OLD { options.receive_timeout } else { options.send_timeout };
            let ns = timeout.unwrap_or(0);
            let words = [ns / 1_000_000_000, ns % 1_000_000_000 / 1000];
            return Ok(Answer::Value(words.iter().flat_map(|word| word.to_ne_bytes()).collect()));
        }
        n::SO_LINGER => return Ok(Answer::ints(&[options.linger.0.into(), options.linger.1])),
        n::SO_PEERCRED => {
            // Where nobody is known: process 0, and no user.
            let creds = socket
                .peer()
                .map_or((0, u32::MAX, u32::MAX), |peer| (peer.creds.pid, peer.creds.uid, peer.creds.gid));
            return Ok(Answer::ints(&[creds.0, creds.1 as i32, creds.2 as i32]));
        }
        n::SO_TYPE => core.kind.number() as i32,
        n::SO_DOMAIN => core.domain.into(),
        n::SO_PROTOCOL => core.protocol.into(),
        n::SO_ERROR => socket.take_error().map_or(0, |errno| errno.0),
        n::SO_SNDBUF => options.send_buffer as i32,
        n::SO_RCVBUF => options.receive_buffer as i32,
        n::SO_RCVLOWAT => options.receive_low as i32,
        n::SO_SNDLOWAT => 1,
        n::SO_ACCEPTCONN => socket.is_listening().into(),
        n::SO_PRIORITY => options.priority,
        n::SO_MARK => options.mark,
        n::SO_BINDTODEVICE => return device_name(options.device, network, room),
        n::SO_BINDTOIFINDEX => options.device as i32,
        name if is_switch(name) => options.is_on(name).into(),
        _ => return Err(Errno::ENOPROTOOPT),
    };
    Ok(Answer::int(value))
}

/// SO_PEERGROUPS: all of them or none, but how much they take is told.
///
/// # Errors
/// ENODATA.
pub fn peer_groups(socket: &dyn Socket, room: usize) -> Result<Answer> {
    let peer = socket.peer().ok_or(Errno::ENODATA)?;
    let bytes: Vec<u8> = peer.groups.iter().flat_map(|group| group.to_ne_bytes()).collect();
    Ok(if room < bytes.len() { Answer::TooLong(bytes.len()) } else { Answer::Value(bytes) })
}

/// Whether a stream: what was sent joins, and ends with a signal.
pub fn is_stream(socket: &dyn Socket) -> bool {
    socket.core().kind == Kind::Stream
}
