//! What does a plain web server answer?

use crate::{Error, arguments, listening};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};
use world::http::{Body, Ends, html, text};

/// Serves every path at the ports of `--port`, else at 80; `PUT` and `POST` take what is sent.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let ports = arguments::ports(&arguments::option(&args, "port").unwrap_or_else(|| "80".into()))?;
    let tasks = ports.into_iter().map(|port| listening::http(port, respond)).collect::<Result<_, _>>()?;
    listening::all(tasks).await
}

async fn respond(request: Request<Incoming>, _: Ends) -> Response<Body> {
    let path = request.uri().path().to_string();
    match *request.method() {
        Method::GET | Method::HEAD => {
            html(StatusCode::OK, format!("<html><body><h1>{}</h1></body></html>\n", shown(&path)))
        }
        Method::PUT | Method::POST => {
            let taken = taken(request.into_body()).await;
            text(StatusCode::CREATED, format!("{taken} bytes taken at {path}\n"))
        }
        Method::DELETE => text(StatusCode::NO_CONTENT, ""),
        ref other => text(StatusCode::METHOD_NOT_ALLOWED, format!("{other} is not answered\n")),
    }
}

fn shown(path: &str) -> String {
    path.replace('&', "&amp;").replace('<', "&lt;")
}

/// Reads a body to its end and counts.
async fn taken(mut body: Incoming) -> u64 {
    let mut total = 0;
    while let Some(Ok(frame)) = body.frame().await {
        total += frame.data_ref().map_or(0, |d| d.len() as u64);
    }
    total
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::fetch::{Service, ask};
    use hyper::body::Bytes;
    use world::sockets::listen_everywhere;

    #[tokio::test]
    async fn methods_have_their_status() {
        let listener = listen_everywhere(0).unwrap();
        let service = Service { host: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        tokio::spawn(world::http::serve(listener, respond));
        for (method, path, status, body) in [
            (Method::GET, "/downloads", 200, "/downloads"),
            (Method::PUT, "/upload", 201, "3 bytes"),
            (Method::DELETE, "/upload", 204, ""),
            (Method::PATCH, "/upload", 405, "PATCH"),
        ] {
            let answer = ask(&service, method.clone(), path, Bytes::from("abc")).await.unwrap();
            assert_eq!(answer.status, status, "{method}");
            assert!(String::from_utf8_lossy(&answer.body).contains(body), "{answer:?}");
        }
    }
}
