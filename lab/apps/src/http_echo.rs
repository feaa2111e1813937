//! What does the server answer that always says the same?

use crate::{Error, arguments, listening};
use hyper::StatusCode;
use world::http::text;

const PORT: u16 = 5678;

/// `-text TEXT`, `-listen ADDRESS:PORT`, `-status-code CODE`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let environment = || std::env::var("ECHO_TEXT").ok();
    let said = Said::of(&args, environment())?;
    let serving = listening::http(said.port, move |request, _| {
        let answer = match request.uri().path() {
            "/health" => text(StatusCode::OK, "{\"status\":\"ok\"}\n"),
            _ => text(said.status, said.text.clone()),
        };
        async move { answer }
    })?;
    listening::all(vec![serving]).await
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Said {
    port: u16,
    status: StatusCode,
    text: String,
}

impl Said {
    fn of(args: &[String], environment: Option<String>) -> Result<Said, Error> {
        let usage =
            |what: &str| Error::Usage(format!("{what}; usage: http-echo -text TEXT [-listen :PORT] [-status-code N]"));
        let text = arguments::option(args, "text").or(environment).ok_or_else(|| usage("-text is missing"))?;
        let port = match arguments::option(args, "listen") {
            None => PORT,
            Some(at) => {
                let digits = at.rsplit_once(':').map(|(_, port)| port).unwrap_or(&at);
                digits.parse().map_err(|_| usage(&format!("-listen {at:?} has no port")))?
            }
        };
        let status = match arguments::option(args, "status-code") {
            None => StatusCode::OK,
            Some(code) => code.parse().map_err(|_| usage(&format!("-status-code {code:?} is no status")))?,
        };
        Ok(Said { port, status, text: format!("{text}\n") })
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn said(args: &[&str]) -> Result<Said, Error> {
        Said::of(&args.iter().map(|s| s.to_string()).collect::<Vec<_>>(), None)
    }

    #[test]
    fn arguments_are_those_of_the_original() {
        let plain = said(&["-text=hello world"]).unwrap();
        assert_eq!(plain, Said { port: 5678, status: StatusCode::OK, text: "hello world\n".into() });
        let all = said(&["-listen=0.0.0.0:8080", "-text", "x", "-status-code", "418"]).unwrap();
        assert_eq!((all.port, all.status.as_u16()), (8080, 418));
        assert!(said(&[]).unwrap_err().to_string().contains("-text is missing"));
        assert!(said(&["-text=x", "-listen=:http"]).is_err());
    }
}
