//! What was measured, against what, and is it what was promised?

use std::fmt::Write;

use comfy_table::{Table, presets};
use serde::Serialize;

use crate::stats::{median, spread};

/// A promise about a figure.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Demand {
    /// As small as this or smaller.
    AtMost(f64),
    /// As large as this or larger.
    AtLeast(f64),
}

impl Demand {
    fn met(self, figure: f64) -> bool {
        match self {
            Demand::AtMost(limit) => figure <= limit,
            Demand::AtLeast(limit) => figure >= limit,
        }
    }
}

/// How the figure that the demand is about comes out of the measurement.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Figure {
    /// What was measured, itself.
    Itself,
    /// A multiple of the reference.
    Ratio(f64),
    /// More than the reference by this, in the same unit.
    Excess(f64),
}

/// One line of the report.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the benchmark.
    pub bench: &'static str,
    /// Number of the goal in the table of goals.
    pub goal: Option<u8>,
    /// What was measured.
    pub what: String,
    /// The measured value.
    pub value: f64,
    /// How far the measurements lie apart: the distance between their quartiles, as a part of the value.
    pub spread: Option<f64>,
    /// Its unit.
    pub unit: &'static str,
    /// What it was measured against, in the same run: name and value.
    pub against: Option<(String, f64)>,
    /// What the demand is about.
    pub figure: Figure,
    /// The promise.
    pub demand: Option<Demand>,
}

/// Does a row keep its promise?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// It does.
    Met,
    /// It does not.
    Missed,
    /// Nothing was promised.
    Open,
}

impl Row {
    /// A value by itself.
    pub fn new(bench: &'static str, what: impl Into<String>, value: f64, unit: &'static str) -> Row {
        let what = what.into();
        Row { bench, goal: None, what, value, spread: None, unit, against: None, figure: Figure::Itself, demand: None }
    }

    /// The median of several measurements.
    pub fn of(bench: &'static str, what: impl Into<String>, values: &[f64], unit: &'static str) -> Row {
        Row { spread: Some(spread(values)), ..Row::new(bench, what, median(values), unit) }
    }

    /// Sets what it was measured against, and the figure that says how they compare.
    pub fn against(self, name: &str, value: f64, figure: Figure) -> Row {
        Row { against: Some((name.into(), value)), figure, ..self }
    }

    /// Sets what was promised.
    pub fn goal(self, number: u8, demand: Demand) -> Row {
        Row { goal: Some(number), demand: Some(demand), ..self }
    }

    /// Does it keep its promise? A value that could not be computed does not.
    pub fn verdict(&self) -> Verdict {
        let figure = match self.figure {
            Figure::Itself => self.value,
            Figure::Ratio(x) | Figure::Excess(x) => x,
        };
        match self.demand {
            None => Verdict::Open,
            Some(demand) if demand.met(figure) => Verdict::Met,
            Some(_) => Verdict::Missed,
        }
    }

    fn cells(&self) -> [String; 7] {
        let demand = self.demand.map_or(String::new(), |d| self.in_words(d));
        let verdict = match self.verdict() {
            Verdict::Met => "met",
            Verdict::Missed => "MISSED",
            Verdict::Open => "",
        };
        [
            self.goal.map_or(String::new(), |g| g.to_string()),
            self.what.clone(),
            self.measured_in_words(),
            self.against.as_ref().map_or(String::new(), |(name, v)| format!("{name} {} {}", number(*v), self.unit)),
            self.figure_in_words(),
            demand,
            verdict.into(),
        ]
    }

    fn measured_in_words(&self) -> String {
        let value = format!("{} {}", number(self.value), self.unit).trim_end().to_string();
        match self.spread {
            Some(spread) if spread >= 0.005 => format!("{value} ±{} %", (spread * 50.0).ceil()),
            _ => value,
        }
    }

    fn figure_in_words(&self) -> String {
        match self.figure {
            Figure::Itself => String::new(),
            Figure::Ratio(ratio) => format!("{ratio:.3} ×"),
            Figure::Excess(more) => format!("{more:+.2} {}", self.unit),
        }
    }

    fn in_words(&self, demand: Demand) -> String {
        let (sign, limit) = match demand {
            Demand::AtMost(limit) => ("≤", limit),
            Demand::AtLeast(limit) => ("≥", limit),
        };
        match self.figure {
            Figure::Itself => format!("{sign} {} {}", number(limit), self.unit).trim_end().into(),
            Figure::Ratio(_) => format!("{sign} {limit:.2} ×"),
            Figure::Excess(_) => format!("{sign} {limit:+} {}", self.unit),
        }
    }
}

const HEADER: [&str; 7] = ["goal", "what", "measured", "against", "figure", "demand", "verdict"];

/// For people, on a terminal.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_header(HEADER);
    table.add_rows(rows.iter().map(Row::cells));
    table.to_string()
}

/// For a document.
pub fn markdown(rows: &[Row]) -> String {
    let mut out = format!("| {} |\n|{}\n", HEADER.join(" | "), "---|".repeat(HEADER.len()));
    for row in rows {
        let _ = writeln!(out, "| {} |", row.cells().join(" | "));
    }
    out
}

/// Puts the text between the two marks of a document in the place of what is there; nothing: the marks are missing.
pub fn replace_between(document: &str, begin: &str, end: &str, text: &str) -> Option<String> {
    let (before, rest) = document.split_once(begin)?;
    let (_, after) = rest.split_once(end)?;
    Some(format!("{before}{begin}\n{text}{end}{after}"))
}

/// Three or four digits that mean something.
fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1000.0 => grouped(value),
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.1 || v == 0.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// A whole number with its thousands separated.
pub fn whole(value: u64) -> String {
    grouped(value as f64)
}

fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    let from_end = |i: usize| digits.len() - i;
    let separated = digits.char_indices().flat_map(|(i, c)| {
        let comma = i > 0 && from_end(i) % 3 == 0 && c.is_ascii_digit() && digits.as_bytes()[i - 1] != b'-';
        comma.then_some(',').into_iter().chain([c])
    });
    separated.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(figure: Figure, demand: Demand) -> Row {
        Row::new("x", "what", 200.0, "ns").against("other", 100.0, figure).goal(1, demand)
    }

    #[test]
    fn the_demand_is_about_the_figure_and_not_about_the_value() {
        assert_eq!(row(Figure::Ratio(1.05), Demand::AtMost(1.06)).verdict(), Verdict::Met);
        assert_eq!(row(Figure::Ratio(1.07), Demand::AtMost(1.06)).verdict(), Verdict::Missed);
        assert_eq!(row(Figure::Ratio(0.95), Demand::AtLeast(0.95)).verdict(), Verdict::Met);
        assert_eq!(row(Figure::Excess(-1.0), Demand::AtMost(0.7)).verdict(), Verdict::Met);
        assert_eq!(Row::new("x", "what", 171.0, "ns").goal(1, Demand::AtMost(170.0)).verdict(), Verdict::Missed);
        assert_eq!(Row::new("x", "what", 171.0, "ns").verdict(), Verdict::Open);
    }

    #[test]
    fn what_could_not_be_computed_is_not_met() {
        assert_eq!(row(Figure::Ratio(f64::NAN), Demand::AtMost(1.0)).verdict(), Verdict::Missed);
        assert_eq!(row(Figure::Ratio(f64::NAN), Demand::AtLeast(1.0)).verdict(), Verdict::Missed);
    }

    #[test]
    fn a_row_reads_as_a_line_of_the_document() {
        let text = markdown(&[row(Figure::Ratio(2.0), Demand::AtMost(1.06))]);
        let last = text.lines().last().unwrap();
        assert_eq!(last, "| 1 | what | 200 ns | other 100 ns | 2.000 × | ≤ 1.06 × | MISSED |");
    }

    #[test]
    fn half_the_distance_between_the_quartiles_is_shown() {
        let row = Row::of("x", "what", &[90.0, 100.0, 110.0, 95.0, 105.0], "ns");
        assert_eq!(row.measured_in_words(), "100 ns ±5 %");
        assert_eq!(Row::of("x", "what", &[7.0, 7.0], "ns").measured_in_words(), "7.00 ns");
    }

    #[test]
    fn numbers_keep_three_digits_and_thousands_are_separated() {
        assert_eq!(
            [0.4567, 14.73, 118.4, 5443.0, 1234567.0].map(number),
            ["0.46", "14.7", "118", "5,443", "1,234,567"]
        );
        assert_eq!(number(-123456.0), "-123,456");
    }

    #[test]
    fn only_what_lies_between_the_marks_is_replaced() {
        let document = "before <!--a--> old <!--b--> after";
        assert_eq!(
            replace_between(document, "<!--a-->", "<!--b-->", "new\n").unwrap(),
            "before <!--a-->\nnew\n<!--b--> after"
        );
        assert_eq!(replace_between("no marks", "<!--a-->", "<!--b-->", "new"), None);
    }
}
