//! Entries of archives that anybody may have written, one by one (`Entries::raw`): what extends a header is read here, up to a
//! length that real names have, and not by the crate, which reads as much as the header says.

use super::layer::CHANGED;
use std::borrow::Cow;
use std::io::Read;

type Result<T> = std::result::Result<T, String>;

/// The most bytes that extend a header.
const MOST_EXTENDED: u64 = 1 << 20;
/// Said of a file with holes that are not in the archive.
pub(crate) const SPARSE: &str = "a sparse file";

/// What the next entry is called, where that does not fit into its header, and what else is said of it.
#[derive(Default)]
pub(crate) struct Names {
    pub(crate) path: Option<Vec<u8>>,
    pub(crate) link: Option<Vec<u8>>,
    /// Its size.
    pub(crate) size: Option<u64>,
    /// Something of that name was there (`do --save-diff`).
    pub(crate) changed: bool,
    /// It has holes that are not in the archive.
    pub(crate) sparse: bool,
}

/// Extended headers: `LENGTH KEY=VALUE` and a newline. By their length, as values may hold newlines.
fn records(mut bytes: &[u8]) -> Option<Vec<(&[u8], &[u8])>> {
    let mut all = Vec::new();
    while !bytes.is_empty() {
        let digits = bytes.iter().position(|byte| *byte == b' ')?;
        let length: usize = std::str::from_utf8(&bytes[..digits]).ok()?.parse().ok()?;
        let (record, rest) = bytes.split_at_checked(length)?;
        let word = record.get(digits + 1..)?.strip_suffix(b"\n")?;
        let equals = word.iter().position(|byte| *byte == b'=')?;
        all.push((&word[..equals], &word[equals + 1..]));
        bytes = rest;
    }
    Some(all)
}

/// An entry that stands for a file.
pub(crate) struct Named {
    pub(crate) path: Vec<u8>,
    pub(crate) link: Option<Vec<u8>>,
    /// As in [`Names`].
    pub(crate) changed: bool,
    sparse: bool,
}

impl Named {
    /// For who wants its content, and does not know of holes.
    ///
    /// # Errors
    /// It has some that are not in the archive.
    pub(crate) fn without_holes(self) -> Result<Self> {
        if self.sparse { Err(SPARSE.to_owned()) } else { Ok(self) }
    }
}

impl Names {
    /// What an entry is called. None: it says something of the next one.
    ///
    /// # Errors
    /// In words: what it says is not understood, or too long, or it is a file whose content is not found by its header alone.
    pub(crate) fn take<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<Option<Named>> {
        if self.extend(entry)? {
            return Ok(None);
        }
        let own = std::mem::take(self);
        if own.size.is_some() {
            return Err("a file of more than 8 GiB".to_owned());
        }
        Ok(Some(Named {
            path: own.path.unwrap_or_else(|| entry.path_bytes().into_owned()),
            link: own.link.or_else(|| entry.link_name_bytes().map(Cow::into_owned)),
            changed: own.changed,
            sparse: own.sparse,
        }))
    }

    /// Takes over what an entry says of the next one. False: it is one itself.
    pub(crate) fn extend<R: Read>(&mut self, entry: &mut tar::Entry<'_, R>) -> Result<bool> {
        let kind = entry.header().entry_type();
        if kind.is_gnu_sparse() {
            return Err(SPARSE.to_owned());
        }
        if !(kind.is_gnu_longname() || kind.is_gnu_longlink() || kind.is_pax_local_extensions()) {
            return Ok(false);
        }
        if entry.size() > MOST_EXTENDED {
            return Err("a header too large".to_owned());
        }
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).map_err(|error| format!("a header: {error}"))?;
        if kind.is_pax_local_extensions() {
            for (key, value) in records(&bytes).ok_or("a header that is none")? {
                match key {
                    b"path" => self.path = Some(value.to_vec()),
                    b"linkpath" => self.link = Some(value.to_vec()),
                    b"size" => {
                        let size = std::str::from_utf8(value).ok().and_then(|size| size.parse().ok());
                        self.size = Some(size.ok_or("a size that is none")?);
                    }
                    b"comment" => self.changed = value == CHANGED,
                    b"GNU.sparse.major" => self.sparse = true,
                    _ => {}
                }
            }
            return Ok(true);
        }
        while bytes.last() == Some(&0) {
            bytes.pop();
        }
        *if kind.is_gnu_longname() { &mut self.path } else { &mut self.link } = Some(bytes);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::Names;
    use std::io::{Read, repeat};
    use tar::EntryType;

    /// What comes of an archive of one header of `kind`, that says how long it is, and of `bytes`.
    fn first(kind: EntryType, size: u64, bytes: impl Read) -> Result<bool, String> {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        let mut archive = tar::Archive::new(header.as_bytes().chain(bytes));
        let mut entry = archive.entries().unwrap().raw(true).next().unwrap().unwrap();
        Names::default().take(&mut entry).map(|own| own.is_some())
    }

    #[test]
    fn what_extends_a_header_is_as_long_as_names_are() {
        for kind in [EntryType::GNULongName, EntryType::GNULongLink, EntryType::XHeader] {
            assert_eq!(first(kind, 1 << 40, repeat(b'x')), Err("a header too large".to_owned()));
        }
        assert_eq!(first(EntryType::GNULongName, 300, repeat(b'x')), Ok(false));
        assert_eq!(first(EntryType::XHeader, 13, &b"13 path=a/b/\n"[..]), Ok(false));
        assert_eq!(
            first(EntryType::XHeader, 13, &b"14 path=a/b/\n"[..]),
            Err("a header that is none".to_owned())
        );
        assert_eq!(first(EntryType::Regular, 1 << 40, repeat(b'x')), Ok(true));
    }
}
