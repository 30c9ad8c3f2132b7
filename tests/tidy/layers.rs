//! The layers: which module may use which, and the rooms inside of some modules.

use std::collections::BTreeMap;

use crate::imports::{Use, module_of, uses};
use crate::source::{assert_none, sources};
use crate::unfinished::{Breach, judge};

/// A module, and the modules that it may use. A module that is not listed may use nothing of ours.
const LAYERS: [(&str, &[&str]); 18] = [
    ("zodb", &[]),
    ("roster", &[]),
    ("command", &["zodb", "roster"]),
    ("env", &[]),
    ("config", &[]),
    ("net", &["env", "config"]),
    ("engine", &["env", "config"]),
    ("journal", &["config"]),
    ("zeo", &["zodb", "config"]),
    ("storage", &["zodb", "roster", "command", "env", "config", "engine"]),
    ("tpc", &["zodb", "command", "config"]),
    ("raft", &["zodb", "roster", "command", "env", "config", "net", "engine", "journal", "storage"]),
    // (Engine and journal come in by `Disks`, only to be handed to storage and raft.)
    ("server", &["zodb", "command", "env", "config", "net", "zeo", "storage", "tpc", "raft", "engine", "journal"]),
    ("http", &["zodb", "env", "config", "net", "server"]),
    ("client", &["zodb", "env", "config", "net", "zeo"]),
    ("filestorage", &["zodb", "command", "env", "config", "engine", "storage"]),
    ("fuzzing", &["zodb", "command", "config", "net", "zeo", "storage", "raft", "filestorage"]),
    (
        "bin",
        &[
            "zodb",
            "roster",
            "command",
            "env",
            "config",
            "net",
            "engine",
            "journal",
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

/// A module's rooms, from the lowest up: files, folders and folders in folders, each with the rooms that it may use.
/// A file belongs to the longest name that fits; `mod` is the module's face.
struct House {
    module: &'static str,
    rooms: &'static [(&'static str, &'static [&'static str])],
}

/// The modules whose rooms have directions of their own.
const HOUSES: [House; 3] = [RAFT, STORAGE, SERVER];

const RAFT: House = House {
    module: "raft",
    rooms: &[
        ("runtime", &[]),
        ("types", &["runtime"]),
        ("members", &["types"]),
        ("errand", &["members"]),
        ("stamp", &["types"]),
        ("base", &["stamp"]),
        ("past", &["types"]),
        ("wire", &["types", "stamp", "base", "errand"]),
        ("hello", &["types", "stamp", "past", "wire"]),
        ("obituary", &["types", "stamp", "hello", "wire"]),
        ("fitness", &["wire"]),
        ("heard", &["types"]),
        ("tail", &["types"]),
        ("edits", &["types", "tail"]),
        ("log", &["types", "tail", "edits"]),
        ("memory", &["types", "past", "log"]),
        ("machine", &["types", "log"]),
        ("addresses", &["types"]),
        ("link", &["types", "stamp", "past", "hello", "wire", "memory", "addresses"]),
        ("lease", &["types", "machine"]),
        ("pace", &[]),
        ("checkpoints", &["types", "wire", "log", "pace"]),
        ("comparison", &[]),
        ("fetch", &["types", "wire", "link", "checkpoints"]),
        ("formation", &["types", "stamp", "base", "hello", "wire", "log", "link"]),
        ("admission", &["types", "stamp", "wire", "log", "formation"]),
        ("telling", &["types", "stamp", "hello", "wire", "link", "fetch"]),
        ("catch_up", &["types", "stamp", "hello", "wire", "log", "link", "pace", "fetch", "telling", "admission"]),
        ("pipeline", &["types"]),
        (
            "peers",
            &[
                "types", "stamp", "errand", "wire", "fitness", "heard", "log", "memory", "machine", "lease", "link",
                "catch_up", "pipeline",
            ],
        ),
        ("origin", &["log", "memory", "formation"]),
        ("offline", &["types", "stamp", "base", "edits", "log", "memory", "formation", "origin"]),
        (
            "node",
            &[
                "types",
                "stamp",
                "base",
                "errand",
                "hello",
                "obituary",
                "wire",
                "fitness",
                "heard",
                "log",
                "memory",
                "machine",
                "lease",
                "addresses",
                "link",
                "peers",
                "checkpoints",
                "fetch",
                "catch_up",
                "formation",
                "origin",
                "members",
                "admission",
                "past",
                "comparison",
            ],
        ),
        ("mod", &["errand", "members", "hello", "obituary", "wire", "log", "link", "node"]),
    ],
};

const STORAGE: House = House {
    module: "storage",
    rooms: &[
        ("answered", &[]),
        ("keys", &[]),
        ("position", &[]),
        ("feed", &[]),
        ("stop", &[]),
        ("value", &["keys", "position"]),
        ("digest", &["value"]),
        ("summary", &["digest", "value"]),
        ("marks", &["summary"]),
        ("decision", &["feed", "summary"]),
        ("hot", &["keys", "value"]),
        ("store", &["feed", "hot", "keys", "marks", "position", "summary", "value"]),
        ("base", &["keys", "position", "store", "value"]),
        ("checkpoint", &["keys", "position", "store", "value"]),
        ("put", &["keys", "summary", "value"]),
        ("load", &["answered", "digest", "hot", "keys", "store", "value"]),
        ("history", &["answered", "feed", "keys", "load", "stop", "store", "value"]),
        ("walk", &["history", "keys", "store", "value"]),
        ("inspect", &["history", "keys", "store", "value", "walk"]),
        ("undo", &["answered", "digest", "keys", "load", "stop", "store", "value"]),
        ("pieces", &["decision", "digest", "keys", "put", "store", "value"]),
        ("pack", &["decision", "digest", "keys", "put", "store", "summary", "value"]),
        ("verify", &["digest", "keys", "store", "summary", "value"]),
        (
            "apply",
            &[
                "decision", "digest", "feed", "hot", "keys", "marks", "position", "put", "store", "summary", "value",
                "base", "undo", "pieces", "pack",
            ],
        ),
        (
            "mod",
            &[
                "answered",
                "digest",
                "feed",
                "history",
                "hot",
                "inspect",
                "keys",
                "load",
                "marks",
                "position",
                "stop",
                "store",
                "summary",
                "undo",
                "value",
                "verify",
                "walk",
                "apply",
                "pack",
                "pieces",
                "base",
                "checkpoint",
            ],
        ),
    ],
};

const SERVER: House = House {
    module: "server",
    rooms: &[
        ("counts", &[]),
        ("bounds", &["counts"]),
        ("primary", &["counts", "bounds"]),
        ("standing", &["primary"]),
        ("shared", &["counts", "bounds", "standing"]),
        ("client", &["shared"]),
        ("status", &["counts", "standing", "shared"]),
        ("pack", &["counts", "primary", "standing", "shared"]),
        ("session/view", &[]),
        ("session/commit/undos", &[]),
        ("session/desk", &["counts", "primary", "shared", "client", "session/view", "session/commit/undos"]),
        ("session/commit", &["counts", "bounds", "primary", "shared", "session/desk", "session/commit/undos"]),
        (
            "session",
            &[
                "counts",
                "primary",
                "shared",
                "client",
                "status",
                "pack",
                "session/desk",
                "session/view",
                "session/commit",
            ],
        ),
        // (Its register makes the seat.)
        ("door", &["counts", "bounds", "primary", "standing", "shared", "client", "status", "session/desk", "session"]),
        ("follow", &["primary", "standing", "shared", "pack"]),
        ("hand_over", &["primary", "standing", "shared"]),
        ("errands", &["primary", "standing", "shared", "hand_over"]),
        (
            "mod",
            &[
                "counts",
                "bounds",
                "primary",
                "standing",
                "shared",
                "client",
                "status",
                "door",
                "follow",
                "hand_over",
                "errands",
            ],
        ),
    ],
};

#[test]
fn modules_use_only_what_lies_below_them() {
    let broken = wrong_ways(&LAYERS, &uses(&sources("src")));
    assert_none(broken, "the direction of the layers (docs/architecture.md, 'Modules')");
}

/// The uses of modules that the table does not allow.
fn wrong_ways(table: &[(&str, &[&str])], uses: &[Use]) -> Vec<String> {
    let layers: BTreeMap<&str, &[&str]> = table.iter().copied().collect();
    let mut broken = Vec::new();
    for Use { from, line, named, .. } in uses.iter().filter(|u| u.named[0] == "zrs") {
        let here = module_of(from);
        let module = if here[0] == "zrs" { here.get(1).map_or("lib", String::as_str) } else { "bin" };
        let other = named.get(1).map_or("", String::as_str);
        match layers.get(module) {
            None => broken.push(format!("{from}: the module {module} is not in the table of layers")),
            Some(allowed) if layers.contains_key(other) && other != module && !allowed.contains(&other) => {
                broken.push(format!("{from}:{line}: {module} may not use {other}"));
            }
            Some(_) => {}
        }
    }
    broken.dedup();
    broken
}

#[test]
fn every_module_is_in_the_table_of_layers() {
    let modules = sources("src").into_iter().map(|source| module_of(&source.path));
    let broken = modules.filter(|path| path[0] == "zrs").filter_map(|path| path.get(1).cloned());
    let broken = broken.filter(|module| LAYERS.iter().all(|(name, _)| name != module)).collect();
    assert_none(broken, "a module that is not in the table of layers");
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
fn rooms_use_only_what_lies_below_them() {
    let uses = uses(&sources("src"));
    let breaches = HOUSES.iter().flat_map(|house| wrong_doors(house, &uses)).collect();
    assert_none(
        judge("rooms", breaches),
        "the direction of the rooms of a module (the tables in tests/tidy/layers.rs)",
    );
}

#[test]
fn the_tables_of_rooms_have_no_circle() {
    for House { module, rooms } in HOUSES {
        for (n, (room, allowed)) in rooms.iter().enumerate() {
            for other in *allowed {
                let is_below = rooms[..n].iter().any(|(below, _)| below == other);
                assert!(is_below, "{module}/{room} uses {other}, which does not stand above it in the table");
            }
        }
    }
}

impl House {
    /// The room of a file, if it is in this house.
    fn room(&self, file: &str) -> Option<Result<&'static str, String>> {
        let below = file.strip_prefix("src/")?.strip_prefix(self.module)?.strip_prefix('/')?.trim_end_matches(".rs");
        let fits = |room: &str| below == room || below.strip_prefix(room).is_some_and(|rest| rest.starts_with('/'));
        let rooms = self.rooms.iter().map(|(room, _)| *room).filter(|room| fits(room));
        Some(rooms.max_by_key(|room| room.len()).ok_or_else(|| below.to_owned()))
    }
}

/// The uses of rooms that the table of their house does not allow, and the files that are in no room.
fn wrong_doors(house: &House, uses: &[Use]) -> Vec<Breach> {
    let rooms: BTreeMap<&str, &[&str]> = house.rooms.iter().copied().collect();
    let mut found = BTreeMap::new();
    for Use { from, line, to, .. } in uses {
        let (Some(here), Some(there)) = (house.room(from), house.room(to)) else { continue };
        let told = match (here, there) {
            (Ok(room), Ok(other)) if room == other || rooms[room].contains(&other) => continue,
            (Ok(room), Ok(other)) => format!("{from}:{line}: {room} may not use {other} ({to})"),
            (Err(room), _) => format!("{from}: {room} is in no room of {}", house.module),
            (_, Err(room)) => format!("{to}: {room} is in no room of {}", house.module),
        };
        found.entry((from, to)).or_insert_with(|| Breach { paths: vec![from.clone()], told });
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::Source;

    fn used(files: &[(&str, &str)]) -> Vec<Use> {
        uses(&files.iter().map(|(path, text)| Source::new(path, text)).collect::<Vec<_>>())
    }

    #[test]
    fn a_module_that_looks_up_is_told() {
        let files = [
            ("src/zodb/mod.rs", "pub struct Oid;"),
            ("src/tpc/mod.rs", "use crate::zodb::Oid;"),
            ("src/zodb/ids.rs", "\nuse crate::{tpc::{self}, zodb::Oid}; use tpc::X;"),
            ("src/other.rs", "use crate::zodb::Oid;"),
            ("src/bin/x.rs", "use zrs::tpc::X;"),
        ];
        let table: [(&str, &[&str]); 3] = [("zodb", &[]), ("tpc", &["zodb"]), ("bin", &[])];
        assert_eq!(
            wrong_ways(&table, &used(&files)),
            [
                "src/zodb/ids.rs:2: zodb may not use tpc",
                "src/other.rs: the module other is not in the table of layers",
                "src/bin/x.rs:1: bin may not use tpc",
            ]
        );
    }

    #[test]
    fn a_room_that_looks_up_or_is_not_in_the_table_is_told() {
        let house = House { module: "a", rooms: &[("low", &[]), ("high/tower", &["low"]), ("high", &["low"])] };
        let files = [
            ("src/a/mod.rs", "mod low; mod high; mod shed;"),
            ("src/a/low.rs", "use super::high::H;\npub struct L;"),
            ("src/a/high/mod.rs", "use super::low::L;\npub struct H;"),
            ("src/a/high/tower/bell.rs", "use super::super::{H, stairs};\nuse crate::a::low::L;"),
            ("src/a/shed.rs", "use super::low::L;"),
        ];
        let told: Vec<String> = wrong_doors(&house, &used(&files)).into_iter().map(|breach| breach.told).collect();
        assert_eq!(
            told,
            [
                "src/a/high/tower/bell.rs:1: high/tower may not use high (src/a/high/mod.rs)",
                "src/a/low.rs:1: low may not use high (src/a/high/mod.rs)",
                "src/a/shed.rs: shed is in no room of a",
            ]
        );
    }
}
