//! Ports below the ephemeral range, reserved by locked files for as long as a test uses them.

use std::fs::File;
use std::net::TcpListener;
use std::os::unix::fs::MetadataExt as _;

/// A port on the loopback that no other test takes while this lives.
#[derive(Debug)]
pub struct Port {
    pub number: u16,
    _lock: File,
}

impl Port {
    pub fn free() -> Port {
        let user = std::fs::metadata("/proc/self").map_or(0, |m| m.uid());
        // The folder that tests/python/zrs_cluster.py uses.
        let folder = std::env::temp_dir().join(format!("zrs-ports-{user}"));
        std::fs::create_dir_all(&folder).unwrap();
        for _ in 0..1000 {
            let number = 20_000 + (rand::random::<u16>() % 12_000);
            let lock = File::create(folder.join(number.to_string())).unwrap();
            if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
                return Port { number, _lock: lock };
            }
        }
        panic!("no free port");
    }
}
