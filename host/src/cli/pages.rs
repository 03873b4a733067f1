//! What shells and readers of manuals are given: made from the command line's own description, so that they say what it does.

use super::{Cli, EXIT_OURS, fail};
use clap::CommandFactory;
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

// Arguments of `pillbox completions`.
#[derive(clap::Args)]
pub(super) struct Completions {
    /// Whose
    shell: Shell,
}

// Arguments of `pillbox man`.
#[derive(clap::Args)]
pub(super) struct Manual {
    /// The page of one verb [default: of all]
    verb: Option<String>,
}

/// Prints what a shell completes command lines by.
pub(super) fn completions(args: &Completions) -> ExitCode {
    let mut text = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "pillbox", &mut text);
    print(&text)
}

/// Prints a page for man(1).
pub(super) fn manual(args: &Manual) -> ExitCode {
    let mut all = Cli::command();
    all.build();
    let page = match &args.verb {
        None => Some(all),
        Some(verb) => all.find_subcommand(verb).cloned(),
    };
    let Some(page) = page else {
        let verb = args.verb.as_deref().unwrap_or_default();
        return fail(&format!("man: {verb}: no such verb; see 'pillbox --help'"), EXIT_OURS);
    };
    let mut text = Vec::new();
    match clap_mangen::Man::new(page).render(&mut text) {
        Ok(()) => print(&text),
        Err(error) => fail(&format!("man: {error}"), EXIT_OURS),
    }
}

fn print(text: &[u8]) -> ExitCode {
    // Nobody is left to tell when stdout is gone.
    let _closed = std::io::stdout().write_all(text);
    ExitCode::SUCCESS
}
