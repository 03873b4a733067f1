//! Lines for whoever looks at standard error or a listing. Names in them can be anybody's, a hostile program's too: nothing
//! that a terminal obeys, or that shows another line than there is, comes through.

use std::fmt::Write as _;
use std::io::{self, Write as _};

/// Prints a line of ours on standard error. One that is closed is nobody's loss.
pub(crate) fn tell(line: &str) {
    let _closed = writeln!(io::stderr(), "pillbox: {}", printable(line));
}

/// Whether a terminal would do something else with it than show it. Overrides of the direction of text (U+202A to 202E, 2066
/// to 2069) have others shown in another order.
fn is_obeyed(c: char) -> bool {
    c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Lines of text, as a terminal may have them.
fn printable(line: &str) -> String {
    escaped(line, |c| is_obeyed(c) && c != '\n' && c != '\t')
}

/// A name as it is printed: on one line, and each as nothing else is.
pub(crate) fn shown(name: &[u8]) -> String {
    let mut text = String::new();
    for chunk in name.utf8_chunks() {
        text += &escaped(chunk.valid(), |c| is_obeyed(c) || c == '\\');
        for byte in chunk.invalid() {
            // Writing to a string does not fail.
            let _written = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

fn escaped(text: &str, is_escaped: impl Fn(char) -> bool) -> String {
    let mut all = String::with_capacity(text.len());
    for c in text.chars() {
        if is_escaped(c) {
            all.extend(c.escape_default());
        } else {
            all.push(c);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::{printable, shown};

    #[test]
    fn nothing_reaches_a_terminal_that_it_obeys() {
        assert_eq!(printable("a\tb\n\u{1b}[2J\u{202e}é"), "a\tb\n\\u{1b}[2J\\u{202e}é");
        assert_eq!(shown(b"a\nb\\c\xff\xe2\x80\xae"), "a\\nb\\\\c\\xff\\u{202e}");
    }
}
