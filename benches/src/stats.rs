//! Which number stands for many noisy ones, and how do two series that were measured by turns compare?

/// The value below which this part (0 to 1) of the values lies; NaN if there are none.
pub fn quantile(values: &mut [f64], part: f64) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    values.sort_unstable_by(f64::total_cmp);
    let rank = (part.clamp(0.0, 1.0) * (values.len() - 1) as f64).round() as usize;
    values[rank]
}

/// The middle value; of an even number, the mean of the two in the middle.
pub fn median(values: &[f64]) -> f64 {
    if values.is_empty() {
        return f64::NAN;
    }
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// The median of the quotients of values measured in the same round: what slows a whole round cancels out.
pub fn paired_ratio(ours: &[f64], theirs: &[f64]) -> f64 {
    let quotients: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a / b).collect();
    median(&quotients)
}

/// The median of the differences of values measured in the same round.
pub fn paired_difference(ours: &[f64], theirs: &[f64]) -> f64 {
    let differences: Vec<f64> = ours.iter().zip(theirs).map(|(a, b)| a - b).collect();
    median(&differences)
}

/// How far the values lie apart: the distance between the quartiles, as a part of the median.
pub fn spread(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    (quantile(&mut sorted, 0.75) - quantile(&mut sorted, 0.25)) / median(values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_of_an_even_number_lies_between_the_middle_two() {
        assert_eq!(median(&[4.0, 1.0, 3.0]), 3.0);
        assert_eq!(median(&[4.0, 1.0, 3.0, 2.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn one_outlier_does_not_move_the_median() {
        assert_eq!(median(&[10.0, 11.0, 12.0, 10.0, 9000.0]), 11.0);
    }

    #[test]
    fn quantiles_are_values_that_occurred() {
        let mut values: Vec<f64> = (0..=100).rev().map(f64::from).collect();
        assert_eq!(quantile(&mut values, 0.5), 50.0);
        assert_eq!(quantile(&mut values, 0.99), 99.0);
        assert_eq!(quantile(&mut values, 1.0), 100.0);
        assert_eq!(quantile(&mut [7.0], 0.99), 7.0);
        assert!(quantile(&mut [], 0.5).is_nan());
    }

    #[test]
    fn a_slow_round_cancels_out_of_a_paired_ratio() {
        let theirs = [10.0, 10.0, 30.0, 10.0, 20.0];
        let ours = theirs.map(|t| t * 1.05);
        assert!((paired_ratio(&ours, &theirs) - 1.05).abs() < 1e-12);
    }

    #[test]
    fn a_paired_difference_keeps_its_sign() {
        assert_eq!(paired_difference(&[5.0, 6.0, 9.0], &[6.0, 7.0, 7.0]), -1.0);
    }

    #[test]
    fn spread_is_relative() {
        assert_eq!(spread(&[100.0, 100.0, 100.0]), 0.0);
        assert!((spread(&[90.0, 100.0, 110.0, 95.0, 105.0]) - 0.1).abs() < 1e-12);
    }
}
