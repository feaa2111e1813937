//! What does the site show, and whom does it ask?

use super::v1::emoji_service_client::EmojiServiceClient;
use super::v1::voting_service_client::VotingServiceClient;
use super::v1::{Emoji, FindByShortcodeRequest, ListAllEmojiRequest, ResultsRequest, VoteRequest, VoteResponse};
use super::{known, port, service, vote_of};
use crate::fetch::Service;
use crate::{Error, listening};
use hyper::http::uri::PathAndQuery;
use hyper::{Response, StatusCode, Uri};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};
use tracing::warn;
use world::http::{Body, html, json as answer, text};

/// How long a service may take to be connected to, and to answer.
const PATIENCE: Duration = Duration::from_secs(3);

/// Serves `/`, `/api/list`, `/api/vote?choice=CODE`, `/api/leaderboard`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "WEB_PORT", 8080)?;
    let emoji = service("EMOJISVC_HOST", "emoji-svc.emojivoto", 8080);
    let web = Web::new(&emoji, &service("VOTINGSVC_HOST", "voting-svc.emojivoto", 8080))?;
    let web = Arc::new(web);
    let serving = listening::http(port, move |request, _| {
        let web = web.clone();
        async move { web.respond(request.uri()).await }
    })?;
    listening::all(vec![serving]).await
}

/// The site, with one connection to each service, which is made anew when it breaks.
pub(super) struct Web {
    emoji: Channel,
    voting: Channel,
}

impl Web {
    pub(super) fn new(emoji: &Service, voting: &Service) -> Result<Web, Error> {
        Ok(Web { emoji: channel(emoji)?, voting: channel(voting)? })
    }

    pub(super) async fn respond(&self, uri: &Uri) -> Response<Body> {
        let answered = match uri.path() {
            "/" | "/leaderboard" => Ok(html(StatusCode::OK, "<html><body><h1>Emoji Vote</h1></body></html>\n")),
            "/api/list" => self.list().await,
            "/api/vote" => self.vote(uri.query().unwrap_or_default()).await,
            "/api/leaderboard" => self.leaderboard().await,
            _ => Ok(text(StatusCode::NOT_FOUND, "not found\n")),
        };
        answered.unwrap_or_else(|status| {
            warn!(code = ?status.code(), message = status.message(), path = uri.path(), "a call failed");
            text(StatusCode::INTERNAL_SERVER_ERROR, format!("rpc error: {}\n", status.message()))
        })
    }

    async fn list(&self) -> Result<Response<Body>, Status> {
        let mut client = EmojiServiceClient::new(self.emoji.clone());
        let all = client.list_all(ListAllEmojiRequest {}).await?.into_inner();
        let row = |emoji: Emoji| json!({"shortcode": emoji.shortcode, "unicode": emoji.unicode});
        Ok(answer(StatusCode::OK, &all.list.into_iter().map(row).collect::<Value>()))
    }

    async fn vote(&self, query: &str) -> Result<Response<Body>, Status> {
        let choice = query.split('&').find_map(|pair| pair.strip_prefix("choice="));
        let Some(shortcode) = choice.map(|c| c.replace("%3A", ":").replace("%3a", ":")) else {
            return Ok(text(StatusCode::BAD_REQUEST, "choice is missing\n"));
        };
        let mut client = EmojiServiceClient::new(self.emoji.clone());
        let found = client.find_by_shortcode(FindByShortcodeRequest { shortcode }).await?.into_inner();
        let Some(emoji) = found.emoji else {
            return Ok(text(StatusCode::BAD_REQUEST, "no such emoji\n"));
        };
        self.vote_for(&emoji.shortcode).await?;
        Ok(text(StatusCode::OK, ""))
    }

    /// Calls the method that bears the emoji's name.
    async fn vote_for(&self, shortcode: &str) -> Result<VoteResponse, Status> {
        let path = format!("/emojivoto.v1.VotingService/{}", vote_of(shortcode));
        let path = PathAndQuery::try_from(path).map_err(|error| Status::internal(error.to_string()))?;
        let mut client = tonic::client::Grpc::new(self.voting.clone());
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let codec = tonic_prost::ProstCodec::default();
        Ok(client.unary(Request::new(VoteRequest {}), path, codec).await?.into_inner())
    }

    async fn leaderboard(&self) -> Result<Response<Body>, Status> {
        let mut client = VotingServiceClient::new(self.voting.clone());
        let rows = client.results(ResultsRequest {}).await?.into_inner().results.into_iter().map(|result| {
            let sign = known(&result.shortcode).map(|(_, sign)| *sign);
            json!({"shortcode": result.shortcode, "unicode": sign, "votes": result.votes})
        });
        Ok(answer(StatusCode::OK, &rows.collect::<Value>()))
    }
}

fn channel(service: &Service) -> Result<Channel, Error> {
    let url = format!("http://{}", service.authority());
    let endpoint = Endpoint::from_shared(url.clone()).map_err(|error| Error::Usage(format!("{url}: {error}")))?;
    Ok(endpoint.connect_timeout(PATIENCE).timeout(PATIENCE).connect_lazy())
}
