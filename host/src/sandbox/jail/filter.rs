//! The table as a program of the host's (classic BPF, seccomp(2)).
//!
//! A tree over the calls' numbers, and `seccompiler` for what must hold of several arguments at once. Its own programs go
//! from call to call in a line, with five instructions for each and as many for each condition. The host goes that way once
//! for every number that there is when it takes a filter, to know which calls it need not ask about, and translates it
//! instruction by instruction, over and over: a line of this table made that a quarter of start-up.

use super::table::{ABSENT, Needs, Row, WARDEN, When, rows};
use crate::arch::AUDIT_ARCH;
use libc::{BPF_ABS, BPF_JA, BPF_JEQ, BPF_JGE, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W};
use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch, sock_filter,
};
use std::collections::BTreeMap;

/// Calls with any arguments that are compared with one after the other at an end of the tree.
const COMPARED: usize = 8;
/// Where `struct seccomp_data` has the low half of an argument.
const fn argument(index: u8) -> u32 {
    16 + 8 * index as u32
}
/// Where `struct seccomp_data` has the call's number, and the architecture whose it is.
const NUMBER: u32 = 0;
const ARCH: u32 = 4;

/// What is to become of a call.
enum Call {
    Any,
    Absent,
    /// An argument must have one of these values.
    OneOf(u8, Vec<u32>),
    /// One of these must hold.
    If(Vec<SeccompRule>),
}

/// A program that decides about the calls from a number up to the next leaf's.
struct Leaf {
    from: u32,
    program: BpfProgram,
}

/// The filter for process `own`: what is in no row is trapped.
///
/// # Errors
/// A sentence: an architecture that `seccompiler` does not know, or a table that it cannot translate.
pub(super) fn program(platform: &str, own: i32, needs: Needs) -> Result<BpfProgram, String> {
    translate(rows(platform, needs), own).map_err(|error| error.to_string())
}

/// The same for a warden.
///
/// # Errors
/// As above.
pub(super) fn of_warden(own: i32) -> Result<BpfProgram, String> {
    translate(WARDEN.iter().copied(), own).map_err(|error| error.to_string())
}

fn translate(rows: impl Iterator<Item = Row>, own: i32) -> Result<BpfProgram, BackendError> {
    let mut leaves = Vec::new();
    let mut free = Vec::new();
    for (number, call) in calls(rows, own)? {
        let from = u32::try_from(number).unwrap_or(u32::MAX);
        if !matches!(call, Call::Any) || free.len() == COMPARED {
            leaves.extend(any_of(&core::mem::take(&mut free)));
        }
        let program = match call {
            Call::Any => {
                free.push(from);
                continue;
            }
            Call::Absent => of_call(from, vec![end(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32)]),
            Call::OneOf(index, values) => {
                of_call(from, [vec![load(argument(index))], one_of(&values)].concat())
            }
            Call::If(rules) => translated(number, rules)?,
        };
        leaves.push(Leaf { from, program });
    }
    leaves.extend(any_of(&free));
    let mut all =
        vec![load(ARCH), jump(BPF_JEQ, AUDIT_ARCH, 1, 0), end(libc::SECCOMP_RET_TRAP), load(NUMBER)];
    append(&leaves, &mut all);
    Ok(all)
}

/// The calls of the table in the order of their numbers.
fn calls(rows: impl Iterator<Item = Row>, own: i32) -> Result<BTreeMap<i64, Call>, BackendError> {
    let mut conditions: BTreeMap<i64, Vec<&[When]>> = BTreeMap::new();
    for (call, when) in rows {
        conditions.entry(call).or_default().push(when);
    }
    let mut calls: BTreeMap<i64, Call> = ABSENT.iter().map(|call| (*call, Call::Absent)).collect();
    for (call, alternatives) in conditions {
        calls.insert(call, combined(&alternatives, own)?);
    }
    Ok(calls)
}

/// Several rows of one call.
fn combined(alternatives: &[&[When]], own: i32) -> Result<Call, BackendError> {
    if alternatives.iter().any(|when| when.is_empty()) {
        return Ok(Call::Any);
    }
    if let Some([When::Is(index, _)]) = alternatives.first() {
        let index = *index;
        let value = |when: &&[When]| match **when {
            [When::Is(argument, value)] if argument == index => Some(value),
            _ => None,
        };
        if let Some(values) = alternatives.iter().map(value).collect() {
            return Ok(Call::OneOf(index, values));
        }
    }
    let rule = |when: &&[When]| {
        let all: Result<Vec<_>, _> = when.iter().map(|when| condition(*when, own)).collect();
        SeccompRule::new(all?)
    };
    alternatives.iter().map(rule).collect::<Result<_, _>>().map(Call::If)
}

fn translated(call: i64, rules: Vec<SeccompRule>) -> Result<BpfProgram, BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let rules = BTreeMap::from([(call, rules)]);
    SeccompFilter::new(rules, SeccompAction::Trap, SeccompAction::Allow, arch)?.try_into()
}

fn condition(when: When, own: i32) -> Result<SeccompCondition, BackendError> {
    let (argument, how, value) = match when {
        When::Is(argument, value) => (argument, SeccompCmpOp::Eq, value),
        When::IsNot(argument, value) => (argument, SeccompCmpOp::Ne, value),
        When::Bits(argument, bits, value) => (argument, SeccompCmpOp::MaskedEq(bits.into()), value),
        When::Own(argument) => (argument, SeccompCmpOp::Eq, own.cast_unsigned()),
    };
    SeccompCondition::new(argument, SeccompCmpArgLen::Dword, how, value.into())
}

/// These calls, in the order of their numbers; none for none.
fn any_of(calls: &[u32]) -> Option<Leaf> {
    calls.first().map(|from| Leaf { from: *from, program: one_of(calls) })
}

/// Allows these values of what has been loaded, and traps others.
fn one_of(values: &[u32]) -> BpfProgram {
    let mut program = Vec::new();
    // A branch reaches 255 instructions.
    for values in values.chunks(200) {
        let over = |at: usize| (values.len() - at) as u8;
        program.extend(values.iter().enumerate().map(|(at, value)| jump(BPF_JEQ, *value, over(at), 0)));
        program.extend([instruction(BPF_JMP | BPF_JA, 0, 0, 1), end(libc::SECCOMP_RET_ALLOW)]);
    }
    program.push(end(libc::SECCOMP_RET_TRAP));
    program
}

/// A program for one call; others are trapped.
fn of_call(call: u32, program: BpfProgram) -> BpfProgram {
    let mut all = vec![jump(BPF_JEQ, call, 1, 0), end(libc::SECCOMP_RET_TRAP)];
    all.extend(program);
    all
}

/// Halves, and halves of those, down to one leaf. (The depth is the binary logarithm of their number.)
fn append(leaves: &[Leaf], all: &mut BpfProgram) {
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let Some(first) = high.first() else { return all.push(end(libc::SECCOMP_RET_TRAP)) };
    if low.is_empty() {
        return all.extend_from_slice(&first.program);
    }
    let mut below = Vec::new();
    append(low, &mut below);
    match u8::try_from(below.len()) {
        Ok(over) => all.push(jump(BPF_JGE, first.from, over, 0)),
        // A branch reaches 255 instructions, a jump all.
        Err(_) => {
            let over = instruction(BPF_JMP | BPF_JA, 0, 0, below.len() as u32);
            all.extend([jump(BPF_JGE, first.from, 0, 1), over]);
        }
    }
    all.append(&mut below);
    append(high, all);
}

fn load(at: u32) -> sock_filter {
    instruction(BPF_LD | BPF_W | BPF_ABS, 0, 0, at)
}

fn end(action: u32) -> sock_filter {
    instruction(BPF_RET | BPF_K, 0, 0, action)
}

fn jump(if_number: u32, value: u32, then: u8, otherwise: u8) -> sock_filter {
    instruction(BPF_JMP | if_number | BPF_K, then, otherwise, value)
}

const fn instruction(code: u32, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code: code as u16, jt, jf, k }
}
