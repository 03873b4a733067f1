//! Options of the level IPPROTO_TCP (tcp(7)).

use super::TcpSocket;
use super::connection::state;
use crate::abi::{Errno, Result};
use crate::net::{Answer, Value};
use linux_raw_sys::net as n;

/// Congestion controls that may be asked for. What stays inside has no congestion.
const CONTROLS: [&str; 2] = ["cubic", "reno"];
/// TCP_CA_NAME_MAX.
const CONTROL_LEN: usize = 16;
/// TCP_FIN_TIMEOUT, TCP_FIN_TIMEOUT_MAX: seconds.
const FIN_TIMEOUT: (i32, i32) = (60, 120);
/// What a connection over the loopback interface has for a segment, and one without a connection.
const SEGMENT: (i32, i32) = (32_768, 536);
/// sizeof(struct tcp_info) of Linux 6.1, and where in it things lie.
const INFO: usize = 240;

/// Options that are kept: number, value at first, least, most.
const KEPT: &[(u32, i32, i32, i32)] = &[
    (n::TCP_KEEPIDLE, 7200, 1, 32_767),
    (n::TCP_KEEPINTVL, 75, 1, 32_767),
    (n::TCP_KEEPCNT, 9, 1, 127),
    (n::TCP_SYNCNT, 6, 1, 127),
    (n::TCP_USER_TIMEOUT, 0, 0, i32::MAX),
    (n::TCP_NOTSENT_LOWAT, 0, i32::MIN, i32::MAX),
];

/// Those that are on or off, and whether they are at first.
const SWITCHES: &[(u32, bool)] =
    &[(n::TCP_NODELAY, false), (n::TCP_CORK, false), (n::TCP_QUICKACK, true), (n::TCP_SAVE_SYN, false)];

/// What a program has set.
#[derive(Clone, Debug, Default)]
pub(super) struct TcpOptions {
    set: Vec<(u32, i32)>,
    control: usize,
}

impl TcpOptions {
    fn value(&self, name: u32) -> Option<i32> {
        self.set.iter().find(|known| known.0 == name).map(|known| known.1)
    }

    fn keep(&mut self, name: u32, value: i32) {
        self.set.retain(|known| known.0 != name);
        self.set.push((name, value));
    }

    fn set_control(&mut self, value: &Value<'_>) -> Result<()> {
        if value.len < 1 {
            return Err(Errno::EINVAL);
        }
        let text = value.text(CONTROL_LEN - 1)?;
        let name = text.split(|&b| b == 0).next().unwrap_or_default();
        self.control = CONTROLS.iter().position(|known| known.as_bytes() == name).ok_or(Errno::ENOENT)?;
        Ok(())
    }
}

/// TCP_DEFER_ACCEPT is kept in retransmissions, which double from one second on, and shown in seconds.
fn as_retransmissions(seconds: i32) -> i32 {
    let (mut count, mut total, mut step) = (0, 0, 1);
    while total < seconds && count < 255 {
        total += step;
        step = (step * 2).min(120);
        count += 1;
    }
    if count == 0 { 0 } else { total }
}

impl TcpSocket {
    pub(super) fn set_tcp_option(&self, name: u32, value: &Value<'_>) -> Result<()> {
        if name == n::TCP_CONGESTION {
            return self.state.lock().tcp.set_control(value);
        }
        let value = value.int()?;
        let number = self.state_number();
        let mut guard = self.state.lock();
        let tcp = &mut guard.tcp;
        if let Some((_, _, least, most)) = KEPT.iter().find(|row| row.0 == name) {
            if !(*least..=*most).contains(&value) {
                return Err(Errno::EINVAL);
            }
            tcp.keep(name, value);
            return Ok(());
        }
        if SWITCHES.iter().any(|row| row.0 == name) {
            tcp.keep(name, (value != 0).into());
            return Ok(());
        }
        match name {
            n::TCP_MAXSEG if value != 0 && !(88..=32_767).contains(&value) => Err(Errno::EINVAL),
            n::TCP_WINDOW_CLAMP if value == 0 && number != state::CLOSE => Err(Errno::EINVAL),
            n::TCP_FASTOPEN if value < 0 || !matches!(number, state::CLOSE | state::LISTEN) => {
                Err(Errno::EINVAL)
            }
            n::TCP_MAXSEG | n::TCP_FASTOPEN => {
                tcp.keep(name, value);
                Ok(())
            }
            n::TCP_WINDOW_CLAMP => {
                tcp.keep(name, if value == 0 { 0 } else { value.max(1152) });
                Ok(())
            }
            n::TCP_LINGER2 => {
                tcp.keep(name, if value < 0 { -1 } else { value.min(FIN_TIMEOUT.1) });
                Ok(())
            }
            n::TCP_DEFER_ACCEPT => {
                tcp.keep(name, as_retransmissions(value));
                Ok(())
            }
            _ => Err(Errno::ENOPROTOOPT),
        }
    }

    pub(super) fn tcp_option(&self, name: u32, room: usize) -> Result<Answer> {
        let number = self.state_number();
        let connected = !matches!(number, state::CLOSE | state::LISTEN);
        let tcp = self.state.lock().tcp.clone();
        if let Some(row) = KEPT.iter().find(|row| row.0 == name) {
            return Ok(Answer::int(tcp.value(name).unwrap_or(row.1)));
        }
        if let Some((_, at_first)) = SWITCHES.iter().find(|row| row.0 == name) {
            return Ok(Answer::int(tcp.value(name).unwrap_or((*at_first).into())));
        }
        let value = match name {
            n::TCP_MAXSEG if connected => {
                SEGMENT.0.min(tcp.value(name).filter(|v| *v > 0).unwrap_or(SEGMENT.0))
            }
            n::TCP_MAXSEG => tcp.value(name).filter(|value| *value > 0).unwrap_or(SEGMENT.1),
            n::TCP_LINGER2 => match tcp.value(name) {
                None | Some(0) => FIN_TIMEOUT.0,
                Some(value) => value,
            },
            n::TCP_WINDOW_CLAMP | n::TCP_DEFER_ACCEPT | n::TCP_FASTOPEN => tcp.value(name).unwrap_or(0),
            n::TCP_CONGESTION => {
                let mut text = CONTROLS[tcp.control].as_bytes().to_vec();
                text.resize(CONTROL_LEN, 0);
                return Ok(Answer::Value(text));
            }
            n::TCP_INFO => return Ok(Answer::Value(info(number, &tcp)[..room.min(INFO)].to_vec())),
            _ => return Err(Errno::ENOPROTOOPT),
        };
        Ok(Answer::int(value))
    }
}

/// `struct tcp_info`, as far as what stays inside has something to say.
fn info(number: u8, tcp: &TcpOptions) -> Vec<u8> {
    /// tcpi_snd_mss, tcpi_rcv_mss; tcpi_pmtu; tcpi_snd_cwnd, tcpi_advmss.
    const WORDS: [(usize, i32); 4] = [(16, SEGMENT.0), (60, 65_535), (80, 10), (84, 65_483)];
    let mut bytes = vec![0; INFO];
    bytes[0] = number;
    if !matches!(number, state::CLOSE | state::LISTEN) {
        for (at, value) in WORDS {
            bytes[at..at + 4].copy_from_slice(&value.to_ne_bytes());
        }
        let segment = tcp.value(n::TCP_MAXSEG).unwrap_or(536);
        bytes[20..24].copy_from_slice(&segment.to_ne_bytes());
    }
    bytes
}
