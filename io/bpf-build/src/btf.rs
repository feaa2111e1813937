//! Is the BTF that rustc's LLVM writes acceptable to the kernel?
//!
//! Not yet: names such as `Key<[u8; 8]>` are no C identifiers, and members of a struct need not be in order of their
//! offsets. Both are put right in the finished object.

/// Longest name that the kernel takes.
const MAX_NAME: usize = 127;

/// Renames types to C identifiers and sorts members, in place. An object without BTF stays as it is.
pub fn repair(elf: &mut [u8]) -> Result<(), String> {
    let Some((offset, size)) = section(elf, ".BTF")? else { return Ok(()) };
    let btf = elf.get_mut(offset..offset + size).ok_or("section .BTF lies outside of the file")?;
    let header = word(btf, 4)?;
    let (types, types_len) = (header + word(btf, 8)?, word(btf, 12)?);
    let strings = header + word(btf, 16)?;
    let mut at = types;
    while at < types + types_len {
        at += repair_type(btf, at, strings)?;
    }
    Ok(())
}

/// Repairs the type at this offset and returns its length.
fn repair_type(btf: &mut [u8], at: usize, strings: usize) -> Result<usize, String> {
    let (name, info) = (word(btf, at)?, word(btf, at + 4)?);
    let (kind, count) = ((info >> 24) & 0x1f, info & 0xffff);
    let body = body_len(kind, count)?;
    if matches!(kind, 4..=8 | 12) && name != 0 {
        rename(btf, strings + name)?;
    }
    if matches!(kind, 4 | 5) {
        let members = btf.get_mut(at + 12..at + 12 + body).ok_or("BTF ends within a struct")?;
        // With the kind flag set, the upper eight bits of an offset are a bit field's size.
        sort_members(members, if info >> 31 == 1 { 0x00ff_ffff } else { u32::MAX });
    }
    Ok(12 + body)
}

/// Bytes that follow the common part of a type.
fn body_len(kind: usize, count: usize) -> Result<usize, String> {
    Ok(match kind {
        1 | 14 | 17 => 4,
        3 => 12,
        4 | 5 | 15 | 19 => 12 * count,
        6 | 13 => 8 * count,
        2 | 7..=12 | 16 | 18 => 0,
        other => return Err(format!("BTF kind {other} is not known")),
    })
}

fn rename(btf: &mut [u8], at: usize) -> Result<(), String> {
    let tail = btf.get_mut(at..).ok_or("BTF name lies outside of the section")?;
    let len = tail.iter().position(|c| *c == 0).ok_or("BTF name has no end")?;
    for (i, c) in tail[..len].iter_mut().enumerate() {
        let fits = c.is_ascii_alphabetic() || *c == b'_' || i > 0 && c.is_ascii_digit();
        if !fits {
            *c = b'_';
        }
    }
    if len > MAX_NAME {
        tail[MAX_NAME] = 0;
    }
    Ok(())
}

fn sort_members(members: &mut [u8], mask: u32) {
    let mut sorted: Vec<[u8; 12]> = members.as_chunks::<12>().0.to_vec();
    sorted.sort_by_key(|m| u32::from_le_bytes([m[8], m[9], m[10], m[11]]) & mask);
    members.copy_from_slice(&sorted.concat());
}

/// Offset and size of a section of a 64 bit little-endian ELF file.
fn section(elf: &[u8], wanted: &str) -> Result<Option<(usize, usize)>, String> {
    let (table, count, names) = (long(elf, 40)?, half(elf, 60)?, half(elf, 62)?);
    let strings = long(elf, table + names * 64 + 24)?;
    for header in (0..count).map(|i| table + i * 64) {
        let name = elf.get(strings + word(elf, header)?..).ok_or("section name lies outside of the file")?;
        if name.split(|c| *c == 0).next() == Some(wanted.as_bytes()) {
            return Ok(Some((long(elf, header + 24)?, long(elf, header + 32)?)));
        }
    }
    Ok(None)
}

fn half(b: &[u8], at: usize) -> Result<usize, String> {
    bytes(b, at).map(|x| usize::from(u16::from_le_bytes(x)))
}

fn word(b: &[u8], at: usize) -> Result<usize, String> {
    bytes(b, at).map(|x| u32::from_le_bytes(x) as usize)
}

fn long(b: &[u8], at: usize) -> Result<usize, String> {
    bytes(b, at).map(|x| u64::from_le_bytes(x) as usize)
}

fn bytes<const N: usize>(b: &[u8], at: usize) -> Result<[u8; N], String> {
    let found = b.get(at..).and_then(|tail| tail.first_chunk::<N>());
    found.copied().ok_or_else(|| format!("object ends before offset {at}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generic_names_become_identifiers() {
        let mut strings = *b"\0Key<[u8; 8]>\0";
        rename(&mut strings, 1).expect("the name is in the section");
        assert_eq!(&strings, b"\0Key__u8__8__\0");
    }

    #[test]
    fn members_are_sorted_by_offset() {
        let member = |offset: u32| [[0; 8].as_slice(), &offset.to_le_bytes()].concat();
        let mut members = [member(64), member(0), member(32)].concat();
        sort_members(&mut members, u32::MAX);
        assert_eq!(members, [member(0), member(32), member(64)].concat());
    }

    #[test]
    fn a_truncated_object_is_an_error_not_a_panic() {
        for len in 0..64 {
            assert!(repair(&mut vec![0; len]).is_err());
        }
    }
}
