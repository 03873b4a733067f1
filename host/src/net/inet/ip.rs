//! Options of the levels IPPROTO_IP and IPPROTO_IPV6 (ip(7), ipv6(7)): which there are, what they may be, and what they are
//! unless set. What does something with them asks for them by name.

use super::multicast;
use crate::abi::{Errno, Result};
use crate::cred::{Caps, Cred};
use crate::net::{Answer, Value};

/// IPPROTO_IP.
pub(super) const IP: u32 = 0;
/// IPPROTO_IPV6.
pub(super) const IPV6: u32 = 41;

/// Options that others ask for.
pub(super) mod name {
    pub(in super::super) const IP_MTU: u32 = 14;
    pub(in super::super) const IPV6_MTU: u32 = 24;
    pub(in super::super) const IP_TOS: u32 = 1;
    pub(in super::super) const IP_TTL: u32 = 2;
    pub(in super::super) const IP_PKTINFO: u32 = 8;
    pub(in super::super) const IP_RECVERR: u32 = 11;
    pub(in super::super) const IP_RECVTTL: u32 = 12;
    pub(in super::super) const IP_RECVTOS: u32 = 13;
    pub(in super::super) const IP_MULTICAST_TTL: u32 = 33;
    pub(in super::super) const IP_MULTICAST_LOOP: u32 = 34;
    pub(in super::super) const IPV6_UNICAST_HOPS: u32 = 16;
    pub(in super::super) const IPV6_MULTICAST_HOPS: u32 = 18;
    pub(in super::super) const IPV6_MULTICAST_LOOP: u32 = 19;
    pub(in super::super) const IPV6_RECVERR: u32 = 25;
    pub(in super::super) const IPV6_V6ONLY: u32 = 26;
    pub(in super::super) const IPV6_RECVPKTINFO: u32 = 49;
    pub(in super::super) const IPV6_PKTINFO: u32 = 50;
    pub(in super::super) const IPV6_RECVHOPLIMIT: u32 = 51;
    pub(in super::super) const IPV6_HOPLIMIT: u32 = 52;
    pub(in super::super) const IPV6_RECVTCLASS: u32 = 66;
    pub(in super::super) const IPV6_TCLASS: u32 = 67;
}

/// The mtu of the loopback interface, and most that IPv4 has.
const MTU: i32 = 65_536;
const MTU_V4: i32 = 65_535;
/// What a TTL or hop limit of -1 stands for.
const HOPS: i32 = 64;

/// What an option may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Range {
    /// On or off.
    Switch,
    /// On or off; only some may turn it on.
    Privileged,
    /// Within these.
    Within(i32, i32),
    /// Within these, or -1 for what it was at first.
    OrDefault(i32, i32),
    /// A byte.
    Byte,
    /// Of multicast: not for streams. Within these, or -1.
    Multicast(i32, i32),
}

use Range::{Byte, Multicast, OrDefault, Privileged, Switch, Within};

/// Level, number, value at first, what it may be.
const TABLE: &[(u32, u32, i32, Range)] = &[
    (IP, 1, 0, Byte),                    // IP_TOS
    (IP, 2, HOPS, OrDefault(1, 255)),    // IP_TTL
    (IP, 6, 0, Switch),                  // IP_RECVOPTS
    (IP, 7, 0, Switch),                  // IP_RETOPTS
    (IP, 8, 0, Switch),                  // IP_PKTINFO
    (IP, 10, 1, Within(0, 5)),           // IP_MTU_DISCOVER
    (IP, 11, 0, Switch),                 // IP_RECVERR
    (IP, 12, 0, Switch),                 // IP_RECVTTL
    (IP, 13, 0, Switch),                 // IP_RECVTOS
    (IP, 15, 0, Switch),                 // IP_FREEBIND
    (IP, 18, 0, Switch),                 // IP_PASSSEC
    (IP, 19, 0, Privileged),             // IP_TRANSPARENT
    (IP, 20, 0, Switch),                 // IP_RECVORIGDSTADDR
    (IP, 21, 0, Within(0, 255)),         // IP_MINTTL
    (IP, 24, 0, Switch),                 // IP_BIND_ADDRESS_NO_PORT
    (IP, 33, 1, Multicast(0, 255)),      // IP_MULTICAST_TTL
    (IP, 34, 1, Switch),                 // IP_MULTICAST_LOOP
    (IPV6, 16, HOPS, OrDefault(0, 255)), // IPV6_UNICAST_HOPS
    (IPV6, 18, 1, Multicast(0, 255)),    // IPV6_MULTICAST_HOPS
    (IPV6, 19, 1, Within(0, 1)),         // IPV6_MULTICAST_LOOP
    (IPV6, 23, 1, Within(0, 5)),         // IPV6_MTU_DISCOVER
    (IPV6, 25, 0, Switch),               // IPV6_RECVERR
    (IPV6, name::IPV6_V6ONLY, 0, Switch),
    (IPV6, 49, 0, Switch), // IPV6_RECVPKTINFO
    (IPV6, 51, 0, Switch), // IPV6_RECVHOPLIMIT
    (IPV6, 53, 0, Switch), // IPV6_RECVRTHDR
    (IPV6, 54, 0, Switch), // IPV6_RECVHOPOPTS
    (IPV6, 56, 0, Switch), // IPV6_RECVDSTOPTS
    (IPV6, 62, 0, Switch), // IPV6_DONTFRAG
    (IPV6, 66, 0, Switch), // IPV6_RECVTCLASS
    (IPV6, name::IPV6_TCLASS, 0, OrDefault(0, 255)),
    (IPV6, 73, 0, Within(0, 255)), // IPV6_MINHOPCOUNT
    (IPV6, 75, 0, Privileged),     // IPV6_TRANSPARENT
    (IPV6, 78, 0, Switch),         // IPV6_FREEBIND
];

/// Those that a program has set.
#[derive(Clone, Debug, Default)]
pub(super) struct IpOptions {
    set: Vec<(u32, u32, i32)>,
}

impl IpOptions {
    /// Whether one that is on or off is on.
    pub(super) fn is_on(&self, level: u32, name: u32) -> bool {
        self.set.contains(&(level, name, 1))
    }

    /// What an option is.
    pub(super) fn value(&self, level: u32, name: u32) -> i32 {
        let set = self.set.iter().find(|known| (known.0, known.1) == (level, name));
        let row = || TABLE.iter().find(|row| (row.0, row.1) == (level, name)).map_or(0, |row| row.2);
        set.map_or_else(row, |known| known.2)
    }

    /// setsockopt(2), once it is clear that the level is the socket's.
    ///
    /// # Errors
    /// ENOPROTOOPT, EINVAL, EPERM, EFAULT.
    pub(super) fn set(
        &mut self,
        cred: &Cred,
        stream: bool,
        level: u32,
        name: u32,
        value: &Value<'_>,
    ) -> Result<()> {
        if stream && multicast::knows(level, name) {
            return Err(multicast::refused_by_streams(level, name));
        }
        let row = TABLE.iter().find(|row| (row.0, row.1) == (level, name));
        // Of the older level a byte will do.
        let value = match (level, value.len) {
            (IP, 1..4) => value.bytes::<1>()?[0].into(),
            (_, 0) if level == IP => 0,
            _ => value.int()?,
        };
        let (_, _, at_first, range) = row.ok_or(Errno::ENOPROTOOPT)?;
        let value = match *range {
            Switch => i32::from(value != 0),
            Privileged if value != 0 && !cred.has(Caps::NET_ADMIN) && !cred.has(Caps::NET_RAW) => {
                return Err(Errno::EPERM);
            }
            Privileged => i32::from(value != 0),
            // A stream's two lowest bits are not the program's (INET_ECN_MASK).
            Byte if stream => value & 0xfc,
            Byte => value & 0xff,
            Multicast(..) if stream => {
                return Err(if level == IP { Errno::EINVAL } else { Errno::ENOPROTOOPT });
            }
            OrDefault(..) | Multicast(..) if value == -1 => *at_first,
            OrDefault(..)
                if stream && (level, name) == (IPV6, name::IPV6_TCLASS) && (0..256).contains(&value) =>
            {
                value & 0xfc
            }
            Within(low, high) | OrDefault(low, high) | Multicast(low, high) => {
                Some(value).filter(|value| (low..=high).contains(value)).ok_or(Errno::EINVAL)?
            }
        };
        self.set.retain(|known| (known.0, known.1) != (level, name));
        if value != *at_first {
            self.set.push((level, name, value));
        }
        Ok(())
    }

    /// getsockopt(2); `connected`: there is a way whose mtu can be told.
    ///
    /// # Errors
    /// ENOPROTOOPT, ENOTCONN.
    pub(super) fn get(&self, level: u32, name: u32, room: usize, connected: bool) -> Result<Answer> {
        let value = match (level, name) {
            (IP, name::IP_MTU) | (IPV6, name::IPV6_MTU) if !connected => return Err(Errno::ENOTCONN),
            (IP, name::IP_MTU) => MTU_V4,
            (IPV6, name::IPV6_MTU) => MTU,
            _ => {
                let row =
                    TABLE.iter().find(|row| (row.0, row.1) == (level, name)).ok_or(Errno::ENOPROTOOPT)?;
                let set = self.set.iter().find(|known| (known.0, known.1) == (level, name));
                set.map_or(row.2, |known| known.2)
            }
        };
        Ok(match u8::try_from(value) {
            Ok(byte) if level == IP && (1..4).contains(&room) => Answer::Value(vec![byte]),
            _ => Answer::int(value),
        })
    }
}
