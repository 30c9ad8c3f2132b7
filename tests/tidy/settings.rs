//! Settings are documented, and every limit is heeded.

use std::fs;

use crate::source::{assert_none, read, root, sources};

#[test]
fn every_limit_is_used() {
    let limits = read("src/config/limits.rs");
    let all: String =
        sources("src").iter().filter(|s| !s.path.ends_with("/limits.rs")).map(|s| s.text.as_str()).collect();
    let names = limits.lines().filter_map(|line| Some(line.strip_prefix("pub const ")?.split_once(':')?.0));
    let broken = names.filter(|name| !all.contains(&format!("limits::{name}"))).map(str::to_owned).collect();
    assert_none(broken, "a limit that nothing heeds");
}

#[test]
fn every_flag_is_documented() {
    let (operations, sample) = (read("docs/operations.md"), read("etc/zrsd.toml"));
    let mut broken = Vec::new();
    let shown = |flag: &&clap::Arg| !flag.is_hide_set();
    for flag in zrs::config::command().get_arguments().filter(shown).filter_map(|flag| flag.get_long()) {
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
