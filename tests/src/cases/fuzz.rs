//! What chance does to a sandbox: the `fuzz` program in the cage of the `hold` program.

use super::hold::{Cage, harmless};
use super::{Case, Place, case};

/// How much of it.
#[derive(Clone, Copy, Debug)]
pub struct Fuzz {
    /// Seconds for each of the four.
    pub seconds: u64,
    /// Where they begin.
    pub seed: u64,
}

/// What may pass until a run is ended from outside, beside its own time: an emulated machine starts slowly.
const GRACE: u64 = 90;

/// System calls, executables, frames, objects.
pub fn fuzz(place: &Place, how: Fuzz) -> Vec<Case> {
    let fuzz = |what: &str, table: &str| {
        let seconds = (how.seconds + GRACE).to_string();
        let Fuzz { seconds: time, seed } = how;
        let script = format!(
            r#"mkdir vol; "{}" syscalls --json >table && "$@" {what} {time} {seed} {table} >log || {{ tail -n 2 log >&2; false; }}"#,
            place.pillbox
        );
        let options = ["--protect-init", "--memory", "600M", "-v", "vol:/vol"];
        let cage = Cage { seconds: &seconds, options: &options, program: "fuzz" };
        let step = cage.in_scratch(place, &script).timeout(how.seconds + 2 * GRACE);
        case(&format!("fuzz: {what}"), step, harmless)
    };
    vec![fuzz("calls", "$PWD/table"), fuzz("programs", ""), fuzz("frames", ""), fuzz("objects", "")]
}
