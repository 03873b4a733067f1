//! What the sandbox's own processes may do to their host.

use super::{Case, Place, TIMEOUT, case, errors, succeeds};
use crate::guest::Step;

/// The exit status that is ours.
const OURS: i32 = 125;

/// Cases for either platform.
pub fn jail(place: &Place) -> Vec<Case> {
    let (abi, probe) = (place.program("abi"), place.program("probe"));
    let refused = ["self-test", "--platform", &place.platform, "--with-bug"];
    let posture = [probe.as_str(), "posture", &place.pillbox, &place.platform];
    let open =
        place.pillbox(&["do", "--platform", &place.platform, "--no-jail", "--"], &[&abi, "--child", "ids"]);
    vec![
        case(
            "a host call that is not listed ends the sandbox and is named",
            place.pillbox(&refused, &[abi.as_str(), "--child", "refused"]),
            |got| {
                let told = errors(got).contains("pillbox: the jail refused host call getppid (");
                match got.status {
                    OURS if told && got.stdout.is_empty() => Ok(()),
                    status => Err(format!("status {status}")),
                }
            },
        ),
        case("the posture of a sandbox's processes", Step::new(posture).timeout(TIMEOUT * 2), succeeds),
        case("without a jail it says so", open, |got| {
            let text = errors(got);
            let told = text.starts_with("pillbox: --no-jail: ") && text.lines().count() == 1;
            if told { succeeds(got) } else { Err("it says nothing".to_owned()) }
        }),
    ]
}
