//! The log of connections: a line of JSON for each that begins, ends or is refused, and for each name that is refused.
//!
//! Programs decide how many there are: beyond some a second they are only counted.

use super::wire::Party;
use serde::Serialize;
use std::io::Write;
use std::time::{Instant, SystemTime};

/// Lines a second, and how many may come at once.
const RATE: u32 = 200;
const BURST: u32 = 2000;

/// A line. What it has nothing of is not in it.
#[derive(Default, Serialize)]
struct Line<'a> {
    time: String,
    verdict: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    program: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    address: Option<std::net::IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sent: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lines: Option<u64>,
}

/// Where lines go, if anywhere.
pub(super) struct Log {
    /// What has been allowed of a second, and when that was reckoned.
    left: u32,
    at: Instant,
    left_out: u64,
    wanted: bool,
}

impl Log {
    pub(super) fn new(wanted: bool) -> Log {
        Log { left: BURST, at: Instant::now(), left_out: 0, wanted }
    }

    /// What became of a connection.
    pub(super) fn connection(&mut self, verdict: &'static str, party: &Party, name: Option<&str>) {
        self.write(of_party(verdict, party, name));
    }

    /// A connection's end.
    pub(super) fn closed(&mut self, party: &Party, name: Option<&str>, received: u64, sent: u64) {
        let line = of_party("closed", party, name);
        self.write(Line { received: Some(received), sent: Some(sent), ..line });
    }

    /// A name that is not resolved, or an address of it that is not handed out.
    pub(super) fn name(&mut self, verdict: &'static str, name: &str, address: Option<std::net::IpAddr>) {
        self.write(Line { verdict, name: Some(name), address, ..Line::default() });
    }

    fn write(&mut self, line: Line<'_>) {
        if !self.wanted {
            return;
        }
        let earned = self.at.elapsed().as_millis().saturating_mul(RATE.into()) / 1000;
        if let Ok(earned @ 1..) = u32::try_from(earned) {
            (self.left, self.at) = (self.left.saturating_add(earned).min(BURST), Instant::now());
        }
        if self.left == 0 {
            self.left_out += 1;
            return;
        }
        self.left -= 1;
        self.say_what_was_left_out();
        print(line);
    }

    /// At the end, too.
    pub(super) fn say_what_was_left_out(&mut self) {
        if self.left_out > 0 {
            print(Line { verdict: "left out", lines: Some(self.left_out), ..Line::default() });
            self.left_out = 0;
        }
    }
}

fn of_party<'a>(verdict: &'static str, party: &'a Party, name: Option<&'a str>) -> Line<'a> {
    Line {
        verdict,
        program: Some(&party.program),
        name,
        protocol: Some(if party.stream { "tcp" } else { "udp" }),
        address: Some(party.to.ip()),
        port: Some(party.to.port()),
        ..Line::default()
    }
}

fn print(mut line: Line<'_>) {
    line.time = humantime::format_rfc3339_millis(SystemTime::now()).to_string();
    if let Ok(mut text) = serde_json::to_vec(&line) {
        text.push(b'\n');
        // A log that takes nothing is nobody's business inside.
        let _full = std::io::stdout().write_all(&text);
    }
}
