//! Links of the documents lead to things that exist: other pages, their anchors, and the files that the text names.
//!
//! **Left out**: links to other hosts, and names with a placeholder (`zeo-VERSION.txt`, `*.rs`).

use std::collections::BTreeMap;

use crate::source::{assert_none, files, read};

/// Folders of the clone: a text in backticks that begins like this is a path from the root.
const FOLDERS: [&str; 8] = ["src/", "sim/", "tests/", "docs/", "etc/", "bench/", "examples/", "fuzz/"];
/// Endings of names that are files of ours, in any folder.
const ENDINGS: [&str; 3] = [".rs", ".py", ".md"];
/// Paths that exist once the reader has followed the documents.
const MADE: [&str; 1] = ["tests/python/venv"];

#[test]
fn documents_point_to_what_exists() {
    let all = files("");
    let documents: BTreeMap<String, String> =
        all.iter().filter(|path| path.ends_with(".md")).map(|path| (path.clone(), read(path))).collect();
    assert_none(dead(&documents, &all), "documents point to what is not there");
}

/// The links of the documents, by path, that lead to nothing among `files`.
fn dead(documents: &BTreeMap<String, String>, files: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for (path, text) in documents {
        let mut is_code = false;
        for (n, line) in text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                is_code = !is_code;
                continue;
            }
            let links = if is_code { Vec::new() } else { links(line) };
            let dead_links = links.into_iter().filter(|link| !leads_on(documents, files, path, link));
            let named = if is_code { Vec::new() } else { quoted(line) };
            // Source files are known by their ending in drawings, too.
            let drawn = words(line).filter(|word| is_code && word.ends_with(".rs")).map(str::to_owned);
            let missing = named.into_iter().chain(drawn).filter(|name| !is_there(files, path, name));
            found.extend(dead_links.chain(missing).map(|what| format!("{path}:{}: {what}", n + 1)));
        }
    }
    found
}

/// The targets of `[text](target)` in a line.
fn links(line: &str) -> Vec<String> {
    let starts = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    starts.filter_map(|rest| Some(rest.split_once(')')?.0.to_owned())).collect()
}

/// The texts in backticks in a line.
fn quoted(line: &str) -> Vec<String> {
    line.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn words(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !(c.is_alphanumeric() || "_-./".contains(c)))
}

fn leads_on(documents: &BTreeMap<String, String>, files: &[String], from: &str, link: &str) -> bool {
    if link.contains("://") || link.starts_with("mailto:") {
        return true;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = if file.is_empty() { from.to_owned() } else { beside(from, file) };
    let is_folder = files.iter().any(|known| known.starts_with(&format!("{}/", target.trim_end_matches('/'))));
    if !files.contains(&target) && !is_folder {
        return false;
    }
    anchor.is_empty() || documents.get(&target).is_some_and(|text| anchors(text).iter().any(|known| known == anchor))
}

/// A path as written in the file `from`, from the clone on.
fn beside(from: &str, path: &str) -> String {
    let mut parts: Vec<&str> = from.split('/').collect();
    parts.pop();
    for part in path.split('/').filter(|part| *part != ".") {
        match part {
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The anchors of a document's headings, as GitHub makes them.
fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    let mut is_code = false;
    for line in text.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let heading = line.trim_start_matches('#');
        if is_code || heading.len() == line.len() || !heading.starts_with(' ') {
            continue;
        }
        let kept = |c: &char| c.is_alphanumeric() || " -_".contains(*c);
        let slug: String = heading.trim().to_lowercase().chars().filter(kept).collect::<String>().replace(' ', "-");
        let before = found.iter().filter(|known| **known == slug).count();
        found.push(if before == 0 { slug } else { format!("{slug}-{before}") });
    }
    found
}

/// Whether a text in backticks is no path of ours, or one that exists: from the clone or the document on, or the end of
/// a longer one.
fn is_there(files: &[String], from: &str, name: &str) -> bool {
    let is_path = name.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c)) && !name.starts_with('/');
    let is_ours = FOLDERS.iter().any(|folder| name.starts_with(folder))
        || ENDINGS.iter().any(|ending| name.strip_suffix(ending).is_some_and(|stem| !stem.is_empty()));
    let is_placeholder = |part: &str| part.len() > 1 && part.chars().all(|c| c.is_ascii_uppercase());
    let is_pattern = !name.ends_with(".md") && name.split(['/', '-', '.']).any(is_placeholder);
    if !is_path || !is_ours || is_pattern || MADE.contains(&name) {
        return true;
    }
    let name = name.trim_end_matches('/');
    let (end, folder) = (format!("/{name}"), format!("{name}/"));
    let there = beside(from, name);
    files.iter().any(|file| file == name || file.ends_with(&end) || *file == there || file.starts_with(&folder))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        let other = "# One\n## A `b` c: d!\n## One\n```sh\n# no heading\n```\n";
        let documents = [("docs/a.md", text), ("README.md", other)];
        let documents = documents.map(|(path, text)| (path.to_owned(), text.to_owned())).into();
        let files = ["README.md", "docs/a.md", "src/x/y.rs", "src/x/mod.rs", "etc/z.toml", "tests/w/run.py"];
        dead(&documents, &files.map(str::to_owned)).iter().map(|told| told.replace("docs/a.md:", "")).collect()
    }

    #[test]
    fn what_is_there_is_found() {
        let text = "## Here\n[a](../README.md) [b](../README.md#a-b-c-d) [c](#here) [d](../src/x) [e](https://a.b/c#d)\n\
                    [f](../README.md#one-1) `src/x/` `x/y.rs` `y.rs` `etc/z.toml` `w/run.py` `tests/w/v-VERSION.txt` \
                    `/etc/b.py` `a::b.rs` `../README.md` `store/`\n```text\n(y.rs) [g](h)\n```\n";
        assert!(found(text).is_empty(), "{:?}", found(text));
    }

    #[test]
    fn what_is_not_there_is_told() {
        let text = "[a](b.md) [c](../README.md#no-heading)\n[d](#there) `src/v/`\n`x/z.rs` `run2.py` `etc/y.toml`\n```\n(q.rs)\n```\n";
        assert_eq!(
            found(text),
            [
                "1: b.md",
                "1: ../README.md#no-heading",
                "2: #there",
                "2: src/v/",
                "3: x/z.rs",
                "3: run2.py",
                "3: etc/y.toml",
                "5: q.rs"
            ]
        );
    }
}
