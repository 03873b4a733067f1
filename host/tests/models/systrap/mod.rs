//! Kicks: as in `host`, and what holds of them.

#[path = "../../../src/platform/systrap/kicks.rs"]
mod kicks;

use crate::primitive::{AtomicU32, Ordering, wait, wake};
use crate::{Bug, holds};
use kicks::Kicks;
use loom::sync::Arc;
use loom::thread;

#[test]
fn a_kick_finds_the_program_or_keeps_it_out() {
    holds(&[Bug::NoFences], || {
        let shared = Arc::new((Kicks::new(), AtomicU32::new(0)));
        assert!(!shared.0.is_kicked() && shared.1.load(Ordering::Relaxed) == 0);
        let kicker = {
            let shared = shared.clone();
            thread::spawn(move || {
                shared.0.kick(|pid, tid, slot| {
                    assert_eq!((pid, tid, slot), (1, 2, 3));
                    shared.1.store(1, Ordering::SeqCst);
                    wake(&shared.1, 1);
                });
            })
        };
        if shared.0.enter(1, 2, 3) {
            // The program runs until the signal; nothing else ends it.
            while shared.1.load(Ordering::SeqCst) == 0 {
                wait(&shared.1, 0, None);
            }
            shared.0.leave(true);
        }
        kicker.join().expect("it ends");
    });
}
