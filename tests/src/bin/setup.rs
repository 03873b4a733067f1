//! `cargo setup`: prepares a fresh machine for building and testing. The test command does it too.

use std::process::ExitCode;

use tests::packages::Cache;
use tests::setup;

fn main() -> ExitCode {
    let from_source = std::env::args().any(|argument| argument == "--from-source");
    let done = Cache::open().and_then(|cache| {
        if from_source {
            setup::linker(&cache)?;
            setup::build_std(&cache, &setup::Sysroot::find()?)?;
        }
        setup::everything(&cache)
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("setup: {error}");
            ExitCode::FAILURE
        }
    }
}
