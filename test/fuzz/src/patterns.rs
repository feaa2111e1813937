//! Do patterns match what they say, in a time that their length bounds?

/// Lines: a pattern, and texts.
pub fn run(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut lines = text.lines();
    let Some(pattern) = lines.next() else { return };
    let texts: Vec<&str> = lines.collect();
    expressions(pattern, &texts);
    names(pattern, &texts);
}

fn expressions(pattern: &str, texts: &[&str]) {
    let Ok(compiled) = l7::re2::Pattern::new(pattern) else { return };
    let (set, problems) = l7::re2::PatternSet::new(vec![pattern.to_owned(), "another".to_owned()]);
    assert!(problems.is_empty(), "what is good alone is good in a set: {problems:?}");
    let plain = pattern.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/-_ ".contains(&byte));
    for text in texts {
        let found = compiled.matches(text);
        assert_eq!(set.matches(text.as_bytes()).has(0), found, "{pattern:?} alone and in a set on {text:?}");
        assert!(!plain || found == (*text == pattern), "{pattern:?} has no special characters, on {text:?}");
    }
}

fn names(pattern: &str, texts: &[&str]) {
    let pattern = policy::canonical_name(pattern);
    for text in texts.iter().filter(|text| text.len() < 300) {
        let name = policy::canonical_name(text);
        assert_eq!(policy::canonical_name(&name), name, "canonical names stay as they are");
        let found = policy::name_matches(&pattern, &name);
        assert_eq!(found, literally(&pattern, &name), "{pattern:?} on {name:?}");
    }
}

/// A star stands for characters of one label, two or more and a dot in front for labels, stars alone for all.
fn literally(pattern: &str, name: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    if !name.bytes().all(known) {
        return false;
    }
    let rest = pattern.trim_start_matches('*');
    let stars = pattern.len() - rest.len();
    if stars > 0 && rest.is_empty() {
        return true;
    }
    let Some(rest) = rest.strip_prefix('.').filter(|_| stars > 1) else {
        return labels(pattern.as_bytes(), name.as_bytes());
    };
    let dots = name.match_indices('.').map(|(at, _)| at);
    let proper = |front: &str| front.split('.').all(|label| !label.is_empty());
    dots.into_iter().any(|at| proper(&name[..at]) && labels(rest.as_bytes(), &name.as_bytes()[at + 1..]))
}

/// By trying everything, column by column.
fn labels(pattern: &[u8], name: &[u8]) -> bool {
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for byte in pattern {
        let mut next = vec![false; name.len() + 1];
        for at in 0..=name.len() {
            let stays = *byte == b'*' && (reached[at] || at > 0 && next[at - 1] && name[at - 1] != b'.');
            let goes = *byte != b'*' && at > 0 && reached[at - 1] && name[at - 1] == *byte;
            next[at] = stays || goes;
        }
        reached = next;
    }
    reached[name.len()]
}
