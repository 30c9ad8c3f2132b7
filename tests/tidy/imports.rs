//! Uses between files: every path in the code, followed to the file that defines the named item.
//!
//! ```text
//! src/a/mod.rs    pub mod b; pub use b::Thing;      uses src/a/b.rs
//! src/a/c.rs      use super::Thing;                 uses src/a/b.rs: there it is defined
//! src/a/c.rs      use super::b; b::work();          uses src/a/b.rs
//! src/d.rs        fn f(x: &crate::a::Kind)          uses src/a/mod.rs, if that defines Kind
//! ```
//!
//! A declaration (`mod b;`) is no use of the module. **Left out**: methods, as only a compiler knows the type of each,
//! and the code that macros make.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::Source;
use crate::tokens::{Token, lex};

/// A path of modules that ends in a module or an item; the first is the crate.
pub type Path = Vec<String>;

/// A file uses an item that another defines.
pub struct Use {
    pub from: String,
    pub line: usize,
    /// The whole path as it was written, before re-exports are followed.
    pub named: Path,
    /// The file in which the item is defined.
    pub to: String,
}

/// The code of a module: its imports and its items.
#[derive(Default)]
struct Module {
    file: String,
    /// The imports of the `use` lines: the path as written, by the name that it has here.
    names: BTreeMap<String, Vec<String>>,
    /// `use a::*`.
    globs: Vec<Vec<String>>,
    /// The items that the module defines.
    items: BTreeSet<String>,
}

/// A path in the code of `module`.
struct Mention {
    module: Path,
    line: usize,
    segments: Vec<String>,
    is_import: bool,
}

/// All uses among these files, in the order of the code; of several on a line that name the same, the first.
pub fn uses(sources: &[Source]) -> Vec<Use> {
    let mut house = House::default();
    for source in sources {
        let path = module_of(&source.path);
        house.modules.insert(path, Module { file: source.path.clone(), ..Module::default() });
    }
    let mentions: Vec<Mention> = sources.iter().flat_map(|source| read(&mut house, source)).collect();
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for Mention { module, line, segments, is_import } in mentions {
        let Some(named) = house.absolute(&module, &segments, 0) else { continue };
        let Some(place) = house.place(&named, 0) else { continue };
        // A module that is brought in by name is used where the name stands.
        if is_import && place.is_module {
            continue;
        }
        let (from, to) = (house.modules[&module].file.clone(), place.file);
        let is_inside = house.modules.contains_key(&named) && from == to;
        if !is_inside && seen.insert((from.clone(), line, named.clone())) {
            found.push(Use { from, line, named, to });
        }
    }
    found
}

/// The path of the module that a file is.
pub fn module_of(file: &str) -> Path {
    let stem = file.trim_end_matches(".rs");
    let stem = stem.strip_suffix("/mod").or_else(|| stem.strip_suffix("/main")).unwrap_or(stem);
    let below = |path: &str| path.split('/').map(str::to_owned).collect::<Path>();
    match stem.strip_prefix("src/") {
        Some("lib") => below("zrs"),
        Some(path) => path.strip_prefix("bin/").map_or_else(|| below(&format!("zrs/{path}")), below),
        None => below(stem),
    }
}

#[derive(Default)]
struct House {
    modules: BTreeMap<Path, Module>,
}

struct Place {
    file: String,
    is_module: bool,
}

/// Longer chains of re-exports are not followed.
const DEEP: usize = 20;

impl House {
    /// A path as written in `module`, from its crate on; `None` if it leads out of this house.
    fn absolute(&self, module: &Path, segments: &[String], depth: usize) -> Option<Path> {
        let (first, rest) = segments.split_first()?;
        let mut path = match first.as_str() {
            "crate" => module[..1].to_vec(),
            "self" => module.clone(),
            "super" => {
                let ups = segments.iter().take_while(|segment| *segment == "super").count();
                let above = module.get(..module.len().checked_sub(ups)?)?.to_vec();
                return Some([&above[..], &segments[ups..]].concat());
            }
            "zrs" => vec!["zrs".to_owned()],
            name => {
                let child = [&module[..], &[name.to_owned()]].concat();
                let written = self.modules.get(module)?.names.get(name);
                match (self.modules.contains_key(&child), written) {
                    (true, _) => child,
                    // `use a::a` brings in what it is made from.
                    (false, Some(path)) if path.first() != Some(first) && depth < DEEP => {
                        self.absolute(module, path, depth + 1)?
                    }
                    _ => return None,
                }
            }
        };
        path.extend(rest.iter().cloned());
        Some(path)
    }

    /// The file that defines what is at `path`.
    fn place(&self, path: &[String], depth: usize) -> Option<Place> {
        let mut at = path[..1].to_vec();
        let mut module = self.modules.get(&at);
        for (n, segment) in path.iter().enumerate().skip(1) {
            let child = [&at[..], std::slice::from_ref(segment)].concat();
            if let Some(found) = self.modules.get(&child) {
                (at, module) = (child, Some(found));
                continue;
            }
            let here = module?;
            let next = (depth < DEEP).then(|| self.brought_in(&at, here, segment)).flatten();
            return match next {
                Some(next) => self.place(&[&next[..], &path[n + 1..]].concat(), depth + 1),
                None => Some(Place { file: here.file.clone(), is_module: false }),
            };
        }
        Some(Place { file: module?.file.clone(), is_module: true })
    }

    /// Where `name` comes from, if `module` only hands it on.
    fn brought_in(&self, at: &Path, module: &Module, name: &str) -> Option<Path> {
        if module.items.contains(name) {
            return None;
        }
        if let Some(written) = module.names.get(name) {
            return self.absolute(at, written, 0);
        }
        module.globs.iter().find_map(|glob| {
            let from = self.absolute(at, glob, 0)?;
            let other = self.modules.get(&from)?;
            let named = [&from[..], &[name.to_owned()]].concat();
            let is_there = other.items.contains(name) || other.names.contains_key(name);
            (is_there || self.modules.contains_key(&named)).then_some(named)
        })
    }
}

/// Reads a file's modules into the house, and gives the paths that its code mentions.
fn read(house: &mut House, source: &Source) -> Vec<Mention> {
    let tokens = lex(source.untested()).tokens;
    let mut reader =
        Reader { house, tokens: &tokens, at: 0, inside: vec![(module_of(&source.path), 0)], mentions: vec![] };
    reader.read(&source.path);
    reader.mentions
}

struct Reader<'r> {
    house: &'r mut House,
    tokens: &'r [Token<'r>],
    at: usize,
    /// The module that is being read, inside the ones around it, with the depth of braces at which each began.
    inside: Vec<(Path, usize)>,
    mentions: Vec<Mention>,
}

const ITEMS: [&str; 9] = ["struct", "enum", "union", "trait", "type", "fn", "const", "static", "macro_rules"];

impl<'r> Reader<'r> {
    fn text(&self, ahead: usize) -> &'r str {
        self.tokens.get(self.at + ahead).map_or("", |token| token.text)
    }

    fn module(&self) -> Path {
        self.inside.last().expect("a file is inside of its module").0.clone()
    }

    fn read(&mut self, file: &str) {
        let mut depth = 0;
        while self.at < self.tokens.len() {
            match self.text(0) {
                "{" => depth += 1,
                "}" => {
                    depth -= 1;
                    if self.inside.last().is_some_and(|(_, began)| *began > 0 && *began > depth) {
                        self.inside.pop();
                    }
                }
                "#" if ["[", "cfg", "(", "test", ")", "]"].iter().enumerate().all(|(n, t)| self.text(n + 1) == *t) => {
                    self.pass_test();
                    continue;
                }
                "pub" if self.text(1) == "(" => {
                    while self.text(0) != ")" && self.at < self.tokens.len() {
                        self.at += 1;
                    }
                }
                "mod" if self.text(2) == "{" => {
                    let module = [self.module(), vec![self.text(1).to_owned()]].concat();
                    self.house.modules.insert(module.clone(), Module { file: file.to_owned(), ..Module::default() });
                    depth += 1;
                    self.inside.push((module, depth));
                    self.at += 3;
                    continue;
                }
                "use" if self.text(1) != "<" => {
                    self.at += 1;
                    self.read_use(&mut Vec::new());
                    continue;
                }
                "::" => {
                    // From the root of all crates: not ours.
                    self.pass_path();
                    continue;
                }
                item if ITEMS.contains(&item) => {
                    let name = if self.text(1) == "!" { self.text(2) } else { self.text(1) }.to_owned();
                    let module = self.module();
                    self.house.modules.entry(module).or_default().items.insert(name);
                }
                _ if self.tokens[self.at].is_word() && self.before() != "." => {
                    self.read_path();
                    continue;
                }
                _ => {}
            }
            self.at += 1;
        }
    }

    fn before(&self) -> &str {
        self.at.checked_sub(1).map_or("", |at| self.tokens[at].text)
    }

    /// Passes over `#[cfg(test)]` and the item after it.
    fn pass_test(&mut self) {
        self.at += 7;
        let mut depth = 0;
        while self.at < self.tokens.len() {
            let text = self.text(0);
            self.at += 1;
            match text {
                "{" | "(" | "[" => depth += 1,
                ")" | "]" => depth -= 1,
                "}" if depth == 1 => return,
                "}" => depth -= 1,
                ";" if depth == 0 => return,
                _ => {}
            }
        }
    }

    fn pass_path(&mut self) {
        while self.text(0) == "::" {
            self.at += 2;
        }
    }

    /// A path of words.
    fn read_path(&mut self) {
        let line = self.tokens[self.at].line;
        let mut segments = vec![self.text(0).to_owned()];
        self.at += 1;
        while self.text(0) == "::" && self.tokens.get(self.at + 1).is_some_and(Token::is_word) {
            segments.push(self.text(1).to_owned());
            self.at += 2;
        }
        if segments.len() > 1 {
            self.mentions.push(Mention { module: self.module(), line, segments, is_import: false });
        }
        // `Vec::<u8>::new`: what comes after is none of the path.
        if self.text(0) == "::" {
            self.at += 1;
        }
    }

    /// Reads the paths after `use`, or in its braces, after `prefix`.
    fn read_use(&mut self, prefix: &mut Vec<String>) {
        let outer = prefix.len();
        let mut name = None;
        while self.at < self.tokens.len() {
            let line = self.tokens[self.at].line;
            let text = self.text(0).to_owned();
            self.at += 1;
            match text.as_str() {
                "::" => {}
                "{" => {
                    self.read_use(prefix);
                    prefix.truncate(outer);
                }
                "as" => {
                    name = Some(self.text(0).to_owned());
                    self.at += 1;
                }
                "*" => {
                    let module = self.module();
                    self.house.modules.entry(module).or_default().globs.push(prefix.clone());
                    prefix.truncate(outer);
                }
                "," | "}" | ";" => {
                    if prefix.len() > outer {
                        self.bring_in(line, prefix, name.take());
                    }
                    prefix.truncate(outer);
                    if text != "," {
                        return;
                    }
                }
                segment => prefix.push(segment.to_owned()),
            }
        }
    }

    fn bring_in(&mut self, line: usize, path: &[String], name: Option<String>) {
        let (last, above) = path.split_last().expect("a path has a segment");
        // `use a::{self}` is `use a`.
        let path = if last == "self" && !above.is_empty() { above } else { path };
        let name = name.or_else(|| path.last().cloned()).unwrap_or_default();
        let module = self.module();
        self.house.modules.entry(module.clone()).or_default().names.insert(name, path.to_vec());
        self.mentions.push(Mention { module, line, segments: path.to_vec(), is_import: true });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        let uses = uses(&sources);
        uses.iter().map(|u| format!("{}:{} {} {}", u.from, u.line, u.named.join("::"), u.to)).collect()
    }

    const FACE: (&str, &str) = ("src/a/mod.rs", "mod b;\npub use b::Thing;\npub enum Kind {}\n");
    const CHILD: (&str, &str) = ("src/a/b.rs", "pub struct Thing;\npub fn work() {}\n");

    #[test]
    fn a_re_export_leads_to_the_file_that_defines() {
        let other = ("src/d.rs", "use crate::a::{self, Thing as It};\nfn f() { a::b::work(); a::Kind }");
        assert_eq!(
            shown(&[FACE, CHILD, other]),
            [
                "src/a/mod.rs:2 zrs::a::b::Thing src/a/b.rs",
                "src/d.rs:1 zrs::a::Thing src/a/b.rs",
                "src/d.rs:2 zrs::a::b::work src/a/b.rs",
                "src/d.rs:2 zrs::a::Kind src/a/mod.rs",
            ]
        );
    }

    #[test]
    fn a_declared_module_is_not_used_and_one_that_is_named_is() {
        assert!(shown(&[("src/a/mod.rs", "mod b;"), CHILD]).is_empty());
        assert_eq!(
            shown(&[("src/a/mod.rs", "mod b;\nfn f() { b::work() }"), CHILD]),
            ["src/a/mod.rs:2 zrs::a::b::work src/a/b.rs"]
        );
        let sibling = ("src/a/c.rs", "use super::b;\n\n\nfn f() { b::work() }");
        assert_eq!(
            shown(&[("src/a/mod.rs", "mod b; mod c;"), CHILD, sibling]),
            ["src/a/c.rs:4 zrs::a::b::work src/a/b.rs"]
        );
    }

    #[test]
    fn children_that_take_from_their_face_use_it() {
        let child = ("src/a/b.rs", "use super::Kind;\npub struct Thing(super::super::e::E);");
        assert_eq!(
            shown(&[FACE, child, ("src/e.rs", "pub struct E;")]),
            [
                "src/a/mod.rs:2 zrs::a::b::Thing src/a/b.rs",
                "src/a/b.rs:1 zrs::a::Kind src/a/mod.rs",
                "src/a/b.rs:2 zrs::e::E src/e.rs",
            ]
        );
    }

    #[test]
    fn globs_other_crates_and_inner_modules_are_followed() {
        let files = [
            ("src/a/mod.rs", "pub mod b; pub use b::*; pub(in crate::a) fn f() {}"),
            CHILD,
            ("src/bin/x.rs", "use zrs::a::Thing;"),
            ("src/e.rs", "mod inner { use super::super::a::Thing; use super::here; }\nfn here() { ::std::a::b() }"),
        ];
        assert_eq!(shown(&files)[0], "src/bin/x.rs:1 zrs::a::Thing src/a/b.rs");
        assert_eq!(shown(&files)[1], "src/e.rs:1 zrs::a::Thing src/a/b.rs");
    }

    #[test]
    fn what_only_tests_use_does_not_count() {
        let text = "#[cfg(test)]\nuse crate::a::Thing;\n#[cfg(test)]\nmod tests {\n    use crate::a::Kind;\n}\n";
        assert!(shown(&[("src/a/mod.rs", "mod b; pub enum Kind {}"), CHILD, ("src/e.rs", text)]).is_empty());
    }
}
