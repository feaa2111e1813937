//! Where does a body end?

use super::{Length, Malformed};

/// The most bytes of chunk extensions and trailers of one body together.
const MOST_EXTRAS: usize = 16 << 10;

/// Follows a body through bytes that arrive piece by piece.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Framing {
    state: State,
    extras: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// So many bytes of it are still to come.
    Bytes(u64),
    UntilClose,
    /// In a chunk's size, after so many digits.
    Size {
        value: u64,
        digits: u8,
    },
    /// In what follows a chunk's size on its line.
    Extension {
        value: u64,
    },
    /// After the CR of that line.
    SizeEnd {
        value: u64,
    },
    /// In a chunk.
    Data(u64),
    /// After a chunk: CR, then LF.
    DataEnd {
        return_seen: bool,
    },
    /// In the lines after the last chunk: bytes of the current line, and whether its last was CR.
    Trailer {
        length: usize,
        return_seen: bool,
    },
    Done,
}

impl Framing {
    /// At the begin of a body.
    pub fn new(length: Length) -> Framing {
        let state = match length {
            Length::Bytes(0) => State::Done,
            Length::Bytes(count) => State::Bytes(count),
            Length::Chunked => State::Size { value: 0, digits: 0 },
            Length::UntilClose => State::UntilClose,
        };
        Framing { state, extras: 0 }
    }

    /// True once the body is whole.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// True if the end of the connection is its end.
    pub fn may_end(&self) -> bool {
        matches!(self.state, State::Done | State::UntilClose)
    }

    /// How many of these bytes belong to the body.
    pub fn advance(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let mut at = 0;
        while at < bytes.len() && !self.is_done() {
            at += self.step(&bytes[at..])?;
        }
        Ok(at)
    }

    /// Takes one byte, or as many as nothing depends on. There is one at least.
    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let byte = bytes[0];
        match self.state {
            State::Done => return Ok(0),
            State::UntilClose => return Ok(bytes.len()),
            State::Bytes(left) => {
                let (taken, left) = take(bytes, left);
                self.state = if left == 0 { State::Done } else { State::Bytes(left) };
                return Ok(taken);
            }
            State::Data(left) => {
                let (taken, left) = take(bytes, left);
                self.state = if left == 0 { State::DataEnd { return_seen: false } } else { State::Data(left) };
                return Ok(taken);
            }
            State::Size { value, digits } => self.state = size(byte, value, digits)?,
            State::Extension { value } => {
                self.extra()?;
                self.state = match byte {
                    b'\r' => State::SizeEnd { value },
                    b'\t' | b' '..=b'~' | 0x80.. => State::Extension { value },
                    _ => return Err(Malformed::Chunk),
                };
            }
            State::SizeEnd { value } => {
                self.state = match (byte, value) {
                    (b'\n', 0) => State::Trailer { length: 0, return_seen: false },
                    (b'\n', _) => State::Data(value),
                    _ => return Err(Malformed::BareReturn),
                };
            }
            State::DataEnd { return_seen } => {
                self.state = match (byte, return_seen) {
                    (b'\r', false) => State::DataEnd { return_seen: true },
                    (b'\n', true) => State::Size { value: 0, digits: 0 },
                    _ => return Err(Malformed::Chunk),
                };
            }
            State::Trailer { length, return_seen } => {
                self.extra()?;
                self.state = trailer(byte, length, return_seen)?;
            }
        }
        Ok(1)
    }

    fn extra(&mut self) -> Result<(), Malformed> {
        self.extras += 1;
        if self.extras > MOST_EXTRAS { Err(Malformed::TooLong) } else { Ok(()) }
    }
}

fn take(bytes: &[u8], left: u64) -> (usize, u64) {
    let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
    (taken, left - taken as u64)
}

fn size(byte: u8, value: u64, digits: u8) -> Result<State, Malformed> {
    let digit = match byte {
        b'0'..=b'9' => byte - b'0',
        b'a'..=b'f' => byte - b'a' + 10,
        b'A'..=b'F' => byte - b'A' + 10,
        b'\r' if digits > 0 => return Ok(State::SizeEnd { value }),
        b';' if digits > 0 => return Ok(State::Extension { value }),
        _ => return Err(Malformed::Chunk),
    };
    // Fifteen digits are a thousand times all there is, and no reader takes them for a small number.
    if digits == 15 {
        Err(Malformed::Chunk)
    } else {
        Ok(State::Size { value: value << 4 | u64::from(digit), digits: digits + 1 })
    }
}

fn trailer(byte: u8, length: usize, return_seen: bool) -> Result<State, Malformed> {
    match (byte, return_seen) {
        (b'\n', true) if length == 0 => Ok(State::Done),
        (b'\n', true) => Ok(State::Trailer { length: 0, return_seen: false }),
        (_, true) => Err(Malformed::BareReturn),
        (b'\r', false) => Ok(State::Trailer { length, return_seen: true }),
        (b'\n', false) => Err(Malformed::BareLineFeed),
        // A line that continues the one before.
        (b' ' | b'\t', false) if length == 0 => Err(Malformed::Header),
        (b'\t' | b' '..=b'~' | 0x80.., false) => Ok(State::Trailer { length: length + 1, return_seen: false }),
        _ => Err(Malformed::Header),
    }
}
