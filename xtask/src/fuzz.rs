//! Does anything from outside make a parser panic, loop or contradict itself, as far as some seconds show?

use crate::step::{command, root, step, succeed, target};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io::Write;
use std::process::{Command, Stdio};

/// Seconds for each target if nothing else is said.
const SECONDS: u64 = 60;

/// What makes the compiler note which code is reached, and how comparisons come out. Stable compilers know these too.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// `[TARGET...] [--seconds N]`
struct Asked {
    targets: Vec<String>,
    seconds: u64,
}

/// Runs the named targets, or all.
pub fn run(words: &[String]) -> Result<()> {
    let asked = read(words, &known()?)?;
    match instruments() {
        Ok(()) => guided(&asked),
        Err(why) => {
            eprintln!("xtask: no guided fuzzing here: {why:#}; running the corpus and chance instead");
            plain(&asked)
        }
    }
}

/// The targets are the folders of the corpus.
fn known() -> Result<Vec<String>> {
    let folder = root().join("test/fuzz/corpus");
    let listed = fs::read_dir(&folder).with_context(|| format!("read {}", folder.display()))?;
    let mut names: Vec<String> =
        listed.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect::<Result<_>>()?;
    names.sort();
    Ok(names)
}

fn read(words: &[String], known: &[String]) -> Result<Asked> {
    let (mut targets, mut seconds) = (Vec::new(), SECONDS);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        if word == "--seconds" {
            let number = words.next().context("--seconds needs a number")?;
            seconds = number.parse().with_context(|| format!("--seconds {number}"))?;
        } else if known.contains(word) {
            targets.push(word.clone());
        } else {
            bail!("no target `{word}`; there are {}", known.join(", "));
        }
    }
    let targets = if targets.is_empty() { known.to_vec() } else { targets };
    Ok(Asked { targets, seconds })
}

/// An error says why this machine cannot build for libFuzzer.
fn instruments() -> Result<()> {
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let there = Command::new(&compiler).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    if !there.is_ok_and(|status| status.success()) {
        bail!("libFuzzer is C++, and there is no compiler {}", compiler.display());
    }
    let output = target().join("instrumented-probe.rlib");
    let mut rustc = Command::new("rustc");
    rustc.args(["--crate-type", "lib", "--crate-name", "probe", "-"]).args(FLAGS).arg("-o").arg(&output);
    rustc.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut probe = rustc.spawn().context("start rustc")?;
    probe.stdin.take().context("the compiler's input")?.write_all(b"pub fn f(x: u32) -> bool { x > 3 }")?;
    let compiled = probe.wait()?.success();
    let _ = fs::remove_file(output);
    if !compiled {
        bail!("this Rust compiler refuses {}", FLAGS[0]);
    }
    Ok(())
}

fn guided(asked: &Asked) -> Result<()> {
    let host = host()?;
    let folder = target().join("fuzz");
    step("building the fuzz targets", || {
        let words = ["build", "--package", "fuzz", "--bin", "guided", "--features", "libfuzzer", "--target", &host];
        let mut build = command(&words);
        // A target keeps the flags from what runs while building; a folder of its own keeps other builds.
        build.arg("--target-dir").arg(&folder).env("RUSTFLAGS", FLAGS.join(" "));
        succeed(build.env("CARGO_PROFILE_DEV_OPT_LEVEL", "1").env("CARGO_INCREMENTAL", "0"))
    })?;
    let program = folder.join(&host).join("debug/guided");
    for name in &asked.targets {
        step(&format!("fuzzing {name} for {} s", asked.seconds), || {
            let found = folder.join("found").join(name);
            fs::create_dir_all(&found).with_context(|| format!("create {}", found.display()))?;
            let told = folder.join(format!("{name}.log"));
            let log = fs::File::create(&told).with_context(|| format!("create {}", told.display()))?;
            let mut fuzzer = Command::new(&program);
            fuzzer.env("FUZZ_TARGET", name).current_dir(root()).stdout(log.try_clone()?).stderr(log);
            fuzzer.arg(format!("-max_total_time={}", asked.seconds)).args(["-max_len=16384", "-timeout=10"]);
            fuzzer.args(["-rss_limit_mb=2048", "-print_final_stats=1"]);
            fuzzer.arg(format!("-artifact_prefix={}/{name}-", folder.display()));
            // What is new goes into the first folder.
            let ended = succeed(fuzzer.arg(&found).arg(root().join("test/fuzz/corpus").join(name)));
            let log = String::from_utf8_lossy(&fs::read(&told)?).into_owned();
            match &ended {
                Ok(()) => {
                    log.lines().filter(|line| line.starts_with("Done ")).for_each(|line| eprintln!("{name}: {line}"))
                }
                Err(_) => eprintln!("{}", last_lines(&log, 40)),
            }
            ended
        })?;
    }
    Ok(())
}

fn last_lines(text: &str, count: usize) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(count)..].join("\n")
}

fn plain(asked: &Asked) -> Result<()> {
    let seconds = asked.seconds.to_string();
    for name in &asked.targets {
        step(&format!("trying {name} for {seconds} s"), || {
            succeed(&mut command(&["run", "--quiet", "--package", "fuzz", "--bin", "plain", "--", name, &seconds, "1"]))
        })?;
    }
    Ok(())
}

/// As in x86_64-unknown-linux-gnu.
fn host() -> Result<String> {
    let told = Command::new("rustc").arg("-vV").output().context("start rustc")?;
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    let host = told.lines().find_map(|line| line.strip_prefix("host: ")).map(str::to_owned);
    host.context("rustc does not tell its host")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(words: &[&str]) -> Result<Asked> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        read(&words, &["a".to_owned(), "b".to_owned()])
    }

    #[test]
    fn all_targets_run_unless_some_are_named() {
        let all = asked(&["--seconds", "5"]).expect("words");
        assert_eq!((all.targets.len(), all.seconds), (2, 5));
        let one = asked(&["b"]).expect("words");
        assert_eq!((one.targets, one.seconds), (vec!["b".to_owned()], SECONDS));
        assert!(asked(&["c"]).is_err_and(|error| error.to_string().contains("there are a, b")));
        assert!(asked(&["--seconds", "x"]).is_err());
    }
}
