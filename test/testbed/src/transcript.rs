//! What in a printed line must vary from run to run? Times, ephemeral ports, numbers of identities, generated names.

use regex::Regex;
use std::sync::OnceLock;

fn patterns() -> &'static [(Regex, &'static str)] {
    static PATTERNS: OnceLock<Vec<(Regex, &'static str)>> = OnceLock::new();
    PATTERNS.get_or_init(|| {
        [
            (r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d\.\d{3}: ", ""),
            (r"\(ID:\d+\)", "(ID:N)"),
            // a pod of a deployment: hash of the template, then five characters
            (r"-[0-9a-f]{6,10}-[0-9a-z]{5}\b", ""),
            (r":(3[2-9]\d{3}|[4-6]\d{4}) ", ":PORT "),
        ]
        .into_iter()
        .map(|(pattern, with)| (Regex::new(pattern).expect("the patterns above are valid"), with))
        .collect()
    })
}

/// A line of `hubble observe` without what must vary.
pub fn normalise(line: &str) -> String {
    patterns().iter().fold(line.to_string(), |line, (pattern, with)| pattern.replace_all(&line, *with).into_owned())
}

/// Every line of an output, normalised.
pub fn normalised(output: &str) -> Vec<String> {
    output.lines().filter(|l| !l.is_empty()).map(normalise).collect()
}

#[cfg(test)]
mod tests {
    use super::normalise;

    #[test]
    fn what_varies_goes_and_what_matters_stays() {
        assert_eq!(
            normalise(
                "Apr 27 22:09:16.221: default/internal-client:42856 (ID:23217) -> \
                 default/productpage-v1-675fc69cf-8zzxh:9080 (ID:9889) to-endpoint FORWARDED (TCP Flags: SYN)"
            ),
            "default/internal-client:PORT (ID:N) -> default/productpage-v1:9080 (ID:N) to-endpoint FORWARDED (TCP Flags: SYN)"
        );
    }
}
