//! Generic netlink: what its controller says, and refuses.

use super::{DUMP, REQUEST, message, netlink, receive, send, word};
use crate::sys::{close, show};

const GENERIC: i32 = 16;
const CONTROLLER: u16 = 16;
const GET_FAMILY: u8 = 3;

fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = ((4 + data.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

/// Asks, and says what the first answer is: its type, and an error, or a family by what begins its description.
fn ask(what: &str, kind: u16, flags: u16, payload: &[u8]) {
    let fd = netlink(GENERIC);
    let sent = send(fd, &message(kind, REQUEST | flags, payload));
    let (count, bytes) = receive(fd, 0);
    let said = match word(&bytes, 4) & 0xffff {
        2 => show((word(&bytes, 16) as i32).into()),
        _ => format!("{:?}", bytes.get(16..60).unwrap_or_default()),
    };
    println!("{what}: {} {} {said}", show(sent), count > 0);
    close(fd);
}

pub(super) fn controller() {
    let get = |attributes: &[u8]| [&[GET_FAMILY, 1, 0, 0], attributes].concat();
    let named = |name: &[u8]| get(&attribute(2, name));
    ask("itself", CONTROLLER, 0, &named(b"nlctrl\0"));
    ask("by its number", CONTROLLER, 0, &get(&attribute(1, &CONTROLLER.to_ne_bytes())));
    ask("no such name", CONTROLLER, 0, &named(b"nosuchfamily\0"));
    ask("no such number", CONTROLLER, 0, &get(&attribute(1, &0x3fff_u16.to_ne_bytes())));
    ask("nobody", CONTROLLER, 0, &get(&[]));
    ask("a name without an end", CONTROLLER, 0, &named(b"nlctrl"));
    ask("a long name", CONTROLLER, 0, &named(&[b'x'; 17]));
    ask("half a number", CONTROLLER, 0, &get(&attribute(1, b"x")));
    ask("both", CONTROLLER, 0, &get(&[attribute(1, &[99, 0]), attribute(2, b"nlctrl\0")].concat()));
    ask("something behind", CONTROLLER, 0, &[named(b"nlctrl\0"), b"ab".to_vec()].concat());
    ask("all", CONTROLLER, DUMP, &get(&[]));
    ask("no such command", CONTROLLER, 0, &[77, 1, 0, 0]);
    ask("short", CONTROLLER, 0, &[]);
    ask("no such type", 0x3fff, 0, &named(b"nlctrl\0"));
}
