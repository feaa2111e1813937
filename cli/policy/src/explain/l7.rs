//! What would proxies say of a request?

use anyhow::{Context, Result, anyhow};
use serde::Serialize;

use super::{End, Explain};

/// What the proxies of both sides say.
#[derive(Serialize)]
pub struct L7Answer {
    /// All of them let it pass.
    pub allowed: bool,
    /// What was asked.
    pub request: String,
    /// Who refuses.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_at: Vec<&'static str>,
}

/// Secrets are in the cluster: rules that compare headers with them allow nothing here.
struct NoSecrets;

impl l7::http::Secrets for NoSecrets {
    fn header_value(&self, _: &crds::SecretRef) -> Option<Vec<u8>> {
        None
    }
}

/// The answer, if there is a request.
pub fn answer(explain: &Explain, ends: &[End]) -> Result<Option<L7Answer>> {
    let asking = ends.iter().filter(|end| end.result.redirect);
    let mut refused_at = Vec::new();
    let request = match (&explain.http, &explain.kafka, &explain.dns) {
        (Some(request), ..) => {
            for end in asking {
                if !http(explain, request, end)? {
                    refused_at.push(end.direction);
                }
            }
            format!("HTTP {request}")
        }
        (None, Some(request), _) => {
            for end in asking {
                if !kafka(request, explain.client_id.as_deref().unwrap_or_default(), end)? {
                    refused_at.push(end.direction);
                }
            }
            format!("Kafka {request}")
        }
        (None, None, Some(name)) => {
            refused_at.extend(asking.filter(|end| !dns(name, end)).map(|end| end.direction));
            format!("DNS {name}")
        }
        (None, None, None) => return Ok(None),
    };
    Ok(Some(L7Answer { allowed: refused_at.is_empty(), request, refused_at }))
}

impl L7Answer {
    /// For people.
    pub fn text(&self) -> String {
        match self.refused_at.as_slice() {
            [] => format!("{}: passes", self.request),
            ends => format!("{}: the proxy refuses it at {}", self.request, ends.join(" and ")),
        }
    }
}

fn rules(end: &End) -> impl Iterator<Item = Option<crds::L7Rules>> {
    end.result.l7.iter().map(|asked| serde_json::from_value(asked.rules.clone()).ok())
}

fn http(explain: &Explain, request: &str, end: &End) -> Result<bool> {
    let (method, path) = request.split_once(' ').ok_or_else(|| anyhow!("--http {request:?} is not like \"GET /x\""))?;
    let mut headers = ::http::HeaderMap::new();
    for header in &explain.header {
        let (name, value) =
            header.split_once(':').ok_or_else(|| anyhow!("--header {header:?} is not like \"Name: value\""))?;
        let name = ::http::HeaderName::try_from(name.trim()).with_context(|| format!("--header {header:?}"))?;
        headers
            .append(name, ::http::HeaderValue::from_str(value.trim()).with_context(|| format!("--header {header:?}"))?);
    }
    let authority = explain.host.as_deref().unwrap_or_default();
    let request = l7::http::Request { method, path: path.trim(), authority, headers: &headers };
    for asked in rules(end) {
        let Some(list) = asked.and_then(|rules| rules.http) else { return Ok(true) };
        let (rules, _) = l7::http::HttpRules::new(&list, &NoSecrets);
        if rules.allows_all_meanings(&request).is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

fn kafka(request: &str, client: &str, end: &End) -> Result<bool> {
    let mut words = request.split_whitespace();
    let kind = words.next().unwrap_or_default();
    let (kind, version) = kind.split_once('/').map_or((kind, None), |(kind, version)| (kind, Some(version)));
    let api = l7::kafka::by_name(kind).ok_or_else(|| anyhow!("--kafka {request:?}: {kind:?} is no kind of request"))?;
    let version = match version {
        None => api.last,
        Some(text) => text
            .parse::<i16>()
            .ok()
            .filter(|version| (api.first..=api.last).contains(version))
            .ok_or_else(|| anyhow!("--kafka {request:?}: the proxy reads versions {} to {}", api.first, api.last))?,
    };
    let request = l7::kafka::Request::of(api, version, client);
    let topics: Vec<&str> = words.collect();
    // The proxy puts them together: each topic needs a rule of any of them.
    let lists: Option<Vec<_>> = rules(end).map(|asked| asked.and_then(|rules| rules.kafka)).collect();
    Ok(lists.is_none_or(|lists| l7::kafka::Rules::new(&lists.concat()).0.allow(&request, &topics)))
}

fn dns(name: &str, end: &End) -> bool {
    let name = policy::canonical_name(name);
    let denied = end.result.l7.iter().flat_map(|asked| asked.denied_names.iter().map(String::as_str));
    if l7::dns::Patterns::new([], denied).allow(&name) {
        return false;
    }
    rules(end).any(|asked| {
        let Some(list) = asked.and_then(|rules| rules.dns) else { return true };
        list.is_empty()
            || list.iter().any(|rule| {
                let is = rule.match_name.as_deref().is_some_and(|one| policy::canonical_name(one) == name);
                is || rule.match_pattern.as_deref().is_some_and(|one| policy::name_matches(one, &name))
            })
    })
}
