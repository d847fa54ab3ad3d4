//! The corpus of the fuzzer, replayed: what once led into a corner of a parser leads there still.

use std::path::PathBuf;

use kiln::fuzzing::TARGETS;

fn corpus(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fixtures/corpus").join(target)
}

#[test]
fn reliability_r99_every_target_holds_for_its_corpus_and_for_pieces_of_it() {
    for target in TARGETS {
        let folder = corpus(target.name);
        let mut inputs: Vec<Vec<u8>> = std::fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        inputs.sort();
        assert!(!inputs.is_empty(), "{} has no corpus", target.name);
        for input in &inputs {
            (target.run)(input);
            for at in 0..input.len().min(200) {
                (target.run)(&input[..at]);
                let mut flipped = input.clone();
                flipped[at] ^= 1 << (at % 8);
                (target.run)(&flipped);
            }
        }
        (target.run)(b"");
    }
}

#[test]
fn every_folder_of_the_corpus_belongs_to_a_target() {
    let names: Vec<&str> = TARGETS.iter().map(|target| target.name).collect();
    assert!(names.is_sorted());
    for entry in std::fs::read_dir(corpus("")).unwrap() {
        let name = entry.unwrap().file_name().to_string_lossy().into_owned();
        assert!(names.contains(&name.as_str()), "{name} is no target");
    }
}
