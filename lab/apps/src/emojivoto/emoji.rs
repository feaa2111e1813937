//! Which emoji are there?

use super::v1::emoji_service_server::{EmojiService, EmojiServiceServer};
use super::v1::{Emoji, FindByShortcodeRequest, FindByShortcodeResponse, ListAllEmojiRequest, ListAllEmojiResponse};
use super::{EMOJI, known, metrics, port};
use crate::{Error, listening};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Serves `ListAll` and `FindByShortcode`, and counts the calls of them.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "GRPC_PORT", 8080)?;
    let calls = metrics::Counts::new("emojivoto_emoji_calls_total", "method");
    let service = EmojiServiceServer::new(All { calls: calls.clone() });
    let mut tasks = vec![listening::grpc(port, Routes::new(service))?];
    tasks.extend(metrics::task(calls)?);
    listening::all(tasks).await
}

pub(super) struct All {
    pub(super) calls: metrics::Counts,
}

fn emoji(known: &(&str, &str)) -> Emoji {
    Emoji { shortcode: known.0.into(), unicode: known.1.into() }
}

#[tonic::async_trait]
impl EmojiService for All {
    async fn list_all(&self, _: Request<ListAllEmojiRequest>) -> Result<Response<ListAllEmojiResponse>, Status> {
        self.calls.add("ListAll");
        Ok(Response::new(ListAllEmojiResponse { list: EMOJI.iter().map(emoji).collect() }))
    }

    async fn find_by_shortcode(
        &self,
        request: Request<FindByShortcodeRequest>,
    ) -> Result<Response<FindByShortcodeResponse>, Status> {
        self.calls.add("FindByShortcode");
        let emoji = known(&request.get_ref().shortcode).map(emoji);
        Ok(Response::new(FindByShortcodeResponse { emoji }))
    }
}
