//! How are messages framed on a WebSocket (RFC 6455), from the client's side?

/// A message from the server.
#[derive(Debug, PartialEq, Eq)]
pub enum Message {
    Binary(Vec<u8>),
    Ping(Vec<u8>),
    Close,
}

const LARGEST: usize = 16 << 20;

/// Reads messages from bytes as they come.
#[derive(Default)]
pub struct Reader {
    buffer: Vec<u8>,
    partial: Vec<u8>,
}

impl Reader {
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole message.
    ///
    /// # Errors
    /// If the bytes are not frames of a server.
    pub fn next(&mut self) -> Result<Option<Message>, String> {
        loop {
            let Some((last, opcode, payload)) = self.frame()? else { return Ok(None) };
            match opcode {
                0..=2 => {
                    self.partial.extend_from_slice(&payload);
                    if self.partial.len() > LARGEST {
                        return Err("a message is too large".to_owned());
                    }
                    if last {
                        return Ok(Some(Message::Binary(std::mem::take(&mut self.partial))));
                    }
                }
                8 => return Ok(Some(Message::Close)),
                9 => return Ok(Some(Message::Ping(payload))),
                _ => {}
            }
        }
    }

    fn frame(&mut self) -> Result<Option<(bool, u8, Vec<u8>)>, String> {
        let Some(&[first, second]) = self.buffer.first_chunk::<2>() else { return Ok(None) };
        if second & 0x80 != 0 {
            return Err("a server's frame is masked".to_owned());
        }
        let (head, length) = match second {
            126 => match self.buffer.get(2..4) {
                Some(bytes) => (4, bytes.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte))),
                None => return Ok(None),
            },
            127 => match self.buffer.get(2..10) {
                Some(bytes) => (10, bytes.iter().fold(0usize, |sum, byte| sum.wrapping_shl(8) | usize::from(*byte))),
                None => return Ok(None),
            },
            short => (2, usize::from(short)),
        };
        if length > LARGEST {
            return Err(format!("a frame has {length} bytes"));
        }
        let Some(payload) = self.buffer.get(head..head + length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..head + length);
        Ok(Some((first & 0x80 != 0, first & 0x0f, payload)))
    }
}

fn frame(opcode: u8, payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut bytes = vec![0x80 | opcode];
    match payload.len() {
        short @ 0..126 => bytes.push(0x80 | short as u8),
        middle @ 126..65536 => {
            bytes.push(0x80 | 126);
            bytes.extend_from_slice(&(middle as u16).to_be_bytes());
        }
        long => {
            bytes.push(0x80 | 127);
            bytes.extend_from_slice(&(long as u64).to_be_bytes());
        }
    }
    bytes.extend_from_slice(&mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// A binary message.
pub fn binary(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    frame(2, payload, mask)
}

pub fn pong(payload: &[u8], mask: [u8; 4]) -> Vec<u8> {
    frame(10, payload, mask)
}

pub fn close(mask: [u8; 4]) -> Vec<u8> {
    frame(8, &1000u16.to_be_bytes(), mask)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn messages_are_put_together_from_frames_and_cuts() {
        let mut reader = Reader::default();
        let bytes = [&[0x02, 2, b'a', b'b'][..], &[0x89, 1, b'p'], &[0x80, 1, b'c'], &[0x88, 0]].concat();
        let mut found = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            found.extend(reader.next().unwrap());
        }
        assert_eq!(found, [Message::Ping(b"p".to_vec()), Message::Binary(b"abc".to_vec()), Message::Close]);
    }

    #[test]
    fn a_clients_frame_is_masked() {
        assert_eq!(binary(b"ab", [1, 2, 3, 4]), [0x82, 0x82, 1, 2, 3, 4, b'a' ^ 1, b'b' ^ 2]);
        assert_eq!(binary(&[0; 200], [0; 4])[..4], [0x82, 0xfe, 0, 200]);
    }
}
