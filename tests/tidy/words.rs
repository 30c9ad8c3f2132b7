//! Words that must not stand in `src/`: where time, chance, threads and queues come from, and who prints.

use crate::source::{assert_none, root, sources};

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

#[test]
fn only_raft_names_openraft() {
    let broken = sources("src")
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
    for source in sources("src") {
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
            broken.push(format!(
                "{path}: the exception for {text} is no longer needed; take it out of tests/tidy/words.rs"
            ));
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
    for source in sources("src") {
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
    let broken = sources("src")
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
fn words_are_whole() {
    assert!(stands_in("    rand::random()", "rand::"));
    assert!(!stands_in("    brand::new()", "rand::"));
    assert!(stands_in("x.unwrap()", ".unwrap()"));
}
