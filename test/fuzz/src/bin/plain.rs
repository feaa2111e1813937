//! Does a target find something in its corpus, or in what chance makes of it?

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// Longer inputs find nothing that shorter ones do not.
const LONGEST: usize = 16 << 10;

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    match run(&words) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("fuzz: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// `plain TARGET SECONDS SEED`
fn run(words: &[String]) -> Result<()> {
    let [name, seconds, seed] = words else { bail!("usage: plain TARGET SECONDS SEED") };
    let target = fuzz::target(name).with_context(|| format!("no target {name}"))?;
    let seconds = Duration::from_secs(seconds.parse().context("seconds are a number")?);
    let corpus = corpus(&Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name))?;
    corpus.iter().try_for_each(|input| check(target, input))?;
    let mut random = StdRng::seed_from_u64(seed.parse().context("a seed is a number")?);
    let (started, mut runs) = (Instant::now(), corpus.len());
    while started.elapsed() < seconds {
        check(target, &mutated(&corpus, &mut random))?;
        runs += 1;
    }
    eprintln!("fuzz: {name}: {runs} inputs, nothing found");
    Ok(())
}

fn corpus(folder: &Path) -> Result<Vec<Vec<u8>>> {
    let listed = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = listed.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    files.iter().map(|file| fs::read(file).with_context(|| format!("read {}", file.display()))).collect()
}

/// What a target finds is kept as a file, for a test to be made of.
fn check(target: &fuzz::Target, input: &[u8]) -> Result<()> {
    if catch_unwind(|| (target.run)(input)).is_ok() {
        return Ok(());
    }
    let file = std::env::temp_dir().join(format!("crash-{}-{}", target.name, std::process::id()));
    fs::write(&file, input).with_context(|| format!("write {}", file.display()))?;
    bail!("{} found something; the input is in {}", target.name, file.display())
}

/// One of the corpus, with a few bytes changed, taken out, repeated, or exchanged for those of another.
fn mutated(corpus: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let pick =
        |random: &mut StdRng| corpus.get(random.random_range(0..corpus.len().max(1))).cloned().unwrap_or_default();
    let mut input = pick(random);
    for _ in 0..random.random_range(1..6) {
        let at = random.random_range(0..=input.len());
        let end = (at + random.random_range(0..16)).min(input.len());
        match random.random_range(0..6) {
            0 => input.insert(at, random.random()),
            1 => drop(input.drain(at..end)),
            2 => {
                let part = input[at..end].to_vec();
                input.splice(at..at, part);
            }
            3 if at < input.len() => input[at] ^= 1 << random.random_range(0..8),
            4 => {
                let other = pick(random);
                let from = random.random_range(0..=other.len());
                let to = (from + random.random_range(0..64)).min(other.len());
                input.splice(at..end, other[from..to].iter().copied());
            }
            _ => {
                const TELLING: &[&str] = &[
                    "0",
                    "-1",
                    "65535",
                    "65536",
                    "4294967296",
                    "{}",
                    "[]",
                    "null",
                    "*",
                    "**.",
                    "&a",
                    "\u{0}",
                    "/0",
                    ":",
                ];
                let text = TELLING[random.random_range(0..TELLING.len())];
                input.splice(at..end, text.bytes());
            }
        }
    }
    input.truncate(LONGEST);
    input
}
