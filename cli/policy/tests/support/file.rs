//! Files that commands read.

use std::path::PathBuf;

/// A file with this text, which is away when the test ends.
pub struct File(PathBuf);

impl File {
    /// `name` is one that no other test of the program uses.
    pub fn new(name: &str, text: &str) -> File {
        let path = std::env::temp_dir().join(format!("axoneme-policy-{}-{name}", std::process::id()));
        std::fs::write(&path, text).unwrap();
        File(path)
    }

    /// Where it is.
    pub fn name(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
