//! The files that the rules look at.

use std::fs;
use std::path::{Path, PathBuf};

use crate::tokens::word;

/// A Rust file that is not there for tests only.
pub struct Source {
    /// Below the clone, with slashes.
    pub path: String,
    /// The file's lines without comments, up to its tests, numbered from 1.
    pub code: Vec<(usize, String)>,
    pub text: String,
}

impl Source {
    pub fn new(path: &str, text: &str) -> Source {
        let end = inline_tests(text).unwrap_or(usize::MAX);
        let code = text
            .lines()
            .enumerate()
            .take(end)
            .map(|(n, line)| (n + 1, uncommented(line)))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect();
        Source { path: path.to_owned(), code, text: text.to_owned() }
    }

    /// The file's text up to its tests, comments included.
    pub fn untested(&self) -> &str {
        let Some(end) = inline_tests(&self.text) else { return &self.text };
        let upto: usize = self.text.split_inclusive('\n').take(end).map(str::len).sum();
        &self.text[..upto]
    }
}

/// The modules that a file declares for tests only: with the line of their `#[cfg(test)]`, and whether they are inline.
fn test_modules(text: &str) -> Vec<(usize, String, bool)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (n, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
        let item = lines[n..].iter().find(|line| !line.starts_with('#')).copied().unwrap_or_default();
        let Some((_, rest)) = item.split_once("mod ") else { continue };
        found.push((n, word(rest).to_owned(), rest.ends_with('{')));
    }
    found
}

/// After how many lines the file's own tests begin.
fn inline_tests(text: &str) -> Option<usize> {
    test_modules(text).into_iter().find(|(_, _, inline)| *inline).map(|(n, _, _)| n)
}

/// A line without its `//` comment. (A string with slashes is cut short, too: fine for what is looked for here.)
fn uncommented(line: &str) -> String {
    line.split("//").next().unwrap_or_default().to_owned()
}

pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// The path below the clone, with slashes.
pub fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).to_str().expect("our files have plain names").replace('\\', "/")
}

pub fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|why| panic!("{path}: {why}"))
}

/// All files below a folder of the clone (`""`: the clone), sorted; nothing that is hidden, built or installed.
pub fn files(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|why| panic!("{}: {why}", folder.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let is_ours =
                !name.starts_with('.') && !["target", "venv", "__pycache__", "node_modules"].contains(&&*name);
            match path.is_dir() {
                true if is_ours && !path.join("pyvenv.cfg").exists() => folders.push(path),
                false if is_ours => found.push(relative(&path)),
                _ => {}
            }
        }
    }
    found.sort();
    found
}

/// The Rust files below a folder, without those that hold only tests.
pub fn sources(folder: &str) -> Vec<Source> {
    let rust = files(folder).into_iter().filter(|path| path.ends_with(".rs"));
    let all: Vec<Source> = rust.map(|path| Source::new(&path, &read(&path))).collect();
    let tests: Vec<String> = all.iter().flat_map(files_of_tests).collect();
    all.into_iter().filter(|source| !tests.contains(&source.path) && !source.path.ends_with("_tests.rs")).collect()
}

/// The files in which the test modules of `source` may be: beside it if it is a `mod.rs` or a crate's root, else in the
/// folder that is called like it. (`x_tests.rs` are those with a `#[path]`.)
fn files_of_tests(source: &Source) -> Vec<String> {
    let stem = source.path.trim_end_matches(".rs");
    let beside = stem.rsplit_once('/').map_or("", |(folder, _)| folder);
    let outside = test_modules(&source.text).into_iter().filter(|(_, _, inline)| !inline);
    outside.flat_map(|(_, name, _)| [format!("{beside}/{name}.rs"), format!("{stem}/{name}.rs")]).collect()
}

pub fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn the_tests_of_a_file_do_not_count() {
    let source = Source::new("src/a.rs", "fn a() {} // b\n\n#[cfg(test)]\nmod tests {\n    fn c() {}\n}\n");
    assert_eq!(source.code, [(1, "fn a() {} ".to_owned())]);
    assert_eq!(source.untested(), "fn a() {} // b\n\n");
    let source = Source::new("src/a/mod.rs", "#[cfg(test)]\nmod tests;\n");
    assert_eq!(files_of_tests(&source), ["src/a/tests.rs", "src/a/mod/tests.rs"]);
}
