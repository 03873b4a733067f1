//! epoll within epoll, what is closed, who is woken, and how deep it goes.

use crate::Case;
use crate::sys::{self, close, fork, pipe, report, wait, write};

pub(crate) const CASES: &[Case] = &[
    ("epoll_second_event", second_event),
    ("epoll_edges_through", edges_through),
    ("epoll_depth", depth),
    ("epoll_circles", circles),
    ("epoll_circles_at_once", circles_at_once),
    ("epoll_ways", ways),
    ("epoll_exclusive", exclusive),
    ("epoll_closed", closed),
    ("epoll_closed_while_notified", closed_while_notified),
    ("epoll_many", many),
    ("epoll_one_shot_shared", one_shot_shared),
    ("epoll_bad_buffer", bad_buffer),
];

const IN: u32 = libc::EPOLLIN as u32;
const OUT: u32 = libc::EPOLLOUT as u32;
const EDGE: u32 = libc::EPOLLET as u32;
const ONE_SHOT: u32 = libc::EPOLLONESHOT as u32;
const EXCLUSIVE: u32 = libc::EPOLLEXCLUSIVE as u32;

fn create() -> i64 {
    sys!(libc::SYS_epoll_create1, 0)
}

fn control(epoll: i64, operation: i32, fd: i64, events: u32, data: u64) -> i64 {
    let event = libc::epoll_event { events, u64: data };
    sys!(libc::SYS_epoll_ctl, epoll, operation, fd, &raw const event)
}

fn add(epoll: i64, fd: i64, events: u32, data: u64) -> i64 {
    control(epoll, libc::EPOLL_CTL_ADD, fd, events, data)
}

/// Waits for up to eight events and shows them, in the order of their data.
fn events(epoll: i64, timeout: i32) -> String {
    let mut all = [libc::epoll_event { events: 0, u64: 0 }; 8];
    let result = sys!(libc::SYS_epoll_pwait, epoll, all.as_mut_ptr(), 8, timeout, 0, 8);
    let count = usize::try_from(result).unwrap_or(0);
    let mut seen: Vec<(u64, u32)> = all[..count].iter().map(|event| (event.u64, event.events)).collect();
    seen.sort_unstable();
    format!("{} {seen:x?}", sys::show(result))
}

fn second_event() {
    let (inner, outer, (reader, writer)) = (create(), create(), pipe(0));
    report("inner", add(inner, reader, IN, 1));
    report("outer", add(outer, inner, IN, 2));
    for round in 0..3 {
        write(writer, b"x");
        println!("{round}: {}", events(outer, 0));
        sys::read(reader, 1);
        // Nobody asked the inner one.
        println!("{round}: {}", events(outer, 0));
    }
    let pid = fork(|| {
        sys::until_asleep(sys!(libc::SYS_getppid), sys!(libc::SYS_getppid));
        i32::from(write(writer, b"y") != 1)
    });
    println!("asleep {}", events(outer, 10_000));
    println!("{}", wait(pid));
}

fn edges_through() {
    let (inner, outer, (reader, writer)) = (create(), create(), pipe(0));
    add(inner, reader, IN, 1);
    add(outer, inner, IN | EDGE, 2);
    write(writer, b"x");
    println!("{} {}", events(outer, 0), events(outer, 0));
    write(writer, b"x");
    println!("though it was ready before: {} {}", events(outer, 0), events(outer, 0));
    println!("{}", events(inner, 0));
    println!("asking the inner one is no event: {}", events(outer, 0));
}

fn depth() {
    // From the top down, from the bottom up, and two halves joined.
    let (mut top, mut built) = (create(), 0);
    for _ in 0..8 {
        let below = create();
        if add(top, below, IN, 0) != 0 {
            break;
        }
        (top, built) = (below, built + 1);
    }
    println!("down {built}");
    let (mut below, mut built) = (create(), 0);
    let bottom = below;
    for _ in 0..8 {
        let above = create();
        if add(above, below, IN, 0) != 0 {
            break;
        }
        (below, built) = (above, built + 1);
    }
    println!("up {built}");
    let event = sys!(libc::SYS_eventfd2, 1, 0);
    report("and a file", add(bottom, event, IN, 0));
    println!("seen {}", events(below, 0));
    let chain = |len: usize| {
        let all: Vec<i64> = (0..len).map(|_| create()).collect();
        all.windows(2).for_each(|pair| {
            add(pair[0], pair[1], IN, 0);
        });
        (all[0], all[len - 1])
    };
    for (above, below) in [(2, 3), (3, 2), (3, 3), (1, 5), (5, 1), (4, 1)] {
        let (upper, lower) = (chain(above).1, chain(below).0);
        report(&format!("{above} above {below}"), add(upper, lower, IN, 0));
    }
}

fn circles() {
    let all: Vec<i64> = (0..3).map(|_| create()).collect();
    report("itself", add(all[0], all[0], IN, 0));
    report("", add(all[0], all[1], IN, 0));
    report("back", add(all[1], all[0], IN, 0));
    report("", add(all[1], all[2], IN, 0));
    report("further back", add(all[2], all[0], IN, 0));
    report("another way", add(all[0], all[2], IN, 0));
    report("let go", control(all[0], libc::EPOLL_CTL_DEL, all[1], 0, 0));
    report("now", add(all[1], all[0], IN, 0));
}

fn circles_at_once() {
    // Two that start to watch each other at the same time: one of them must be told.
    let mut both = 0;
    for _ in 0..300 {
        let (a, b) = (create(), create());
        let other = std::thread::spawn(move || add(b, a, IN, 0));
        let result = add(a, b, IN, 0);
        both += i32::from(result == 0 && other.join().is_ok_and(|result| result == 0));
        close(a);
        close(b);
    }
    println!("circles {both}");
}

fn ways() {
    // Every file has at most 500 ways to epolls two levels above it, and so on.
    let middle = create();
    let mut built = 0;
    while built < 600 && add(create(), middle, IN, 0) == 0 {
        built += 1;
    }
    let (reader, _) = pipe(0);
    println!("{}", if built >= 500 { "no fewer than 500" } else { "fewer" });
    report("a file", if built == 600 { add(middle, reader, IN, 0) } else { -22 });
}

fn exclusive() {
    let (epoll, (reader, _)) = (create(), pipe(0));
    report("one-shot", add(epoll, reader, IN | EXCLUSIVE | ONE_SHOT, 0));
    report("of priority", add(epoll, reader, libc::EPOLLPRI as u32 | EXCLUSIVE, 0));
    report("an epoll", add(epoll, create(), IN | EXCLUSIVE, 0));
    report("edges", add(epoll, reader, IN | OUT | EDGE | EXCLUSIVE, 0));
    report("changed", control(epoll, libc::EPOLL_CTL_MOD, reader, IN, 0));
    report("taken away", control(epoll, libc::EPOLL_CTL_DEL, reader, 0, 0));
    report("plain", add(epoll, reader, IN, 0));
    report("made so", control(epoll, libc::EPOLL_CTL_MOD, reader, IN | EXCLUSIVE, 0));
    // Where nobody sleeps everybody hears.
    let (first, second, (reader, writer)) = (create(), create(), pipe(0));
    add(first, reader, IN | EXCLUSIVE, 1);
    add(second, reader, IN | EXCLUSIVE, 2);
    write(writer, b"x");
    println!("{} {}", events(first, 0), events(second, 0));
}

fn closed() {
    let (epoll, (reader, writer)) = (create(), pipe(0));
    let copy = sys!(libc::SYS_dup, reader);
    add(epoll, reader, IN, 1);
    report("under another number", add(epoll, copy, IN, 2));
    write(writer, b"x");
    println!("{}", events(epoll, 0));
    close(reader);
    println!("one number closed {}", events(epoll, 0));
    report("its number", control(epoll, libc::EPOLL_CTL_DEL, reader, 0, 0));
    close(copy);
    println!("both closed {}", events(epoll, 0));
    // The number again, for another file.
    let (reader, writer) = pipe(0);
    report("again", add(epoll, reader, IN, 3));
    write(writer, b"x");
    println!("{}", events(epoll, 0));
}

fn closed_while_notified() {
    // The last descriptor of an epoll goes while what it watches is written to.
    let (reader, writer) = pipe(libc::O_NONBLOCK);
    let writes = std::thread::spawn(move || {
        for _ in 0..3_000 {
            write(writer, b"x");
            sys::read(reader, 1);
        }
    });
    let mut rounds = 0;
    while !writes.is_finished() || rounds < 200 {
        let (inner, outer) = (create(), create());
        add(inner, reader, IN, 1);
        add(outer, inner, IN, 1);
        close(inner);
        close(outer);
        rounds += 1;
    }
    println!("{}", writes.join().is_ok());
}

fn many() {
    // Adding one more does not look at all others: with 4,000 it would take seconds where it takes milliseconds.
    let epoll = create();
    let event = sys!(libc::SYS_eventfd2, 1, 0);
    let limit = [8192_u64, 8192];
    sys!(libc::SYS_prlimit64, 0, libc::RLIMIT_NOFILE, limit.as_ptr(), 0);
    let mut added = 0;
    for data in 0..4000 {
        let copy = sys!(libc::SYS_fcntl, event, libc::F_DUPFD, 10);
        added += i32::from(copy >= 0 && add(epoll, copy, IN, data) == 0);
    }
    println!("added {added}");
    println!("some of them {}", events(epoll, 0).starts_with('8'));
    close(epoll);
}

fn one_shot_shared() {
    // Two threads wait for one event that is for one.
    let (epoll, (reader, writer)) = (create(), pipe(0));
    add(epoll, reader, IN | ONE_SHOT, 7);
    let mut twice = 0;
    for _ in 0..200 {
        let other = std::thread::spawn(move || events(epoll, 0));
        write(writer, b"x");
        let mine = events(epoll, 0);
        let theirs = other.join().unwrap_or_default();
        twice += i32::from(mine.starts_with('1') && theirs.starts_with('1'));
        control(epoll, libc::EPOLL_CTL_MOD, reader, 0, 7);
        sys::read(reader, 1);
        control(epoll, libc::EPOLL_CTL_MOD, reader, IN | ONE_SHOT, 7);
    }
    println!("twice {twice}");
}

/// Who has no memory for events does not lose them.
fn bad_buffer() {
    let epoll = create();
    let pipes = [pipe(0), pipe(0), pipe(0)];
    for ((reader, writer), flags) in pipes.into_iter().zip([EDGE, ONE_SHOT, 0]) {
        add(epoll, reader, IN | flags, flags.into());
        write(writer, b"x");
    }
    let wait_at = |at: i64| sys!(libc::SYS_epoll_pwait, epoll, at, 8, 0, 0, 8);
    report("nowhere", wait_at(8));
    // There is room for one at the end of the memory, and for a part of the next.
    let size = size_of::<libc::epoll_event>() as i64;
    let memory = sys::memory(8192);
    sys!(libc::SYS_munmap, memory + 4096, 4096);
    let first = |at: i64| sys::load::<libc::epoll_event>(at).u64 as u32 == EDGE;
    let at = memory + 4096 - size - 4;
    report("for one", wait_at(at));
    println!("the first {}", first(at));
    println!("the others {}", events(epoll, 0));
    println!("{}", events(epoll, 0));
}
