//! No circle of files: what a file uses lies below it, so that a house can be read from its cellar up.

use std::collections::{BTreeMap, BTreeSet};

use crate::imports::{Use, uses};
use crate::source::{assert_none, sources};
use crate::unfinished::{Breach, judge};

#[test]
fn no_circle_of_files() {
    let mut breaches = Vec::new();
    for folder in ["src", "sim"] {
        breaches.extend(circles(&uses(&sources(folder))));
    }
    assert_none(judge("circles", breaches), "files that use each other in a circle, and the lines that tie them");
}

/// Every set of files of which each uses, by way of others or not, all the others.
fn circles(uses: &[Use]) -> Vec<Breach> {
    let mut below: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for Use { from, to, .. } in uses.iter().filter(|u| u.from != u.to) {
        below.entry(from).or_default().insert(to);
    }
    let reached: BTreeMap<&str, BTreeSet<&str>> = below.keys().map(|file| (*file, reach(file, &below))).collect();
    let mut circles = BTreeSet::new();
    for (file, others) in reached.iter().filter(|(file, others)| others.contains(*file)) {
        let is_tied = |other: &&&str| reached.get(**other).is_some_and(|back| back.contains(file));
        circles.insert(others.iter().filter(is_tied).copied().collect::<BTreeSet<&str>>());
    }
    circles.into_iter().map(|circle| told(&circle, uses)).collect()
}

/// All files that can be come to from `file`.
fn reach<'u>(file: &'u str, below: &BTreeMap<&'u str, BTreeSet<&'u str>>) -> BTreeSet<&'u str> {
    let (mut found, mut next) = (BTreeSet::new(), vec![file]);
    while let Some(file) = next.pop() {
        next.extend(below.get(file).into_iter().flatten().filter(|other| found.insert(**other)));
    }
    found
}

fn told(circle: &BTreeSet<&str>, uses: &[Use]) -> Breach {
    let mut told = format!("a circle of {} files", circle.len());
    let mut seen = BTreeSet::new();
    for Use { from, line, named, to } in uses.iter().filter(|u| u.from != u.to) {
        let is_tie = circle.contains(from.as_str()) && circle.contains(to.as_str());
        if is_tie && seen.insert((from, to, named)) {
            told.push_str(&format!("\n    {from}:{line} -> {to}: {}", named.last().map_or("", String::as_str)));
        }
    }
    Breach { paths: circle.iter().map(|file| (*file).to_owned()).collect(), told }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        circles(&uses(&sources)).into_iter().map(|circle| circle.told).collect()
    }

    #[test]
    fn a_circle_is_told_with_the_lines_that_tie_it() {
        let files = [
            ("src/a.rs", "use crate::b::B;\npub struct A;"),
            ("src/b.rs", "\nuse crate::c::C;\npub struct B;"),
            ("src/c.rs", "pub struct C(crate::a::A);"),
            ("src/d.rs", "use crate::a::A;"),
        ];
        let told = [
            "a circle of 3 files",
            "    src/a.rs:1 -> src/b.rs: B",
            "    src/b.rs:2 -> src/c.rs: C",
            "    src/c.rs:1 -> src/a.rs: A",
        ];
        assert_eq!(found(&files), [told.join("\n")]);
        assert!(found(&files[1..]).is_empty());
    }

    #[test]
    fn a_face_that_hands_on_its_child_lies_above_it() {
        let face = ("src/a/mod.rs", "mod b;\npub use b::B;\npub struct A;");
        assert!(found(&[face, ("src/a/b.rs", "pub struct B;")]).is_empty());
        assert_eq!(found(&[face, ("src/a/b.rs", "use super::A;\npub struct B;")]).len(), 1);
        let only_declares = ("src/a/mod.rs", "mod b;\npub struct A;");
        assert!(found(&[only_declares, ("src/a/b.rs", "use super::A;\npub struct B;")]).is_empty());
    }
}
