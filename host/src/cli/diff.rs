//! `pillbox diff`: what a command has changed, by name, as `docker diff` lists it.

use super::{EXIT_OURS, fail, image};
use crate::sandbox::layer::{OPAQUE, WHITEOUT};
use crate::sandbox::shown;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

// Arguments of `pillbox diff`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// An archive that `do --save-diff` has written, or another layer of an image
    #[arg(value_name = "TAR")]
    of: PathBuf,
}

/// Lists it: A for what was added, C for what was changed, D for what was deleted.
pub(super) fn main(args: &Args) -> ExitCode {
    let mut out = BufWriter::new(std::io::stdout());
    let listed = image::names(&args.of, &mut |name, changed| match line(name, changed) {
        Some(line) => writeln!(out, "{line}").is_ok(),
        None => true,
    });
    // Nobody is left to tell when stdout is gone.
    let _closed = out.flush();
    match listed {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("diff: {}: {error}", args.of.display()), EXIT_OURS),
    }
}

/// A line for a name; none for a mark that is part of a directory's.
fn line(name: &[u8], changed: bool) -> Option<String> {
    let path = name.strip_prefix(b"./").unwrap_or(name);
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let at = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, last) = path.split_at(at);
    match last.strip_prefix(WHITEOUT) {
        _ if last == OPAQUE => None,
        Some(gone) => Some(format!("D /{}{}", shown(above), shown(gone))),
        None if path == b"." || path.is_empty() => Some("C /".to_owned()),
        None => Some(format!("{} /{}", if changed { 'C' } else { 'A' }, shown(path))),
    }
}

#[cfg(test)]
mod tests {
    use super::line;

    #[test]
    fn lines_are_dockers() {
        let of = |name: &[u8], changed| line(name, changed).unwrap_or_default();
        assert_eq!((of(b"etc/", true), of(b"etc/x", false)), ("C /etc".to_owned(), "A /etc/x".to_owned()));
        assert_eq!(
            (of(b"etc/.wh.passwd", false), of(b".wh.a", false)),
            ("D /etc/passwd".into(), "D /a".into())
        );
        assert_eq!((of(b"etc/.wh..wh..opq", false), of(b"./", true)), (String::new(), "C /".to_owned()));
        assert_eq!(of(b"a\x1b", false), "A /a\\u{1b}");
    }
}
