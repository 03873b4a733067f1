//! Every interleaving of two or three threads, for code that hands something over between threads.
//!
//! The sources of `host` are compiled here once more with loom's primitives in place of the processor's
//! ([`sync::primitive`]), which also shows every order in which stores may be seen. Loom gives `SeqCst` accesses less than
//! that; here they stand between two fences, which is what they are on the processors that there are.
//!
//! A model that cannot fail holds nothing: each is run once more with a [`Bug`] in the primitives, and has to fail.

mod primitive;
#[expect(dead_code, reason = "more is compiled than is called")]
mod sched;
#[expect(dead_code, unreachable_pub, reason = "more is compiled than is called")]
#[expect(unsafe_code, reason = "lock cells")]
mod sync;
mod systrap;
mod waiting;

use std::cell::Cell;

/// As in `host`.
mod hostsys {
    pub(crate) mod futex {
        pub(crate) use crate::primitive::{wait, wake};
    }
    pub(crate) mod overflow {
        pub(crate) fn lock_is_lost() {}
    }
}

/// What is wrong with the primitives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Bug {
    None,
    /// Fences, and with them what makes `SeqCst`, do nothing.
    NoFences,
    /// A read-modify-write is a read and a write.
    Torn,
    /// Nobody is woken who sleeps on a futex.
    NoFutexWakes,
}

thread_local! {
    // Threads of a model run on the thread of its test.
    static BUG: Cell<Bug> = const { Cell::new(Bug::None) };
}

fn bug() -> Bug {
    BUG.get()
}

/// Tries every interleaving of `model`, which must hold in each; and must not with `bugs`.
fn holds(bugs: &[Bug], model: fn()) {
    holds_up_to(None, bugs, model);
}

/// The same of the interleavings in which threads lose the processor so many times at most, where it is not theirs to give:
/// of more there are too many.
fn holds_up_to(preemptions: Option<usize>, bugs: &[Bug], model: fn()) {
    let run = |bug| {
        BUG.set(bug);
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = preemptions;
        let ended = std::panic::catch_unwind(|| builder.check(model));
        BUG.set(Bug::None);
        ended
    };
    if let Err(panic) = run(Bug::None) {
        std::panic::resume_unwind(panic);
    }
    for &bug in bugs {
        assert!(run(bug).is_err(), "{bug:?} was not seen");
    }
}
