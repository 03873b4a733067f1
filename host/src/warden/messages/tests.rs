//! Questions and answers, of those who mean well and of others.

use super::{Answer, Asked, Heard, heard};
use crate::warden::rules::Rules;
use proptest::prelude::{any, proptest};
use simple_dns::rdata::{A, AAAA, CNAME, HTTPS, RData, SVCB, TXT};
use simple_dns::{CLASS, Name, Packet, QCLASS, QTYPE, Question, RCODE, ResourceRecord, TYPE};
use std::net::IpAddr;

fn rules(allow: &[&str], deny: &[&str]) -> Rules {
    let parse = |all: &[&str]| all.iter().map(|text| text.parse().expect("a rule")).collect();
    Rules { allow: parse(allow), deny: parse(deny), host_loopback: Vec::new() }
}

fn question(name: &str, kind: TYPE) -> Question<'_> {
    Question::new(Name::new_unchecked(name), QTYPE::TYPE(kind), QCLASS::CLASS(CLASS::IN), false)
}

fn ask(name: &str, kind: TYPE) -> Asked {
    let mut query = Packet::new_query(7);
    query.questions.push(question(name, kind));
    match heard(&query.build_bytes_vec().expect("a message")) {
        Heard::Asked(asked) => asked,
        other => panic!("{other:?}"),
    }
}

fn record<'a>(name: &'a str, ttl: u32, rdata: RData<'a>) -> ResourceRecord<'a> {
    ResourceRecord::new(Name::new_unchecked(name), CLASS::IN, ttl, rdata)
}

fn a(name: &str, ttl: u32, ip: [u8; 4]) -> ResourceRecord<'_> {
    record(name, ttl, RData::A(A { address: u32::from_be_bytes(ip) }))
}

fn alias<'a>(name: &'a str, target: &'a str) -> ResourceRecord<'a> {
    record(name, 5, RData::CNAME(CNAME(Name::new_unchecked(target))))
}

fn answer(
    asked: &Asked,
    name: &str,
    kind: TYPE,
    records: Vec<ResourceRecord<'_>>,
    rules: &Rules,
) -> Option<Answer> {
    let mut reply = Packet::new_reply(99);
    reply.questions.push(question(name, kind));
    reply.answers = records;
    asked.answer(99, &reply.build_bytes_vec().expect("a message"), rules, true)
}

#[test]
fn answers_lead_from_the_name_that_was_asked_for() {
    let (asked, rules) = (ask("WWW.example.com", TYPE::A), rules(&["www.example.com"], &[]));
    let records = vec![
        a("cdn.example.net", 300, [1, 1, 1, 1]),
        alias("www.example.com", "CDN.example.net"),
        a("other.example.com", 300, [2, 2, 2, 2]),
    ];
    let got = answer(&asked, "www.EXAMPLE.com", TYPE::A, records, &rules).expect("an answer");
    assert_eq!(got.addresses, [(IpAddr::from([1, 1, 1, 1]), 5)]);
    let reply = Packet::parse(&got.bytes).expect("a message");
    assert_eq!((reply.id(), reply.answers.len()), (7, 2));
    // Aliases in a circle end.
    let circle = vec![alias("www.example.com", "b.c"), alias("b.c", "www.example.com")];
    assert!(
        answer(&asked, "www.example.com", TYPE::A, circle, &rules)
            .is_some_and(|got| got.addresses.is_empty())
    );
}

#[test]
fn what_was_not_asked_is_no_answer() {
    let (asked, rules) = (ask("a.b", TYPE::A), Rules::default());
    let records = || vec![a("a.b", 1, [1, 1, 1, 1])];
    assert!(answer(&asked, "a.c", TYPE::A, records(), &rules).is_none());
    assert!(answer(&asked, "a.b", TYPE::AAAA, records(), &rules).is_none());
    assert!(asked.answer(98, &asked.query(99).expect("a query"), &rules, true).is_none());
    assert!(asked.answer(99, &asked.query(99).expect("a query"), &rules, true).is_none(), "a question");
    // Records of another kind than what was asked for grant nothing.
    let asked = ask("a.b", TYPE::TXT);
    assert!(answer(&asked, "a.b", TYPE::TXT, records(), &rules).is_some_and(|got| got.addresses.is_empty()));
}

#[test]
fn inner_addresses_are_left_out() {
    let (asked, rules) = (ask("a.b", TYPE::A), rules(&["a.b", "10.1.0.0/16"], &[]));
    let all = [[127, 0, 0, 1], [10, 0, 0, 1], [169, 254, 169, 254], [10, 1, 0, 1], [1, 1, 1, 1]];
    let records = all.iter().map(|ip| a("a.b", 0, *ip)).collect();
    let got = answer(&asked, "a.b", TYPE::A, records, &rules).expect("an answer");
    assert_eq!((got.refused.len(), got.addresses.len()), (3, 2));
    let asked = ask("a.b", TYPE::AAAA);
    let mapped = record("a.b", 0, RData::AAAA(AAAA { address: 0xffff_7f00_0001 }));
    let got = answer(&asked, "a.b", TYPE::AAAA, vec![mapped], &rules).expect("an answer");
    assert_eq!((got.refused.len(), Packet::parse(&got.bytes).expect("a message").answers.len()), (1, 0));
}

#[test]
fn an_alias_of_a_denied_name_is_none() {
    let (asked, rules) = (ask("a.b", TYPE::A), rules(&[], &["*.evil.net"]));
    let records = vec![alias("a.b", "x.evil.net"), a("x.evil.net", 1, [1, 1, 1, 1])];
    let got = answer(&asked, "a.b", TYPE::A, records, &rules).expect("an answer");
    assert!(got.addresses.is_empty());
    assert_eq!(Packet::parse(&got.bytes).expect("a message").rcode(), RCODE::NameError);
}

#[test]
fn hints_of_addresses_are_stripped() {
    let asked = ask("a.b", TYPE::HTTPS);
    let mut service = SVCB::new(1, Name::new_unchecked("."));
    service.set_mandatory([3, 4].into_iter());
    service.set_ipv4hint(&[0x0a00_0001]);
    service.set_ipv6hint(&[1]);
    service.set_port(443);
    let records = vec![record("a.b", 1, RData::HTTPS(HTTPS(service)))];
    let got = answer(&asked, "a.b", TYPE::HTTPS, records, &rules(&["a.b"], &[])).expect("an answer");
    let reply = Packet::parse(&got.bytes).expect("a message");
    let RData::HTTPS(HTTPS(service)) = &reply.answers[0].rdata else { panic!("{reply:?}") };
    assert_eq!(service.iter_params().map(simple_dns::rdata::SVCParam::key_code).collect::<Vec<_>>(), [0, 3]);
    assert_eq!(service.get_param(0), Some(&simple_dns::rdata::SVCParam::Mandatory([3].into())));
}

#[test]
fn what_does_not_fit_says_so() {
    let asked = ask("a.b", TYPE::TXT);
    let text = "x".repeat(250);
    let records =
        || (0..3).map(|_| record("a.b", 1, RData::TXT(TXT::new().with_string(&text).expect("a text"))));
    let mut reply = Packet::new_reply(99);
    reply.questions.push(question("a.b", TYPE::TXT));
    reply.answers = records().collect();
    let bytes = reply.build_bytes_vec().expect("a message");
    let got = asked.answer(99, &bytes, &Rules::default(), false).expect("an answer");
    let short = Packet::parse(&got.bytes).expect("a message");
    assert!(short.has_flags(simple_dns::PacketFlag::TRUNCATION) && short.answers.is_empty());
    let whole = asked.answer(99, &bytes, &Rules::default(), true).expect("an answer");
    assert_eq!(Packet::parse(&whole.bytes).expect("a message").answers.len(), 3);
}

#[test]
fn names_that_only_look_like_others_are_none() {
    let labels = [&b"www.example"[..], b"com"].map(simple_dns::Label::new_unchecked);
    let mut query = Packet::new_query(7);
    query.questions.push(Question { qname: Name::new_with_labels(&labels), ..question("a", TYPE::A) });
    let got = heard(&query.build_bytes_vec().expect("a message"));
    let Heard::Reply(reply) = got else { panic!("{got:?}") };
    assert_eq!(Packet::parse(&reply).expect("a message").rcode(), RCODE::NameError);
}

#[test]
fn messages_that_promise_too_much_make_no_room() {
    let mut promise = vec![0_u8; 12];
    promise[4..].fill(0xff);
    assert!(matches!(heard(&promise), Heard::Reply(_)));
    promise[2] = 0x80;
    assert_eq!(heard(&promise), Heard::Nothing);
    assert_eq!(heard(&[1]), Heard::Nothing);
}

proptest! {
    #[test]
    fn random_bytes_are_survived(bytes in proptest::collection::vec(any::<u8>(), 0..600), head in any::<bool>()) {
        let mut bytes = bytes;
        if head && bytes.len() > 12 {
            let head = [0x81, 0x80, 0, 1, 0, bytes[7] % 8, 0, bytes[9] % 3, 0, bytes[11] % 3];
            bytes[2..12].copy_from_slice(&head);
        }
        let _ = heard(&bytes);
        let _ = ask("a.b", TYPE::A).answer(99, &bytes, &Rules::default(), true);
        if bytes.len() > 2 {
            bytes[2] = 0;
            let _ = heard(&bytes);
        }
    }

    #[test]
    fn answers_with_mistakes_are_survived(places in proptest::collection::vec((any::<usize>(), any::<u8>()), 1..8), cut in any::<usize>()) {
        let asked = ask("www.example.com", TYPE::A);
        let mut reply = Packet::new_reply(99);
        reply.questions.push(question("www.example.com", TYPE::A));
        reply.answers = vec![alias("www.example.com", "a.b"), a("a.b", 1, [1, 1, 1, 1]), a("a.b", 1, [10, 0, 0, 1])];
        let mut bytes = reply.build_bytes_vec_compressed().expect("a message");
        for (at, byte) in places {
            let len = bytes.len();
            bytes[at % len] = byte;
        }
        bytes.truncate(bytes.len() - cut % 20);
        let rules = rules(&["www.example.com"], &[]);
        if let Some(answer) = asked.answer(99, &bytes, &rules, true) {
            assert!(answer.addresses.iter().all(|(ip, _)| rules.may_have(*ip)));
        }
    }
}
