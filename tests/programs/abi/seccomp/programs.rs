//! Which programs are accepted, and what they compute.

use super::{ALLOW, ERRNO, Insn, expect, insn, install_with, load, ret};
use crate::sys::{fork, in_child, report, show, wait};

/// Every operation code there is, alone in front of a return; jumps; memory.
pub(super) fn bad() {
    let verdict = |program: &[Insn]| {
        let pid = fork(|| i32::from(install_with(0, program) == 0));
        wait(pid) != "exited 0"
    };
    let accepted: Vec<String> = (0..=0x1ff_u16)
        .filter(|code| {
            verdict(&[
                insn(0x02, 0, 0, 4),
                insn(*code, 0, 0, 4),
                ret(ALLOW),
                ret(ALLOW),
                ret(ALLOW),
                ret(ALLOW),
                ret(ALLOW),
            ])
        })
        .map(|code| format!("{code:#x}"))
        .collect();
    println!("accepted: {}", accepted.join(" "));
    let a = ret(ALLOW);
    let table: [(&str, &[Insn]); 32] = [
        ("ends without return", &[a, load(0)]),
        ("returns A", &[insn(0x16, 0, 0, 0)]),
        ("returns X", &[insn(0x0e, 0, 0, 0)]),
        ("unaligned word", &[load(2), a]),
        ("last word", &[load(60), a]),
        ("behind the data", &[load(64), a]),
        ("far behind it", &[load(0xffff_fffc), a]),
        ("an ancillary word", &[load(0xffff_f000), a]),
        ("half word", &[insn(0x28, 0, 0, 0), a]),
        ("byte", &[insn(0x30, 0, 0, 0), a]),
        ("indirect word", &[insn(0x40, 0, 0, 0), a]),
        ("header length", &[insn(0xb1, 0, 0, 0), a]),
        ("jump to the end", &[insn(0x05, 0, 0, 0), a]),
        ("jump behind it", &[insn(0x05, 0, 0, 1), a]),
        ("jump backwards", &[a, insn(0x05, 0, 0, u32::MAX), a]),
        ("condition true leaves", &[insn(0x15, 1, 0, 0), a]),
        ("condition false leaves", &[insn(0x15, 0, 1, 0), a]),
        ("condition inside", &[insn(0x15, 1, 1, 0), a, a]),
        ("division by zero", &[insn(0x34, 0, 0, 0), a]),
        ("remainder", &[insn(0x94, 0, 0, 3), a]),
        ("shift by 31", &[insn(0x64, 0, 0, 31), a]),
        ("shift by 32", &[insn(0x64, 0, 0, 32), a]),
        ("shift right by 32", &[insn(0x74, 0, 0, 32), a]),
        ("memory 15", &[insn(0x02, 0, 0, 15), insn(0x60, 0, 0, 15), a]),
        ("memory 16", &[insn(0x02, 0, 0, 16), a]),
        ("memory not written", &[insn(0x60, 0, 0, 0), a]),
        ("another not written", &[insn(0x03, 0, 0, 1), insn(0x61, 0, 0, 0), a]),
        ("written on one way", &[insn(0x15, 0, 1, 0), insn(0x02, 0, 0, 0), insn(0x60, 0, 0, 0), a]),
        (
            "written on both ways",
            &[
                insn(0x15, 0, 2, 0),
                insn(0x02, 0, 0, 0),
                insn(0x05, 0, 0, 1),
                insn(0x03, 0, 0, 0),
                insn(0x60, 0, 0, 0),
                a,
            ],
        ),
        ("written behind a return", &[a, insn(0x02, 0, 0, 0), insn(0x60, 0, 0, 0), a]),
        ("not written where nobody comes", &[a, insn(0x60, 0, 0, 0), a]),
        ("4096 instructions", &[a; 4096]),
    ];
    for (what, program) in table {
        let pid = fork(|| {
            report(what, install_with(0, program));
            0
        });
        wait(pid);
    }
}

/// The errno that getppid gives under a program that ends with `A` in the low half.
fn computed(program: &[Insn]) -> String {
    let pid = fork(|| {
        let result = install_with(0, program);
        if result != 0 {
            println!("  {}", show(result));
            return 0;
        }
        println!("  {}", show(sys!(libc::SYS_getppid)));
        0
    });
    wait(pid)
}

/// Each operation on numbers at the edges, its result looked at twelve bits at a time.
pub(super) fn arithmetic() {
    let numbers = [0_u32, 1, 5, 31, 32, 33, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff, 0x1234_5678];
    for operation in [0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0xa0] {
        for b in numbers {
            println!("operation {operation:#x} with {b:#x}");
            for from_x in [0, 8] {
                // Folds the results for several values of A into one.
                let mut program =
                    vec![load(0), expect(libc::SYS_getppid as u32, 1), insn(0x05, 0, 0, 1), ret(ALLOW)];
                program.push(insn(0x00, 0, 0, 0));
                program.push(insn(0x02, 0, 0, 0));
                for a in [0x8765_4321_u32, 7] {
                    program.extend([
                        insn(0x01, 0, 0, b),
                        insn(0x00, 0, 0, a),
                        insn(0x04 | operation | from_x, 0, 0, b),
                        insn(0x02, 0, 0, 1),
                        // M0 = M0 * 31 ^ the result.
                        insn(0x60, 0, 0, 0),
                        insn(0x24, 0, 0, 31),
                        insn(0x61, 0, 0, 1),
                        insn(0xac, 0, 0, 0),
                        insn(0x02, 0, 0, 0),
                    ]);
                }
                // All bits take part in the eleven that are returned.
                program.extend([
                    insn(0x60, 0, 0, 0),
                    insn(0x74, 0, 0, 16),
                    insn(0x07, 0, 0, 0),
                    insn(0x60, 0, 0, 0),
                    insn(0xac, 0, 0, 0),
                    insn(0x54, 0, 0, 0x7ff),
                    insn(0x44, 0, 0, ERRNO),
                    insn(0x16, 0, 0, 0),
                ]);
                let end = computed(&program);
                if end != "exited 0" {
                    println!("  {end}");
                }
            }
        }
    }
}

/// Programs made by chance, the same ones everywhere: whether they are accepted, and what they return.
pub(super) fn random() {
    const CODES: [u16; 40] = [
        0x20, 0x20, 0x20, 0x80, 0x81, 0x00, 0x01, 0x60, 0x61, 0x02, 0x02, 0x03, 0x07, 0x87, 0x06, 0x16, 0x84,
        0x05, 0x04, 0x0c, 0x14, 0x1c, 0x24, 0x2c, 0x34, 0x3c, 0x44, 0x4c, 0x54, 0x5c, 0x64, 0x6c, 0x74, 0x7c,
        0xa4, 0xac, 0x15, 0x1d, 0x25, 0x45,
    ];
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut next = |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut accepted = 0;
    for round in 0..400 {
        // Only calls with a mark in the last argument are looked at, so that the child can go on.
        let mut program = vec![load(56), expect(0xbeef, 1), insn(0x05, 0, 0, 1), ret(ALLOW)];
        for _ in 0..next(10) + 1 {
            let k = if next(4) == 0 { next(1 << 32) } else { next(16) * 4 };
            program.push(insn(CODES[next(40) as usize], next(3) as u8, next(3) as u8, k as u32));
        }
        program.extend([insn(0x54, 0, 0, 0xfff), insn(0x44, 0, 0, ERRNO), insn(0x16, 0, 0, 0)]);
        let pid = fork(|| {
            let result = install_with(0, &program);
            if result != 0 {
                return if result == -i64::from(libc::EINVAL) { 1 } else { 2 };
            }
            // The number differs between architectures, not between worlds.
            println!("  {round}: {}", show(sys!(libc::SYS_getuid, 1, 2, 3, 4, 5, 0xbeef)));
            0
        });
        match wait(pid).as_str() {
            "exited 1" => println!("  {round}: refused"),
            "exited 0" => accepted += 1,
            end => println!("  {round}: {end}"),
        }
    }
    println!("some are accepted: {}", accepted > 50);
}

/// How much fits into a chain: Linux counts what it has translated a program to.
pub(super) fn chain_limit() {
    let kinds: [(&str, &[Insn]); 5] = [
        ("returns", &[ret(ALLOW)]),
        ("loads", &[load(0)]),
        ("divisions", &[insn(0x3c, 0, 0, 0)]),
        ("conditions", &[insn(0x15, 0, 0, 1), insn(0x45, 1, 0, 1), insn(0x25, 0, 1, 5), insn(0x3d, 1, 1, 0)]),
        ("conditions on large numbers", &[insn(0x35, 0, 1, 0x8000_0000), insn(0x45, 0, 1, 0xffff_ffff)]),
    ];
    for (what, kind) in kinds {
        in_child("full", || {
            let mut large = vec![insn(0x01, 0, 0, 1)];
            large.extend(kind.iter().cycle().take(1000));
            large.extend([ret(ALLOW); 3]);
            let small = [ret(ALLOW)];
            let fill = |program: &[Insn]| {
                let mut count = 0;
                while install_with(0, program) == 0 {
                    count += 1;
                }
                count
            };
            let (many, few) = (fill(&large), fill(&small));
            println!("{what}: {many} and {few}, then {}", show(install_with(0, &small)));
            0
        });
    }
}
