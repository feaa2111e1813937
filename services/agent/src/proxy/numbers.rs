//! Which numbers may rule sets have, so that none that a connection or the proxy remembers ever means other rules?
//!
//! Numbers are reserved in the agent's folder before they are used. The next run begins behind all that were reserved.

use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "rule_set_numbers";
/// How many are reserved at once.
const BLOCK: u32 = 1 << 20;

/// The numbers of this run.
#[derive(Debug)]
pub struct Numbers {
    path: PathBuf,
    first: u32,
    reserved: u32,
}

impl Numbers {
    /// Behind those of earlier runs; without a memory of them, `random` makes it improbable to meet them.
    pub fn after_earlier_runs(folder: &Path, random: u32) -> io::Result<Numbers> {
        let path = folder.join(FILE);
        let earlier = std::fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u32>().ok());
        let first = earlier.unwrap_or(random >> 1).max(1);
        let mut numbers = Numbers { path, first, reserved: first };
        numbers.reserve(first)?;
        Ok(numbers)
    }

    /// The first.
    pub fn first(&self) -> u32 {
        self.first
    }

    /// Reserves more when most are used: `next` is the first that is not.
    pub fn reserve(&mut self, next: u32) -> io::Result<()> {
        let left = self.reserved.wrapping_sub(next);
        if left <= BLOCK && left > BLOCK / 2 {
            return Ok(());
        }
        let end = next.wrapping_add(BLOCK);
        crate::state::write_atomically(&self.path, format!("{end}\n").as_bytes())?;
        self.reserved = end;
        Ok(())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn no_run_uses_a_number_of_another() {
        let folder = std::env::temp_dir().join(format!("agent-numbers-{}", std::process::id()));
        let one = Numbers::after_earlier_runs(&folder, 8).unwrap();
        assert_eq!(one.first(), 4);
        let mut two = Numbers::after_earlier_runs(&folder, 0).unwrap();
        assert_eq!(two.first(), 4 + BLOCK);
        // much was used
        let used = two.first() + BLOCK - 10;
        two.reserve(used).unwrap();
        let three = Numbers::after_earlier_runs(&folder, 0).unwrap();
        assert_eq!(three.first(), used + BLOCK);
        // and what is written seldom is written before it is needed
        two.reserve(used + 1).unwrap();
        assert_eq!(Numbers::after_earlier_runs(&folder, 0).unwrap().first(), three.first() + BLOCK);
        std::fs::remove_dir_all(folder).unwrap();
    }
}
