//! How do build servers want results?

/// A suite of test cases as a document.
pub fn suite(name: &str, tests: usize, failed: usize, cases: &str) -> String {
    let name = escaped(name);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failed}\">\n{cases}</testsuite>\n</testsuites>\n"
    )
}

/// A text within XML. Characters that XML cannot hold are left out.
pub fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for one in text.chars() {
        match one {
            '&' => safe.push_str("&amp;"),
            '<' => safe.push_str("&lt;"),
            '>' => safe.push_str("&gt;"),
            '"' => safe.push_str("&quot;"),
            '\n' => safe.push_str("&#10;"),
            _ if one.is_control() => {}
            _ => safe.push(one),
        }
    }
    safe
}
