//! How are many flows judged, by several threads and in their order?

use std::io::{Read, Write};

use anyhow::Result;
use serde_json::Value;

use crate::case::Flow;
use crate::eval::write_result;
use crate::flow_ref::FlowRef;
use crate::judge::{Judge, push_json};
use crate::world::World;

/// Each thread gets so many bytes of lines at a time.
const BLOCK: usize = 1 << 20;
/// Fewer flows than this are not worth another thread.
const SHARE: usize = 1 << 10;

/// One judge for each thread, over one world whose policies are all made.
pub struct Judges<'a>(Vec<Judge<'a>>);

impl<'a> Judges<'a> {
    /// So many judges. With `audit`, what is denied passes and is told.
    pub fn new(world: &'a World, audit: bool, threads: usize) -> Self {
        Judges((0..threads.max(1)).map(|_| Judge::sharing(world, audit)).collect())
    }

    /// The results of a list of flows, with commas between them.
    pub fn list(&mut self, flows: &[FlowRef<'_>], out: &mut Vec<u8>) {
        let share = flows.len().div_ceil(self.0.len()).max(SHARE);
        let parts = self.each(flows.chunks(share), |judge, flows: &[FlowRef<'_>]| {
            let mut out = Vec::new();
            for flow in flows {
                judge.write(flow, &mut out);
                out.push(b',');
            }
            out
        });
        parts.iter().for_each(|part| out.extend_from_slice(part));
        if !flows.is_empty() {
            out.pop();
        }
    }

    /// The result of one flow as a line.
    pub fn line(&mut self, flow: &FlowRef<'_>, pretty: bool, out: &mut impl Write) -> Result<()> {
        let mut text = Vec::new();
        self.0[0].write(flow, &mut text);
        write_result(&text, pretty, out)
    }

    /// A result for each line that is not empty, in their order.
    pub fn lines(&mut self, mut input: impl Read, pretty: bool, out: &mut impl Write) -> Result<()> {
        let mut lines = Lines::new(BLOCK * self.0.len());
        while let Some(text) = lines.next(&mut input)? {
            let share = text.len().div_ceil(self.0.len()).max(BLOCK / 16);
            let results = self.each(parts(text, share), |judge, text| judge_lines(judge, text, pretty));
            for result in results {
                out.write_all(&result?)?;
            }
        }
        Ok(())
    }

    /// Each part by a judge of its own; there are no more parts than judges.
    fn each<T: Send, R: Send>(
        &mut self,
        parts: impl Iterator<Item = T>,
        work: impl Fn(&mut Judge<'a>, T) -> R + Sync,
    ) -> Vec<R> {
        let work = &work;
        let mut pairs: Vec<_> = self.0.iter_mut().zip(parts).collect();
        if pairs.len() <= 1 {
            return pairs.into_iter().map(|(judge, part)| work(judge, part)).collect();
        }
        std::thread::scope(|scope| {
            // The last part is for this thread.
            let last = pairs.pop();
            let others: Vec<_> =
                pairs.into_iter().map(|(judge, part)| scope.spawn(move || work(judge, part))).collect();
            let last = last.map(|(judge, part)| work(judge, part));
            let join = |other: std::thread::ScopedJoinHandle<'_, R>| match other.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            };
            others.into_iter().map(join).chain(last).collect()
        })
    }
}

fn judge_lines(judge: &mut Judge<'_>, text: &[u8], pretty: bool) -> Result<Vec<u8>> {
    let mut out = Vec::with_capacity(4 * text.len());
    let mut one = Vec::new();
    for line in text.split_inclusive(|byte| *byte == b'\n').filter(|line| !line.iter().all(u8::is_ascii_whitespace)) {
        if pretty {
            one.clear();
            judge_line(judge, line, &mut one);
            write_result(&one, pretty, &mut out)?;
        } else {
            judge_line(judge, line, &mut out);
            out.push(b'\n');
        }
    }
    Ok(out)
}

/// Plain flows are read at once; what has nulls or is wrong goes the long way.
fn judge_line(judge: &mut Judge<'_>, line: &[u8], out: &mut Vec<u8>) {
    if let Ok(flow) = serde_json::from_slice::<FlowRef<'_>>(line) {
        return judge.write(&flow, out);
    }
    let flow = serde_json::from_slice::<Flow>(line).map_err(|error| error.to_string());
    match flow.or_else(|error| serde_json::from_slice::<Value>(line).map_err(|_| error).and_then(Flow::from_value)) {
        Ok(flow) => judge.write(&flow.by_ref(), out),
        Err(error) => {
            out.extend_from_slice(b"{\"verdict\":\"ERROR\",\"error\":");
            push_json(&format!("this is not a flow: {error}"), out);
            out.push(b'}');
        }
    }
}

/// Cuts a text after ends of lines, into parts of at least so many bytes but for the last.
fn parts(mut rest: &[u8], share: usize) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().skip(share.saturating_sub(1)).position(|byte| *byte == b'\n');
        let (part, after) = rest.split_at(end.map_or(rest.len(), |at| at + share.max(1)));
        rest = after;
        Some(part)
    })
}

/// Whole lines of an input, many at a time.
struct Lines {
    buffer: Vec<u8>,
    /// What was handed out, and is to be forgotten.
    done: usize,
    wanted: usize,
}

impl Lines {
    fn new(wanted: usize) -> Self {
        Lines { buffer: Vec::new(), done: 0, wanted }
    }

    /// About as many bytes as wanted, up to the end of a line or of the input.
    fn next(&mut self, input: &mut impl Read) -> std::io::Result<Option<&[u8]>> {
        self.buffer.drain(..self.done);
        loop {
            let missing = self.wanted.saturating_sub(self.buffer.len()).max(BLOCK / 16);
            let read = input.by_ref().take(missing as u64).read_to_end(&mut self.buffer)?;
            let end = if read < missing {
                self.buffer.len()
            } else {
                self.buffer.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1)
            };
            if end > 0 {
                self.done = end;
                return Ok(Some(&self.buffer[..end]));
            }
            if read < missing {
                return Ok(None);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn parts_end_where_lines_do_and_lose_nothing() {
        let text = b"a\nbcd\n\nefghij\nk";
        for share in 1..20 {
            let cut: Vec<&[u8]> = parts(text, share).collect();
            assert_eq!(cut.concat(), text);
            assert!(cut.iter().rev().skip(1).all(|part| part.ends_with(b"\n") && part.len() >= share), "{share}");
        }
    }

    #[test]
    fn lines_come_whole_however_long() {
        let long = "x".repeat(BLOCK / 4);
        let text = format!("short\n{long}\nshort\n{long}");
        let (mut lines, mut input, mut found) = (Lines::new(16), text.as_bytes(), Vec::new());
        while let Some(part) = lines.next(&mut input).unwrap() {
            found.push(part.to_vec());
        }
        assert_eq!(found.concat(), text.as_bytes());
        assert!(found.iter().rev().skip(1).all(|part| part.ends_with(b"\n")));
    }
}
