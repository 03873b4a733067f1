//! `#!` lines, as fs/binfmt_script.c reads them.

use crate::abi::{Errno, Result};

/// What a script's first line says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// The program that reads the script.
    pub(super) interpreter: Vec<u8>,
    /// Its one argument: the rest of the line, blanks and all.
    pub(super) argument: Option<Vec<u8>>,
}

fn is_blank(byte: u8) -> bool {
    byte == b' ' || byte == b'\t'
}

/// Reads the first line of a file (of which `head` holds the first `len` bytes); `None` if it is no script.
pub(super) fn parse(head: &[u8], len: usize) -> Result<Option<Line>> {
    let Some(text) = head[..len].strip_prefix(b"#!") else { return Ok(None) };
    let newline = text.iter().position(|&byte| byte == b'\n');
    let line = &text[..newline.unwrap_or(text.len())];
    let Some(start) = line.iter().position(|&byte| !is_blank(byte)) else { return Err(Errno::ENOEXEC) };
    let line = &line[start..];
    let end = line.iter().position(|&byte| is_blank(byte) || byte == 0);
    // A name that may go on behind what was read is refused: the wrong program could run.
    if newline.is_none() && end.is_none() && len == head.len() {
        return Err(Errno::ENOEXEC);
    }
    let (interpreter, rest) = line.split_at(end.unwrap_or(line.len()));
    if interpreter.is_empty() {
        return Err(Errno::ENOEXEC);
    }
    let rest = rest.split(|&byte| byte == 0).next().unwrap_or_default();
    let argument = rest.trim_ascii_start();
    let argument = &argument[..argument.iter().rposition(|&byte| !is_blank(byte)).map_or(0, |last| last + 1)];
    Ok(Some(Line {
        interpreter: interpreter.to_vec(),
        argument: (!argument.is_empty()).then(|| argument.to_vec()),
    }))
}

#[cfg(test)]
mod tests {
    use super::{Line, parse};
    use crate::abi::Errno;

    fn line(text: &[u8]) -> Result<Option<Line>, Errno> {
        let mut head = [0; 256];
        let len = text.len().min(256);
        head[..len].copy_from_slice(&text[..len]);
        parse(&head, len)
    }

    fn some(interpreter: &str, argument: Option<&str>) -> Result<Option<Line>, Errno> {
        let argument = argument.map(|argument| argument.as_bytes().to_vec());
        Ok(Some(Line { interpreter: interpreter.as_bytes().to_vec(), argument }))
    }

    #[test]
    fn lines_as_linux_reads_them() {
        assert_eq!(line(b"\x7fELF"), Ok(None));
        assert_eq!(line(b""), Ok(None));
        assert_eq!(line(b"#!/bin/sh\nexit"), some("/bin/sh", None));
        assert_eq!(line(b"#! /bin/sh -e x \t\nexit"), some("/bin/sh", Some("-e x")));
        assert_eq!(line(b"#!/bin/sh"), some("/bin/sh", None));
        assert_eq!(line(b"#!\n"), Err(Errno::ENOEXEC));
        assert_eq!(line(b"#!   \n"), Err(Errno::ENOEXEC));
        let long = [b"#!/".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(line(&long), Err(Errno::ENOEXEC));
        let long = [b"#!/bin/sh ".as_slice(), &[b'x'; 300]].concat();
        assert_eq!(line(&long), some("/bin/sh", Some(&"x".repeat(246))));
    }
}
