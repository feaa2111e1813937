//! In which order are variants measured? In rounds; in each round every variant has one slice, in random order.

use std::time::Duration;

use anyhow::{Context, Result};
use rand::seq::SliceRandom;

use crate::workload::Slice;

/// How long everything takes.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Rounds; the medians are over these.
    pub rounds: usize,
    /// Time of each variant in each round.
    pub slice: Duration,
}

/// Something that is measured, with a name.
pub type Variant<'a> = (&'static str, Box<dyn FnMut(Duration) -> Result<Slice> + 'a>);

/// The slices of one variant, by round.
#[derive(Clone, Debug, Default)]
pub struct Series {
    /// Medians of the slices.
    pub values: Vec<f64>,
    /// 99th percentiles of the slices.
    pub tails: Vec<f64>,
}

/// Measures; the series are in the order of the variants.
pub fn run(plan: &Plan, variants: &mut [Variant<'_>]) -> Result<Vec<Series>> {
    let mut series = vec![Series::default(); variants.len()];
    let mut order: Vec<usize> = (0..variants.len()).collect();
    for _ in 0..plan.rounds {
        order.shuffle(&mut rand::rng());
        for &i in &order {
            let (name, measure) = &mut variants[i];
            let slice = measure(plan.slice).with_context(|| format!("variant {name}"))?;
            series[i].values.push(slice.value);
            series[i].tails.push(slice.tail);
        }
    }
    Ok(series)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variant_has_one_slice_in_each_round_and_keeps_its_place() {
        let plan = Plan { rounds: 5, slice: Duration::ZERO };
        let constant = |value: f64| Box::new(move |_| Ok(Slice { value, tail: value * 2.0 }));
        let series = run(&plan, &mut [("one", constant(1.0)), ("two", constant(2.0))]).unwrap();
        assert_eq!(series[0].values, [1.0; 5]);
        assert_eq!(series[1].values, [2.0; 5]);
        assert_eq!(series[1].tails, [4.0; 5]);
    }

    #[test]
    fn an_error_names_the_variant() {
        let plan = Plan { rounds: 1, slice: Duration::ZERO };
        let error = run(&plan, &mut [("broken", Box::new(|_| anyhow::bail!("no answer")))]).unwrap_err();
        assert_eq!(format!("{error:#}"), "variant broken: no answer");
    }
}
