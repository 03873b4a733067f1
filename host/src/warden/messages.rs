//! DNS messages: what of a question is asked outside, and what of an answer is handed out.
//!
//! Both sides are strangers: who asks is a program, who answers may be anybody. Messages are taken apart and made anew of
//! what is understood: one question, and of the answers those that lead from its name, by aliases (CNAME), to what was asked
//! for. Addresses where the name may not lead are left out, as are hints of addresses in SVCB and HTTPS records (RFC 9460),
//! which would be a second answer that nobody has looked at.

use super::rules::{HostName, Rules};
use simple_dns::rdata::{HTTPS, OPT, RData, SVCB};
use simple_dns::{
    CLASS, Name, OPCODE, Packet, PacketFlag, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE,
};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What a message may have that nobody has said more of (RFC 1035), and what we take (RFC 9715 advises as much).
const PLAIN: u16 = 512;
pub(super) const LARGE: u16 = 1232;
/// Most records of an answer, and aliases in a row.
const RECORDS: usize = 100;
const ALIASES: usize = 16;

/// A question of a program's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asked {
    /// The number that its answer has.
    pub id: u16,
    /// The name.
    pub name: HostName,
    /// As the program has spelled it.
    spelled: Vec<u8>,
    kind: QTYPE,
    recursion: bool,
    /// How long a datagram may be, if it has said so.
    room: Option<u16>,
}

/// What becomes of a message of a program's.
#[derive(Debug, PartialEq, Eq)]
pub enum Heard {
    /// It is a question.
    Asked(Asked),
    /// It is answered at once.
    Reply(Vec<u8>),
    /// It is not worth an answer.
    Nothing,
}

/// An answer that is handed out.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// The message.
    pub bytes: Vec<u8>,
    /// Addresses in it, and for how many seconds they are the name's.
    pub addresses: Vec<(IpAddr, u32)>,
    /// Addresses that were left out.
    pub refused: Vec<IpAddr>,
}

/// Takes a message apart. What says that it has more parts than can be in it is none: a parser would make room for them.
fn parse(bytes: &[u8]) -> Option<Packet<'_>> {
    let count = |at: usize| Some(usize::from(u16::from_be_bytes([*bytes.get(at)?, *bytes.get(at + 1)?])));
    let (questions, records) = (count(4)?, count(6)? + count(8)? + count(10)?);
    if questions > 1 || 12 + questions * 5 + records * 11 > bytes.len() {
        return None;
    }
    Packet::parse(bytes).ok()
}

fn plain(name: &Name<'_>) -> Option<HostName> {
    HostName::of(name.as_bytes())
}

/// Reads what a program has sent.
pub fn heard(bytes: &[u8]) -> Heard {
    let (Some(id), Some(flags)) = (bytes.first_chunk::<2>(), bytes.get(2)) else { return Heard::Nothing };
    let id = u16::from_be_bytes(*id);
    if flags & 0x80 != 0 {
        return Heard::Nothing;
    }
    let Some(packet) = parse(bytes) else { return Heard::Reply(empty(id, None, RCODE::FormatError)) };
    let [question] = packet.questions.as_slice() else {
        return Heard::Reply(empty(id, None, RCODE::FormatError));
    };
    let whole =
        matches!(question.qtype, QTYPE::IXFR | QTYPE::AXFR | QTYPE::MAILA | QTYPE::MAILB | QTYPE::ANY);
    if packet.opcode() != OPCODE::StandardQuery || question.qclass != QCLASS::CLASS(CLASS::IN) || whole {
        return Heard::Reply(empty(id, Some(question), RCODE::NotImplemented));
    }
    let Some(name) = plain(&question.qname) else {
        return Heard::Reply(empty(id, Some(question), RCODE::NameError));
    };
    let mut spelled = Packet::new_query(id);
    spelled.questions.push(question.clone());
    let Ok(spelled) = spelled.build_bytes_vec() else { return Heard::Nothing };
    Heard::Asked(Asked {
        id,
        name,
        spelled,
        kind: question.qtype,
        recursion: packet.has_flags(PacketFlag::RECURSION_DESIRED),
        room: packet.opt().map(|opt| opt.udp_packet_size.max(PLAIN)),
    })
}

fn empty(id: u16, question: Option<&Question<'_>>, code: RCODE) -> Vec<u8> {
    let mut reply = Packet::new_reply(id);
    *reply.rcode_mut() = code;
    reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
    reply.questions.extend(question.cloned());
    reply.build_bytes_vec().unwrap_or_default()
}

impl Asked {
    fn question(&self) -> Option<Question<'_>> {
        // Made by ourselves, of what could be read.
        Packet::parse(&self.spelled).ok()?.questions.into_iter().next()
    }

    /// The question as it is asked outside, by a number of ours.
    pub fn query(&self, id: u16) -> Option<Vec<u8>> {
        let mut query = Packet::new_query(id);
        query.set_flags(PacketFlag::RECURSION_DESIRED);
        query.questions.push(self.question()?);
        *query.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: LARGE, version: 0 });
        query.build_bytes_vec().ok()
    }

    /// That there is no such name, or what else is the matter.
    pub fn refusal(&self, missing: bool) -> Vec<u8> {
        let code = if missing { RCODE::NameError } else { RCODE::ServerFailure };
        self.finish(self.reply(code), true)
    }

    fn reply(&self, code: RCODE) -> Packet<'_> {
        let mut reply = Packet::new_reply(self.id);
        reply.set_flags(PacketFlag::RECURSION_AVAILABLE);
        if self.recursion {
            reply.set_flags(PacketFlag::RECURSION_DESIRED);
        }
        *reply.rcode_mut() = code;
        reply.questions.extend(self.question());
        if self.room.is_some() {
            *reply.opt_mut() = Some(OPT { opt_codes: Vec::new(), udp_packet_size: LARGE, version: 0 });
        }
        reply
    }

    /// The message, of which no more than there is room for is in a datagram.
    fn finish(&self, mut reply: Packet<'_>, stream: bool) -> Vec<u8> {
        let bytes = reply.build_bytes_vec_compressed().unwrap_or_default();
        let room = if stream { u16::MAX } else { self.room.unwrap_or(PLAIN) };
        if bytes.len() <= usize::from(room) {
            return bytes;
        }
        reply.answers.clear();
        reply.set_flags(PacketFlag::TRUNCATION);
        reply.build_bytes_vec().unwrap_or_default()
    }

    /// What is handed out of an answer from outside. None: it is no answer to the question that was asked as `id`.
    pub fn answer(&self, id: u16, bytes: &[u8], rules: &Rules, stream: bool) -> Option<Answer> {
        let packet = parse(bytes)?;
        let [question] = packet.questions.as_slice() else { return None };
        let same = plain(&question.qname).as_ref() == Some(&self.name)
            && question.qtype == self.kind
            && question.qclass == QCLASS::CLASS(CLASS::IN);
        if packet.id() != id || !packet.has_flags(PacketFlag::RESPONSE) || !same {
            return None;
        }
        let mut reply = self.reply(packet.rcode());
        if packet.has_flags(PacketFlag::TRUNCATION) && !stream {
            reply.set_flags(PacketFlag::TRUNCATION);
            return Some(Answer {
                bytes: self.finish(reply, false),
                addresses: Vec::new(),
                refused: Vec::new(),
            });
        }
        let mut chosen =
            Chosen { rules, ttl: u32::MAX, answer: Vec::new(), addresses: Vec::new(), refused: Vec::new() };
        if !chosen.follow(self, &packet.answers) {
            return Some(Answer { bytes: self.refusal(true), addresses: Vec::new(), refused: Vec::new() });
        }
        reply.answers = chosen.answer;
        let bytes = self.finish(reply, stream);
        Some(Answer { bytes, addresses: chosen.addresses, refused: chosen.refused })
    }
}

/// Which records of an answer are handed out.
struct Chosen<'a, 'r> {
    rules: &'r Rules,
    /// The shortest time to live of the aliases so far.
    ttl: u32,
    answer: Vec<ResourceRecord<'a>>,
    addresses: Vec<(IpAddr, u32)>,
    refused: Vec<IpAddr>,
}

impl<'a> Chosen<'a, '_> {
    /// Goes from alias to alias; false: one of them is a name that is denied.
    fn follow(&mut self, asked: &Asked, records: &[ResourceRecord<'a>]) -> bool {
        let mut name = asked.name.clone();
        for _ in 0..ALIASES {
            let of_name = |record: &&ResourceRecord<'a>| {
                record.class == CLASS::IN && plain(&record.name).as_ref() == Some(&name)
            };
            let mut alias = None;
            for record in records.iter().take(RECORDS).filter(of_name) {
                match &record.rdata {
                    RData::CNAME(target) if asked.kind != QTYPE::TYPE(TYPE::CNAME) => {
                        self.ttl = self.ttl.min(record.ttl);
                        self.answer.push(record.clone());
                        alias = plain(&target.0);
                    }
                    _ if QTYPE::TYPE(record.rdata.type_code()) == asked.kind => self.take(record),
                    _ => {}
                }
            }
            match alias {
                Some(alias) if self.rules.is_denied(&alias) => return false,
                Some(alias) => name = alias,
                None => break,
            }
        }
        true
    }

    fn take(&mut self, record: &ResourceRecord<'a>) {
        let mut record = record.clone();
        let ip = match &mut record.rdata {
            RData::A(a) => Some(IpAddr::V4(Ipv4Addr::from(a.address))),
            RData::AAAA(aaaa) => Some(IpAddr::V6(Ipv6Addr::from(aaaa.address))),
            RData::SVCB(service) => {
                *service = without_hints(service);
                None
            }
            RData::HTTPS(HTTPS(service)) => {
                *service = without_hints(service);
                None
            }
            _ => None,
        };
        match ip {
            Some(ip) if !self.rules.may_have(ip) => return self.refused.push(ip),
            Some(ip) => self.addresses.push((ip, self.ttl.min(record.ttl))),
            None => {}
        }
        self.answer.push(record);
    }
}

/// IPv4 and IPv6 hints, which no one need to have looked at (`mandatory` included: what it lists must be there).
fn without_hints<'a>(service: &SVCB<'a>) -> SVCB<'a> {
    const HINTS: [u16; 2] = [4, 6];
    let mut kept = SVCB::new(service.priority, service.target.clone());
    for param in service.iter_params() {
        match param {
            simple_dns::rdata::SVCParam::Mandatory(keys) => {
                kept.set_mandatory(keys.iter().copied().filter(|key| !HINTS.contains(key)));
            }
            other if HINTS.contains(&other.key_code()) => {}
            other => kept.set_param(other.clone()),
        }
    }
    kept
}

#[cfg(test)]
mod tests;
