//! Does a pattern of DNS names match a name?

/// Lower case, without the dot at the end.
pub fn canonical_name(name: &str) -> String {
    name.to_ascii_lowercase().trim_end_matches('.').to_owned()
}

/// True if the name fits the pattern, both in canonical form. A star stands for characters of one label, none too;
/// two stars or more and a dot in front for one label or more; nothing but stars for every name.
pub fn name_matches(pattern: &str, name: &str) -> bool {
    if !name.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.')) {
        return false;
    }
    let stars = pattern.bytes().take_while(|byte| *byte == b'*').count();
    if stars > 0 && stars == pattern.len() {
        return true;
    }
    let Some(rest) = pattern[stars..].strip_prefix('.').filter(|_| stars > 1) else {
        return labels_match(pattern, name);
    };
    let starts = name.match_indices('.').map(|(at, _)| at + 1);
    let whole = |at: usize| name[..at - 1].split('.').all(|label| !label.is_empty());
    starts.into_iter().any(|at| whole(at) && labels_match(rest, &name[at..]))
}

/// Label by label: a star never reaches over a dot.
fn labels_match(pattern: &str, name: &str) -> bool {
    let (mut patterns, mut labels) = (pattern.split('.'), name.split('.'));
    loop {
        match (patterns.next(), labels.next()) {
            (None, None) => return true,
            (Some(pattern), Some(label)) if label_matches(pattern.as_bytes(), label.as_bytes()) => {}
            _ => return false,
        }
    }
}

/// Greedy from the left, going back to the last star only: linear for each star.
fn label_matches(pattern: &[u8], label: &[u8]) -> bool {
    let (mut p, mut l, mut back) = (0, 0, None);
    while l < label.len() {
        if pattern.get(p) == Some(&b'*') {
            back = Some((p, l));
            p += 1;
        } else if pattern.get(p) == Some(&label[l]) {
            (p, l) = (p + 1, l + 1);
        } else if let Some((star, from)) = back {
            back = Some((star, from + 1));
            (p, l) = (star + 1, from + 1);
        } else {
            return false;
        }
    }
    pattern[p..].iter().all(|byte| *byte == b'*')
}

#[cfg(test)]
mod tests {
    use super::name_matches;

    fn check(pattern: &str, matching: &[&str], others: &[&str]) {
        for name in matching {
            assert!(name_matches(pattern, name), "{pattern} {name}");
        }
        for name in others {
            assert!(!name_matches(pattern, name), "{pattern} {name}");
        }
    }

    #[test]
    fn stars_stay_within_a_label() {
        check("*.x.io", &["a.x.io"], &["x.io", "a.b.x.io", "axxio"]);
        check("**.x.io", &["a.x.io", "a.b.x.io"], &["x.io", ".x.io"]);
        check("*x.io", &["x.io", "ax.io"], &["a.x.io"]);
        check("a*b.*", &["ab.c", "axxb.c"], &["ab", "ab.c.d"]);
        check("***.x.io", &["a.x.io", "a.b.x.io"], &["x.io"]);
        check("*", &["a", "a.b.c"], &[]);
        check("**", &["a", "a.b.c"], &[]);
        check("a.b", &["a.b"], &["aXb", "a.b.c"]);
    }

    /// At most pattern times label, about 15,000 steps: a matcher that tries all ways would not end before the sun does.
    #[test]
    fn a55_long_patterns_cost_no_more_than_pattern_times_label() {
        let pattern = format!("{}b", "*a".repeat(120));
        for _ in 0..1_000 {
            assert!(!name_matches(&pattern, &"a".repeat(63)));
        }
        let names = format!("{}{}", "a".repeat(62), ".aaaa".repeat(38));
        for _ in 0..1_000 {
            assert!(!name_matches(&"**.*a*a*a*a*b".repeat(15), &names));
        }
        assert!(name_matches(&"*".repeat(250), "a"));
    }
}
