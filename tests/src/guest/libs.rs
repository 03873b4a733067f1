//! Which files an ELF program needs beside itself: its interpreter and its libraries.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use object::Endianness;
use object::elf::{DT_NEEDED, FileHeader64, PT_INTERP};
use object::read::elf::{Dyn, FileHeader, ProgramHeader};

use crate::arch::Arch;

/// What an ELF file asks for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Wants {
    interpreter: Option<PathBuf>,
    libraries: Vec<String>,
}

/// Returns the interpreter and libraries that `file` needs, directly or through others, as found on this
/// machine. Files that are no ELF need nothing; a library that is not found is named in the error.
pub(super) fn needed(file: &Path, arch: Arch) -> io::Result<BTreeSet<PathBuf>> {
    let mut found = BTreeSet::new();
    let mut todo = vec![file.to_owned()];
    while let Some(file) = todo.pop() {
        let wants = wants(&fs::read(&file)?);
        if let Some(interpreter) = wants.interpreter
            && found.insert(interpreter.clone())
        {
            todo.push(interpreter);
        }
        for name in wants.libraries {
            let library = locate(&name, arch).ok_or_else(|| {
                let text = format!("{} needs {name}, which is not on this machine", file.display());
                io::Error::new(io::ErrorKind::NotFound, text)
            })?;
            if found.insert(library.clone()) {
                todo.push(library);
            }
        }
    }
    Ok(found)
}

fn locate(name: &str, arch: Arch) -> Option<PathBuf> {
    let multiarch = arch.multiarch();
    [
        format!("/lib/{multiarch}"),
        format!("/usr/lib/{multiarch}"),
        "/lib64".to_owned(),
        "/usr/local/lib".to_owned(),
    ]
    .iter()
    .map(|dir| Path::new(dir).join(name))
    .find(|path| path.exists())
}

fn wants(data: &[u8]) -> Wants {
    parse(data).unwrap_or_default()
}

fn parse(data: &[u8]) -> Result<Wants, object::Error> {
    let header = FileHeader64::<Endianness>::parse(data)?;
    let endian = header.endian()?;
    let mut wants = Wants::default();
    let segments = header.program_headers(endian, data)?;
    for segment in segments {
        if segment.p_type(endian) == PT_INTERP {
            let bytes = segment.data(endian, data).unwrap_or_default();
            let path = String::from_utf8_lossy(bytes);
            wants.interpreter = Some(PathBuf::from(path.trim_end_matches('\0')));
        }
    }
    let sections = header.sections(endian, data)?;
    if let Some((entries, strings)) = sections.dynamic(endian, data)? {
        let strings = sections.strings(endian, data, strings)?;
        for entry in entries.iter().filter(|e| e.is_string(endian)) {
            if entry.tag(endian) == DT_NEEDED {
                let name = entry.string(endian, strings)?;
                wants.libraries.push(String::from_utf8_lossy(name).into_owned());
            }
        }
    }
    Ok(wants)
}

#[cfg(test)]
mod tests {
    use super::wants;

    #[test]
    fn this_test_is_static_and_text_is_no_elf() {
        let own = std::fs::read("/proc/self/exe").unwrap();
        assert_eq!(wants(&own), super::Wants::default());
        assert_eq!(wants(b"#!/bin/sh\n"), super::Wants::default());
    }

    #[test]
    fn the_machines_shell_needs_a_libc() {
        let wants = wants(&std::fs::read("/bin/sh").unwrap());
        assert!(wants.interpreter.is_some());
        assert!(wants.libraries.iter().any(|name| name == "libc.so.6"));
    }
}
