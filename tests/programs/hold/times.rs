//! Timers that are always due, and timers that are never.

/// Every timer that a process can have, due every nanosecond.
pub(crate) fn timers() -> i32 {
    let mut event = [0_u64; 8];
    // SIGEV_SIGNAL with a signal that nobody wants.
    event[1] = libc::SIGRTMIN() as u64;
    ignore(libc::SIGRTMIN());
    let mut timer = 0_i32;
    while sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, event.as_ptr(), &raw mut timer) == 0 {
        if sys!(libc::SYS_timer_settime, timer, 0, [0_i64, 1, 0, 1].as_ptr(), 0) != 0 {
            return 1;
        }
    }
    sleep()
}

/// The same as descriptors.
pub(crate) fn timer_descriptors() -> i32 {
    loop {
        let timer = sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
        if timer < 0 {
            return sleep();
        }
        if sys!(libc::SYS_timerfd_settime, timer, 0, [0_i64, 1, 0, 1].as_ptr(), 0) != 0 {
            return 1;
        }
    }
}

/// Interval timers, by all clocks.
pub(crate) fn intervals() -> i32 {
    for (which, signal) in [(0, libc::SIGALRM), (1, libc::SIGVTALRM), (2, libc::SIGPROF)] {
        ignore(signal);
        sys!(libc::SYS_setitimer, which, [0_i64, 1, 0, 1].as_ptr(), 0);
    }
    loop {
        std::hint::spin_loop();
    }
}

/// Timers that are due at once, and then when the universe has ended.
pub(crate) fn eternal() -> i32 {
    let soon_then_never = [i64::MAX, 999_999_999, 0, 1_000_000];
    for _ in 0..8 {
        let timer = sys!(libc::SYS_timerfd_create, libc::CLOCK_MONOTONIC, 0);
        sys!(libc::SYS_timerfd_settime, timer, 0, soon_then_never.as_ptr(), 0);
        let mut timer = 0_i32;
        let mut event = [0_u64; 8];
        event[1] = 1 << 32;
        sys!(libc::SYS_timer_create, libc::CLOCK_MONOTONIC, event.as_ptr(), &raw mut timer);
        sys!(libc::SYS_timer_settime, timer, 0, soon_then_never.as_ptr(), 0);
    }
    ignore(libc::SIGALRM);
    sys!(libc::SYS_setitimer, 0, [i64::MAX, 999_999, 0, 1000].as_ptr(), 0);
    sleep()
}

fn ignore(signal: i32) {
    // struct kernel_sigaction: SIG_IGN, no flags, no restorer, no mask.
    sys!(libc::SYS_rt_sigaction, signal, [libc::SIG_IGN as u64, 0, 0, 0].as_ptr(), 0, 8);
}

fn sleep() -> i32 {
    loop {
        sys!(libc::SYS_ppoll, 0, 0, 0, 0, 8);
    }
}
