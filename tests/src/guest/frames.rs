//! How a guest's output crosses the serial port: frames of at most 64 KiB, behind a start mark.
//!
//! One port carries everything, because `virt` has only one to spare beside the console: standard
//! output and error of the running step, its exit status, and what init itself has to say. The line is
//! raw in both directions, so bytes arrive as the program wrote them.

use std::io::{self, ErrorKind, Read, Write};

/// Firmware may print on the port first; frames begin behind this.
const MARK: &[u8] = b"\x02pillbox-frames-1\n";

/// One piece of news from the guest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// Bytes that the step wrote to standard output.
    Stdout(Vec<u8>),
    /// Bytes that the step wrote to standard error.
    Stderr(Vec<u8>),
    /// The step is over: its exit status, or 128 + the signal that ended it.
    Done(i32),
    /// Init could not do something; nothing more will come.
    Failed(String),
    /// All steps are over.
    End,
}

impl Frame {
    fn tag(&self) -> u8 {
        match self {
            Self::Stdout(_) => 1,
            Self::Stderr(_) => 2,
            Self::Done(_) => 3,
            Self::Failed(_) => 4,
            Self::End => 5,
        }
    }
}

/// Writes the start mark.
pub fn start(port: &mut impl Write) -> io::Result<()> {
    port.write_all(MARK)
}

/// Writes one frame. Output longer than a frame holds must come in pieces.
pub fn send(port: &mut impl Write, frame: &Frame) -> io::Result<()> {
    let status;
    let payload: &[u8] = match frame {
        Frame::Stdout(bytes) | Frame::Stderr(bytes) => bytes,
        Frame::Done(code) => {
            status = code.to_le_bytes();
            &status
        }
        Frame::Failed(text) => text.as_bytes(),
        Frame::End => &[],
    };
    let length = u16::try_from(payload.len()).map_err(|_| ErrorKind::InvalidInput)?;
    let mut bytes = Vec::with_capacity(payload.len() + 3);
    bytes.push(frame.tag());
    bytes.extend(length.to_le_bytes());
    bytes.extend(payload);
    port.write_all(&bytes)
}

/// Reads frames from the other end.
#[derive(Debug)]
pub struct Frames<R> {
    port: R,
    started: bool,
}

impl<R: Read> Frames<R> {
    /// Begins to read at the start mark.
    pub fn new(port: R) -> Self {
        let started = false;
        Self { port, started }
    }

    /// Returns the next frame; `UnexpectedEof` when the guest is gone, `InvalidData` when it talks nonsense.
    pub fn receive(&mut self) -> io::Result<Frame> {
        if !self.started {
            self.skip_to_mark()?;
            self.started = true;
        }
        let mut head = [0; 3];
        self.port.read_exact(&mut head)?;
        let [tag, low, high] = head;
        let mut payload = vec![0; usize::from(u16::from_le_bytes([low, high]))];
        self.port.read_exact(&mut payload)?;
        Ok(match tag {
            1 => Frame::Stdout(payload),
            2 => Frame::Stderr(payload),
            3 => {
                let code = payload.try_into().map_err(|_| ErrorKind::InvalidData)?;
                Frame::Done(i32::from_le_bytes(code))
            }
            4 => Frame::Failed(String::from_utf8_lossy(&payload).into_owned()),
            5 => Frame::End,
            _ => return Err(ErrorKind::InvalidData.into()),
        })
    }

    fn skip_to_mark(&mut self) -> io::Result<()> {
        // The mark's first byte does not occur again in it, so a mismatch never hides a match.
        let mut matched = 0;
        let mut byte = [0];
        while matched < MARK.len() {
            self.port.read_exact(&mut byte)?;
            matched = if byte[0] == MARK[matched] { matched + 1 } else { usize::from(byte[0] == MARK[0]) };
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::{Frame, Frames, send, start};

    #[test]
    fn frames_survive_the_line() {
        let sent = [
            Frame::Stdout(b"a\r\n\0\xff".to_vec()),
            Frame::Stderr(vec![7; 65535]),
            Frame::Done(-1),
            Frame::Failed("no /dev/kvm".to_owned()),
            Frame::End,
        ];
        let mut line = b"SeaBIOS\x02pill\x02".to_vec();
        start(&mut line).unwrap();
        for frame in &sent {
            send(&mut line, frame).unwrap();
        }
        let mut frames = Frames::new(line.as_slice());
        for frame in &sent {
            assert_eq!(frames.receive().unwrap(), *frame);
        }
        assert!(frames.receive().is_err());
    }

    #[test]
    fn a_frame_that_is_too_long_is_refused() {
        assert!(send(&mut Vec::new(), &Frame::Stdout(vec![0; 65536])).is_err());
    }
}
