//! How many votes has each emoji?

use super::v1::voting_service_server::{VotingService, VotingServiceServer};
use super::v1::{ResultsRequest, ResultsResponse, VoteRequest, VoteResponse, VotingResult};
use super::{metrics, port};
use crate::{Error, listening};
use tonic::service::Routes;
use tonic::{Request, Response, Status};

/// Votes for this one always fail, so that there is something to find.
const BROKEN: &str = ":doughnut:";

/// Serves `VoteX` for every emoji and `Results`.
pub async fn run(args: Vec<String>) -> Result<(), Error> {
    let port = port(&args, "GRPC_PORT", 8080)?;
    let votes = Votes::default();
    let mut tasks = vec![listening::grpc(port, Routes::new(VotingServiceServer::new(votes.clone())))?];
    tasks.extend(metrics::task(votes.counts)?);
    listening::all(tasks).await
}

#[derive(Clone)]
pub(super) struct Votes {
    counts: metrics::Counts,
}

impl Default for Votes {
    fn default() -> Votes {
        Votes { counts: metrics::Counts::new("emojivoto_votes_total", "emoji") }
    }
}

impl Votes {
    fn vote(&self, shortcode: &'static str) -> Result<Response<VoteResponse>, Status> {
        if shortcode == BROKEN {
            return Err(Status::unknown("ERROR"));
        }
        self.counts.add(shortcode);
        Ok(Response::new(VoteResponse {}))
    }
}

/// The service has a method for each emoji.
macro_rules! voting {
    ($($method:ident $shortcode:literal)*) => {
        #[tonic::async_trait]
        impl VotingService for Votes {
            $(async fn $method(&self, _: Request<VoteRequest>) -> Result<Response<VoteResponse>, Status> {
                self.vote($shortcode)
            })*

            async fn results(&self, _: Request<ResultsRequest>) -> Result<Response<ResultsResponse>, Status> {
                let result = |(shortcode, votes): (&str, u64)| VotingResult {
                    shortcode: shortcode.into(),
                    votes: i32::try_from(votes).unwrap_or(i32::MAX),
                };
                let mut results: Vec<VotingResult> = self.counts.all().into_iter().map(result).collect();
                results.sort_by_key(|result| std::cmp::Reverse(result.votes));
                Ok(Response::new(ResultsResponse { results }))
            }
        }
    };
}

voting! {
    vote100 ":100:"
    vote_bacon ":bacon:"
    vote_beer ":beer:"
    vote_burrito ":burrito:"
    vote_cat2 ":cat2:"
    vote_clap ":clap:"
    vote_crossed_swords ":crossed_swords:"
    vote_doughnut ":doughnut:"
    vote_fire ":fire:"
    vote_ghost ":ghost:"
    vote_guitar ":guitar:"
    vote_joy ":joy:"
    vote_mask ":mask:"
    vote_money_with_wings ":money_with_wings:"
    vote_ok_woman2 ":ok_woman_2:"
    vote_pizza ":pizza:"
    vote_rocket ":rocket:"
    vote_sunglasses ":sunglasses:"
    vote_tada ":tada:"
    vote_turkey ":turkey:"
}
