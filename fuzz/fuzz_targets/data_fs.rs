#![no_main]

use std::path::PathBuf;
use std::sync::LazyLock;

/// One file, in memory where the system has a folder for that.
static FILE: LazyLock<PathBuf> = LazyLock::new(|| {
    let memory = PathBuf::from("/dev/shm");
    let folder = if memory.is_dir() { memory } else { std::env::temp_dir() };
    folder.join(format!("zrs-fuzz-{}.fs", std::process::id()))
});

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| zrs::fuzzing::data_fs(&FILE, bytes));
