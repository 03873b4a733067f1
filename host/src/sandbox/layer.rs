//! A layer of an image: a tar archive of what was added and changed, with marks for what was removed (OCI image specification,
//! "Image Layer Filesystem Changeset"). Written by the `tar` crate, entry by entry; nothing is kept but one of them.
//!
//! What a header of tar(5) has no room for comes in front of it: GNU's headers for long names, which may hold any byte, and pax
//! records for times below a second or before 1970, extended attributes (`SCHILY.xattr.NAME`) and files with large holes (GNU's
//! sparse format 1.0). `comment=changed` tells [`super::diff`]'s readers what was there before; everybody else skips it.

use crate::vfs::Timestamp;
use std::io::{self, Read, Write};
use tar::{EntryType, Header};

/// Bytes of a name that a header has room for.
const SHORT: usize = 100;
/// A hole that is not worth an entry in a map.
const SMALL_HOLE: u64 = 64 << 10;
/// Bytes that holes must spare before a file is written as sparse: not all readers know of it.
const SPARED: u64 = 1 << 20;
const BLOCK: u64 = 512;
/// The value of a `comment` that tells that something of the name was there.
pub(crate) const CHANGED: &[u8] = b"changed";
/// In front of the last part of a name: it was removed (OCI).
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// In a directory: nothing of what was below shows (OCI).
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// What an entry is.
pub(super) enum What<'a> {
    /// A directory.
    Dir,
    /// A regular file.
    File(File<'a>),
    /// A symbolic link to that.
    Symlink(&'a [u8]),
    /// Another name of that entry.
    Link(&'a [u8]),
    /// A FIFO.
    Fifo,
}

/// The bytes of a regular file.
pub(super) struct File<'a> {
    /// How many.
    pub(super) size: u64,
    /// Where there are any: start and length, in order.
    pub(super) data: Vec<(u64, u64)>,
    /// Reads some at a place; none where the file has become shorter.
    pub(super) read: &'a mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
}

/// An entry.
pub(super) struct Entry<'a> {
    /// Its name, relative.
    pub(super) path: &'a [u8],
    /// What it is.
    pub(super) what: What<'a>,
    /// Permission bits.
    pub(super) mode: u32,
    /// Its owner and group.
    pub(super) owner: (u32, u32),
    /// When it was written to.
    pub(super) modified: Timestamp,
    /// Extended attributes.
    pub(super) attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// Something of that name was there.
    pub(super) changed: bool,
}

/// A layer that is being written.
pub(super) struct Layer<W: Write> {
    tar: tar::Builder<Whole<W>>,
}

/// Takes nothing any more once something was not taken: an archive that lacks a part must not end as if it had all.
struct Whole<W> {
    to: W,
    failed: bool,
}

impl<W: Write> Write for Whole<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.failed {
            return Err(io::Error::other("an earlier write has failed"));
        }
        let written = self.to.write(bytes);
        self.failed = written.as_ref().is_err_and(|error| error.kind() != io::ErrorKind::Interrupted);
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// Extended headers, as pax(1) has them.
type Pax = Vec<(String, Vec<u8>)>;

impl<W: Write> Layer<W> {
    /// An empty one.
    pub(super) fn new(to: W) -> Self {
        Layer { tar: tar::Builder::new(Whole { to, failed: false }) }
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// What writing or reading returned: the archive is of no use then.
    pub(super) fn add(&mut self, entry: Entry<'_>) -> io::Result<()> {
        let added = self.try_add(entry);
        if added.is_err() {
            self.tar.get_mut().failed = true;
        }
        added
    }

    fn try_add(&mut self, entry: Entry<'_>) -> io::Result<()> {
        // Not GNU's: tar(1) would look for its older map of holes there.
        let mut header = Header::new_ustar();
        header.set_mode(entry.mode & 0o7777);
        header.set_uid(entry.owner.0.into());
        header.set_gid(entry.owner.1.into());
        header.set_size(0);
        let mut pax = Pax::new();
        set_time(&mut header, &mut pax, entry.modified);
        let named = entry.attributes.into_iter().filter_map(|(name, value)| {
            // A record's name ends at the first `=`.
            let name = String::from_utf8(name).ok().filter(|name| !name.contains('='))?;
            Some((format!("SCHILY.xattr.{name}"), value))
        });
        pax.extend(named);
        if entry.changed {
            pax.push(("comment".to_owned(), CHANGED.to_vec()));
        }
        let mut path = entry.path.to_vec();
        match entry.what {
            What::Dir => {
                header.set_entry_type(EntryType::Directory);
                path.push(b'/');
                self.append(header, pax, &path, &[], io::empty())
            }
            What::Symlink(target) => {
                header.set_entry_type(EntryType::Symlink);
                self.append(header, pax, &path, target, io::empty())
            }
            What::Link(target) => {
                header.set_entry_type(EntryType::Link);
                self.append(header, pax, &path, target, io::empty())
            }
            What::Fifo => {
                header.set_entry_type(EntryType::Fifo);
                self.append(header, pax, &path, &[], io::empty())
            }
            What::File(file) => self.file(header, pax, &path, file),
        }
    }

    fn file(&mut self, mut header: Header, mut pax: Pax, path: &[u8], file: File<'_>) -> io::Result<()> {
        header.set_entry_type(EntryType::Regular);
        let data = joined(file.data);
        let held: u64 = data.iter().map(|(_, len)| len).sum();
        if held.saturating_add(SPARED) > file.size {
            header.set_size(file.size);
            let content = Content { data: vec![(0, file.size)], read: file.read };
            return self.append(header, pax, path, &[], content);
        }
        let map = map_of(&data, file.size);
        header.set_size(map.len() as u64 + held);
        for (key, value) in [("major", "1"), ("minor", "0"), ("realsize", file.size.to_string().as_str())] {
            pax.push((format!("GNU.sparse.{key}"), value.as_bytes().to_vec()));
        }
        pax.push(("GNU.sparse.name".to_owned(), path.to_vec()));
        let content = Content { data, read: file.read };
        self.append(header, pax, path, &[], (&map[..]).chain(content))
    }

    /// A header with what must stand in front of it, and its data.
    fn append(
        &mut self,
        mut header: Header,
        pax: Pax,
        path: &[u8],
        link: &[u8],
        data: impl Read,
    ) -> io::Result<()> {
        if !pax.is_empty() {
            self.tar.append_pax_extensions(pax.iter().map(|(key, value)| (&**key, &**value)))?;
        }
        let old = header.as_old_mut();
        for (name, room, kind) in
            [(link, &mut old.linkname, EntryType::GNULongLink), (path, &mut old.name, EntryType::GNULongName)]
        {
            let short = name.len().min(SHORT);
            room[..short].copy_from_slice(&name[..short]);
            if name.len() > SHORT {
                self.tar.append(&long(kind, name), name.chain(&[0][..]))?;
            }
        }
        header.set_cksum();
        self.tar.append(&header, data)
    }

    /// Ends it.
    ///
    /// # Errors
    /// What writing returned.
    pub(super) fn finish(self) -> io::Result<()> {
        let mut whole = self.tar.into_inner()?;
        whole.flush()
    }
}

/// A header whose data is a name of the next one, with a NUL behind it.
fn long(kind: EntryType, name: &[u8]) -> Header {
    const NAME: &[u8] = b"././@LongLink";
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..NAME.len()].copy_from_slice(NAME);
    header.set_entry_type(kind);
    header.set_mode(0o644);
    for set in [Header::set_uid, Header::set_gid, Header::set_mtime] {
        set(&mut header, 0);
    }
    header.set_size(name.len() as u64 + 1);
    header.set_cksum();
    header
}

fn set_time(header: &mut Header, pax: &mut Pax, time: Timestamp) {
    header.set_mtime(u64::try_from(time.sec).unwrap_or(0));
    if time.sec >= 0 && time.nsec == 0 {
        return;
    }
    // Nanoseconds count forward from the second, also before 1970; a decimal fraction counts away from 0.
    let (sign, sec, nsec) = match (time.sec < 0, time.nsec) {
        (true, 0) => ("-", time.sec.unsigned_abs(), 0),
        (true, nsec) => ("-", time.sec.unsigned_abs() - 1, 1_000_000_000 - nsec),
        (false, nsec) => ("", time.sec.unsigned_abs(), nsec),
    };
    pax.push(("mtime".to_owned(), format!("{sign}{sec}.{nsec:09}").into_bytes()));
}

/// The same with small holes filled.
fn joined(data: Vec<(u64, u64)>) -> Vec<(u64, u64)> {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for (at, len) in data {
        match all.last_mut() {
            Some((start, had)) if at - (*start + *had) < SMALL_HOLE => *had = at + len - *start,
            _ => all.push((at, len)),
        }
    }
    all
}

/// GNU's map of a sparse file, version 1.0: decimal numbers, each on a line, filled up to a block.
fn map_of(data: &[(u64, u64)], size: u64) -> Vec<u8> {
    // The last one says where the file ends.
    let end = (size, 0);
    let ends = data.last().is_some_and(|(at, len)| at + len == size);
    let all: Vec<_> = data.iter().chain((!ends).then_some(&end)).collect();
    let mut map = format!("{}\n", all.len());
    for (at, len) in all {
        map += &format!("{at}\n{len}\n");
    }
    let mut map = map.into_bytes();
    map.resize((map.len() as u64).next_multiple_of(BLOCK) as usize, 0);
    map
}

/// The bytes of a file's parts, as many as were told of, whatever becomes of the file meanwhile.
struct Content<'a> {
    data: Vec<(u64, u64)>,
    read: &'a mut dyn FnMut(&mut [u8], u64) -> io::Result<usize>,
}

impl Read for Content<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        self.data.retain(|(_, len)| *len > 0);
        let Some((at, left)) = self.data.first_mut() else { return Ok(0) };
        let most = (*left).min(to.len() as u64) as usize;
        let got = match (self.read)(&mut to[..most], *at)? {
            0 => {
                to[..most].fill(0);
                most
            }
            got => got,
        };
        (*at, *left) = (*at + got as u64, *left - got as u64);
        Ok(got)
    }
}

#[cfg(test)]
mod tests {
    use super::{Entry, File, Layer, What};
    use crate::vfs::Timestamp;
    use proptest::prelude::*;
    use std::io::Read;

    fn entry<'a>(path: &'a [u8], what: What<'a>) -> Entry<'a> {
        Entry {
            path,
            what,
            mode: 0o4751,
            owner: (0, 3_000_000_000),
            modified: Timestamp { sec: 5, nsec: 0 },
            attributes: Vec::new(),
            changed: false,
        }
    }

    fn name() -> impl Strategy<Value = Vec<u8>> {
        let part = prop::collection::vec(any::<u8>().prop_filter("part", |b| *b != 0 && *b != b'/'), 1..255);
        let part = part.prop_filter("dots", |part| part != b"." && part != b"..");
        prop::collection::vec(part, 1..6).prop_map(|parts| parts.join(&b'/'))
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(
            path in name(),
            target in prop::collection::vec(1_u8.., 1..300),
            content in prop::collection::vec(any::<u8>(), 0..3000),
            (sec, nsec) in (any::<i32>(), 0..1_000_000_000_u32),
        ) {
            let mut all = Vec::new();
            let mut layer = Layer::new(&mut all);
            let mut read = |to: &mut [u8], at: u64| (&content[at as usize..]).read(to);
            let file = File { size: content.len() as u64, data: vec![(0, content.len() as u64)], read: &mut read };
            let modified = Timestamp { sec: sec.into(), nsec };
            layer.add(Entry { modified, changed: true, ..entry(&path, What::File(file)) }).unwrap();
            layer.add(entry(b"link", What::Symlink(&target))).unwrap();
            layer.add(entry(b"again", What::Link(&path))).unwrap();
            layer.finish().unwrap();
            let mut archive = tar::Archive::new(&all[..]);
            let mut entries = archive.entries().unwrap().map(Result::unwrap);
            let mut first = entries.next().unwrap();
            prop_assert_eq!(&*first.path_bytes(), &path[..]);
            prop_assert_eq!(first.header().gid().unwrap(), 3_000_000_000);
            prop_assert_eq!(first.header().mode().unwrap(), 0o4751);
            let pax: Vec<_> = first.pax_extensions().unwrap().unwrap().map(Result::unwrap).collect();
            let of = |key: &[u8]| pax.iter().find(|word| word.key_bytes() == key).map(|word| word.value_bytes());
            prop_assert_eq!(of(b"comment"), Some(&b"changed"[..]));
            if let Some(time) = of(b"mtime") {
                let text = std::str::from_utf8(time).unwrap();
                let (whole, part) = text.trim_start_matches('-').split_once('.').unwrap();
                let ns = whole.parse::<i128>().unwrap() * 1_000_000_000 + part.parse::<i128>().unwrap();
                let ns = if text.starts_with('-') { -ns } else { ns };
                prop_assert_eq!(ns, i128::from(sec) * 1_000_000_000 + i128::from(nsec));
            }
            let mut got = Vec::new();
            first.read_to_end(&mut got).unwrap();
            prop_assert_eq!(&got, &content);
            let second = entries.next().unwrap();
            prop_assert_eq!(second.link_name_bytes().unwrap().to_vec(), target);
            let third = entries.next().unwrap();
            prop_assert_eq!(third.link_name_bytes().unwrap().to_vec(), path);
            prop_assert!(entries.next().is_none());
        }
    }

    #[test]
    fn a_file_that_becomes_shorter_keeps_its_length() {
        let mut all = Vec::new();
        let mut layer = Layer::new(&mut all);
        let mut left = 700;
        let mut read = |to: &mut [u8], _| {
            let got = to.len().min(left);
            left -= got;
            to[..got].fill(b'x');
            Ok(got)
        };
        let file = File { size: 2000, data: vec![(0, 2000)], read: &mut read };
        layer.add(entry(b"short", What::File(file))).unwrap();
        layer.add(entry(b"next", What::Fifo)).unwrap();
        layer.finish().unwrap();
        let mut archive = tar::Archive::new(&all[..]);
        let names: Vec<_> = archive.entries().unwrap().map(|e| e.unwrap().path_bytes().to_vec()).collect();
        assert_eq!(names, [&b"short"[..], b"next"]);
    }

    #[test]
    fn holes_take_no_room() {
        let mut all = Vec::new();
        let mut layer = Layer::new(&mut all);
        let mut read = |to: &mut [u8], _| {
            to.fill(7);
            Ok(to.len())
        };
        let data = vec![(0, 4096), (4096 * 2, 4096), (1 << 40, 10)];
        layer.add(entry(b"holes", What::File(File { size: 16 << 40, data, read: &mut read }))).unwrap();
        layer.finish().unwrap();
        assert!(all.len() < 32 << 10, "{}", all.len());
        let map = b"3\n0\n12288\n1099511627776\n10\n17592186044416\n0\n";
        assert!(all.windows(map.len()).any(|window| window == map));
    }

    #[test]
    fn what_failed_once_does_not_end_well() {
        struct Full(usize);
        impl std::io::Write for Full {
            fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
                match self.0.checked_sub(bytes.len()) {
                    Some(left) => self.0 = left,
                    None => return Err(std::io::Error::from_raw_os_error(28)),
                }
                Ok(bytes.len())
            }
            fn flush(&mut self) -> std::io::Result<()> {
                Ok(())
            }
        }
        let mut layer = Layer::new(Full(1024));
        let mut read = |to: &mut [u8], _| Ok(to.len());
        let file = File { size: 9000, data: vec![(0, 9000)], read: &mut read };
        assert_eq!(layer.add(entry(b"f", What::File(file))).unwrap_err().raw_os_error(), Some(28));
        assert!(layer.add(entry(b"g", What::Fifo)).is_err() && layer.finish().is_err());
    }
}
