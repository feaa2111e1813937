//! Cases in, results out: what do policies say of flows?

use std::fs;
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use clap::Args;
use policy::{EndpointPolicy, Settings};
use serde_json::Value;

use crate::case::Case;
use crate::flow_ref::{FlowRef, Split};
use crate::flows::Judges;
use crate::judge::push_json;
use crate::objects::Objects;
use crate::result::{EndpointResult, PolicyResult};
use crate::world::{World, settings};

/// Cases are read so many at a time for each thread.
const BATCH: usize = 64;

/// What to judge, and how the answer looks.
#[derive(Debug, Args)]
pub struct Eval {
    /// How many cases, or parts of many flows, are judged at a time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=256))]
    threads: u16,
    /// One case from a YAML or JSON file, instead of one a line from standard input
    #[arg(long, conflicts_with_all = ["policies", "cluster", "flows"])]
    case: Option<PathBuf>,
    /// Indented output
    #[arg(long)]
    pretty: bool,
    #[command(flatten)]
    sources: crate::live::Sources,
    /// Flows, one a line; - is standard input
    #[arg(long)]
    flows: Option<PathBuf>,
}

/// Runs the command.
pub fn run(eval: &Eval, out: &mut dyn Write) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, out);
    if eval.flows.is_some() || !eval.sources.is_empty() {
        eval_files(eval, &mut out)?;
    } else if let Some(file) = &eval.case {
        let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
        let value = serde_saphyr::from_str::<Value>(&text).map_err(|error| error.without_snippet().to_string());
        let result = match value {
            Ok(value) => judge_value(value, eval.sources.cluster.enforcement.as_deref()),
            Err(error) => failed("", &format!("this is not a case: {error}")),
        };
        write_result(result.as_bytes(), eval.pretty, &mut out)?;
    } else {
        eval_lines(eval, BufReader::with_capacity(1 << 20, io::stdin().lock()), &mut out)?;
    }
    out.flush()?;
    Ok(())
}

/// One case a line, one result a line, in the same order.
fn eval_lines(eval: &Eval, mut input: impl BufRead, out: &mut impl Write) -> Result<()> {
    let threads = usize::from(eval.threads);
    let enforcement = eval.sources.cluster.enforcement.as_deref();
    loop {
        let mut lines = Vec::new();
        while lines.len() < BATCH * threads {
            let mut line = Vec::new();
            if input.read_until(b'\n', &mut line)? == 0 {
                break;
            }
            if !line.iter().all(u8::is_ascii_whitespace) {
                lines.push(line);
            }
        }
        if lines.is_empty() {
            return Ok(());
        }
        // Of few cases each gets several threads for its flows.
        let threads_each = (threads / lines.len()).max(1);
        for result in in_parallel(threads, &lines, |line| judge_line(line, enforcement, threads_each)) {
            write_result(&result, eval.pretty, out)?;
        }
    }
}

/// The results of all items, in their order. Each thread takes every so-manieth.
fn in_parallel<T: Sync>(threads: usize, items: &[T], work: impl Fn(&T) -> Vec<u8> + Sync) -> Vec<Vec<u8>> {
    if threads <= 1 || items.len() <= 1 {
        return items.iter().map(work).collect();
    }
    let mut results: Vec<(usize, Vec<u8>)> = std::thread::scope(|scope| {
        let workers = (0..threads).map(|first| {
            let work = &work;
            let own = items.iter().enumerate().skip(first).step_by(threads);
            scope.spawn(move || own.map(|(at, item)| (at, work(item))).collect::<Vec<_>>())
        });
        let workers: Vec<_> = workers.collect();
        workers.into_iter().flat_map(|worker| worker.join().unwrap_or_default()).collect()
    });
    results.sort_by_key(|(at, _)| *at);
    results.into_iter().map(|(_, result)| result).collect()
}

/// Whatever a line holds, it gets a result of its own and spares the others.
fn judge_line(line: &[u8], enforcement: Option<&str>, threads: usize) -> Vec<u8> {
    let judged = std::panic::catch_unwind(|| {
        if let Some((id, case, flows)) = plain_case(line) {
            return judge(case, &flows, enforcement, threads).unwrap_or_else(|error| failed(&id, &error).into_bytes());
        }
        match serde_json::from_slice::<Value>(line) {
            Ok(value) => judge_value(value, enforcement).into_bytes(),
            Err(error) => failed("", &format!("this line is not JSON: {error}")).into_bytes(),
        }
    });
    judged.unwrap_or_else(|_| failed("", "this case cannot be judged: an invariant does not hold").into_bytes())
}

/// A case in which all is right and all flows are plain, with its flows; others go the long way, which says what is
/// wrong.
fn plain_case(line: &[u8]) -> Option<(String, Case, Vec<FlowRef<'_>>)> {
    let Split { rest, flows } = serde_json::from_slice(line).ok()?;
    let rest = Value::Object(rest);
    let id = id(&rest);
    Some((id, Case::from_value(rest).ok()?, flows))
}

fn id(case: &Value) -> String {
    match case.get("id") {
        Some(Value::String(id)) => id.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

/// The result of a case as JSON.
pub fn judge_value(value: Value, enforcement: Option<&str>) -> String {
    let id = id(&value);
    let mut case = match Case::from_value(value) {
        Ok(case) => case,
        Err(error) => return failed(&id, &format!("this is not a case: {error}")),
    };
    let flows = std::mem::take(&mut case.flows);
    let flows: Vec<FlowRef<'_>> = flows.iter().map(crate::case::Flow::by_ref).collect();
    let judged = judge(case, &flows, enforcement, 1);
    let text = judged.and_then(|text| String::from_utf8(text).map_err(|error| error.to_string()));
    text.unwrap_or_else(|error| failed(&id, &error))
}

fn judge(mut case: Case, flows: &[FlowRef<'_>], enforcement: Option<&str>, threads: usize) -> Result<Vec<u8>, String> {
    if let Some(mode) = enforcement {
        mode.clone_into(&mut case.config.mode);
    }
    let settings = settings(&case.config)?;
    let mut objects = Objects::default();
    objects.add_value(&case.policies, &settings);
    let Loaded { world, mut out } = load(&case, &objects, settings)?;
    out.extend_from_slice(b",\"flows\":[");
    Judges::new(&world, case.config.audit, threads).list(flows, &mut out);
    out.extend_from_slice(b"]}");
    Ok(out)
}

struct Loaded {
    world: World,
    /// The result up to the flows.
    out: Vec<u8>,
}

fn load(case: &Case, objects: &Objects, settings: Settings) -> Result<Loaded, String> {
    let mut world = World::new(case, objects, settings)?;
    let policies: Vec<PolicyResult> = objects.policies.iter().map(policy_result).collect();
    let endpoints: Vec<EndpointResult> = (0..world.parties.len()).map(|at| endpoint(&mut world, at)).collect();
    let mut out = vec![b'{'];
    if !case.id.is_empty() {
        out.extend_from_slice(b"\"id\":");
        push_json(&case.id, &mut out);
        out.push(b',');
    }
    if !objects.problems.is_empty() {
        let problems: Vec<String> = objects.problems.iter().map(ToString::to_string).collect();
        out.extend_from_slice(b"\"error\":");
        push_json(&problems.join("; "), &mut out);
        out.push(b',');
    }
    out.extend_from_slice(b"\"policies\":");
    serde_json::to_writer(&mut out, &policies).map_err(|error| error.to_string())?;
    out.extend_from_slice(b",\"endpoints\":");
    serde_json::to_writer(&mut out, &endpoints).map_err(|error| error.to_string())?;
    Ok(Loaded { world, out })
}

fn policy_result(read: &crate::objects::Read) -> PolicyResult {
    let error = match &read.object {
        Ok(_) => String::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "),
    };
    PolicyResult { reference: read.reference.clone(), ok: read.object.is_ok(), error }
}

fn endpoint(world: &mut World, at: usize) -> EndpointResult {
    let local = world.parties[at].local;
    let policy = if local { world.policy(at) } else { None };
    let good = policy.as_deref().filter(|policy| policy.error.is_none());
    let enforced = |of: fn(&EndpointPolicy) -> bool| good.is_some_and(of);
    let party = &world.parties[at];
    EndpointResult {
        name: party.name.clone(),
        identity: party.identity,
        labels: sorted(party.labels.to_strings()),
        ingress_enforced: enforced(|policy| policy.ingress_enforced),
        egress_enforced: enforced(|policy| policy.egress_enforced),
        error: policy.as_ref().and_then(|policy| policy.error.as_deref()).unwrap_or_default().to_owned(),
    }
}

fn sorted(mut texts: Vec<String>) -> Vec<String> {
    texts.sort();
    texts
}

fn failed(id: &str, error: &str) -> String {
    let id = if id.is_empty() { String::new() } else { format!("\"id\":{},", Value::from(id)) };
    format!("{{{id}\"error\":{}}}", Value::from(error))
}

/// A result as a line, or indented.
pub fn write_result(result: &[u8], pretty: bool, out: &mut impl Write) -> Result<()> {
    if pretty {
        let value: Value = serde_json::from_slice(result)?;
        serde_json::to_writer_pretty(&mut *out, &value)?;
    } else {
        out.write_all(result)?;
    }
    out.write_all(b"\n")?;
    Ok(())
}

/// The parts of a case in files of their own: a result for each flow, one a line.
fn eval_files(eval: &Eval, out: &mut impl Write) -> Result<()> {
    let given = eval.sources.given()?;
    let (case, objects) = (given.case, given.objects);
    let settings = settings(&case.config).map_err(anyhow::Error::msg)?;
    let Loaded { world, out: mut head } = load(&case, &objects, settings).map_err(anyhow::Error::msg)?;
    let wrong = objects.policies.iter().filter_map(|read| read.object.as_ref().err()).flatten();
    for problem in objects.problems.iter().chain(wrong) {
        eprintln!("{problem}");
    }
    let Some(file) = &eval.flows else {
        head.extend_from_slice(b",\"flows\":[]}");
        return write_result(&head, eval.pretty, out);
    };
    let mut judges = Judges::new(&world, case.config.audit, usize::from(eval.threads));
    for flow in &case.flows {
        judges.line(&flow.by_ref(), eval.pretty, out)?;
    }
    if file == Path::new("-") {
        return judges.lines(io::stdin().lock(), eval.pretty, out);
    }
    let opened = fs::File::open(file).with_context(|| format!("open {}", file.display()))?;
    judges.lines(opened, eval.pretty, out)
}

/// Who is there, from a file.
pub fn cluster(file: &Path) -> Result<Case> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    let value = serde_saphyr::from_str::<Value>(&text);
    let value = value.map_err(|error| anyhow::anyhow!("{}: {}", file.display(), error.without_snippet()))?;
    match Case::from_value(value) {
        Ok(case) => Ok(case),
        Err(error) => bail!("{}: {error}", file.display()),
    }
}
