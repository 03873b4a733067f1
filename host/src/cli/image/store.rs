//! The parts of an image: files below a directory, or members of a tar, which are read where they are.

use super::{At, Result};
use crate::sandbox::entries::{Names, SPARSE};
use flate2::read::MultiGzDecoder;
use rustix::fs::{Mode, OFlags, openat};
use sha2::{Digest, Sha256};
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// The most bytes of a description: a manifest, an index, a configuration.
const SMALL: u64 = 8 << 20;
/// The most members of an archive, and headers that extend theirs.
const MOST: usize = 1 << 16;
/// What members are padded to.
const BLOCK: u64 = 512;
/// The most that a compressed archive may be unpacked to, to be read.
const LARGEST: u64 = 64 << 30;

/// Where the parts are.
pub(super) enum Store {
    Dir(PathBuf),
    Archive { file: Arc<File>, members: BTreeMap<String, Member> },
}

/// A member of an archive.
pub(super) enum Member {
    /// From here on, so many bytes.
    Bytes(u64, u64),
    /// What another one is.
    Link(String),
}

/// Hexadecimal SHA-256.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("{:x}", Sha256::digest(bytes))
}

/// What is compressed, as what it was.
pub(super) fn plain<'a>(mut reader: impl Read + 'a) -> Result<Box<dyn Read + 'a>> {
    let mut start = Vec::new();
    Read::by_ref(&mut reader).take(4).read_to_end(&mut start).at("reading it")?;
    let whole = std::io::Cursor::new(start.clone()).chain(reader);
    Ok(match start[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(BufReader::new(whole))),
        [0x28, 0xb5, 0x2f, 0xfd] => {
            Box::new(ruzstd::decoding::StreamingDecoder::new(BufReader::new(whole)).at("zstd")?)
        }
        _ => Box::new(whole),
    })
}

/// A name without what means nothing; none for one that leads elsewhere.
fn normal(name: &str) -> Option<String> {
    let parts = Path::new(name).components().filter(|part| *part != Component::CurDir);
    let parts: Option<Vec<&str>> = parts
        .map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        })
        .collect();
    parts.map(|parts| parts.join("/"))
}

/// A part of a file, read without a position that others could change.
struct Section {
    file: Arc<File>,
    at: u64,
    left: u64,
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let most = buf.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let count = self.file.read_at(&mut buf[..most], self.at)?;
        if count == 0 && self.left > 0 && !buf.is_empty() {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        (self.at, self.left) = (self.at + count as u64, self.left - count as u64);
        Ok(count)
    }
}

/// What is in a file from a place on, which is its start for who reads and seeks.
struct Rest {
    file: Arc<File>,
    start: u64,
    at: u64,
}

impl Read for Rest {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read_at(buf, self.start.saturating_add(self.at))?;
        self.at += count as u64;
        Ok(count)
    }
}

impl Seek for Rest {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let to = match to {
            SeekFrom::Start(at) => Some(at),
            SeekFrom::Current(by) => self.at.checked_add_signed(by),
            SeekFrom::End(_) => None,
        };
        self.at = to.ok_or(std::io::ErrorKind::InvalidInput)?;
        Ok(self.at)
    }
}

impl Store {
    /// What an archive holds; what has to be written for that goes into a file without a name below `cache`.
    pub(super) fn archive(mut file: File, cache: &Path) -> Result<Store> {
        let mut start = [0; 4];
        if file.read_at(&mut start, 0).is_ok_and(|count| count == 4)
            && matches!(start, [0x1f, 0x8b, ..] | [0x28, 0xb5, 0x2f, 0xfd])
        {
            let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
            let new =
                openat(rustix::fs::CWD, cache, flags, Mode::RUSR | Mode::WUSR).at("a file in the cache")?;
            let mut new = File::from(new);
            let most = LARGEST.min(super::unpack::room(&new)?);
            let count = std::io::copy(&mut plain(file)?.take(most), &mut new).at("decompressing it")?;
            if count == most {
                return Err(format!("decompressed it is larger than {} MiB", most >> 20));
            }
            file = new;
        }
        let file = Arc::new(file);
        let members = Self::members(&file)?;
        Ok(Store::Archive { file, members })
    }

    fn members(file: &Arc<File>) -> Result<BTreeMap<String, Member>> {
        let (mut members, mut left, mut next) = (BTreeMap::new(), MOST, Some(0));
        while let Some(start) = next {
            next = Self::members_from(file, start, &mut left, &mut members)?;
        }
        Ok(members)
    }

    /// Members from `start` on; none after one whose size is not in its header itself: then it returns where the next one starts.
    fn members_from(
        file: &Arc<File>,
        start: u64,
        left: &mut usize,
        members: &mut BTreeMap<String, Member>,
    ) -> Result<Option<u64>> {
        let rest = Rest { file: file.clone(), start, at: 0 };
        let mut archive = tar::Archive::new(BufReader::new(rest));
        let mut names = Names::default();
        for entry in archive.entries_with_seek().at("no archive")?.raw(true) {
            let mut entry = entry.at("no image archive")?;
            *left = left.checked_sub(1).ok_or_else(|| format!("more than {MOST} members"))?;
            let kind = entry.header().entry_type();
            if kind.is_pax_global_extensions() || names.extend(&mut entry)? {
                continue;
            }
            let own = std::mem::take(&mut names);
            if own.sparse {
                return Err(SPARSE.to_owned());
            }
            let at = start.saturating_add(entry.raw_file_position());
            let path = own.path.map_or_else(|| entry.path_bytes(), Cow::Owned);
            if let Some(name) = std::str::from_utf8(&path).ok().and_then(normal) {
                if kind.is_file() {
                    members.insert(name, Member::Bytes(at, own.size.unwrap_or_else(|| entry.size())));
                } else if kind.is_symlink() || kind.is_hard_link() {
                    let target = own.link.map(Cow::Owned).or_else(|| entry.link_name_bytes());
                    let target = target.as_ref().and_then(|target| std::str::from_utf8(target).ok());
                    // `docker save` of old links layers as ../ID/layer.tar.
                    let target = target.and_then(|target| normal(target.trim_start_matches("../")));
                    members.extend(target.map(|target| (name, Member::Link(target))));
                }
            }
            if let Some(size) = own.size {
                let end = size.checked_next_multiple_of(BLOCK).and_then(|size| at.checked_add(size));
                return end.ok_or("a member too large".to_owned()).map(Some);
            }
        }
        Ok(None)
    }

    /// A part, and its size.
    pub(super) fn part(&self, name: &str) -> Result<(Box<dyn Read>, u64)> {
        let missing = || format!("it has no {name}");
        let name = normal(name).ok_or_else(missing)?;
        match self {
            Store::Dir(dir) => {
                let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let file = openat(rustix::fs::CWD, dir.join(&name), flags, Mode::empty()).at(&name)?;
                let file = File::from(file);
                let meta = file.metadata().at(&name)?;
                if meta.is_file() {
                    Ok((Box::new(file), meta.len()))
                } else {
                    Err(format!("{name}: no regular file"))
                }
            }
            Store::Archive { file, members } => {
                let member = match members.get(&name) {
                    Some(Member::Link(other)) => members.get(other),
                    other => other,
                };
                match member {
                    Some(&Member::Bytes(at, left)) => {
                        Ok((Box::new(Section { file: file.clone(), at, left }), left))
                    }
                    _ => Err(missing()),
                }
            }
        }
    }

    /// Whether there is one of that name.
    pub(super) fn has(&self, name: &str) -> bool {
        self.part(name).is_ok()
    }

    /// A description.
    pub(super) fn small(&self, name: &str) -> Result<Vec<u8>> {
        let (part, size) = self.part(name)?;
        if size > SMALL {
            return Err(format!("{name} is larger than {} MiB", SMALL >> 20));
        }
        let mut bytes = Vec::new();
        part.take(SMALL).read_to_end(&mut bytes).at(name)?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::{Member, Store, digest, normal, plain};
    use std::fs::File;
    use std::io::{Read, Seek, SeekFrom, Write};
    use std::os::unix::fs::FileExt;
    use std::path::Path;

    #[test]
    fn names_lead_nowhere_else() {
        assert_eq!((normal("./a//b/"), normal("a")), (Some("a/b".to_owned()), Some("a".to_owned())));
        assert_eq!((normal("../a"), normal("/a"), normal("a/../b")), (None, None, None));
    }

    #[test]
    fn what_is_compressed_is_read_as_what_it_was() {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packed.write_all(b"hello").unwrap();
        let read = |bytes: &[u8]| {
            let mut text = String::new();
            plain(bytes).unwrap().read_to_string(&mut text).map(|_| text).unwrap_or_default()
        };
        assert_eq!(
            (read(&packed.finish().unwrap()), read(b"hello"), read(b"")),
            ("hello".into(), "hello".into(), String::new())
        );
        // What `zstd` makes of the same.
        assert_eq!(read(b"\x28\xb5\x2f\xfd\x20\x05\x29\0\0hello"), "hello");
        assert_eq!(digest(b"")[..8], *"e3b0c442");
    }

    /// A header of `size` bytes, which follow it or not.
    fn header(name: &str, kind: tar::EntryType, size: u64) -> [u8; 512] {
        let mut header = tar::Header::new_ustar();
        header.set_path(name).unwrap();
        header.set_entry_type(kind);
        header.set_size(size);
        header.set_cksum();
        *header.as_bytes()
    }

    fn members(file: &File) -> super::Result<std::collections::BTreeMap<String, Member>> {
        match Store::archive(file.try_clone().unwrap(), Path::new("/nowhere"))? {
            Store::Archive { members, .. } => Ok(members),
            Store::Dir(_) => Err("a directory".to_owned()),
        }
    }

    fn file() -> File {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        File::from(rustix::fs::memfd_create("archive", flags).unwrap())
    }

    #[test]
    fn what_extends_a_header_is_not_read_whole() {
        for kind in [tar::EntryType::GNULongName, tar::EntryType::GNULongLink, tar::EntryType::XHeader] {
            let (file, size) = (file(), 64 << 20);
            file.write_all_at(&header("long", kind, size), 0).unwrap();
            file.write_all_at(&header("a", tar::EntryType::Regular, 0), 512 + size).unwrap();
            file.set_len(size + 4096).unwrap();
            assert_eq!(members(&file).err().as_deref(), Some("a header too large"), "{kind:?}");
        }
    }

    #[test]
    fn members_are_called_what_extended_headers_say() {
        let long = ["x"; 80].join("/");
        let mut tar = tar::Builder::new(file());
        tar.append_pax_extensions([("path", long.as_bytes()), ("size", b"600")]).unwrap();
        let mut file = tar.into_inner().unwrap();
        // Size as it is where the header has no room for it.
        file.seek(SeekFrom::Start(1024)).unwrap();
        file.write_all(&header("short", tar::EntryType::Regular, 0)).unwrap();
        file.write_all(&[b'x'; 1024]).unwrap();
        file.write_all(&header("next", tar::EntryType::Symlink, 0)).unwrap();
        file.write_all(&header("last", tar::EntryType::Regular, 3)).unwrap();
        file.write_all(&[0; 2048]).unwrap();
        let members = members(&file).unwrap();
        assert!(matches!(members[&long], Member::Bytes(1536, 600)));
        assert!(matches!(members["last"], Member::Bytes(at, 3) if at == 1536 + 1024 + 1024));
        assert_eq!(members.len(), 2);
    }
}
