//! **Each object id once.** No id is handed out twice, whichever node is primary.

use std::collections::BTreeMap;

use crate::history::Record;
use crate::seen;

pub const OIDS: &str = "oids_once: ids";

pub fn check(record: &Record) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (client, oid) in &record.oids {
        if let Some(other) = owners.insert(oid, client) {
            return Err(format!("oids_once: {oid} was given to client {other} and to client {client}"));
        }
    }
    seen::check(OIDS, record.oids.len() as u64);
    Ok(())
}
