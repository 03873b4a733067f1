//! Memory: mappings of every kind, rights, copies, moves.

use crate::Case;
use crate::sys::{self, c, in_child, memory, mmap, peek, poke, report, report_ok, show};
use libc::{MAP_ANONYMOUS, MAP_FIXED, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_NONE, PROT_READ, PROT_WRITE};

pub(crate) const CASES: &[Case] = &[
    ("memory_anonymous", anonymous),
    ("memory_fixed", fixed),
    ("memory_errors", errors),
    ("memory_split", split),
    ("memory_copy_on_write", copy_on_write),
    ("memory_shared", shared),
    ("memory_file_private", file_private),
    ("memory_file_shared", file_shared),
    ("memory_file_grows", file_grows),
    ("memory_mremap", mremap),
    ("memory_brk", brk),
    ("memory_madvise", madvise),
    ("memory_execute", execute),
    ("memory_maps", maps),
    ("memory_mincore_msync", mincore_msync),
    ("memory_memfd", memfd),
    ("memory_big", big),
    ("memory_stack_grows", stack_grows),
    ("memory_bad_pointers", bad_pointers),
    ("memory_reserved", reserved),
];

const RW: i32 = PROT_READ | PROT_WRITE;
const PRIVATE: i32 = MAP_PRIVATE | MAP_ANONYMOUS;
const PAGE: i64 = 4096;

fn fill(address: i64, len: i64, value: u8) {
    (0..len).step_by(512).for_each(|offset| poke(address + offset, value));
}

fn all(address: i64, len: i64, value: u8) -> bool {
    (0..len).step_by(64).all(|offset| peek(address + offset) == value || (offset % 512 != 0 && value != 0))
}

fn anonymous() {
    let area = memory(10 * PAGE as usize);
    println!("aligned {} zero {}", area % PAGE == 0, all(area, 10 * PAGE, 0));
    fill(area, 10 * PAGE, 9);
    println!("kept {}", all(area, 10 * PAGE, 9));
    report("munmap", sys!(libc::SYS_munmap, area, 10 * PAGE));
    report("munmap of nothing", sys!(libc::SYS_munmap, area, 10 * PAGE));
    let area = mmap(0, 100, RW, PRIVATE, -1, 0);
    poke(area + PAGE - 1, 1);
    println!("a length is rounded up: {}", peek(area + PAGE - 1));
    let again = memory(PAGE as usize);
    println!("apart {}", again != area);
    let hinted = mmap(0x1_2345_6000, PAGE as usize, RW, PRIVATE, -1, 0);
    println!("a free hint is taken: {}", hinted == 0x1_2345_6000);
    println!("an odd hint is rounded: {}", mmap(0x1_2346_7001, 4096, RW, PRIVATE, -1, 0) % PAGE == 0);
}

fn fixed() {
    let area = memory(3 * PAGE as usize);
    fill(area, 3 * PAGE, 1);
    let middle = mmap(area + PAGE, PAGE as usize, RW, PRIVATE | MAP_FIXED, -1, 0);
    println!("placed {}", middle == area + PAGE);
    println!("{} {} {}", peek(area), peek(area + PAGE), peek(area + 2 * PAGE));
    report("NOREPLACE", mmap(area, PAGE as usize, RW, PRIVATE | libc::MAP_FIXED_NOREPLACE, -1, 0));
    sys!(libc::SYS_munmap, area + PAGE, PAGE);
    let placed = mmap(area + PAGE, PAGE as usize, RW, PRIVATE | libc::MAP_FIXED_NOREPLACE, -1, 0);
    println!("NOREPLACE in the hole {}", placed == area + PAGE);
    report("fixed, not aligned", mmap(area + 1, PAGE as usize, RW, PRIVATE | MAP_FIXED, -1, 0));
}

fn errors() {
    report("no length", mmap(0, 0, RW, PRIVATE, -1, 0));
    report("no kind", mmap(0, 4096, RW, MAP_ANONYMOUS, -1, 0));
    report("no file", mmap(0, 4096, RW, MAP_PRIVATE, -1, 0));
    report("huge", mmap(0, usize::MAX - 4095, RW, PRIVATE, -1, 0));
    report("too long", mmap(0, 1 << 47, RW, PRIVATE, -1, 0));
    let fd = sys::open("/dev/zero", libc::O_RDONLY, 0);
    report("odd offset", mmap(0, 4096, PROT_READ, MAP_PRIVATE, fd, 7));
    report("shared writable of a read-only file", {
        let fd = sys::open("/proc/self/exe", libc::O_RDONLY, 0);
        mmap(0, 4096, RW, MAP_SHARED, fd, 0)
    });
    let dir = sys::open("/", libc::O_RDONLY | libc::O_DIRECTORY, 0);
    report("a directory", mmap(0, 4096, PROT_READ, MAP_PRIVATE, dir, 0));
    let (read_end, _) = sys::pipe(0);
    report("a pipe", mmap(0, 4096, PROT_READ, MAP_PRIVATE, read_end, 0));
    let area = memory(4 * PAGE as usize);
    sys!(libc::SYS_munmap, area + PAGE, PAGE);
    report("mprotect over a hole", sys!(libc::SYS_mprotect, area, 4 * PAGE, PROT_READ));
    report("mprotect, odd address", sys!(libc::SYS_mprotect, area + 1, PAGE, PROT_READ));
    report("mprotect, nothing", sys!(libc::SYS_mprotect, area, 0, PROT_READ));
    report("mprotect, bad rights", sys!(libc::SYS_mprotect, area, PAGE, 0x1000_0000));
    report("munmap, odd address", sys!(libc::SYS_munmap, area + 1, PAGE));
    report("munmap, nothing", sys!(libc::SYS_munmap, area, 0));
    report("madvise, bad advice", sys!(libc::SYS_madvise, area, PAGE, 999));
    report("madvise over a hole", sys!(libc::SYS_madvise, area, 4 * PAGE, libc::MADV_DONTNEED));
    report("mremap, odd address", sys!(libc::SYS_mremap, area + 1, PAGE, PAGE, 0, 0));
    report("mremap, no new size", sys!(libc::SYS_mremap, area, PAGE, 0, 0, 0));
    report("mremap of a hole", sys!(libc::SYS_mremap, area + PAGE, PAGE, 2 * PAGE, libc::MREMAP_MAYMOVE, 0));
}

fn split() {
    let area = memory(16 * PAGE as usize);
    fill(area, 16 * PAGE, 3);
    for page in (0..16).step_by(2) {
        sys!(libc::SYS_mprotect, area + page * PAGE, PAGE, PROT_READ);
    }
    for page in (1..16).step_by(2) {
        poke(area + page * PAGE, 4);
    }
    in_child("write to an even page", || {
        poke(area + 2 * PAGE, 1);
        0
    });
    println!("{}", (0..16).map(|p| peek(area + p * PAGE).to_string()).collect::<String>());
    sys!(libc::SYS_mprotect, area, 16 * PAGE, RW);
    fill(area, 16 * PAGE, 5);
    println!("whole again {}", all(area, 16 * PAGE, 5));
    sys!(libc::SYS_munmap, area + 4 * PAGE, 4 * PAGE);
    println!("around a hole {} {}", peek(area + 3 * PAGE), peek(area + 8 * PAGE));
    in_child("in the hole", || i32::from(peek(area + 5 * PAGE)));
}

fn copy_on_write() {
    let area = memory(64 * PAGE as usize);
    fill(area, 64 * PAGE, 1);
    in_child("child", || {
        fill(area, 32 * PAGE, 2);
        in_child("grandchild", || {
            fill(area, 64 * PAGE, 3);
            i32::from(all(area, 64 * PAGE, 3))
        });
        i32::from(all(area, 32 * PAGE, 2)) + i32::from(all(area + 32 * PAGE, 32 * PAGE, 1))
    });
    println!("parent {}", all(area, 64 * PAGE, 1));
    let (written, writes) = sys::pipe(0);
    let pid = sys::fork(|| {
        sys::read(written, 1);
        i32::from(all(area, 64 * PAGE, 1))
    });
    fill(area, 64 * PAGE, 7);
    sys::write(writes, b"x");
    println!("a write by the parent is not seen: {}", sys::wait(pid));
    // The kernel writes on the program's behalf, too.
    let zero = sys::open("/dev/zero", libc::O_RDONLY, 0);
    in_child("read into shared pages", || {
        report("read", sys!(libc::SYS_read, zero, area, 8 * PAGE));
        i32::from(all(area, 8 * PAGE, 0))
    });
    println!("parent {}", all(area, 64 * PAGE, 7));
}

fn shared() {
    let area = mmap(0, 8 * PAGE as usize, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    in_child("writes", || {
        fill(area, 4 * PAGE, 1);
        in_child("its child writes", || {
            fill(area + 4 * PAGE, 4 * PAGE, 2);
            0
        });
        0
    });
    println!("{} {}", all(area, 4 * PAGE, 1), all(area + 4 * PAGE, 4 * PAGE, 2));
    sys!(libc::SYS_mprotect, area, PAGE, PROT_READ);
    in_child("rights are not shared", || {
        sys!(libc::SYS_mprotect, area, PAGE, RW);
        poke(area, 9);
        0
    });
    println!("{}", peek(area));
}

fn file_private() {
    sys::scratch("private");
    std::fs::write("file", vec![b'a'; 3 * PAGE as usize]).expect("a file");
    let fd = sys::open("file", libc::O_RDONLY, 0);
    let area = mmap(0, 3 * PAGE as usize, RW, MAP_PRIVATE, fd, 0);
    let tail = mmap(0, PAGE as usize, PROT_READ, MAP_PRIVATE, fd, 2 * PAGE);
    sys::close(fd);
    println!("{} {}", peek(area + 5000) as char, peek(tail) as char);
    poke(area, b'b');
    println!("{} file {}", peek(area) as char, std::fs::read("file").expect("a file")[0] as char);
    in_child("child", || {
        println!("{} {}", peek(area) as char, peek(area + PAGE) as char);
        poke(area, b'c');
        0
    });
    println!("{}", peek(area) as char);
    sys!(libc::SYS_madvise, area, PAGE, libc::MADV_DONTNEED);
    println!("dropped: {}", peek(area) as char);
    sys::unscratch();
}

fn file_shared() {
    sys::scratch("shared");
    std::fs::write("file", vec![b'a'; 2 * PAGE as usize]).expect("a file");
    let fd = sys::open("file", libc::O_RDWR, 0);
    let area = mmap(0, 2 * PAGE as usize, RW, MAP_SHARED, fd, 0);
    let other = mmap(0, 2 * PAGE as usize, PROT_READ, MAP_SHARED, fd, 0);
    poke(area + 10, b'z');
    println!("the other mapping {} the file {}", peek(other + 10) as char, {
        let mut byte = [0_u8];
        sys!(libc::SYS_pread64, fd, byte.as_mut_ptr(), 1, 10);
        byte[0] as char
    });
    sys!(libc::SYS_pwrite64, fd, b"W".as_ptr(), 1, PAGE + 1);
    println!("write(2) is seen {}", peek(area + PAGE + 1) as char);
    in_child("child", || {
        poke(area + 20, b'y');
        0
    });
    println!("{}", peek(other + 20) as char);
    report("msync", sys!(libc::SYS_msync, area, 2 * PAGE, libc::MS_SYNC));
    sys!(libc::SYS_munmap, area, 2 * PAGE);
    let text = std::fs::read("file").expect("a file");
    println!("{} {} {}", text[10] as char, text[20] as char, text[PAGE as usize + 1] as char);
    sys::unscratch();
}

fn file_grows() {
    sys::scratch("grows");
    let fd = sys::open("file", libc::O_RDWR | libc::O_CREAT, 0o600);
    let area = mmap(0, 4 * PAGE as usize, RW, MAP_SHARED, fd, 0);
    in_child("empty", || i32::from(peek(area)));
    report("ftruncate", sys!(libc::SYS_ftruncate, fd, 2 * PAGE));
    poke(area + PAGE, 1);
    println!("grown {}", peek(area + PAGE));
    in_child("still behind it", || i32::from(peek(area + 3 * PAGE)));
    report("shrink", sys!(libc::SYS_ftruncate, fd, 100));
    in_child("cut off", || i32::from(peek(area + PAGE)));
    report("grow again", sys!(libc::SYS_ftruncate, fd, 2 * PAGE));
    println!("zero {}", peek(area + PAGE));
    sys::unscratch();
}

fn mremap() {
    let area = memory(4 * PAGE as usize);
    fill(area, 4 * PAGE, 6);
    let grown = sys!(libc::SYS_mremap, area, 4 * PAGE, 64 * PAGE, libc::MREMAP_MAYMOVE, 0);
    println!("contents {} new {}", all(grown, 4 * PAGE, 6), all(grown + 4 * PAGE, 60 * PAGE, 0));
    let shrunk = sys!(libc::SYS_mremap, grown, 64 * PAGE, 2 * PAGE, 0, 0);
    println!("in place {} contents {}", shrunk == grown, all(shrunk, 2 * PAGE, 6));
    in_child("cut off", || i32::from(peek(grown + 3 * PAGE)));
    let wall = memory(8 * PAGE as usize);
    report("no room to grow", sys!(libc::SYS_mremap, wall, PAGE, 3 * PAGE, 0, 0));
    let target = memory(4 * PAGE as usize);
    let flags = libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED;
    let moved = sys!(libc::SYS_mremap, shrunk, 2 * PAGE, 2 * PAGE, flags, target);
    println!("moved {} contents {}", moved == target, all(target, 2 * PAGE, 6));
    in_child("the old place", || i32::from(peek(shrunk)));
    report("onto itself", sys!(libc::SYS_mremap, target, 2 * PAGE, 2 * PAGE, flags, target + PAGE));
    let shared = mmap(0, PAGE as usize, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    poke(shared, 8);
    let twin = sys!(libc::SYS_mremap, shared, 0, PAGE, libc::MREMAP_MAYMOVE, 0);
    println!("a twin of shared memory {}", if twin > 0 { peek(twin).to_string() } else { show(twin) });
    poke(shared, 9);
    println!("{}", if twin > 0 { peek(twin) } else { 0 });
}

fn brk() {
    let start = sys!(libc::SYS_brk, 0);
    let end = sys!(libc::SYS_brk, start + 10 * PAGE + 5);
    println!("grown by {}", end - start);
    println!("zero {}", all(start, 10 * PAGE, 0));
    fill(start, 10 * PAGE, 1);
    println!("shrunk to {}", sys!(libc::SYS_brk, start + PAGE) - start);
    println!("grown to {}", sys!(libc::SYS_brk, start + 3 * PAGE) - start);
    println!("zero again {}", all(start + PAGE, 2 * PAGE, 0));
    println!("below the start {}", sys!(libc::SYS_brk, start - PAGE) - start);
    println!("absurd {}", sys!(libc::SYS_brk, i64::MAX) - start);
    in_child("inherited", || i32::from(sys!(libc::SYS_brk, 0) == start + 3 * PAGE));
}

fn madvise() {
    let area = memory(8 * PAGE as usize);
    fill(area, 8 * PAGE, 1);
    report("DONTNEED", sys!(libc::SYS_madvise, area + PAGE, 2 * PAGE, libc::MADV_DONTNEED));
    println!("{} {} {} {}", peek(area), peek(area + PAGE), peek(area + 2 * PAGE), peek(area + 3 * PAGE));
    poke(area + PAGE, 2);
    println!("usable {}", peek(area + PAGE));
    for advice in [libc::MADV_WILLNEED, libc::MADV_SEQUENTIAL, libc::MADV_FREE, libc::MADV_DONTDUMP] {
        report(&format!("advice {advice}"), sys!(libc::SYS_madvise, area, PAGE, advice));
    }
    let shared = mmap(0, PAGE as usize, RW, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    poke(shared, 5);
    sys!(libc::SYS_madvise, shared, PAGE, libc::MADV_DONTNEED);
    println!("shared memory keeps it {}", peek(shared));
    let secret = memory(PAGE as usize);
    poke(secret, 5);
    report("WIPEONFORK", sys!(libc::SYS_madvise, secret, PAGE, libc::MADV_WIPEONFORK));
    in_child("wiped", || i32::from(peek(secret)));
    let absent = memory(PAGE as usize);
    report("DONTFORK", sys!(libc::SYS_madvise, absent, PAGE, libc::MADV_DONTFORK));
    in_child("absent", || i32::from(peek(absent)));
}

fn execute() {
    let code: &[u8] = if cfg!(target_arch = "x86_64") {
        &[0xb8, 42, 0, 0, 0, 0xc3]
    } else {
        &[0x40, 0x05, 0x80, 0x52, 0xc0, 0x03, 0x5f, 0xd6]
    };
    let area = memory(PAGE as usize);
    code.iter().enumerate().for_each(|(at, byte)| poke(area + at as i64, *byte));
    report("mprotect", sys!(libc::SYS_mprotect, area, PAGE, PROT_READ | PROT_EXEC));
    println!("{}", sys::jump(area));
    let both = mmap(0, PAGE as usize, RW | PROT_EXEC, PRIVATE, -1, 0);
    code.iter().enumerate().for_each(|(at, byte)| poke(both + at as i64, *byte));
    println!("{}", sys::jump(both));
    poke(
        both + if cfg!(target_arch = "x86_64") { 1 } else { 0 },
        if cfg!(target_arch = "x86_64") { 43 } else { 0x60 },
    );
    sys::synchronize(both);
    println!("changed {}", sys::jump(both));
}

fn maps() {
    let area = memory(3 * PAGE as usize);
    sys!(libc::SYS_mprotect, area + PAGE, PAGE, PROT_NONE);
    let text = std::fs::read_to_string("/proc/self/maps").expect("/proc/self/maps");
    let rights: Vec<String> = text
        .lines()
        .filter_map(|line| {
            let (range, rest) = line.split_once(' ')?;
            let (from, to) = range.split_once('-')?;
            let from = i64::from_str_radix(from, 16).ok()?;
            let to = i64::from_str_radix(to, 16).ok()?;
            (from < area + 3 * PAGE && to > area).then(|| rest[..4].to_owned())
        })
        .collect();
    println!("{rights:?}");
    println!("stack {}", text.lines().any(|l| l.ends_with("[stack]") && l.contains(" rw-p ")));
    println!("heap {}", { text.lines().any(|l| l.ends_with("[heap]")) });
    let own = std::fs::read_link("/proc/self/exe").expect("a link");
    println!("text {}", text.lines().any(|l| l.contains(" r-xp ") && l.ends_with(&*own.to_string_lossy())));
    let sorted = text.lines().filter_map(|l| i64::from_str_radix(l.split('-').next()?, 16).ok());
    println!("sorted {}", sorted.is_sorted());
}

fn mincore_msync() {
    let area = memory(4 * PAGE as usize);
    poke(area, 1);
    poke(area + 2 * PAGE, 1);
    let mut present = [0_u8; 4];
    report("mincore", sys!(libc::SYS_mincore, area, 4 * PAGE, present.as_mut_ptr()));
    println!("{} {}", present[0] & 1, present[2] & 1);
    report("mincore, odd", sys!(libc::SYS_mincore, area + 1, PAGE, present.as_mut_ptr()));
    report("msync", sys!(libc::SYS_msync, area, PAGE, libc::MS_ASYNC));
    report("msync, both", sys!(libc::SYS_msync, area, PAGE, libc::MS_ASYNC | libc::MS_SYNC));
    sys!(libc::SYS_munmap, area, PAGE);
    report("msync of nothing", sys!(libc::SYS_msync, area, PAGE, libc::MS_SYNC));
    report("mlock", sys!(libc::SYS_mlock, area + PAGE, PAGE));
    report("munlock", sys!(libc::SYS_munlock, area + PAGE, PAGE));
}

fn memfd() {
    let name = c("name");
    let fd = sys!(libc::SYS_memfd_create, name.as_ptr(), libc::MFD_ALLOW_SEALING | libc::MFD_CLOEXEC);
    report("ftruncate", sys!(libc::SYS_ftruncate, fd, 2 * PAGE));
    let area = mmap(0, 2 * PAGE as usize, RW, MAP_SHARED, fd, 0);
    poke(area, b'm');
    println!("{:?}", { sys::read(fd, 3).1 });
    println!("link {}", std::fs::read_link(format!("/proc/self/fd/{fd}")).expect("a link").display());
    sys!(libc::SYS_munmap, area, 2 * PAGE);
    report("seal", {
        let seals = libc::F_SEAL_WRITE | libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
        sys!(libc::SYS_fcntl, fd, libc::F_ADD_SEALS, seals)
    });
    report("write", sys::write(fd, b"x"));
    report("shrink", sys!(libc::SYS_ftruncate, fd, 1));
    report("grow", sys!(libc::SYS_ftruncate, fd, 9 * PAGE));
    report("map writable", mmap(0, PAGE as usize, RW, MAP_SHARED, fd, 0));
    report_ok("map privately", mmap(0, PAGE as usize, RW, MAP_PRIVATE, fd, 0));
    report("seals", sys!(libc::SYS_fcntl, fd, libc::F_GET_SEALS));
    report("seal another file", sys!(libc::SYS_fcntl, sys::open("/dev/null", 0, 0), libc::F_ADD_SEALS, 1));
}

fn big() {
    let len = 256_i64 << 20;
    let area = mmap(0, len as usize, RW, PRIVATE | libc::MAP_NORESERVE, -1, 0);
    for offset in (0..len).step_by(16 << 20) {
        poke(area + offset, 1);
    }
    println!(
        "sparse {}",
        (0..len).step_by(16 << 20).all(|o| peek(area + o) == 1 && peek(area + o + PAGE) == 0)
    );
    report("munmap", sys!(libc::SYS_munmap, area, len));
    let reserved = mmap(0, 1 << 40, PROT_NONE, PRIVATE | libc::MAP_NORESERVE, -1, 0);
    report_ok("a terabyte reserved", reserved);
    report("a part made usable", sys!(libc::SYS_mprotect, reserved + (1 << 30), 4 * PAGE, RW));
    poke(reserved + (1 << 30), 1);
    report("munmap", sys!(libc::SYS_munmap, reserved, 1_i64 << 40));
}

fn stack_grows() {
    fn deep(depth: u32) -> u64 {
        let room = std::hint::black_box([u64::from(depth); 128]);
        if depth == 0 { 0 } else { deep(depth - 1) + room[3] }
    }
    println!("{}", deep(4000));
    in_child("too deep", || {
        // Not Rust's own handler, which prints and aborts.
        sys::action(libc::SIGSEGV, libc::SIG_DFL, 0, &[]);
        deep(u32::MAX) as i32
    });
}

fn bad_pointers() {
    let (read_end, write_end) = sys::pipe(0);
    let area = memory(2 * PAGE as usize);
    sys!(libc::SYS_munmap, area + PAGE, PAGE);
    report("write from nowhere", sys!(libc::SYS_write, write_end, 8, 10));
    sys::write(write_end, b"0123456789");
    report("read to nowhere", sys!(libc::SYS_read, read_end, 8, 10));
    sys!(libc::SYS_mprotect, area, PAGE, PROT_READ);
    report("read to a read-only page", sys!(libc::SYS_read, read_end, area, 10));
    report("open nowhere", sys!(libc::SYS_openat, libc::AT_FDCWD, 8, 0, 0));
    report("uname to nowhere", sys!(libc::SYS_uname, 8));
    report("path across the end", {
        sys!(libc::SYS_mprotect, area, PAGE, RW);
        fill(area, PAGE, b'x');
        (0..PAGE).for_each(|at| poke(area + at, b'x'));
        sys!(libc::SYS_openat, libc::AT_FDCWD, area + PAGE - 10, 0, 0)
    });
    report("pipe to nowhere", sys!(libc::SYS_pipe2, 8, 0));
    report("clock to nowhere", sys!(libc::SYS_clock_gettime, 1, 8));
    report("a length that wraps", sys!(libc::SYS_write, write_end, area, -1));
}

fn reserved() {
    // Address space that the sandbox keeps for itself: reservations succeed, use is refused or works, and never crashes
    // anything but this program.
    let base = 0x60_0000_0000_i64;
    let none = mmap(base, 1 << 20, PROT_NONE, PRIVATE | MAP_FIXED | libc::MAP_NORESERVE, -1, 0);
    println!("reserved {}", none == base);
    in_child("touched", || i32::from(peek(base)));
    report("given back", sys!(libc::SYS_munmap, base, 1 << 20));
}
