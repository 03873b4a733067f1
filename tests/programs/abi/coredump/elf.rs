//! Reads core dumps.

/// A core dump.
pub(super) struct Core(Vec<u8>);

/// A program header: type, flags, offset, address, bytes in the file and in memory.
#[derive(Clone, Copy)]
pub(super) struct Segment {
    pub(super) kind: u32,
    pub(super) flags: u32,
    pub(super) offset: u64,
    pub(super) address: u64,
    pub(super) in_file: u64,
    pub(super) in_memory: u64,
}

/// A note.
pub(super) struct Note {
    pub(super) name: String,
    pub(super) kind: u32,
    pub(super) bytes: Vec<u8>,
}

impl Note {
    pub(super) fn int(&self, at: usize) -> i32 {
        self.bytes
            .get(at..at + 4)
            .map_or(-1, |bytes| i32::from_ne_bytes(bytes.try_into().unwrap_or_default()))
    }

    pub(super) fn text(&self, at: usize, len: usize) -> String {
        let bytes = self.bytes.get(at..at + len).unwrap_or_default();
        let end = bytes.iter().position(|byte| *byte == 0).unwrap_or(bytes.len());
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }
}

impl Core {
    /// That of the last process, which is removed.
    pub(super) fn take() -> Option<Core> {
        let bytes = std::fs::read("core").ok()?;
        let _gone = std::fs::remove_file("core");
        Some(Core(bytes))
    }

    pub(super) fn len(&self) -> u64 {
        self.0.len() as u64
    }

    fn number(&self, at: u64, len: usize) -> u64 {
        let at = at as usize;
        let mut word = [0; 8];
        word[..len].copy_from_slice(self.0.get(at..at + len).unwrap_or(&[0; 8][..len]));
        u64::from_ne_bytes(word)
    }

    /// The header, but for how many segments there are.
    pub(super) fn header(&self) -> String {
        let ident: Vec<u8> = self.0.iter().take(16).copied().collect();
        let fields: Vec<u64> = [
            (16, 2),
            (18, 2),
            (20, 4),
            (24, 8),
            (32, 8),
            (40, 8),
            (48, 4),
            (52, 2),
            (54, 2),
            (58, 2),
            (60, 2),
            (62, 2),
        ]
        .iter()
        .map(|(at, len)| self.number(*at, *len))
        .collect();
        format!("{ident:?} {fields:?}")
    }

    pub(super) fn segments(&self) -> Vec<Segment> {
        let (first, count) = (self.number(32, 8), self.number(56, 2));
        let segment = |index: u64| {
            let at = first + 56 * index;
            Segment {
                kind: self.number(at, 4) as u32,
                flags: self.number(at + 4, 4) as u32,
                offset: self.number(at + 8, 8),
                address: self.number(at + 16, 8),
                in_file: self.number(at + 32, 8),
                in_memory: self.number(at + 40, 8),
            }
        };
        (0..count).map(segment).collect()
    }

    pub(super) fn notes(&self) -> Vec<Note> {
        let mut notes = Vec::new();
        let Some(all) = self.segments().into_iter().find(|segment| segment.kind == 4) else { return notes };
        let mut at = all.offset;
        while at < all.offset + all.in_file {
            let (name, len, kind) = (self.number(at, 4), self.number(at + 4, 4), self.number(at + 8, 4));
            let bytes =
                |at: u64, len: u64| self.0.get(at as usize..(at + len) as usize).unwrap_or_default().to_vec();
            let text = bytes(at + 12, name.saturating_sub(1));
            let start = at + 12 + name.next_multiple_of(4);
            notes.push(Note {
                name: String::from_utf8_lossy(&text).into_owned(),
                kind: kind as u32,
                bytes: bytes(start, len),
            });
            at = start + len.next_multiple_of(4);
        }
        notes
    }

    /// What the dump has of an address: the segment, and the byte there if it is in the file.
    pub(super) fn byte(&self, address: u64) -> Option<u8> {
        let within =
            |segment: &Segment| segment.kind == 1 && address.wrapping_sub(segment.address) < segment.in_file;
        let segment = self.segments().into_iter().find(within)?;
        self.0.get((segment.offset + (address - segment.address)) as usize).copied()
    }

    /// The segment that begins at an address.
    pub(super) fn at(&self, address: u64) -> Option<Segment> {
        self.segments().into_iter().find(|segment| segment.kind == 1 && segment.address == address)
    }
}
