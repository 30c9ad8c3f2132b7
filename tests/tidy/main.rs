//! The house rules that the compiler does not know: who may use whom, where time and chance come from, how long a file
//! gets, and that what operators may set is documented. docs/architecture.md's table of modules and docs/style.md's rules, as tests.
//!
//! These tests read source text. They are simple on purpose: they look at lines without comments, and tests do not count
//! (`#[cfg(test)] mod name { ... }`, which is the last thing in its file, and the files of `#[cfg(test)] mod name;`).

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// A module, and the modules that it may use. What is not listed may use nothing of ours.
const LAYERS: [(&str, &[&str]); 16] = [
    ("zodb", &[]),
    ("command", &["zodb"]),
    ("env", &[]),
    ("config", &[]),
    ("net", &["env", "config"]),
    ("engine", &["env", "config"]),
    ("zeo", &["zodb", "config"]),
    ("storage", &["zodb", "command", "env", "config", "engine"]),
    ("tpc", &["zodb", "command", "config"]),
    ("raft", &["zodb", "command", "env", "config", "net", "engine", "storage"]),
    // (An engine comes in by `Disks`, only to be handed to storage and raft.)
    ("server", &["zodb", "command", "env", "config", "net", "zeo", "storage", "tpc", "raft", "engine"]),
    ("http", &["zodb", "env", "config", "net", "server"]),
    ("client", &["zodb", "env", "config", "net", "zeo"]),
    ("filestorage", &["zodb", "command", "env", "config", "engine", "storage"]),
    ("fuzzing", &["zodb", "command", "config", "net", "zeo", "storage", "raft", "filestorage"]),
    (
        "bin",
        &[
            "zodb",
            "command",
            "env",
            "config",
            "net",
            "engine",
            "zeo",
            "storage",
            "raft",
            "server",
            "http",
            "client",
            "filestorage",
        ],
    ),
];

/// Words that must not stand in `src/`, and why.
const FORBIDDEN: [(&str, &str); 17] = [
    ("tokio::spawn", "tasks begin by Env::spawn, which hands the Env down"),
    ("tokio::task::spawn(", "tasks begin by Env::spawn, which hands the Env down"),
    ("spawn_blocking", "blocking work goes through Env::offload"),
    ("thread::spawn", "there are no threads in simulation: Env::offload"),
    ("tokio::time::sleep", "waiting goes through Env::sleep"),
    ("tokio::time::timeout", "deadlines go through Env::timeout"),
    ("tokio::time::interval", "waiting goes through Env::sleep"),
    ("SystemTime", "the wall clock is Env::wall"),
    ("Instant::now", "the monotonic clock is Env::now"),
    ("rand::", "chance comes from Env::seed"),
    ("sync::watch", "its wake order is drawn by the operating system: env::Watch"),
    ("unbounded_channel", "every channel is bounded"),
    ("mpsc::unbounded", "every channel is bounded"),
    ("futures_util::select", "it shuffles: tokio::select! with biased;"),
    (".unwrap()", "expect states the invariant, or an error is returned"),
    ("todo!", "nothing is half there"),
    ("unimplemented!", "nothing is half there"),
];

/// Where a forbidden word may stand all the same, and why.
const EXCEPTIONS: [(&str, &str, &str); 8] = [
    ("src/env/mod.rs", "tokio::spawn", "the seam itself"),
    ("src/env/mod.rs", "spawn_blocking", "the seam itself"),
    ("src/env/mod.rs", "tokio::time::sleep", "the seam itself"),
    ("src/env/mod.rs", "tokio::time::timeout", "the seam itself"),
    ("src/env/mod.rs", "SystemTime", "the seam itself"),
    ("src/env/mod.rs", "Instant::now", "the seam itself"),
    ("src/env/mod.rs", "rand::", "the seam itself"),
    ("src/raft/runtime.rs", "rand::", "openraft asks for a generator of this crate; it is seeded by Env::seed"),
];

/// Lines of code that a file may have.
const LONG: usize = 600;

struct Source {
    /// Below the clone, with slashes.
    path: String,
    /// Its lines without comments, up to its tests, numbered from 1.
    code: Vec<(usize, String)>,
    text: String,
}

impl Source {
    fn read(root: &Path, file: &Path) -> Source {
        let text = fs::read_to_string(file).unwrap();
        let path = file.strip_prefix(root).unwrap().to_str().unwrap().replace('\\', "/");
        let end = inline_tests(&text).unwrap_or(usize::MAX);
        let code = text
            .lines()
            .enumerate()
            .take(end)
            .map(|(n, line)| (n + 1, uncommented(line)))
            .filter(|(_, line)| !line.trim().is_empty())
            .collect();
        Source { path, code, text }
    }

    /// The module below `src/`, and how many `super::` lead from this file to the crate.
    fn module(&self) -> Option<(String, usize)> {
        let parts: Vec<&str> = self.path.strip_prefix("src/")?.trim_end_matches(".rs").split('/').collect();
        let depth = if parts.last() == Some(&"mod") { parts.len() - 1 } else { parts.len() };
        (parts != ["lib"]).then(|| (parts[0].to_owned(), depth))
    }
}

/// The modules that a file declares for tests only: with the line of their `#[cfg(test)]`, and whether they are inline.
fn test_modules(text: &str) -> Vec<(usize, String, bool)> {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (n, _) in lines.iter().enumerate().filter(|(_, line)| **line == "#[cfg(test)]") {
        let item = lines[n..].iter().find(|line| !line.starts_with('#')).copied().unwrap_or_default();
        let Some((_, rest)) = item.split_once("mod ") else { continue };
        found.push((n, word(rest), rest.ends_with('{')));
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

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    entries.sort();
    for entry in entries {
        if entry.is_dir() {
            files(&entry, found);
        } else if entry.extension().is_some_and(|ending| ending == "rs") {
            found.push(entry);
        }
    }
}

/// Everything in `src/` but the files that hold only tests.
fn sources() -> Vec<Source> {
    let root = root();
    let mut found = Vec::new();
    files(&root.join("src"), &mut found);
    let all: Vec<Source> = found.iter().map(|file| Source::read(&root, file)).collect();
    let mut tests = Vec::new();
    for source in &all {
        // Beside `mod.rs` and `lib.rs`; else in the folder that is called like the file (or `x_tests.rs`, by #[path]).
        let stem = source.path.trim_end_matches(".rs");
        let beside = stem.rsplit_once('/').map_or("", |(folder, _)| folder);
        for (_, module, _) in test_modules(&source.text).into_iter().filter(|(_, _, inline)| !inline) {
            tests.push(format!("{beside}/{module}.rs"));
            tests.push(format!("{stem}/{module}.rs"));
        }
    }
    all.into_iter().filter(|s| !tests.contains(&s.path) && !s.path.ends_with("_tests.rs")).collect()
}

/// The modules that follow `prefix` in the text: `crate::net`, `crate::{net, env::Env}`.
fn modules_after(text: &str, prefix: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (at, _) in text.match_indices(prefix) {
        let before = text[..at].chars().next_back();
        if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
            continue;
        }
        let rest = &text[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, true);
        for (n, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => start = true,
                c if start && depth == 0 && (c.is_alphabetic() || c == '_') => {
                    found.push(word(&group[n..]));
                    start = false;
                }
                _ => {}
            }
        }
    }
    found
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn assert_none(broken: Vec<String>, rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let layers: BTreeMap<&str, &[&str]> = LAYERS.into_iter().collect();
    let mut broken = Vec::new();
    for source in sources() {
        let Some((module, depth)) = source.module() else { continue };
        let Some(allowed) = layers.get(module.as_str()) else {
            broken.push(format!("{}: the module {module} is not in the table of layers", source.path));
            continue;
        };
        let text = source.code.iter().map(|(_, line)| line.as_str()).collect::<Vec<_>>().join("\n");
        let mut used = modules_after(&text, "crate::");
        used.extend(modules_after(&text, &"super::".repeat(depth)));
        if module == "bin" {
            used.extend(modules_after(&text, "zrs::"));
        }
        for other in used {
            if layers.contains_key(other.as_str()) && other != module && !allowed.contains(&other.as_str()) {
                broken.push(format!("{}: {module} may not use {other}", source.path));
            }
        }
    }
    broken.dedup();
    assert_none(broken, "the direction of the layers (docs/architecture.md, 'Modules')");
}

#[test]
fn the_table_of_layers_has_no_circle() {
    // Each may only use what stands before it.
    let order: Vec<&str> = LAYERS.iter().map(|(module, _)| *module).collect();
    for (n, (module, allowed)) in LAYERS.iter().enumerate() {
        for other in *allowed {
            assert!(order[..n].contains(other), "{module} uses {other}, which stands below it in the table");
        }
    }
}

#[test]
fn only_raft_names_openraft() {
    let broken = sources()
        .iter()
        .filter(|source| !source.path.starts_with("src/raft/"))
        .flat_map(|source| source.code.iter().map(move |(n, line)| (source, n, line)))
        .filter(|(_, _, line)| line.contains("openraft"))
        .map(|(source, n, _)| format!("{}:{n}", source.path))
        .collect();
    assert_none(broken, "openraft may be replaced by changing one module");
}

#[test]
fn time_chance_threads_and_queues_come_from_where_they_must() {
    let mut broken = Vec::new();
    let mut needed = vec![false; EXCEPTIONS.len()];
    for source in sources() {
        for (n, line) in &source.code {
            for (text, why) in FORBIDDEN.iter().filter(|(text, _)| stands_in(line, text)) {
                match EXCEPTIONS.iter().position(|(path, what, _)| *path == source.path && what == text) {
                    Some(exception) => needed[exception] = true,
                    None => broken.push(format!("{}:{n}: {text} ({why})", source.path)),
                }
            }
        }
    }
    for ((path, text, _), needed) in EXCEPTIONS.iter().zip(needed) {
        if !needed && root().join(path).exists() {
            broken.push(format!("{path}: the exception for {text} is no longer needed; take it out of tests/tidy.rs"));
        }
    }
    assert_none(broken, "words that must not stand there");
}

fn stands_in(line: &str, text: &str) -> bool {
    line.match_indices(text).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        text.starts_with('.') || !before.is_some_and(|c| c.is_alphanumeric() || c == '_')
    })
}

#[test]
fn every_select_is_biased() {
    let mut broken = Vec::new();
    for source in sources() {
        let text: String = source.code.iter().map(|(_, line)| line.trim()).collect::<Vec<_>>().join(" ");
        for (at, _) in text.match_indices("select! {") {
            if !text[at + "select! {".len()..].trim_start().starts_with("biased;") {
                let shown: String = text[at..].chars().take(60).collect();
                broken.push(format!("{}: {shown}", source.path));
            }
        }
    }
    assert_none(broken, "an unbiased select! asks the operating system for chance");
}

#[test]
fn only_programs_print() {
    let broken = sources()
        .iter()
        .filter(|source| !source.path.starts_with("src/bin/"))
        .flat_map(|source| source.code.iter().map(move |(n, line)| (source, n, line)))
        .filter(|(_, _, line)| {
            ["println!", "print!", "eprintln!", "eprint!", "dbg!"].iter().any(|p| stands_in(line, p))
        })
        .map(|(source, n, _)| format!("{}:{n}", source.path))
        .collect();
    assert_none(broken, "the library logs by tracing");
}

#[test]
fn files_are_short() {
    let broken = sources()
        .iter()
        .map(|source| (source, source.code.last().map_or(0, |(n, _)| *n)))
        .filter(|(_, lines)| *lines > LONG)
        .map(|(source, lines)| format!("{}: {lines} lines without its tests", source.path))
        .collect();
    assert_none(broken, &format!("a file wants 400 lines and splits before {LONG}"));
}

#[test]
fn every_limit_is_used() {
    let limits = fs::read_to_string(root().join("src/config/limits.rs")).unwrap();
    let all: String = sources().iter().filter(|s| !s.path.ends_with("/limits.rs")).map(|s| s.text.as_str()).collect();
    let names = limits.lines().filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0));
    let broken = names.filter(|name| !all.contains(&format!("limits::{name}"))).map(str::to_owned).collect();
    assert_none(broken, "a limit that nothing heeds");
}

#[test]
fn every_file_says_what_it_is() {
    let broken = sources().iter().filter(|s| !s.text.starts_with("//!")).map(|s| s.path.clone()).collect();
    assert_none(broken, "a file begins with what it is and why");
}

#[test]
fn every_flag_is_documented() {
    let read = |name: &str| fs::read_to_string(root().join(name)).unwrap_or_else(|why| panic!("{name}: {why}"));
    let (operations, sample) = (read("docs/operations.md"), read("etc/zrsd.toml"));
    let mut broken = Vec::new();
    for flag in zrs::config::command().get_arguments().filter_map(|flag| flag.get_long()) {
        if !operations.contains(&format!("`--{flag}")) {
            broken.push(format!("docs/operations.md has no `--{flag}`"));
        }
        let in_file = !["config", "help", "version"].contains(&flag);
        let named = |line: &str| line.trim_start_matches("# ").split('=').next().map(str::trim) == Some(flag);
        if in_file && !sample.lines().any(named) {
            broken.push(format!("etc/zrsd.toml has no {flag} = ..."));
        }
    }
    assert_none(broken, "what operators may set is documented");
}

#[test]
fn the_sample_file_is_right_and_says_the_defaults() {
    let sample = fs::read_to_string(root().join("etc/zrsd.toml")).unwrap();
    let all_set: String = sample
        .lines()
        .map(|line| line.strip_prefix("# ").filter(|line| line.contains(" = ")).unwrap_or(line))
        .filter(|line| !line.starts_with('#') && !line.starts_with("secret-file"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for text in [&sample, &all_set] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        std::io::Write::write_all(&mut file, text.as_bytes()).unwrap();
        let parsed = zrs::config::command_line(["zrsd".as_ref(), "--config".as_ref(), file.path().as_os_str()]);
        assert!(matches!(parsed, zrs::config::Parsed::Run(_)), "{parsed:?}\n{text}");
    }
}

#[cfg(test)]
mod of_the_tests_themselves {
    use super::*;

    #[test]
    fn modules_are_found() {
        let text = "use crate::{config::{Config, limits}, net::Wire, env::Env};\n crate::zeo::decode(mycrate::raft)";
        assert_eq!(modules_after(text, "crate::"), ["config", "net", "env", "zeo"]);
        assert_eq!(modules_after("use super::super::tpc::X;", "super::super::"), ["tpc"]);
        assert!(modules_after("use super::super::tpc::X;", "super::").iter().all(|found| found != "tpc"));
    }

    #[test]
    fn words_are_whole() {
        assert!(stands_in("    rand::random()", "rand::"));
        assert!(!stands_in("    brand::new()", "rand::"));
        assert!(stands_in("x.unwrap()", ".unwrap()"));
    }
}
