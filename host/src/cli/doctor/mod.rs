//! `pillbox doctor`: what this machine offers, what works, and what to do about the rest.
//!
//! It ends within three seconds whatever the host's KVM does: the self-tests run in children with a deadline
//! ([`choose`]), side by side.

mod host;

use crate::platform::choose::{self, Tried, Verdict};
use std::fmt::Write;
use std::path::PathBuf;
use std::process::ExitCode;

// Arguments of `pillbox doctor`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Another KVM device, for tests
    #[arg(long, value_name = "PATH", default_value = choose::DEVICE, hide = true)]
    kvm_device: PathBuf,
}

/// One line of the table.
#[derive(serde::Serialize)]
struct Item {
    name: &'static str,
    value: String,
}

/// One platform.
#[derive(serde::Serialize)]
struct PlatformReport {
    name: &'static str,
    usable: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<String>,
    /// What the user can do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    advice: Option<String>,
    self_test: Vec<Tried>,
}

#[derive(serde::Serialize)]
struct Report {
    version: &'static str,
    host: Vec<Item>,
    platforms: Vec<PlatformReport>,
    /// What confines the kernel of a sandbox that this user starts here.
    jail: Vec<Tried>,
    /// What `--platform=auto` uses.
    auto: Option<&'static str>,
}

/// Prints the report. Success means that some platform is usable.
pub(super) fn main(args: &Args) -> ExitCode {
    let report = examine(args);
    let text = if args.json {
        serde_json::to_string_pretty(&report).unwrap_or_default() + "\n"
    } else {
        table(&report)
    };
    print!("{text}");
    if report.auto.is_some() { ExitCode::SUCCESS } else { super::EXIT_OURS.into() }
}

fn examine(args: &Args) -> Report {
    let device = args.kvm_device.clone();
    let kvm_test = std::thread::spawn(move || choose::examine_now(&device));
    let (systrap_failure, systrap_steps) = match crate::platform::systrap::unusable() {
        Some(reason) => (Some(reason.to_owned()), Vec::new()),
        None => {
            let (failure, steps) = choose::examine_systrap();
            // Out of time, but running programs: a busy machine, not a broken one.
            let busy = steps.first().is_some_and(|first| first.ok)
                && steps.iter().all(|step| step.ok || step.detail == choose::OUT_OF_TIME);
            (failure.filter(|_| !busy), steps)
        }
    };
    let (host, jail) = (host::items(&args.kvm_device), choose::examine_jail());
    let (verdict, kvm_steps) = kvm_test
        .join()
        .unwrap_or_else(|_| (Verdict::Rejected("the self-test panicked".to_owned()), Vec::new()));
    let kvm_reason = match &verdict {
        Verdict::Usable => None,
        Verdict::Absent => Some(format!("{} does not exist", args.kvm_device.display())),
        Verdict::Rejected(reason) => Some(reason.clone()),
    };
    let kvm = PlatformReport {
        name: "kvm",
        usable: verdict == Verdict::Usable,
        advice: kvm_reason.as_ref().map(|_| kvm_advice(&verdict).to_owned()),
        reason: kvm_reason,
        self_test: kvm_steps,
    };
    let systrap = PlatformReport {
        name: "systrap",
        usable: systrap_failure.is_none(),
        advice: systrap_failure.as_deref().map(|reason| systrap_advice(reason).to_owned()),
        reason: systrap_failure,
        self_test: systrap_steps,
    };
    let auto = [&kvm, &systrap].into_iter().find(|platform| platform.usable).map(|platform| platform.name);
    Report { version: env!("CARGO_PKG_VERSION"), host, platforms: vec![kvm, systrap], jail, auto }
}

fn kvm_advice(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Usable => "",
        Verdict::Absent => {
            "load the kvm module (modprobe kvm_intel, kvm_amd), enable virtualisation in the firmware, or ask for a \
             machine with nested virtualisation; systrap needs none of it"
        }
        Verdict::Rejected(reason) if reason.contains(choose::NO_PERMISSION) => {
            "add yourself to the device's group (often kvm: `usermod -aG kvm $USER`, then log in again)"
        }
        Verdict::Rejected(reason) if reason.contains("in time") || reason.contains("within") => {
            "this KVM accepts a virtual machine but does not run its kernel code (emulated or broken): use systrap, or \
             a host with hardware virtualisation"
        }
        Verdict::Rejected(_) => "this KVM cannot run Pillbox's kernel; use systrap, or another host kernel",
    }
}

fn systrap_advice(reason: &str) -> &'static str {
    if reason.contains("memfd") || reason.contains("EACCES") {
        "allow executable memory files (sysctl vm.memfd_noexec=0) and executing them from /proc/self/fd"
    } else if reason.contains(choose::DIED) {
        "nothing on this machine forbids it: this is a bug in pillbox, and the line above says where"
    } else {
        "allow seccomp filters, clone(2) and executable memory files to this user (outer sandboxes may forbid them)"
    }
}

fn table(report: &Report) -> String {
    let mut text = String::new();
    let width = report.host.iter().map(|item| item.name.len()).max().unwrap_or(0);
    for item in &report.host {
        let _ = writeln!(text, "{:width$}  {}", item.name, item.value);
    }
    for platform in &report.platforms {
        let verdict = match &platform.reason {
            None => "usable".to_owned(),
            Some(reason) => format!("not usable: {reason}"),
        };
        let _ = writeln!(text, "\n{}: {verdict}", platform.name);
        for step in &platform.self_test {
            let _ = writeln!(
                text,
                "  {:28} {:6} {}",
                step.step,
                if step.ok { "ok" } else { "failed" },
                step.detail
            );
        }
        if let Some(advice) = &platform.advice {
            let _ = writeln!(text, "  what to do: {advice}");
        }
    }
    let _ = writeln!(text, "\nthe jail of a sandbox:");
    for step in &report.jail {
        let _ = match step.ok {
            true => writeln!(text, "  {:40} holds", step.step),
            false => writeln!(text, "  {:40} does not hold: {}", step.step, step.detail),
        };
    }
    let _ = match report.auto {
        Some(name) => writeln!(text, "\n--platform=auto runs programs on {name}"),
        None => writeln!(text, "\nno platform works on this machine"),
    };
    text
}
