//! Shelves: checkpoints for other nodes, and the database that comes from one, in a data folder and on a simulated
//! disk.

use std::fs;
use std::io;
use std::path::Path;
use std::sync::Arc;

use tempfile::TempDir;
use zrs::engine::{
    Batch, Checkpoint, Durability, Engine, Folder, FolderShelf, Incoming, Rocks, Shelf, ShelfFile, SimDisk,
};

use crate::disks::{LARGE, SMALL, TABLES, all, pair, put};

/// A node's database with its shelf.
trait Place {
    fn open(&self) -> Arc<dyn Engine>;
    fn shelf(&self) -> Arc<dyn Shelf>;
    /// Power fails. (Nothing is open.)
    fn crash(&self);
}

struct InFolder(TempDir);

impl Place for InFolder {
    fn open(&self) -> Arc<dyn Engine> {
        let folder = Folder::open(self.0.path()).unwrap();
        Arc::new(Rocks::open(&folder.store(), TABLES, Durability::Flush).unwrap())
    }

    fn shelf(&self) -> Arc<dyn Shelf> {
        Arc::new(FolderShelf::open(self.0.path(), TABLES).unwrap())
    }

    fn crash(&self) {}
}

struct Simulated(SimDisk);

impl Place for Simulated {
    fn open(&self) -> Arc<dyn Engine> {
        Arc::new(self.0.open(TABLES).unwrap())
    }

    fn shelf(&self) -> Arc<dyn Shelf> {
        Arc::new(self.0.shelf(TABLES))
    }

    fn crash(&self) {
        self.0.crash(0);
    }
}

/// Two places of each kind.
fn each(story: impl Fn(&str, &dyn Place, &dyn Place)) {
    let folder = || InFolder(TempDir::new().unwrap());
    story("a folder", &folder(), &folder());
    story("the simulated disk", &Simulated(SimDisk::new()), &Simulated(SimDisk::new()));
}

/// Some content, of which a part is not synced.
fn fill(engine: &dyn Engine) {
    put(engine, SMALL, &[("a", "synced")]);
    engine.sync().unwrap();
    put(engine, SMALL, &[("b", "not synced")]);
    let mut batch = Batch::new();
    batch.put(LARGE, "l", vec![7; 50_000]);
    engine.write(batch).unwrap();
}

fn content(checkpoint: &dyn Checkpoint) -> Vec<(ShelfFile, Vec<u8>)> {
    let read = |file: ShelfFile| {
        let bytes = checkpoint.read(&file.name, 0, file.size as usize).unwrap();
        (file, bytes)
    };
    checkpoint.files().into_iter().map(read).collect()
}

/// Brings a file in two parts.
fn bring(incoming: &dyn Incoming, file: &ShelfFile, bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    incoming.write(&file.name, 0, first).unwrap();
    incoming.write(&file.name, first.len() as u64, second).unwrap();
    incoming.finish(&file.name).unwrap();
}

#[test]
fn the_files_of_a_checkpoint_make_the_same_database_elsewhere() {
    each(|name, here, there| {
        let (engine, shelf) = (here.open(), here.shelf());
        fill(&*engine);
        let checkpoint = shelf.checkpoint(&*engine, "one").unwrap();
        let before = content(&*checkpoint);
        // What is written later changes no file of it, and opening it neither.
        put(&*engine, SMALL, &[("a", "later"), ("c", "later")]);
        engine.sync().unwrap();
        assert_eq!(checkpoint.open().unwrap().get(SMALL, b"a").unwrap().unwrap(), b"synced", "{name}");
        assert_eq!(content(&*checkpoint), before, "{name}");

        let old = there.open();
        put(&*old, SMALL, &[("old", "1")]);
        old.sync().unwrap();
        let incoming = there.shelf().incoming().unwrap();
        assert_eq!(incoming.offer().unwrap(), None, "{name}");
        incoming.begin(b"an offer").unwrap();
        for (file, bytes) in &before {
            bring(&*incoming, file, bytes);
        }
        assert_eq!(incoming.open().unwrap().get(SMALL, b"b").unwrap().unwrap(), b"not synced", "{name}");
        // (The present one goes on all the while.)
        put(&*old, SMALL, &[("old", "2")]);
        drop(old);
        there.crash();
        assert!(there.open().get(SMALL, b"old").unwrap().is_some(), "{name}: it was not taken");
        assert_eq!(incoming.offer().unwrap().unwrap(), b"an offer", "{name}");

        incoming.take().unwrap();
        there.crash();
        let new = there.open();
        assert_eq!(all(&*new, SMALL), [pair("a", "synced"), pair("b", "not synced")], "{name}");
        assert_eq!(new.get(LARGE, b"l").unwrap().unwrap(), [7; 50_000], "{name}");
        put(&*new, SMALL, &[("d", "its own")]);
        new.sync().unwrap();
        drop(new);
        there.crash();
        assert_eq!(all(&*there.open(), SMALL).len(), 3, "{name}");
        assert_eq!(there.shelf().incoming().unwrap().offer().unwrap(), None, "{name}: nothing is left of it");
    });
}

#[test]
fn of_an_incoming_database_the_finished_files_survive() {
    each(|name, here, there| {
        let (engine, shelf) = (here.open(), here.shelf());
        fill(&*engine);
        let files = content(&*shelf.checkpoint(&*engine, "one").unwrap());
        let incoming = there.shelf().incoming().unwrap();
        incoming.begin(b"an offer").unwrap();
        bring(&*incoming, &files[0].0, &files[0].1);
        incoming.write(&files[1].0.name, 0, &files[1].1).unwrap();
        there.crash();
        let incoming = there.shelf().incoming().unwrap();
        assert_eq!(incoming.whole().unwrap(), [files[0].0.clone()], "{name}");
        // A part at 0 begins a file anew.
        incoming.write(&files[1].0.name, 0, b"wrong, and long enough to show behind what is right").unwrap();
        bring(&*incoming, &files[1].0, &files[1].1);
        assert_eq!(incoming.whole().unwrap(), [files[0].0.clone(), files[1].0.clone()], "{name}");
        incoming.begin(b"another offer").unwrap();
        assert_eq!(incoming.whole().unwrap(), [], "{name}");
        assert_eq!(incoming.offer().unwrap().unwrap(), b"another offer", "{name}");
        incoming.discard().unwrap();
        assert_eq!(incoming.offer().unwrap(), None, "{name}");
        incoming.discard().unwrap();
    });
}

#[test]
fn what_is_not_whole_is_not_opened() {
    each(|name, here, there| {
        let (engine, shelf) = (here.open(), here.shelf());
        fill(&*engine);
        let files = content(&*shelf.checkpoint(&*engine, "one").unwrap());
        let incoming = there.shelf().incoming().unwrap();
        incoming.begin(b"an offer").unwrap();
        let holds_data = |file: &ShelfFile| file.name.ends_with(".sst") || file.name == SMALL.name;
        let missing = files.iter().find(|(file, _)| holds_data(file)).unwrap().0.name.clone();
        for (file, bytes) in files.iter().filter(|(file, _)| file.name != missing) {
            bring(&*incoming, file, bytes);
        }
        assert!(incoming.open().is_err(), "{name}: without {missing}");
    });
}

#[test]
fn a_checkpoint_is_gone_with_its_handle_and_at_the_next_start() {
    let place = InFolder(TempDir::new().unwrap());
    let (engine, shelf) = (place.open(), place.shelf());
    fill(&*engine);
    let path = |name: &str| place.0.path().join("checkpoints").join(name);
    let (one, two) = (shelf.checkpoint(&*engine, "one").unwrap(), shelf.checkpoint(&*engine, "two").unwrap());
    assert_eq!(shelf.checkpoint(&*engine, "two").err().unwrap().kind(), io::ErrorKind::AlreadyExists);
    drop(one);
    assert!(!path("one").exists() && path("two").exists());
    // One that a process has left, which was killed.
    fs::create_dir(path("three")).unwrap();
    fs::write(path("three").join("CURRENT"), "x").unwrap();
    place.shelf();
    assert!(!path("three").exists());
    drop(two);
    assert_eq!(engine.get(SMALL, b"a").unwrap().unwrap(), b"synced");
}

#[test]
fn names_from_elsewhere_lead_nowhere_else() {
    let place = InFolder(TempDir::new().unwrap());
    let incoming = place.shelf().incoming().unwrap();
    incoming.begin(b"an offer").unwrap();
    for name in ["../OFFER", "a/b", "", ".", "..", ".hidden", "x.part", "/etc/passwd", "a\0b"] {
        assert_eq!(incoming.write(name, 0, b"x").unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
        assert_eq!(incoming.finish(name).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{name:?}");
    }
    assert_eq!(incoming.offer().unwrap().unwrap(), b"an offer");
}

/// The folder as it may be after a power cut at any step of taking.
#[test]
fn a_folder_in_which_taking_was_cut_off_has_the_new_database_at_the_next_start() {
    let steps: [fn(&Path); 4] = [
        |_| {},
        |path| fs::rename(path.join("store"), path.join("old")).unwrap(),
        |path| {
            fs::rename(path.join("store"), path.join("old")).unwrap();
            fs::rename(path.join("made/store"), path.join("store")).unwrap();
        },
        |path| {
            fs::rename(path.join("store"), path.join("old")).unwrap();
            fs::rename(path.join("made/store"), path.join("store")).unwrap();
            fs::remove_dir_all(path.join("made")).unwrap();
        },
    ];
    for (step, cut_off) in steps.into_iter().enumerate() {
        let (here, there) = (InFolder(TempDir::new().unwrap()), InFolder(TempDir::new().unwrap()));
        let (engine, shelf) = (here.open(), here.shelf());
        fill(&*engine);
        put(&*there.open(), SMALL, &[("old", "1")]);
        fs::create_dir(there.0.path().join("log")).unwrap();
        let incoming = there.shelf().incoming().unwrap();
        incoming.begin(b"an offer").unwrap();
        for (file, bytes) in content(&*shelf.checkpoint(&*engine, "one").unwrap()) {
            bring(&*incoming, &file, &bytes);
        }
        incoming.take().unwrap();
        cut_off(there.0.path());
        let refused = Folder::open_read_only(there.0.path()).unwrap_err().to_string();
        assert!(refused.contains("takes it at its next start"), "step {step}: {refused}");
        assert_eq!(all(&*there.open(), SMALL).len(), 2, "step {step}");
        assert!(!there.0.path().join("old").exists() && !there.0.path().join("made").exists(), "step {step}");
    }
}
