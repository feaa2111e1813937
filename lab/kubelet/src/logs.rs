//! How is what a container writes kept, and read again?
//!
//! Each line is kept as `TIME STREAM TAG TEXT`; the tag `P` marks a part of a line that was too long.

use crate::{Result, While};
use jiff::Timestamp;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};

/// A file that grows over this is set aside; one such is kept.
const LARGEST: u64 = 10 << 20;
/// A longer line is kept in parts.
const LONGEST_LINE: usize = 16 << 10;

/// Writes one run's log.
#[derive(Debug)]
pub struct Writer {
    path: PathBuf,
    file: File,
    size: u64,
}

impl Writer {
    /// A new file; folders are made.
    pub fn create(path: &Path) -> Result<Writer> {
        if let Some(dir) = path.parent() {
            fs::create_dir_all(dir).while_doing(|| format!("create {}", dir.display()))?;
        }
        let file = File::create(path).while_doing(|| format!("create {}", path.display()))?;
        Ok(Writer { path: path.into(), file, size: 0 })
    }

    /// Adds a line (without its end).
    pub fn line(&mut self, time: Timestamp, stream: &str, text: &[u8]) -> std::io::Result<()> {
        let mut parts = text.chunks(LONGEST_LINE).peekable();
        if parts.peek().is_none() {
            return self.part(time, stream, "F", b"");
        }
        while let Some(part) = parts.next() {
            self.part(time, stream, if parts.peek().is_some() { "P" } else { "F" }, part)?;
        }
        Ok(())
    }

    fn part(&mut self, time: Timestamp, stream: &str, tag: &str, text: &[u8]) -> std::io::Result<()> {
        let mut entry = format!("{time:.9} {stream} {tag} ").into_bytes();
        entry.extend_from_slice(text);
        entry.push(b'\n');
        self.file.write_all(&entry)?;
        self.size += entry.len() as u64;
        if self.size > LARGEST {
            fs::rename(&self.path, self.path.with_extension("log.1"))?;
            self.file = File::create(&self.path)?;
            self.size = 0;
        }
        Ok(())
    }
}

/// Which lines a reader wants.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Only the last lines.
    pub tail: Option<usize>,
    /// Only lines from then on.
    pub since: Option<Timestamp>,
    /// Times before each line.
    pub timestamps: bool,
    /// At most so many bytes.
    pub limit: Option<usize>,
}

/// One kept line as a reader gets it; none if it is not wanted or broken.
pub fn render(entry: &[u8], query: &Query) -> Option<Vec<u8>> {
    let mut fields = entry.splitn(4, |b| *b == b' ');
    let (time, _stream, tag, text) = (fields.next()?, fields.next()?, fields.next()?, fields.next()?);
    let time = std::str::from_utf8(time).ok()?;
    if let Some(since) = query.since
        && time.parse::<Timestamp>().ok()? < since
    {
        return None;
    }
    let mut line = Vec::with_capacity(entry.len());
    if query.timestamps {
        line.extend_from_slice(time.as_bytes());
        line.push(b' ');
    }
    line.extend_from_slice(text);
    if tag == b"F" {
        line.push(b'\n');
    }
    Some(line)
}

/// What is there now, and up to where the file was read.
pub fn read(path: &Path, query: &Query) -> Result<(Vec<u8>, u64)> {
    let mut lines = Vec::new();
    collect(&path.with_extension("log.1"), query, &mut lines);
    let end = collect(path, query, &mut lines);
    let skip = query.tail.map_or(0, |tail| lines.len().saturating_sub(tail));
    let mut all: Vec<u8> = lines.into_iter().skip(skip).flatten().collect();
    if let Some(limit) = query.limit {
        all.truncate(limit);
    }
    Ok((all, end))
}

fn collect(path: &Path, query: &Query, lines: &mut Vec<Vec<u8>>) -> u64 {
    let Ok(file) = File::open(path) else { return 0 };
    let mut reader = BufReader::new(file);
    let (mut entry, mut end) = (Vec::new(), 0);
    while let Ok(n) = reader.read_until(b'\n', &mut entry) {
        // Half a line is one that is being written.
        if n == 0 || entry.pop() != Some(b'\n') {
            break;
        }
        end += n as u64;
        lines.extend(render(&entry, query));
        entry.clear();
    }
    end
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).unwrap()
    }

    #[test]
    fn lines_come_back_by_count_and_time() {
        let path = std::env::temp_dir().join(format!("kubelet-log-{}/0.log", std::process::id()));
        let mut writer = Writer::create(&path).unwrap();
        for (second, text) in [(1, "a"), (2, "b c"), (3, "")] {
            writer.line(at(second), "stdout", text.as_bytes()).unwrap();
        }
        let read = |query: Query| String::from_utf8(super::read(&path, &query).unwrap().0).unwrap();
        assert_eq!(read(Query::default()), "a\nb c\n\n");
        assert_eq!(read(Query { tail: Some(2), ..Query::default() }), "b c\n\n");
        assert_eq!(read(Query { since: Some(at(3)), ..Query::default() }), "\n");
        assert_eq!(read(Query { limit: Some(3), ..Query::default() }), "a\nb");
        assert_eq!(
            read(Query { timestamps: true, tail: Some(1), ..Query::default() }),
            "1970-01-01T00:00:03.000000000Z \n"
        );
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }

    #[test]
    fn long_lines_are_kept_in_parts_and_read_whole() {
        let path = std::env::temp_dir().join(format!("kubelet-log-long-{}/0.log", std::process::id()));
        let mut writer = Writer::create(&path).unwrap();
        let long = vec![b'x'; LONGEST_LINE * 2 + 5];
        writer.line(at(1), "stderr", &long).unwrap();
        let (read, end) = read(&path, &Query::default()).unwrap();
        assert_eq!(read.len(), long.len() + 1);
        assert_eq!(end, fs::metadata(&path).unwrap().len());
        fs::remove_dir_all(path.parent().unwrap()).unwrap();
    }
}
