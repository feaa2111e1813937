//! What does `hubble observe` ask, and how does it print the answers?

use std::{
    env,
    io::{self, IsTerminal as _, Write as _},
};

use flow::{
    filter::Filters,
    mask::Mask,
    print::{Color, Options, Output, Printed, Printer},
    proto::{
        flow::FlowFilter,
        observer::{GetAgentEventsRequest, GetDebugEventsRequest, GetFlowsRequest, GetFlowsResponse},
    },
    time::{TimeFormat, parse_time},
    wkt::{FieldMask, Timestamp},
};
use futures::StreamExt;
use serde_json::Value;
use tonic::Streaming;

use crate::{
    connect::connect,
    error::Error,
    filters,
    flags::Kind,
    input,
    parse::Line,
    settings::{Settings, scalar},
};

/// So many unless told otherwise.
const DEFAULT_COUNT: u64 = 20;

/// What compact, dict and table output show.
const VISIBLE: &[&str] = &[
    "time",
    "verdict",
    "ethernet",
    "IP",
    "l4",
    "source.identity",
    "source.namespace",
    "source.pod_name",
    "destination.identity",
    "destination.namespace",
    "destination.pod_name",
    "source_names",
    "destination_names",
    "Type",
    "node_name",
    "l7",
    "event_type",
    "source_service",
    "destination_service",
    "is_reply",
    "Summary",
    "ip_trace_id",
    "auth_type",
    "traffic_direction",
    "policy_match_type",
    "ingress_allowed_by",
    "ingress_denied_by",
    "egress_allowed_by",
    "egress_denied_by",
];

/// `hubble observe [flows]`
pub(crate) async fn flows(line: &Line, settings: &Settings) -> Result<(), Error> {
    let mut out = Sink::new(line, settings)?;
    let request = flows_request(line, settings, out.output)?;
    if line.is_set("print-raw-filters")? {
        return out.write(&Printed { out: raw_filters(&request)?, err: String::new() });
    }
    // The server would say the same, but only if there is one.
    let filters = Filters::new(&request.whitelist, &request.blacklist)?;
    match line.last("input-file") {
        Some(path) => input::read(path, &request, &filters, |response| out.flow(response))?,
        None => {
            let server = connect(settings).await?;
            let mut client = server.observer();
            print_all(client.get_flows(request).await?.into_inner(), |response| out.flow(response)).await?;
        }
    }
    out.close()
}

/// `hubble observe agent-events`
pub(crate) async fn agent_events(line: &Line, settings: &Settings) -> Result<(), Error> {
    let mut out = Sink::new(line, settings)?;
    let selection = Selection::new(line, true)?;
    let request = GetAgentEventsRequest {
        number: selection.number,
        first: selection.first,
        follow: selection.follow,
        since: selection.since,
        until: selection.until,
    };
    let server = connect(settings).await?;
    let mut client = server.observer();
    let answers = client.get_agent_events(request).await?.into_inner();
    print_all(answers, |response| {
        let printed = out.printer.agent_event(&response)?;
        out.write(&printed)
    })
    .await?;
    out.close()
}

/// `hubble observe debug-events`
pub(crate) async fn debug_events(line: &Line, settings: &Settings) -> Result<(), Error> {
    let mut out = Sink::new(line, settings)?;
    let selection = Selection::new(line, true)?;
    let request = GetDebugEventsRequest {
        number: selection.number,
        first: selection.first,
        follow: selection.follow,
        since: selection.since,
        until: selection.until,
    };
    let server = connect(settings).await?;
    let mut client = server.observer();
    let answers = client.get_debug_events(request).await?.into_inner();
    print_all(answers, |response| {
        let printed = out.printer.debug_event(&response)?;
        out.write(&printed)
    })
    .await?;
    out.close()
}

async fn print_all<T>(mut answers: Streaming<T>, mut print: impl FnMut(T) -> Result<(), Error>) -> Result<(), Error> {
    loop {
        // Interrupting is how following ends.
        let answer = tokio::select! {
            answer = answers.next() => answer,
            _ = tokio::signal::ctrl_c() => return Ok(()),
        };
        match answer {
            None => return Ok(()),
            Some(Ok(answer)) => print(answer)?,
            Some(Err(status)) if status.code() == tonic::Code::Cancelled => return Ok(()),
            Some(Err(status)) => return Err(status.into()),
        }
    }
}

/// Which of what the server has.
struct Selection {
    number: u64,
    first: bool,
    follow: bool,
    since: Option<Timestamp>,
    until: Option<Timestamp>,
}

impl Selection {
    /// `counted`: without any selection, the last few.
    fn new(line: &Line, counted: bool) -> Result<Self, Error> {
        let (first, last) = (line.number("first")?, line.number("last")?);
        let (all, follow) = (line.is_set("all")?, line.is_set("follow")?);
        let both = |one: &str, other: &str| Err(Error::Usage(format!("cannot set both --{one} and --{other}")));
        match () {
            () if first > 0 && last > 0 => return both("first", "last"),
            () if first > 0 && all => return both("first", "all"),
            () if first > 0 && follow => return both("first", "follow"),
            () if last > 0 && all => return both("last", "all"),
            () => {}
        }
        let now = Timestamp::from(jiff::Timestamp::now());
        let time = |flag: &'static str| match line.last(flag) {
            None | Some("") => Ok(None),
            Some(text) => parse_time(text, now).map(Some).map_err(|source| Error::Time { flag, source }),
        };
        let (since, until) = (time("since")?, time("until")?.filter(|_| !follow));
        let untimed = since.is_none() && until.is_none();
        let number = match (first, last) {
            (0, 0) if untimed && all => u64::MAX,
            (0, 0) if untimed && !follow && counted => DEFAULT_COUNT,
            (0, last) => last,
            (first, _) => first,
        };
        Ok(Self { number, first: first > 0, follow, since, until })
    }
}

fn flows_request(line: &Line, settings: &Settings, output: Output) -> Result<GetFlowsRequest, Error> {
    let is_filter = |kind: Kind| matches!(kind, Kind::Filter | Kind::Switch(_));
    let given = line.options.iter().filter(|(flag, _)| is_filter(flag.kind));
    let lists = filters::lists(given.map(|(flag, value)| (*flag, value.as_str())))?;
    let (mut allow, mut deny) = (lists.allow, lists.deny);
    allow.extend(raw("allowlist", line, settings)?);
    deny.extend(raw("denylist", line, settings)?);
    let selection = Selection::new(line, line.last("input-file").is_none())?;
    Ok(GetFlowsRequest {
        number: selection.number,
        first: selection.first,
        follow: selection.follow,
        since: selection.since,
        until: selection.until,
        whitelist: allow,
        blacklist: deny,
        field_mask: field_mask(line, output)?,
        ..GetFlowsRequest::default()
    })
}

fn field_mask(line: &Line, output: Output) -> Result<Option<FieldMask>, Error> {
    let paths = line.list("field-mask");
    Mask::new(&paths)?;
    if output == Output::JsonPb {
        return Ok((!paths.is_empty()).then_some(FieldMask { paths }));
    }
    if !paths.is_empty() {
        return Err(Error::Usage(format!(
            "{} output format is not compatible with custom field mask: use -o json",
            line.text("output")
        )));
    }
    let visible = || FieldMask { paths: VISIBLE.iter().map(|path| (*path).to_owned()).collect() };
    Ok(line.is_set("use-default-field-masks")?.then(visible))
}

/// Filters as JSON, several in one value are allowed.
fn raw(name: &'static str, line: &Line, settings: &Settings) -> Result<Vec<FlowFilter>, Error> {
    let mut texts = line.all(name);
    if texts.is_empty() {
        let variable = env::var(format!("HUBBLE_{}", name.to_uppercase())).ok();
        texts = variable.map(|text| vec![text]).unwrap_or_else(|| settings.file_list(name));
    }
    let mut filters = Vec::new();
    for text in &texts {
        for filter in serde_json::Deserializer::from_str(text).into_iter() {
            let filter = filter.map_err(|error: serde_json::Error| {
                Error::Usage(format!("invalid --{name} flag: failed to decode '{text}': {error}"))
            })?;
            filters.push(filter);
        }
    }
    Ok(filters)
}

/// YAML that can be the configuration file.
fn raw_filters(request: &GetFlowsRequest) -> Result<String, Error> {
    let mut text = String::new();
    for (name, filters) in [("allowlist", &request.whitelist), ("denylist", &request.blacklist)] {
        if filters.is_empty() {
            continue;
        }
        text.push_str(&format!("{name}:\n"));
        for filter in filters {
            let json = flow::print::json(filter)?;
            text.push_str(&format!("    - {}\n", quoted(json.trim_end())));
        }
    }
    Ok(if text.is_empty() { "{}\n".to_owned() } else { text })
}

/// Single quotes, as JSON is full of double ones.
fn quoted(text: &str) -> String {
    match text.contains(|c: char| c == '\'' || c.is_control()) {
        true => scalar(&Value::from(text)),
        false => format!("'{text}'"),
    }
}

/// Where text goes.
struct Sink {
    printer: Printer,
    output: Output,
    silent: bool,
}

impl Sink {
    fn new(line: &Line, settings: &Settings) -> Result<Self, Error> {
        let name = line.text("output");
        let output = match name.as_str() {
            "compact" => Output::Compact,
            "dict" => Output::Dict,
            "json" | "JSON" | "jsonpb" => Output::JsonPb,
            "tab" | "table" => Output::Table,
            other => {
                return Err(Error::Usage(format!(
                    "invalid output format: {other}: want compact, dict, json, jsonpb or table"
                )));
            }
        };
        if output == Output::Table && line.is_set("follow")? {
            return Err(Error::Usage("table output format is not compatible with follow mode".to_owned()));
        }
        let options = Options {
            output,
            color: color(&line.text("color")),
            debug: settings.is_set("debug"),
            ip_translation: line.is_set("ip-translation")? && !line.is_set("numeric")?,
            node_name: line.is_set("print-node-name")?,
            policy_names: line.is_set("print-policy-names")?,
            time_format: TimeFormat::named(&line.text("time-format")),
        };
        Ok(Self { printer: Printer::new(options), output, silent: line.is_set("silent-errors")? })
    }

    fn flow(&mut self, response: GetFlowsResponse) -> Result<(), Error> {
        let printed = self.printer.flows(&response)?;
        self.write(&printed)
    }

    fn write(&mut self, printed: &Printed) -> Result<(), Error> {
        if !printed.err.is_empty() && !self.silent {
            io::stderr().lock().write_all(printed.err.as_bytes())?;
        }
        // One write for one answer, so that followers of a pipe see it at once.
        io::stdout().lock().write_all(printed.out.as_bytes())?;
        Ok(())
    }

    fn close(mut self) -> Result<(), Error> {
        let rest = self.printer.close();
        let mut out = io::stdout().lock();
        out.write_all(rest.as_bytes())?;
        out.flush()?;
        Ok(())
    }
}

fn color(when: &str) -> Color {
    let no_color = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    let dumb = env::var_os("TERM").is_some_and(|term| term == "dumb");
    Color::choose(when, io::stdout().is_terminal(), no_color, dumb)
}
