//! How do build servers want results?

pub use analysis::layout::escaped;

/// A suite of test cases as a document.
pub fn suite(name: &str, tests: usize, failed: usize, cases: &str) -> String {
    let name = escaped(name);
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites>\n<testsuite name=\"{name}\" tests=\"{tests}\" failures=\"{failed}\">\n{cases}</testsuite>\n</testsuites>\n"
    )
}
