//! Do selectors mean what their conditions say?

use labels::{Label, Labels, Operator, Selector, SelectorKey};

/// Lines: labels first, then after an empty line conditions as `key operator value value ...`.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let (first, second) = text.split_once("\n\n").unwrap_or((text, ""));
    let labels: Vec<Label> = first.lines().filter_map(|line| line.parse().ok()).collect();
    for label in &labels {
        let again: Label = label.to_string().parse().unwrap();
        assert_eq!(again, *label, "a label prints as it is read");
    }
    let set = Labels::new(labels.iter().cloned());
    assert!(set.len() <= labels.len());
    let mut selector = Selector::everything();
    assert!(selector.matches(&set));
    for line in second.lines() {
        let mut words = line.split(' ');
        let (Some(key), Some(name)) = (words.next(), words.next()) else { continue };
        let values: Vec<String> = words.map(str::to_owned).collect();
        let (Ok(key), Ok(operator)) = (key.parse::<SelectorKey>(), Operator::parse(key, name, &values)) else {
            continue;
        };
        let alone = Selector::everything().and(key.clone(), operator.clone());
        assert_eq!(alone.matches(&set), literally(&set, &key, name, &values), "{alone} on {set}");
        let before = selector.matches(&set);
        selector = selector.and(key, operator);
        assert_eq!(selector.matches(&set), before && alone.matches(&set), "all conditions hold: {selector} on {set}");
    }
}

/// The words of the condition, taken literally.
fn literally(set: &Labels, key: &SelectorKey, operator: &str, values: &[String]) -> bool {
    let of_key = |label: &&Label| label.key == key.key && (key.source == "any" || label.source == key.source);
    let found: Vec<&Label> = set.iter().filter(of_key).collect();
    let one_of = found.iter().any(|label| values.contains(&label.value));
    match operator {
        "In" => one_of,
        "NotIn" => !one_of,
        "Exists" => !found.is_empty(),
        _ => found.is_empty(),
    }
}
