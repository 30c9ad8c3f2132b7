//! The runner of golden scripts: for the tests of public machines (`tests/scripts.rs`) and, by `#[path]`, for the unit
//! tests of private ones.
//!
//! A script is a text file: `#` starts a comment, `> ` an input, and any other line is an answer. The
//! runner plays the inputs and compares. `UPDATE=1 cargo test` writes the answers anew; read the difference before you
//! commit it.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::{env, fs};

/// Plays every script of `folder`, each on a stage of its own.
pub fn play_all<Play: FnMut(&str) -> Vec<String>>(folder: &str, stage: impl Fn() -> Play) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scripts").join(folder);
    let update = env::var_os("UPDATE").is_some_and(|value| value == "1");
    let mut scripts: Vec<PathBuf> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    scripts.retain(|path| path.extension().is_some_and(|extension| extension == "txt"));
    scripts.sort();
    assert!(!scripts.is_empty(), "no scripts in {}", folder.display());
    let mut failures = String::new();
    for path in scripts {
        let expected = fs::read_to_string(&path).unwrap();
        let actual = play(&path, &expected, stage());
        if update && actual != expected {
            fs::write(&path, &actual).unwrap();
        } else if let Some((line, was, is)) = first_difference(&expected, &actual) {
            let name = path.display();
            writeln!(failures, "{name}:{line}\n  the script says  {was}\n  the machine says {is}").unwrap();
        }
    }
    assert!(failures.is_empty(), "\n{failures}(UPDATE=1 writes the scripts anew)");
}

/// The script with the answers as they are now.
fn play(path: &Path, script: &str, mut stage: impl FnMut(&str) -> Vec<String>) -> String {
    let mut out = String::new();
    for (number, line) in script.lines().enumerate() {
        if let Some(input) = line.strip_prefix("> ") {
            writeln!(out, "{line}").unwrap();
            let input = input.split('#').next().unwrap_or_default().trim();
            let answers = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| stage(input)))
                .unwrap_or_else(|_| panic!("{}:{}: {line}", path.display(), number + 1));
            for answer in answers {
                writeln!(out, "{answer}").unwrap();
            }
        } else if line.is_empty() || line.starts_with('#') {
            writeln!(out, "{line}").unwrap();
        }
    }
    out
}

fn first_difference(expected: &str, actual: &str) -> Option<(usize, String, String)> {
    let (mut expected, mut actual) = (expected.lines(), actual.lines());
    for number in 1.. {
        match (expected.next(), actual.next()) {
            (None, None) => break,
            (was, is) if was == is => {}
            (was, is) => {
                let told = |line: Option<&str>| line.unwrap_or("(nothing more)").to_owned();
                return Some((number, told(was), told(is)));
            }
        }
    }
    None
}
