//! The shape of a file: how long it is and how wide its comments are, how it begins, and where a module's face is.

use crate::source::{Source, assert_none, files, read, sources};
use crate::tokens::lex;
use crate::unfinished::{Breach, judge};

/// Lines of code that a file may have.
const LONG: usize = 600;
/// Columns that a comment may have.
const WIDE: usize = 120;

#[test]
fn files_are_short() {
    let broken = sources("src")
        .iter()
        .map(|source| (source, length(source)))
        .filter(|(_, lines)| *lines > LONG)
        .map(|(source, lines)| format!("{}: {lines} lines without its tests", source.path))
        .collect();
    assert_none(broken, &format!("a file wants 400 lines and splits before {LONG}"));
}

fn length(source: &Source) -> usize {
    source.code.last().map_or(0, |(n, _)| *n)
}

#[test]
fn every_file_says_what_it_is() {
    let broken = sources("src").iter().filter(|s| !s.text.starts_with("//!")).map(|s| s.path.clone()).collect();
    assert_none(broken, "a file begins with what it is and why");
}

#[test]
fn comments_are_narrow() {
    let rust = ["src", "sim", "tests"].into_iter().flat_map(files).filter(|path| path.ends_with(".rs"));
    let python = files("").into_iter().filter(|path| path.ends_with(".py"));
    let breaches = rust.chain(python).flat_map(|path| {
        let text = read(&path);
        let wide = if path.ends_with(".rs") { wide_in_rust(&text) } else { wide_in_python(&text) };
        wide.into_iter().map(|n| Breach::of(&path, format!("{path}:{n}"))).collect::<Vec<_>>()
    });
    assert_none(judge("comments", breaches.collect()), &format!("a comment ends within {WIDE} columns"));
}

fn is_wide(line: &str) -> bool {
    line.chars().count() > WIDE
}

/// The numbers of the lines with a comment that are too wide.
fn wide_in_rust(text: &str) -> Vec<usize> {
    let commented = lex(text).commented;
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line));
    lines.filter(|(n, line)| is_wide(line) && commented.contains(n)).map(|(n, _)| n).collect()
}

/// The same, for comments and docstrings. (A `#` in a string counts, too: fine for what is looked for here.)
fn wide_in_python(text: &str) -> Vec<usize> {
    const QUOTES: &str = "\"\"\"";
    let (mut found, mut is_inside) = (Vec::new(), false);
    for (n, line) in text.lines().enumerate() {
        let is_comment = is_inside || line.contains('#') || line.trim_start().starts_with(QUOTES);
        if is_comment && is_wide(line) {
            found.push(n + 1);
        }
        is_inside ^= line.matches(QUOTES).count() % 2 == 1;
    }
    found
}

#[test]
fn a_module_with_a_folder_is_its_mod_rs() {
    let all: Vec<String> = ["src", "sim"].into_iter().flat_map(files).collect();
    let breaches = two_faces(&all).into_iter().map(|path| Breach::of(path, path.to_owned())).collect();
    assert_none(judge("faces", breaches), "the face of a folder x/ is x/mod.rs (x/main.rs for a program), not x.rs");
}

/// The `x.rs` with a folder `x/` beside it that has code.
fn two_faces(files: &[String]) -> Vec<&str> {
    let has_folder = |path: &&String| {
        let folder = path.strip_suffix(".rs").map(|stem| format!("{stem}/"));
        folder.is_some_and(|folder| files.iter().any(|file| file.starts_with(&folder) && file.ends_with(".rs")))
    };
    files.iter().filter(has_folder).map(String::as_str).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wide_comments_are_found() {
        let (narrow, wide) = ("é".repeat(WIDE - 3), "x".repeat(WIDE - 2));
        assert_eq!(
            wide_in_rust(&format!("// {narrow}\n// {wide}\nlet a = \"// {wide}\";\n/* a\n{wide}xxx */")),
            [2, 5]
        );
        let python = format!("# {wide}x\nf('{wide}')\n\"\"\"a\n{wide}xxx\n\"\"\"\nf('{wide}')\n");
        assert_eq!(wide_in_python(&python), [1, 4]);
    }

    #[test]
    fn a_face_beside_its_folder_is_found() {
        let files = ["src/a.rs", "src/a/b.rs", "src/c/mod.rs", "src/d.rs", "src/d/e.txt", "src/f.rs"];
        assert_eq!(two_faces(&files.map(str::to_owned)), ["src/a.rs"]);
    }

    #[test]
    fn a_file_is_as_long_as_its_code() {
        let source = Source::new("src/a.rs", "fn a() {}\n\n// b\n\n#[cfg(test)]\nmod tests {\n}\n");
        assert_eq!(length(&source), 1);
    }
}
