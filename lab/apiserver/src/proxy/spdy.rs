//! How do several streams share one connection in SPDY/3.1, which clients before WebSocket speak?
//!
//! Frames are values here: bytes in, frames out, and the other way.

use std::collections::HashMap;

use super::inflate::Inflater;

const VERSION: u16 = 0x8003;
const FIN: u8 = 1;
/// Larger control frames are not headers of streams.
const LARGEST_CONTROL: usize = 64 * 1024;

/// A frame from the client.
#[derive(Debug, PartialEq, Eq)]
pub enum Frame {
    /// A new stream and its headers, names in lower case.
    Open {
        stream: u32,
        headers: HashMap<String, String>,
    },
    Data {
        stream: u32,
        bytes: Vec<u8>,
        end: bool,
    },
    Reset {
        stream: u32,
    },
    Ping(u32),
    GoAway,
    /// Of no meaning here.
    Other,
}

/// Reads frames from bytes as they come.
pub struct Reader {
    buffer: Vec<u8>,
    headers: Inflater,
}

impl Reader {
    pub fn new() -> Self {
        Self { buffer: Vec::new(), headers: Inflater::new(&dictionary()) }
    }

    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// The next whole frame.
    ///
    /// # Errors
    /// If the bytes are not frames of this protocol; nothing can be read after that.
    pub fn next(&mut self) -> Result<Option<Frame>, String> {
        let Some(head) = self.buffer.first_chunk::<8>() else { return Ok(None) };
        let word = u32::from_be_bytes([head[0], head[1], head[2], head[3]]);
        let flags = head[4];
        let length = usize::from(head[5]) << 16 | usize::from(head[6]) << 8 | usize::from(head[7]);
        let control = word & 0x8000_0000 != 0;
        if control && length > LARGEST_CONTROL {
            return Err(format!("a control frame has {length} bytes"));
        }
        let Some(content) = self.buffer.get(8..8 + length).map(<[u8]>::to_vec) else { return Ok(None) };
        self.buffer.drain(..8 + length);
        if !control {
            return Ok(Some(Frame::Data { stream: word, bytes: content, end: flags & FIN != 0 }));
        }
        if word >> 16 != u32::from(VERSION) {
            return Err(format!("version {} is not 3", word >> 16 & 0x7fff));
        }
        self.control(word & 0xffff, &content).map(Some)
    }

    fn control(&mut self, kind: u32, content: &[u8]) -> Result<Frame, String> {
        let number = |at: usize| {
            let bytes = content.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
            bytes.map(u32::from_be_bytes).ok_or_else(|| "a control frame is too short".to_owned())
        };
        Ok(match kind {
            1 => {
                let block = self.headers.block(content.get(10..).ok_or("a stream has no headers")?)?;
                Frame::Open { stream: number(0)?, headers: headers(&block)? }
            }
            // Blocks share one compressed stream, so they are read even where they do not matter.
            8 => {
                self.headers.block(content.get(4..).ok_or("headers are missing")?)?;
                Frame::Other
            }
            3 => Frame::Reset { stream: number(0)? },
            6 => Frame::Ping(number(0)?),
            7 => Frame::GoAway,
            _ => Frame::Other,
        })
    }
}

fn headers(block: &[u8]) -> Result<HashMap<String, String>, String> {
    let mut rest = block;
    let number = |rest: &mut &[u8]| -> Result<usize, String> {
        let (bytes, after) = rest.split_first_chunk::<4>().ok_or("headers end too early")?;
        *rest = after;
        Ok(u32::from_be_bytes(*bytes) as usize)
    };
    let count = number(&mut rest)?;
    let text = |rest: &mut &[u8]| -> Result<String, String> {
        let length = number(rest)?;
        let bytes = rest.get(..length).ok_or("a header ends too early")?;
        *rest = &rest[length..];
        Ok(String::from_utf8_lossy(bytes).into_owned())
    };
    let mut found = HashMap::new();
    for _ in 0..count {
        let name = text(&mut rest)?.to_lowercase();
        let value = text(&mut rest)?;
        found.insert(name, value);
    }
    Ok(found)
}

/// Writes frames.
#[derive(Default)]
pub struct Writer {
    begun: bool,
}

fn frame(word: u32, flags: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = word.to_be_bytes().to_vec();
    bytes.push(flags);
    bytes.extend_from_slice(&(content.len() as u32).to_be_bytes()[1..]);
    bytes.extend_from_slice(content);
    bytes
}

fn control(kind: u16, content: &[u8]) -> Vec<u8> {
    frame(u32::from(VERSION) << 16 | u32::from(kind), 0, content)
}

impl Writer {
    /// Accepts a stream, without headers.
    pub fn accept(&mut self, stream: u32) -> Vec<u8> {
        let mut content = stream.to_be_bytes().to_vec();
        if !self.begun {
            // A zlib stream that compresses nothing: its header, then stored blocks.
            content.extend([0x78, 0x01]);
            self.begun = true;
        }
        content.extend([0, 4, 0, 0xfb, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff]);
        control(2, &content)
    }

    pub fn data(stream: u32, bytes: &[u8], end: bool) -> Vec<u8> {
        frame(stream & 0x7fff_ffff, if end { FIN } else { 0 }, bytes)
    }

    pub fn pong(id: u32) -> Vec<u8> {
        control(6, &id.to_be_bytes())
    }

    pub fn go_away(last: u32) -> Vec<u8> {
        control(7, &[last.to_be_bytes(), [0; 4]].concat())
    }
}

/// The text that headers are compressed with from the start.
fn dictionary() -> Vec<u8> {
    const WORDS: &str = "options head post put delete trace accept accept-charset accept-encoding accept-language \
        accept-ranges age allow authorization cache-control connection content-base content-encoding content-language \
        content-length content-location content-md5 content-range content-type date etag expect expires from host \
        if-match if-modified-since if-none-match if-range if-unmodified-since last-modified location max-forwards pragma \
        proxy-authenticate proxy-authorization range referer retry-after server te trailer transfer-encoding upgrade \
        user-agent vary via warning www-authenticate method get status 200_OK version HTTP/1.1 url public set-cookie \
        keep-alive origin";
    const REST: &str = "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505203 \
        Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized403 Forbidden404 \
        Not Found500 Internal Server Error501 Not Implemented503 Service UnavailableJan Feb Mar Apr May Jun Jul Aug Sept \
        Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMTchunked,text/html,image/png,image/jpg,image/gif,\
        application/xml,application/xhtml+xml,text/plain,text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=\
        utf-8charset=iso-8859-1,utf-,*,enq=0.";
    let mut bytes = Vec::new();
    for word in WORDS.split_whitespace() {
        let word = word.replace('_', " ");
        bytes.extend_from_slice(&(word.len() as u32).to_be_bytes());
        bytes.extend_from_slice(word.as_bytes());
    }
    bytes.extend_from_slice(REST.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_dictionary_is_the_one_of_the_protocol() {
        let bytes = dictionary();
        let (a, b) = bytes.iter().fold((1u32, 0u32), |(a, b), byte| {
            let a = (a + u32::from(*byte)) % 65521;
            (a, (b + a) % 65521)
        });
        assert_eq!(bytes.len(), 1423);
        assert_eq!(b << 16 | a, 0xe3c6_a7c2);
    }

    #[test]
    fn frames_are_found_however_the_bytes_are_cut() {
        let bytes = [Writer::data(3, b"abc", false), Writer::pong(7), Writer::data(3, b"", true)].concat();
        let mut reader = Reader::new();
        let mut frames = Vec::new();
        for byte in bytes {
            reader.push(&[byte]);
            frames.extend(reader.next().unwrap());
        }
        let data = |bytes: &[u8], end| Frame::Data { stream: 3, bytes: bytes.to_vec(), end };
        assert_eq!(frames, [data(b"abc", false), Frame::Ping(7), data(b"", true)]);
    }

    #[test]
    fn an_accepted_stream_has_an_empty_header_block_that_a_reader_understands() {
        let mut writer = Writer::default();
        let mut inflater = Inflater::new(&dictionary());
        for _ in 0..3 {
            let bytes = writer.accept(1);
            assert_eq!(inflater.block(&bytes[12..]).unwrap(), [0; 4]);
        }
    }
}
