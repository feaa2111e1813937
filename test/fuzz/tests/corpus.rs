//! Do the targets take every input of the corpus, and are there such for each of them?
#![allow(clippy::unwrap_used)]

use std::fs;
use std::path::Path;

#[test]
fn every_input_of_the_corpus_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let mut folders: Vec<_> = fs::read_dir(&corpus).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    folders.sort();
    let mut names: Vec<_> = fuzz::TARGETS.iter().map(|target| target.name).collect();
    names.sort_unstable();
    assert_eq!(folders, names);
    for target in fuzz::TARGETS {
        let files: Vec<_> = fs::read_dir(corpus.join(target.name)).unwrap().collect();
        assert!(files.len() >= 2, "{} has no corpus", target.name);
        for file in files {
            let path = file.unwrap().path();
            println!("{}", path.display());
            (target.run)(&fs::read(path).unwrap());
        }
    }
}
