//! Generic netlink: its controller, which tells of families, and is the only one that there is (genl_ctrl of Linux).

use super::request::{Answer, Request, What};
use crate::abi::{Errno, Result};

/// GENL_ID_CTRL, and its name.
const CONTROLLER: u16 = 16;
const NAME: &[u8] = b"nlctrl";
/// sizeof(struct genlmsghdr).
const HEADER: usize = 4;
/// CTRL_CMD_NEWFAMILY, CTRL_CMD_GETFAMILY, CTRL_CMD_GETPOLICY, and the version of answers.
const NEW_FAMILY: u8 = 1;
const GET_FAMILY: u8 = 3;
const GET_POLICY: u8 = 10;
const VERSION: u8 = 2;
/// CTRL_ATTR_FAMILY_ID, CTRL_ATTR_FAMILY_NAME, and those that follow: version, size of headers, last attribute, operations,
/// groups.
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;
const FAMILY_VERSION: u16 = 3;
const HEADER_SIZE: u16 = 4;
const LAST_ATTRIBUTE: u16 = 5;
const OPERATIONS: u16 = 6;
const GROUPS: u16 = 7;
/// GENL_NAMSIZ, with its end.
const NAME_LEN: usize = 16;
/// GENL_CMD_CAP_DO, GENL_CMD_CAP_DUMP, GENL_CMD_CAP_HASPOL.
const DO: u32 = 2;
const DUMP: u32 = 4;
const HAS_POLICY: u32 = 8;

/// Answers a request.
pub(super) fn answer(request: &Request<'_>) -> Result<Answer> {
    if request.header.message_type != CONTROLLER {
        // Nobody has registered.
        return Err(Errno::ENOENT);
    }
    let asked = request.payload();
    let (command, attributes) = match asked.split_at_checked(HEADER) {
        Some((header, attributes)) => (header[0], attributes),
        None => return Err(Errno::EINVAL),
    };
    match command {
        GET_FAMILY if request.is_dump() => Ok(Answer::Many(What::Given(vec![(CONTROLLER, family())]))),
        GET_FAMILY => find(attributes).map(|()| Answer::One(CONTROLLER, family())),
        _ => Err(Errno::EOPNOTSUPP),
    }
}

/// Looks for the family that attributes name.
///
/// # Errors
/// EINVAL where they name none, ERANGE, ENOENT.
fn find(attributes: &[u8]) -> Result<()> {
    let (mut by_id, mut by_name) = (None, None);
    let mut rest = attributes;
    while let Some(([len, more, kind @ ..], _)) = rest.split_first_chunk::<4>() {
        let len = usize::from(u16::from_ne_bytes([*len, *more]));
        let Some(data) = rest.get(HEADER..len) else { break };
        match u16::from_ne_bytes(*kind) {
            FAMILY_ID => by_id = Some(data.first_chunk::<2>().ok_or(Errno::ERANGE)?),
            FAMILY_NAME => {
                let head = &data[..data.len().min(NAME_LEN)];
                let end = head.iter().position(|byte| *byte == 0).ok_or(Errno::EINVAL)?;
                if data.len() > NAME_LEN {
                    return Err(Errno::ERANGE);
                }
                by_name = Some(&data[..end]);
            }
            _ => {}
        }
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
    }
    match (by_id, by_name) {
        (_, Some(name)) if name == NAME => Ok(()),
        (Some(id), None) if u16::from_ne_bytes(*id) == CONTROLLER => Ok(()),
        (None, None) => Err(Errno::EINVAL),
        _ => Err(Errno::ENOENT),
    }
}

/// An attribute.
fn attribute(kind: u16, data: &[u8]) -> Vec<u8> {
    let mut bytes = ((HEADER + data.len()) as u16).to_ne_bytes().to_vec();
    bytes.extend(kind.to_ne_bytes());
    bytes.extend_from_slice(data);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn number(kind: u16, value: u32) -> Vec<u8> {
    attribute(kind, &value.to_ne_bytes())
}

/// What the controller says of itself, as Linux does: CTRL_CMD_GETPOLICY is among it, and is not answered.
fn family() -> Vec<u8> {
    let operation = |index: u16, command: u8, flags: u32| {
        attribute(index, &[number(1, command.into()), number(2, flags | HAS_POLICY)].concat())
    };
    let operations = [operation(1, GET_FAMILY, DO | DUMP), operation(2, GET_POLICY, DUMP)].concat();
    let group = attribute(1, &[number(2, CONTROLLER.into()), attribute(1, b"notify\0")].concat());
    [
        vec![NEW_FAMILY, VERSION, 0, 0],
        attribute(FAMILY_NAME, &[NAME, &[0]].concat()),
        attribute(FAMILY_ID, &CONTROLLER.to_ne_bytes()),
        number(FAMILY_VERSION, VERSION.into()),
        number(HEADER_SIZE, 0),
        number(LAST_ATTRIBUTE, 0),
        attribute(OPERATIONS, &operations),
        attribute(GROUPS, &group),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::{attribute, family, find};
    use crate::abi::Errno;

    #[test]
    fn the_controller_is_the_only_family() {
        assert_eq!(family().len(), 120);
        assert_eq!(find(&attribute(2, b"nlctrl\0")), Ok(()));
        assert_eq!(find(&attribute(2, b"nl80211\0")), Err(Errno::ENOENT));
        assert_eq!(find(&attribute(2, b"nlctrl")), Err(Errno::EINVAL));
        assert_eq!(find(&attribute(1, &[16])), Err(Errno::ERANGE));
        for bytes in [&[][..], &[0; 4], &[255; 9], &[3, 0, 2, 0], &[4, 0, 2]] {
            assert!(find(bytes).is_err(), "{bytes:?}");
        }
    }
}
