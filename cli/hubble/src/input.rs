//! Which of the flows in a file are asked for?

use std::{
    collections::VecDeque,
    fs::File,
    io::{self, BufRead, BufReader},
};

use flow::{
    filter::Filters,
    mask::Mask,
    proto::observer::{GetFlowsRequest, GetFlowsResponse, get_flows_response::ResponseTypes},
};

use crate::error::Error;

/// `--last` keeps this many at most.
const MOST: u64 = 1_000_000;

/// Reads a file, or standard input where it is `-`. Flows come in the file's order.
pub(crate) fn read(
    path: &str,
    request: &GetFlowsRequest,
    filters: &Filters,
    print: impl FnMut(GetFlowsResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    match path {
        "-" => select(io::stdin().lock(), path, request, filters, print),
        _ => select(BufReader::new(File::open(path).map_err(Error::file(path))?), path, request, filters, print),
    }
}

fn select(
    lines: impl BufRead,
    path: &str,
    request: &GetFlowsRequest,
    filters: &Filters,
    mut print: impl FnMut(GetFlowsResponse) -> Result<(), Error>,
) -> Result<(), Error> {
    let bounded = request.number != 0 && request.number != u64::MAX;
    if bounded && !request.first && request.number > MOST {
        return Err(Error::Usage(format!("--last must be <= {MOST}, got {}", request.number)));
    }
    let mask = Mask::new(&request.field_mask.clone().unwrap_or_default().paths)?;
    let mut kept = VecDeque::new();
    let mut printed = 0;
    for (index, line) in lines.lines().enumerate() {
        let line = line.map_err(Error::file(path))?;
        let Some(mut response) = wanted(&line, path, index + 1, request, filters) else { continue };
        if let (Some(mask), Some(ResponseTypes::Flow(flow))) = (&mask, &mut response.response_types) {
            mask.apply(flow);
        }
        if bounded && !request.first {
            kept.push_back(response);
            if kept.len() as u64 > request.number {
                kept.pop_front();
            }
            continue;
        }
        print(response)?;
        printed += 1;
        if bounded && printed >= request.number {
            return Ok(());
        }
    }
    kept.into_iter().try_for_each(print)
}

/// A broken line is told of, but does not end the reading.
fn wanted(
    line: &str,
    path: &str,
    number: usize,
    request: &GetFlowsRequest,
    filters: &Filters,
) -> Option<GetFlowsResponse> {
    if line.trim().is_empty() {
        return None;
    }
    let response: GetFlowsResponse = match serde_json::from_str(line) {
        Ok(response) => response,
        Err(error) => {
            eprintln!("{path}:{number}: no flow as -o jsonpb prints it: {error}");
            return None;
        }
    };
    let time = response.time.unwrap_or_default();
    if request.since.is_some_and(|since| since > time) || request.until.is_some_and(|until| until < time) {
        return None;
    }
    let passes = match &response.response_types {
        Some(ResponseTypes::Flow(flow)) => filters.pass(flow),
        Some(_) => true,
        None => false,
    };
    passes.then_some(response)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use flow::wkt::Timestamp;

    use super::*;

    const LINES: &str = r#"{"flow":{"uuid":"a","verdict":"FORWARDED"},"time":"2024-01-01T00:00:01Z"}
broken
{"flow":{"uuid":"b","verdict":"DROPPED"},"time":"2024-01-01T00:00:02Z","novelty":1}

{"flow":{"uuid":"c","verdict":"DROPPED"},"time":"2024-01-01T00:00:03Z"}
{"lost_events":{"num_events_lost":"3"},"time":"2024-01-01T00:00:04Z"}
"#;

    #[track_caller]
    fn check(request: GetFlowsRequest, expected: &str) {
        let filters = Filters::new(&request.whitelist, &request.blacklist).unwrap();
        let mut found = Vec::new();
        let print = |response: GetFlowsResponse| {
            found.push(match response.response_types {
                Some(ResponseTypes::Flow(flow)) => flow.uuid,
                _ => "lost".to_owned(),
            });
            Ok(())
        };
        select(LINES.as_bytes(), "-", &request, &filters, print).unwrap();
        assert_eq!(found.join(" "), expected);
    }

    #[test]
    fn selections() {
        let all = GetFlowsRequest::default;
        check(all(), "a b c lost");
        check(GetFlowsRequest { number: 2, ..all() }, "c lost");
        check(GetFlowsRequest { number: 2, first: true, ..all() }, "a b");
        check(GetFlowsRequest { number: u64::MAX, ..all() }, "a b c lost");
        let second = Timestamp { seconds: 1_704_067_202, nanos: 0 };
        check(GetFlowsRequest { since: Some(second), ..all() }, "b c lost");
        check(GetFlowsRequest { until: Some(second), ..all() }, "a b");
        let dropped = serde_json::from_str(r#"[{"verdict":["DROPPED"]}]"#).unwrap();
        check(GetFlowsRequest { whitelist: dropped, ..all() }, "b c lost");
    }
}
