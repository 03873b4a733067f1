//! What happens where the host has put something into the arena's window: the program starts itself again.

use std::process::Command;

const MARK: &str = "PILLBOX_TEST_RERUN";

/// ADDR_NO_RANDOMIZE, as proc(5) shows it.
fn is_randomized() -> bool {
    let shown = std::fs::read_to_string("/proc/self/personality").unwrap();
    u64::from_str_radix(shown.trim(), 16).unwrap() & 0x0004_0000 == 0
}

#[test]
fn a_rerun_has_the_same_arguments_and_environment() {
    let name = "a_rerun_has_the_same_arguments_and_environment";
    if std::env::var_os(MARK).is_some() {
        if is_randomized() {
            host::hostsys::process::rerun_without_randomization();
            unreachable!("it came back");
        }
        // A second one would be no use, and is not tried.
        host::hostsys::process::rerun_without_randomization();
        println!("again: {:?}", std::env::args().skip(1).collect::<Vec<_>>());
        return;
    }
    let words = ["--exact", name, "--nocapture", "--skip", "a b", "--skip", ""];
    let output =
        Command::new(std::env::current_exe().unwrap()).args(words).env(MARK, "x y").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains(&format!("again: {words:?}")), "{output:?}");
}
