//! What a detached container has printed: two files of bounded size, the older of which gives way.
//!
//! A file is a sequence of records: which stream (1 or 2), how many bytes (four, little-endian), the bytes. What a kill cut off
//! at the end of a file is skipped. A file is written by its keeper alone and read by whoever likes.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

const NAME: &str = "log";
const OLDER: &str = "log.1";
/// A file is full from here on.
const FULL: u64 = 8 << 20;
/// The longest record.
const LONGEST: usize = 64 << 10;
/// A stream, and a length.
const HEADER: usize = 5;

/// One that is written.
pub(super) struct Log {
    dir: PathBuf,
    file: Option<File>,
    size: u64,
}

impl Log {
    /// A new one below a state directory.
    pub(super) fn new(dir: &Path) -> Log {
        let file = File::create(dir.join(NAME)).ok();
        Log { dir: dir.to_owned(), file, size: 0 }
    }

    /// Adds what a stream has printed. What does not fit on the disk is lost.
    pub(super) fn add(&mut self, stream: u8, bytes: &[u8]) {
        for piece in bytes.chunks(LONGEST) {
            if self.size >= FULL {
                self.turn();
            }
            let mut record = vec![stream];
            record.extend((piece.len() as u32).to_le_bytes());
            record.extend(piece);
            let Some(file) = &mut self.file else { return };
            if file.write_all(&record).is_err() {
                // A part of a record would make the rest unreadable.
                let _cut = file.set_len(self.size);
                let _back = io::Seek::seek(file, io::SeekFrom::Start(self.size));
                return;
            }
            self.size += record.len() as u64;
        }
    }

    /// The full one becomes the older one. Without a new one what comes is lost, until there is one.
    fn turn(&mut self) {
        let (name, older) = (self.dir.join(NAME), self.dir.join(OLDER));
        if self.file.is_some() && std::fs::rename(&name, older).is_err() {
            return;
        }
        self.file = File::create(&name).ok();
        if self.file.is_some() {
            self.size = 0;
        }
    }
}

/// One that is read, from its beginning.
pub(super) struct Reader {
    dir: PathBuf,
    file: Option<File>,
    /// Bytes of records that are not whole yet.
    rest: Vec<u8>,
}

impl Reader {
    /// Opens it; there may be none.
    pub(super) fn open(dir: &Path) -> Reader {
        let older = File::open(dir.join(OLDER)).ok();
        let file = older.or_else(|| File::open(dir.join(NAME)).ok());
        Reader { dir: dir.to_owned(), file, rest: Vec::new() }
    }

    /// Calls `each` with everything that there is and has not been read; false where there was nothing.
    ///
    /// # Errors
    /// The host's, or those of `each`.
    pub(super) fn read(&mut self, each: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<bool> {
        let mut any = false;
        loop {
            let mut room = vec![0; 256 << 10];
            let count = match &mut self.file {
                Some(file) => file.read(&mut room)?,
                None => 0,
            };
            if count == 0 {
                // The next file, if this one is not the last.
                match self.next() {
                    Some(next) => self.file = Some(next),
                    None => return Ok(any),
                }
                self.rest.clear();
                continue;
            }
            any = true;
            self.rest.extend_from_slice(&room[..count]);
            let used = records(&self.rest, each)?;
            self.rest.drain(..used);
        }
    }

    /// The file that follows the one that is read.
    fn next(&self) -> Option<File> {
        let newest = File::open(self.dir.join(NAME)).ok()?;
        let identity = |file: &File| rustix::fs::fstat(file).ok().map(|stat| (stat.st_dev, stat.st_ino));
        let own = self.file.as_ref().and_then(identity);
        (own != identity(&newest)).then_some(newest)
    }
}

/// Calls `each` with the whole records that bytes begin with; how many bytes these are.
fn records(bytes: &[u8], each: &mut dyn FnMut(u8, &[u8]) -> io::Result<()>) -> io::Result<usize> {
    let mut at = 0;
    while let Some(header) = bytes.get(at..at + HEADER) {
        let length = u32::from_le_bytes([header[1], header[2], header[3], header[4]]) as usize;
        let Some(content) = bytes.get(at + HEADER..at + HEADER + length) else { break };
        each(header[0], content)?;
        at += HEADER + length;
    }
    Ok(at)
}

#[cfg(test)]
mod tests {
    use super::{FULL, Log, Reader};

    #[test]
    fn a_log_is_bounded_and_read_to_its_end() {
        let dir = std::env::temp_dir().join(format!("pillbox-log-{}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        let mut log = Log::new(&dir);
        log.add(1, b"first");
        log.add(2, b"second");
        let mut reader = Reader::open(&dir);
        let mut all = Vec::new();
        let mut each = |stream, bytes: &[u8]| {
            all.push((stream, bytes.to_vec()));
            Ok(())
        };
        assert!(reader.read(&mut each).unwrap());
        assert_eq!(all, [(1, b"first".to_vec()), (2, b"second".to_vec())]);
        assert!(!reader.read(&mut |_, _| Ok(())).unwrap());
        for _ in 0..40 {
            log.add(1, &vec![b'x'; 1 << 20]);
        }
        log.add(2, b"last");
        let mut last = Vec::new();
        let mut total = 0;
        let mut each = |_, bytes: &[u8]| {
            total += bytes.len() as u64;
            last = bytes.to_vec();
            Ok(())
        };
        Reader::open(&dir).read(&mut each).unwrap();
        assert_eq!(last, b"last");
        assert!(total <= 2 * (FULL + (1 << 20)), "{total}");
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
