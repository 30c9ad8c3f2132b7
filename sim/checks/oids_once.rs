//! **Each object id once.** No id is handed out twice, whichever node is primary.

use std::collections::BTreeMap;

use crate::history::Record;

pub fn check(record: &Record) -> Result<(), String> {
    let mut owners = BTreeMap::new();
    for (client, oid) in &record.oids {
        if let Some(other) = owners.insert(oid, client) {
            return Err(format!("oids_once: {oid} was given to client {other} and to client {client}"));
        }
    }
    Ok(())
}
