//! Interfaces that are made, changed, carried to other networks and taken away, by requests that are nearly right, and what is
//! sent by them.

use crate::values::Values;

const NAMES: [&str; 6] = ["a", "b", "veth0", "lo", "dummy7", "x/y"];
const KINDS: [&str; 4] = ["veth", "veth", "dummy", "bridge"];
/// RTM_NEWLINK, DELLINK, SETLINK, NEWADDR, DELADDR, NEWROUTE, DELROUTE, GETLINK, GETROUTE, GETNSID.
const TYPES: [u16; 14] = [16, 16, 16, 17, 19, 20, 20, 21, 24, 24, 25, 18, 26, 90];

fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + value.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// What requests are made of.
pub(crate) struct Links<'a> {
    pub(crate) values: &'a mut Values,
    /// Whose networks things are carried to.
    pub(crate) children: &'a [i64],
    /// Descriptors, of networks among others.
    pub(crate) opened: &'a [i64],
}

impl Links<'_> {
    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.values.rng.usize(0..of.len())]
    }

    fn chance(&mut self) -> bool {
        self.values.rng.u8(0..3) == 0
    }

    fn text(&mut self, kind: u16, of: &[&str]) -> Vec<u8> {
        let text = self.one(of);
        attribute(kind, &[text.as_bytes(), &[0]].concat())
    }

    /// The network of a child or of a descriptor.
    fn network(&mut self) -> Vec<u8> {
        let all = if self.values.rng.bool() { self.children } else { self.opened };
        let one = if all.is_empty() { 1 } else { self.one(all) as u32 };
        let kind = if self.values.rng.bool() { libc::IFLA_NET_NS_PID } else { libc::IFLA_NET_NS_FD };
        attribute(kind, &one.to_ne_bytes())
    }

    fn link(&mut self, depth: u32) -> Vec<u8> {
        let index = if self.chance() { self.values.rng.u32(0..12) } else { 0 };
        let up = self.values.rng.u32(0..2);
        let head = [[0; 4], index.to_ne_bytes(), up.to_ne_bytes(), 1_u32.to_ne_bytes()];
        let mut bytes = head.concat();
        bytes.extend(self.text(libc::IFLA_IFNAME, &NAMES));
        if self.chance() {
            bytes.extend(self.network());
        }
        if self.chance() {
            let mtu = self.values.rng.u32(..);
            bytes.extend(attribute(libc::IFLA_MTU, &mtu.to_ne_bytes()));
        }
        if depth == 0 && self.values.rng.bool() {
            let mut info = self.text(libc::IFLA_INFO_KIND, &KINDS);
            let peer = attribute(1, &self.link(1));
            info.extend(attribute(libc::IFLA_INFO_DATA, &peer));
            bytes.extend(attribute(libc::IFLA_LINKINFO, &info));
        }
        bytes
    }

    fn ip(&mut self) -> [u8; 4] {
        let last = self.values.rng.u8(0..4);
        self.one(&[[10, 0, 0, last], [10, 0, 1, last], [127, 0, 0, last], [0; 4], [224, 0, 0, 1]])
    }

    fn prefix(&mut self) -> u8 {
        self.one(&[0, 8, 24, 24, 32, 33])
    }

    fn address(&mut self) -> Vec<u8> {
        let (prefix, index, ip) = (self.prefix(), self.values.rng.u32(0..8), self.ip());
        let head = [&[libc::AF_INET as u8, prefix, 0, 0][..], &index.to_ne_bytes()].concat();
        [head, attribute(libc::IFA_LOCAL, &ip), attribute(libc::IFA_ADDRESS, &ip)].concat()
    }

    fn way(&mut self) -> Vec<u8> {
        let (prefix, kind) = (self.prefix(), self.values.rng.u8(0..9));
        let mut bytes = vec![libc::AF_INET as u8, prefix, 0, 0, 254, 3, 0, kind, 0, 0, 0, 0];
        bytes.extend(attribute(libc::RTA_DST, &self.ip()));
        if self.values.rng.bool() {
            bytes.extend(attribute(libc::RTA_GATEWAY, &self.ip()));
        }
        if self.values.rng.bool() {
            let index = self.values.rng.u32(0..8);
            bytes.extend(attribute(libc::RTA_OIF, &index.to_ne_bytes()));
        }
        bytes
    }

    /// Makes a few requests, in one message, and reads some of the answers.
    pub(crate) fn ask(&mut self) {
        let mut bytes = Vec::new();
        for _ in 0..self.values.rng.u8(1..6) {
            let kind = self.one(&TYPES);
            let mut payload = match kind {
                16..=19 => self.link(0),
                20..=23 => self.address(),
                24..=27 => self.way(),
                _ => [vec![0; 4], self.network()].concat(),
            };
            if self.values.rng.u8(0..16) == 0 {
                payload.truncate(self.values.rng.usize(0..payload.len()));
            }
            let flags = 5 | self.one(&[0_u16, 0x100, 0x200, 0x400, 0x600, 0x500]);
            bytes.extend((16 + payload.len() as u32).to_ne_bytes());
            bytes.extend(kind.to_ne_bytes());
            bytes.extend(flags.to_ne_bytes());
            bytes.extend([0; 8]);
            bytes.extend(payload);
            bytes.resize(bytes.len().next_multiple_of(4), 0);
        }
        let fd = sys!(libc::SYS_socket, libc::AF_NETLINK, libc::SOCK_RAW | libc::SOCK_NONBLOCK, 0);
        sys!(libc::SYS_sendto, fd, bytes.as_ptr(), bytes.len(), 0, 0, 0);
        let mut answer = [0_u8; 8192];
        for _ in 0..4 {
            sys!(libc::SYS_read, fd, answer.as_mut_ptr(), answer.len());
        }
        sys!(libc::SYS_close, fd);
    }

    /// Connects, or sends a datagram, to one of the addresses.
    pub(crate) fn talk(&mut self) {
        let kind = self.one(&[libc::SOCK_STREAM, libc::SOCK_DGRAM]) | libc::SOCK_NONBLOCK;
        let fd = sys!(libc::SYS_socket, libc::AF_INET, kind, 0);
        let mut name = [0_u8; 16];
        name[0] = libc::AF_INET as u8;
        name[3] = 7;
        name[4..8].copy_from_slice(&self.ip());
        sys!(libc::SYS_bind, fd, name.as_ptr(), 16);
        sys!(libc::SYS_listen, fd, 4);
        name[4..8].copy_from_slice(&self.ip());
        let from = sys!(libc::SYS_socket, libc::AF_INET, kind, 0);
        sys!(libc::SYS_connect, from, name.as_ptr(), 16);
        sys!(libc::SYS_sendto, from, name.as_ptr(), 16, libc::MSG_NOSIGNAL, 0, 0);
        sys!(libc::SYS_close, from);
        sys!(libc::SYS_close, fd);
    }
}
