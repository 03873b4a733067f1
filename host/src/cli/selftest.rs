//! `pillbox self-test`: tries a platform on this machine, step by step. What `doctor` runs in a child.

use super::{EXIT_OURS, run};
use crate::platform::{Platform, choose, kvm, selftest};
use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

// Arguments of `pillbox self-test`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The platform to try
    #[arg(long, default_value = "kvm", value_parser = ["kvm", "systrap"])]
    platform: String,
    /// The KVM device to try
    #[arg(long, value_name = "PATH", default_value = "/dev/kvm")]
    kvm_device: PathBuf,
    /// Go to jail instead, as a sandbox's kernel does, and say what of that this machine allows
    #[arg(long)]
    jail: bool,
    /// Crash in ring 0 instead
    #[arg(long, value_enum)]
    crash: Option<selftest::Crash>,
    /// Try for minutes what the other steps try once; STEP: only steps whose names begin so
    #[arg(long, num_args = 0..=1, value_name = "STEP", default_missing_value = "")]
    stress: Option<String>,
    /// Run CMD in a sandbox in which `prctl(0x50424247)` is a bug of ours, a panic while a lock is held, and
    /// `prctl(0x50424248)` reads memory of the host process, `prctl(0x50424249)` makes a host call that the jail refuses
    #[arg(long, num_args = 1.., value_name = "CMD", allow_hyphen_values = true)]
    with_bug: Vec<OsString>,
    /// The memory that programs of that sandbox can have together, in MiB
    #[arg(long, value_name = "MIB", requires = "with_bug")]
    memory: Option<u64>,
}

/// Runs a self-test, one line per step as it ends.
pub(super) fn main(args: &Args) -> ExitCode {
    if !args.with_bug.is_empty() {
        return run::broken(&args.platform, &args.with_bug, args.memory);
    }
    if args.jail {
        return jail();
    }
    let platform = match args.platform.as_str() {
        "kvm" => kvm::Kvm::new(&args.kvm_device, 1)
            .map(|kvm| (kvm.describe(), Arc::new(kvm) as Arc<dyn Platform>))
            .map_err(|error| error.to_string()),
        _ => choose::systrap().map(|systrap| (String::new(), systrap)),
    };
    let (uses, platform) = match platform {
        Ok(platform) => platform,
        Err(error) => {
            println!("open\tfailed\t{error}");
            return EXIT_OURS.into();
        }
    };
    crate::hostsys::fault::install(crate::mm::fixup);
    if let Some(step) = &args.stress {
        let ok = selftest::stress::run(&platform, step, &mut |name, outcome| match outcome {
            Ok(measured) => println!("{name}\tok\t{measured}"),
            Err(error) => println!("{name}\tfailed\t{error}"),
        });
        return if ok { ExitCode::SUCCESS } else { EXIT_OURS.into() };
    }
    if let Some(how) = args.crash {
        return if selftest::crash(&platform, how) { ExitCode::SUCCESS } else { EXIT_OURS.into() };
    }
    if !uses.is_empty() {
        println!("virtual CPU\tok\t{uses}");
    }
    let ok = selftest::run(&platform, &mut |name, step| {
        match step {
            None => print!("{name}\t"),
            Some(step) => {
                let micros = step.time.as_micros();
                match &step.error {
                    None => println!("ok\t{micros} us"),
                    Some(error) => println!("failed\t{error}"),
                }
            }
        }
        // The parent may end us in the middle of a step: it must know which.
        let _closed = std::io::stdout().flush();
    });
    if ok { ExitCode::SUCCESS } else { EXIT_OURS.into() }
}

/// One line per step of the jail.
fn jail() -> ExitCode {
    match crate::sandbox::trial() {
        Ok(steps) => {
            for step in steps {
                match step.missing {
                    None => println!("{}\tok\t", step.name),
                    Some(why) => println!("{}\tfailed\t{why}", step.name),
                }
            }
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("closing it\tfailed\t{error}");
            EXIT_OURS.into()
        }
    }
}
