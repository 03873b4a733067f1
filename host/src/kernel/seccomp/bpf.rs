//! Classic BPF, the part of it that seccomp(2) takes: the checker and the interpreter.
//!
//! [`Program::check`] turns what a program handed over into instructions that cannot do anything wrong: every jump goes
//! forward and stays inside, every word read exists, the last instruction returns. What it refuses is what
//! `bpf_check_classic` and `seccomp_check_filter` of Linux refuse; programs of libraries probe for that.
//!
//! Our own and not a crate: those that exist run extended BPF, whose programs are another language.

use crate::abi::{Errno, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Most instructions in one program (`BPF_MAXINSNS`).
pub const MAX_INSNS: usize = 4096;
/// Words of `struct seccomp_data`.
pub(super) const DATA_WORDS: usize = 16;
/// Words of scratch memory (`BPF_MEMWORDS`).
const MEM_WORDS: usize = 16;
/// Instructions that Linux puts before each program when it translates it to extended BPF.
const PROLOGUE: usize = 3;

/// `struct sock_filter`: an instruction as programs write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RawInsn {
    /// Operation.
    pub code: u16,
    /// How far to jump if the condition holds.
    pub jt: u8,
    /// How far to jump if it does not.
    pub jf: u8,
    /// The constant.
    pub k: u32,
}

/// Where the second operand is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operand {
    Constant(u32),
    X,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arithmetic {
    Add,
    Sub,
    Mul,
    Div,
    Or,
    And,
    Lsh,
    Rsh,
    Xor,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Condition {
    Equal,
    Greater,
    GreaterOrEqual,
    AnyBit,
}

/// An instruction. A is the accumulator, X the index register, M scratch memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Insn {
    /// A = a word of the data.
    LoadData(u8),
    LoadA(u32),
    LoadX(u32),
    RecallA(u8),
    RecallX(u8),
    StoreA(u8),
    StoreX(u8),
    AToX,
    XToA,
    Negate,
    Compute(Arithmetic, Operand),
    Skip(u32),
    Branch {
        condition: Condition,
        operand: Operand,
        then: u8,
        otherwise: u8,
    },
    Return(u32),
    ReturnA,
}

/// A program that has passed the checker.
#[derive(Debug, PartialEq, Eq)]
pub struct Program {
    insns: Box<[Insn]>,
    translated: usize,
}

impl Program {
    /// Checks a program.
    ///
    /// # Errors
    /// EINVAL for what Linux refuses.
    pub fn check(raw: &[RawInsn]) -> Result<Program> {
        if raw.is_empty() || raw.len() > MAX_INSNS {
            return Err(Errno::EINVAL);
        }
        let insns = raw.iter().map(decode).collect::<Option<Box<[Insn]>>>().ok_or(Errno::EINVAL)?;
        let ends = matches!(insns.last(), Some(Insn::Return(_) | Insn::ReturnA));
        if !ends || !memory_is_written_before_read(&insns) {
            return Err(Errno::EINVAL);
        }
        let translated = PROLOGUE + insns.iter().map(translated).sum::<usize>();
        Ok(Program { insns, translated })
    }

    /// How long it is once Linux has translated it, which is what its limit for a chain of filters counts.
    pub fn translated_len(&self) -> usize {
        self.translated
    }

    /// What it returns for `data`.
    pub fn run(&self, data: &[u32; DATA_WORDS]) -> u32 {
        let (mut a, mut x, mut memory) = (0_u32, 0_u32, [0_u32; MEM_WORDS]);
        let mut rest = self.insns.iter();
        while let Some(insn) = rest.next() {
            match *insn {
                Insn::LoadData(word) => a = data[usize::from(word) % DATA_WORDS],
                Insn::LoadA(value) => a = value,
                Insn::LoadX(value) => x = value,
                Insn::RecallA(cell) => a = memory[usize::from(cell) % MEM_WORDS],
                Insn::RecallX(cell) => x = memory[usize::from(cell) % MEM_WORDS],
                Insn::StoreA(cell) => memory[usize::from(cell) % MEM_WORDS] = a,
                Insn::StoreX(cell) => memory[usize::from(cell) % MEM_WORDS] = x,
                Insn::AToX => x = a,
                Insn::XToA => a = x,
                Insn::Negate => a = a.wrapping_neg(),
                Insn::Compute(arithmetic, operand) => match compute(arithmetic, a, operand.value(x)) {
                    Some(value) => a = value,
                    // A division by zero ends the program.
                    None => return 0,
                },
                Insn::Skip(count) => skip(&mut rest, count as usize),
                Insn::Branch { condition, operand, then, otherwise } => {
                    let holds = condition.holds(a, operand.value(x));
                    skip(&mut rest, usize::from(if holds { then } else { otherwise }));
                }
                Insn::Return(value) => return value,
                Insn::ReturnA => return a,
            }
        }
        // Not reached in a checked program; 0 would end the thread.
        0
    }
}

fn skip(rest: &mut core::slice::Iter<'_, Insn>, count: usize) {
    if count > 0 {
        rest.nth(count - 1);
    }
}

impl Operand {
    fn value(self, x: u32) -> u32 {
        match self {
            Operand::Constant(value) => value,
            Operand::X => x,
        }
    }
}

impl Condition {
    fn holds(self, a: u32, b: u32) -> bool {
        match self {
            Condition::Equal => a == b,
            Condition::Greater => a > b,
            Condition::GreaterOrEqual => a >= b,
            Condition::AnyBit => a & b != 0,
        }
    }
}

fn compute(arithmetic: Arithmetic, a: u32, b: u32) -> Option<u32> {
    Some(match arithmetic {
        Arithmetic::Add => a.wrapping_add(b),
        Arithmetic::Sub => a.wrapping_sub(b),
        Arithmetic::Mul => a.wrapping_mul(b),
        Arithmetic::Div => a.checked_div(b)?,
        Arithmetic::Or => a | b,
        Arithmetic::And => a & b,
        // By the low five bits of the distance, as the processors do.
        Arithmetic::Lsh => a.wrapping_shl(b),
        Arithmetic::Rsh => a.wrapping_shr(b),
        Arithmetic::Xor => a ^ b,
    })
}

/// `BPF_SRC`: the second operand is X.
const FROM_X: u16 = 0x08;

/// One instruction by itself. Jumps are looked at together with the others.
fn decode(raw: &RawInsn) -> Option<Insn> {
    let k = raw.k;
    let cell = || u8::try_from(k).ok().filter(|cell| usize::from(*cell) < MEM_WORDS);
    let length = (DATA_WORDS * size_of::<u32>()) as u32;
    Some(match raw.code {
        // BPF_LD | BPF_W | BPF_ABS: aligned words of the data.
        0x20 if k < length && k.is_multiple_of(4) => Insn::LoadData((k / 4) as u8),
        0x80 => Insn::LoadA(length),
        0x81 => Insn::LoadX(length),
        0x00 => Insn::LoadA(k),
        0x01 => Insn::LoadX(k),
        0x60 => Insn::RecallA(cell()?),
        0x61 => Insn::RecallX(cell()?),
        0x02 => Insn::StoreA(cell()?),
        0x03 => Insn::StoreX(cell()?),
        0x07 => Insn::AToX,
        0x87 => Insn::XToA,
        0x06 => Insn::Return(k),
        0x16 => Insn::ReturnA,
        0x84 => Insn::Negate,
        0x05 => Insn::Skip(k),
        code if code & 0xff07 == 0x04 => {
            let operand = operand(raw);
            let arithmetic = match code & 0xf0 {
                0x00 => Arithmetic::Add,
                0x10 => Arithmetic::Sub,
                0x20 => Arithmetic::Mul,
                0x30 if operand != Operand::Constant(0) => Arithmetic::Div,
                0x40 => Arithmetic::Or,
                0x50 => Arithmetic::And,
                0x60 if is_distance(operand) => Arithmetic::Lsh,
                0x70 if is_distance(operand) => Arithmetic::Rsh,
                0xa0 => Arithmetic::Xor,
                _ => return None,
            };
            Insn::Compute(arithmetic, operand)
        }
        code if code & 0xff07 == 0x05 => {
            let condition = match code & 0xf0 {
                0x10 => Condition::Equal,
                0x20 => Condition::Greater,
                0x30 => Condition::GreaterOrEqual,
                0x40 => Condition::AnyBit,
                _ => return None,
            };
            Insn::Branch { condition, operand: operand(raw), then: raw.jt, otherwise: raw.jf }
        }
        _ => return None,
    })
}

fn operand(raw: &RawInsn) -> Operand {
    if raw.code & FROM_X != 0 { Operand::X } else { Operand::Constant(raw.k) }
}

/// Whether a word can be shifted by it, as far as one can tell beforehand.
fn is_distance(operand: Operand) -> bool {
    match operand {
        Operand::Constant(value) => value < u32::BITS,
        Operand::X => true,
    }
}

/// Whether all jumps stay inside and no scratch memory is read that may not have been written.
fn memory_is_written_before_read(insns: &[Insn]) -> bool {
    // What is known to be written on every way to an instruction that is jumped to.
    let mut written_at = vec![u16::MAX; insns.len()];
    let mut written = 0_u16;
    for (index, insn) in insns.iter().enumerate() {
        written &= written_at[index];
        let mut jump = |distance: usize| match written_at.get_mut(index + 1 + distance) {
            Some(at) => {
                *at &= written;
                true
            }
            None => false,
        };
        match *insn {
            Insn::StoreA(cell) | Insn::StoreX(cell) => written |= 1 << cell,
            Insn::RecallA(cell) | Insn::RecallX(cell) if written & 1 << cell == 0 => return false,
            Insn::Skip(distance) => {
                if !jump(distance as usize) {
                    return false;
                }
                written = u16::MAX;
            }
            Insn::Branch { then, otherwise, .. } => {
                if !jump(usize::from(then)) || !jump(usize::from(otherwise)) {
                    return false;
                }
                written = u16::MAX;
            }
            _ => {}
        }
    }
    true
}

/// Instructions of extended BPF that Linux makes of one (`bpf_convert_filter`).
fn translated(insn: &Insn) -> usize {
    match *insn {
        Insn::Return(_) => 2,
        Insn::Compute(Arithmetic::Div, Operand::X) => 5,
        Insn::Branch { condition, operand, then, otherwise } => {
            // A constant with the top bit set takes a register first.
            let constant = usize::from(matches!(operand, Operand::Constant(k) if k > i32::MAX as u32));
            let one = otherwise == 0 || (then == 0 && condition != Condition::AnyBit);
            constant + if one { 1 } else { 2 }
        }
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::{DATA_WORDS, MAX_INSNS, Program, RawInsn};
    use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};

    fn insn(code: u16, jt: u8, jf: u8, k: u32) -> RawInsn {
        RawInsn { code, jt, jf, k }
    }

    fn run(raw: &[RawInsn], data: [u32; DATA_WORDS]) -> Option<u32> {
        Program::check(raw).ok().map(|program| program.run(&data))
    }

    const DATA: [u32; DATA_WORDS] = [7, 1, 2, 3, 4, 5, 6, 0xffff_ffff, 8, 9, 10, 11, 12, 13, 14, 15];

    #[test]
    fn a_typical_filter() {
        // Number 7 gives 100, any other 200.
        let filter = [insn(0x20, 0, 0, 0), insn(0x15, 0, 1, 7), insn(0x06, 0, 0, 100), insn(0x06, 0, 0, 200)];
        assert_eq!(run(&filter, DATA), Some(100));
        assert_eq!(run(&filter, [0; DATA_WORDS]), Some(200));
        // 3 + 1 + (1: jf is not next, jt is) + 2 + 2.
        assert_eq!(Program::check(&filter).unwrap().translated_len(), 9);
    }

    #[test]
    fn arithmetic() {
        let of = |code, k, x| {
            run(
                &[insn(0x01, 0, 0, x), insn(0x00, 0, 0, 20), insn(code, 0, 0, k), insn(0x16, 0, 0, 0)],
                [0; DATA_WORDS],
            )
        };
        assert_eq!(of(0x04, 5, 0), Some(25));
        assert_eq!(of(0x1c, 0, 21), Some(u32::MAX));
        assert_eq!(of(0x34, 3, 0), Some(6));
        assert_eq!((of(0x34, 0, 0), of(0x3c, 0, 0)), (None, Some(0)));
        assert_eq!((of(0x64, 31, 0), of(0x64, 32, 0), of(0x6c, 0, 33)), (Some(0), None, Some(40)));
        assert_eq!(of(0x84, 0, 0), Some(20_u32.wrapping_neg()));
        assert_eq!((of(0x94, 3, 0), of(0xa4, 1, 0)), (None, Some(21)), "no remainder, but exclusive or");
    }

    #[test]
    fn scratch_memory_is_written_first() {
        let (store, recall, ret) = (insn(0x02, 0, 0, 3), insn(0x60, 0, 0, 3), insn(0x16, 0, 0, 0));
        assert!(run(&[recall, ret], DATA).is_none());
        assert!(run(&[store, recall, ret], DATA).is_some());
        // On one of two ways only.
        assert!(run(&[insn(0x15, 0, 1, 0), store, recall, ret], DATA).is_none());
        assert!(run(&[insn(0x02, 0, 0, 16), ret], DATA).is_none());
    }

    #[test]
    fn what_is_no_program() {
        let ret = insn(0x06, 0, 0, 0);
        assert!(run(&[], DATA).is_none());
        assert!(run(&vec![ret; MAX_INSNS], DATA).is_some());
        assert!(run(&vec![ret; MAX_INSNS + 1], DATA).is_none());
        assert!(run(&[ret, insn(0x00, 0, 0, 0)], DATA).is_none());
        assert!(run(&[insn(0x05, 0, 0, 1), ret], DATA).is_none());
        assert!(run(&[insn(0x05, 0, 0, u32::MAX), ret], DATA).is_none());
        assert!(run(&[insn(0x20, 0, 0, 64), ret], DATA).is_none());
        assert!(run(&[insn(0x20, 0, 0, 2), ret], DATA).is_none());
        assert!(run(&[insn(0x28, 0, 0, 0), ret], DATA).is_none(), "half words");
        assert!(run(&[insn(0x106, 0, 0, 0)], DATA).is_none());
    }

    /// Instructions of which most are allowed, so that whole programs often are.
    fn likely() -> impl Strategy<Value = RawInsn> {
        let codes = prop::sample::select(vec![
            0x20_u16, 0x80, 0x81, 0x00, 0x01, 0x60, 0x61, 0x02, 0x03, 0x07, 0x87, 0x06, 0x16, 0x84, 0x05,
            0x04, 0x0c, 0x14, 0x24, 0x34, 0x3c, 0x44, 0x54, 0x64, 0x6c, 0x74, 0xa4, 0xac, 0x15, 0x1d, 0x25,
            0x35, 0x45, 0x4d,
        ]);
        (codes, 0_u8..4, 0_u8..4, 0_u32..16).prop_map(|(code, jt, jf, k)| insn(code, jt, jf, k))
    }

    proptest! {
        #[test]
        fn no_program_panics(
            raw in prop::collection::vec((any::<u16>(), any::<u8>(), any::<u8>(), any::<u32>()), 0..20),
            data in any::<[u32; DATA_WORDS]>(),
        ) {
            let raw: Vec<RawInsn> = raw.into_iter().map(|(code, jt, jf, k)| insn(code, jt, jf, k)).collect();
            let _ = run(&raw, data);
        }

        #[test]
        fn checked_programs_do_what_a_plain_interpreter_does(
            mut raw in prop::collection::vec(likely(), 1..12),
            data in any::<[u32; DATA_WORDS]>(),
        ) {
            raw.push(insn(0x16, 0, 0, 0));
            if let Some(result) = run(&raw, data) {
                prop_assert_eq!(Some(result), plain(&raw, data));
            }
        }

        #[test]
        fn translation_is_no_shorter(mut raw in prop::collection::vec(likely(), 1..12)) {
            raw.push(insn(0x06, 0, 0, 0));
            if let Ok(program) = Program::check(&raw) {
                prop_assert!(program.translated_len() > raw.len());
            }
        }
    }

    /// The manual's semantics on the raw encoding; `None` if the program reads or jumps where it must not.
    fn plain(raw: &[RawInsn], data: [u32; DATA_WORDS]) -> Option<u32> {
        let (mut a, mut x, mut mem, mut pc) = (0_u32, 0_u32, [None; 16], 0_usize);
        loop {
            let RawInsn { code, jt, jf, k } = *raw.get(pc)?;
            pc += 1;
            let b = if code & 8 != 0 { x } else { k };
            match code & 7 {
                0 => {
                    a = match code & 0xe0 {
                        0x00 => k,
                        0x20 => *data.get(k as usize / 4)?,
                        0x60 => mem[k as usize]?,
                        _ => 64,
                    }
                }
                1 => {
                    x = match code & 0xe0 {
                        0x00 => k,
                        0x60 => mem[k as usize]?,
                        _ => 64,
                    }
                }
                2 => mem[k as usize] = Some(a),
                3 => mem[k as usize] = Some(x),
                4 => {
                    a = match code & 0xf0 {
                        0x00 => a.wrapping_add(b),
                        0x10 => a.wrapping_sub(b),
                        0x20 => a.wrapping_mul(b),
                        0x30 if b == 0 => return Some(0),
                        0x30 => a / b,
                        0x40 => a | b,
                        0x50 => a & b,
                        0x60 => a << (b & 31),
                        0x70 => a >> (b & 31),
                        0x80 => 0_u32.wrapping_sub(a),
                        _ => a ^ b,
                    }
                }
                5 => {
                    let taken = match code & 0xf0 {
                        0x00 => {
                            pc += k as usize;
                            continue;
                        }
                        0x10 => a == b,
                        0x20 => a > b,
                        0x30 => a >= b,
                        _ => a & b != 0,
                    };
                    pc += usize::from(if taken { jt } else { jf });
                }
                6 => return Some(if code & 0x10 != 0 { a } else { k }),
                _ if code == 0x07 => x = a,
                _ => a = x,
            }
        }
    }
}
