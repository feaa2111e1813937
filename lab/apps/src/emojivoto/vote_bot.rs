//! Who votes?

use super::service;
use crate::Error;
use crate::fetch::{Service, get};
use rand::Rng;
use serde_json::Value;
use std::time::Duration;
use tracing::{info, warn};

/// So many votes of a hundred are for the doughnut.
const DOUGHNUTS: u32 = 15;

/// Votes once in a second, or as often as `REQUEST_RATE` says, at `WEB_HOST`.
pub async fn run() -> Result<(), Error> {
    let web = service("WEB_HOST", "web-svc.emojivoto", 80);
    let rate = std::env::var("REQUEST_RATE").ok().and_then(|r| r.parse::<u32>().ok()).filter(|r| *r > 0).unwrap_or(1);
    let mut ticks = tokio::time::interval(Duration::from_secs(1) / rate);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        match vote(&web).await {
            Ok((choice, status)) => info!(choice, status, "voted"),
            Err(error) => warn!(error, "no vote"),
        }
    }
}

async fn vote(web: &Service) -> Result<(String, u16), String> {
    let list = get(web, "/api/list").await.map_err(|e| e.to_string())?;
    let list = list.json().ok_or_else(|| format!("the list is not there: {}", list.status))?;
    let mut random = rand::rng();
    let choice = choose(&list, random.random_range(0..100), random.random()).ok_or("the list is empty")?;
    let answer = get(web, &format!("/api/vote?choice={choice}")).await.map_err(|e| e.to_string())?;
    Ok((choice, answer.status.as_u16()))
}

fn choose(list: &Value, percent: u32, random: u32) -> Option<String> {
    if percent < DOUGHNUTS {
        return Some(":doughnut:".into());
    }
    let list = list.as_array().filter(|l| !l.is_empty())?;
    let at = usize::try_from(random).unwrap_or(0) % list.len();
    list[at]["shortcode"].as_str().map(String::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_votes_are_for_doughnuts_the_others_for_any() {
        let list = serde_json::json!([{"shortcode": ":a:"}, {"shortcode": ":b:"}]);
        assert_eq!(choose(&list, 14, 0).as_deref(), Some(":doughnut:"));
        assert_eq!(choose(&list, 15, 3).as_deref(), Some(":b:"));
        assert_eq!(choose(&serde_json::json!([]), 15, 3), None);
    }
}
