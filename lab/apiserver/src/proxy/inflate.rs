//! What do compressed bytes say? DEFLATE (RFC 1951) in a zlib stream with a known dictionary, block by block.
//!
//! Each block of a stream ends on a byte, as a flush leaves it; later blocks may refer to earlier ones.

/// More than this is no block of headers.
const MOST: usize = 1 << 20;
const WINDOW: usize = 32 * 1024;

const LENGTH_BASE: [u16; 29] =
    [3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115, 131, 163, 195, 227, 258];
const LENGTH_BITS: [u8; 29] = [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3, 4, 4, 4, 4, 5, 5, 5, 5, 0];
const DISTANCE_BASE: [u16; 30] = [
    1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537, 2049, 3073, 4097, 6145,
    8193, 12289, 16385, 24577,
];
const DISTANCE_BITS: [u8; 30] =
    [0, 0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11, 12, 12, 13, 13];
const ORDER: [usize; 19] = [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// A zlib stream that is read in blocks.
pub struct Inflater {
    history: Vec<u8>,
    started: bool,
}

struct Bits<'a> {
    data: &'a [u8],
    at: usize,
}

impl Bits<'_> {
    fn take(&mut self, count: u8) -> Result<u16, String> {
        let mut value = 0;
        for bit in 0..count {
            let byte = self.data.get(self.at / 8).ok_or("compressed data end too early")?;
            value |= u16::from(byte >> (self.at % 8) & 1) << bit;
            self.at += 1;
        }
        Ok(value)
    }

    fn align(&mut self) {
        self.at = self.at.div_ceil(8) * 8;
    }

    fn at_end(&self) -> bool {
        self.at.div_ceil(8) >= self.data.len()
    }
}

/// A canonical prefix code: how many codes each length has, and their symbols in order.
struct Code {
    counts: [u16; 16],
    symbols: Vec<u16>,
}

impl Code {
    fn new(lengths: &[u8]) -> Self {
        let mut counts = [0; 16];
        lengths.iter().filter(|length| **length > 0).for_each(|length| counts[usize::from(*length)] += 1);
        let mut ordered: Vec<(u8, u16)> = (0u16..)
            .zip(lengths)
            .filter(|(_, length)| **length > 0)
            .map(|(symbol, length)| (*length, symbol))
            .collect();
        ordered.sort_unstable();
        Self { counts, symbols: ordered.into_iter().map(|(_, symbol)| symbol).collect() }
    }

    fn read(&self, bits: &mut Bits<'_>) -> Result<u16, String> {
        let (mut code, mut first, mut index) = (0u32, 0u32, 0u32);
        for count in &self.counts[1..] {
            code |= u32::from(bits.take(1)?);
            let count = u32::from(*count);
            if code < first + count {
                let symbol = self.symbols.get((index + code - first) as usize);
                return symbol.copied().ok_or_else(|| "a code has no symbol".to_owned());
            }
            index += count;
            first = (first + count) << 1;
            code <<= 1;
        }
        Err("a code is too long".to_owned())
    }
}

impl Inflater {
    pub fn new(dictionary: &[u8]) -> Self {
        Self { history: dictionary.to_vec(), started: false }
    }

    /// The next block of the stream.
    ///
    /// # Errors
    /// If the bytes are not DEFLATE.
    pub fn block(&mut self, mut data: &[u8]) -> Result<Vec<u8>, String> {
        if !self.started {
            let header = data.get(..2).ok_or("there is no zlib header")?;
            if header[0] & 0x0f != 8 || !u16::from_be_bytes([header[0], header[1]]).is_multiple_of(31) {
                return Err("the zlib header is wrong".to_owned());
            }
            let length = if header[1] & 0x20 == 0 { 2 } else { 6 };
            data = data.get(length..).ok_or("there is no dictionary number")?;
            self.started = true;
        }
        let start = self.history.len();
        let mut bits = Bits { data, at: 0 };
        let mut last = false;
        while !last && !bits.at_end() {
            last = bits.take(1)? == 1;
            match bits.take(2)? {
                0 => self.stored(&mut bits)?,
                1 => self.coded(&mut bits, &fixed_lengths(), &Code::new(&[5; 30]), start)?,
                2 => {
                    let (lengths, distances) = dynamic(&mut bits)?;
                    self.coded(&mut bits, &lengths, &distances, start)?;
                }
                _ => return Err("a block is of no known type".to_owned()),
            }
        }
        let out = self.history[start..].to_vec();
        let old = self.history.len().saturating_sub(WINDOW);
        self.history.drain(..old);
        Ok(out)
    }

    fn stored(&mut self, bits: &mut Bits<'_>) -> Result<(), String> {
        bits.align();
        let (length, check) = (bits.take(16)?, bits.take(16)?);
        if length != !check {
            return Err("a stored block's length is wrong".to_owned());
        }
        let from = bits.at / 8;
        let stored = bits.data.get(from..from + usize::from(length)).ok_or("a stored block ends too early")?;
        self.history.extend_from_slice(stored);
        bits.at += usize::from(length) * 8;
        Ok(())
    }

    fn coded(&mut self, bits: &mut Bits<'_>, lengths: &Code, distances: &Code, start: usize) -> Result<(), String> {
        loop {
            if self.history.len() - start > MOST {
                return Err("a block is too large".to_owned());
            }
            let symbol = lengths.read(bits)?;
            match symbol {
                256 => return Ok(()),
                0..256 => self.history.push(symbol as u8),
                _ => {
                    let index = usize::from(symbol - 257);
                    let base = LENGTH_BASE.get(index).ok_or("a length is unknown")?;
                    let length = usize::from(base + bits.take(LENGTH_BITS[index])?);
                    let index = usize::from(distances.read(bits)?);
                    let base = DISTANCE_BASE.get(index).ok_or("a distance is unknown")?;
                    let distance = usize::from(*base) + usize::from(bits.take(DISTANCE_BITS[index])?);
                    let from = self.history.len().checked_sub(distance).ok_or("a distance is too far")?;
                    (from..from + length).for_each(|place| self.history.push(self.history[place]));
                }
            }
        }
    }
}

fn fixed_lengths() -> Code {
    let lengths: Vec<u8> = (0..288)
        .map(|symbol| match symbol {
            0..144 => 8,
            144..256 => 9,
            256..280 => 7,
            _ => 8,
        })
        .collect();
    Code::new(&lengths)
}

fn dynamic(bits: &mut Bits<'_>) -> Result<(Code, Code), String> {
    let literals = usize::from(bits.take(5)?) + 257;
    let distances = usize::from(bits.take(5)?) + 1;
    let count = usize::from(bits.take(4)?) + 4;
    let mut lengths = [0u8; 19];
    for place in ORDER.iter().take(count) {
        lengths[*place] = bits.take(3)? as u8;
    }
    let code = Code::new(&lengths);
    let mut all: Vec<u8> = Vec::with_capacity(literals + distances);
    while all.len() < literals + distances {
        let (value, repeat) = match code.read(bits)? {
            symbol @ 0..16 => (symbol as u8, 1),
            16 => (*all.last().ok_or("a repetition of nothing")?, 3 + bits.take(2)?),
            17 => (0, 3 + bits.take(3)?),
            _ => (0, 11 + bits.take(7)?),
        };
        all.extend(std::iter::repeat_n(value, usize::from(repeat)));
    }
    if all.len() > literals + distances {
        return Err("there are too many code lengths".to_owned());
    }
    Ok((Code::new(&all[..literals]), Code::new(&all[literals..])))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn blocks_refer_to_the_dictionary_and_to_earlier_blocks() {
        // Made by zlib with the dictionary "hello world": "hello world, hello", a flush, then the same again, a flush.
        let first = FIRST.to_vec();
        let mut inflater = Inflater::new(b"hello world");
        assert_eq!(inflater.block(&first).unwrap(), b"hello world, hello");
        assert_eq!(inflater.block(SECOND).unwrap(), b"hello world, hello");
    }

    const FIRST: &[u8] = &[120, 249, 26, 11, 4, 93, 202, 64, 48, 117, 20, 192, 28, 0, 0, 0, 0, 255, 255];
    const SECOND: &[u8] = &[194, 20, 1, 0, 0, 0, 255, 255];

    #[test]
    fn long_texts_with_codes_of_their_own() {
        let mut inflater = Inflater::new(b"");
        assert_eq!(inflater.block(DYNAMIC).unwrap(), (0..2000).map(|n| b'a' + (n * n % 23) as u8).collect::<Vec<u8>>());
    }

    const DYNAMIC: &[u8] = &[
        120, 218, 74, 76, 74, 205, 42, 76, 206, 75, 41, 206, 205, 76, 79, 207, 204, 45, 78, 201, 75, 46, 204, 74, 77,
        74, 28, 21, 30, 21, 30, 21, 30, 21, 30, 21, 30, 21, 30, 21, 30, 58, 194, 0, 0, 0, 0, 255, 255,
    ];

    #[test]
    fn broken_bytes_are_errors() {
        for place in 0..DYNAMIC.len() {
            for value in [0, 0x55, 0xff] {
                let mut broken = DYNAMIC.to_vec();
                broken[place] = value;
                let _ = Inflater::new(b"").block(&broken);
                let _ = Inflater::new(b"").block(&broken[..place]);
            }
        }
    }
}
