//! Whether a node's own sums are right.

use zrs::storage::Store;

/// Compares the sums that a node keeps (of objects, records, bytes) with a count of what it holds.
pub fn counted(store: &Store) -> Result<(), String> {
    for (storage, _) in store.storages() {
        let (summary, recount) = store.recount(storage).map_err(|fault| format!("recount: {fault}"))?;
        if !recount.agrees(&summary) {
            return Err(format!("recount: {summary:?}, but counted {recount:?}"));
        }
    }
    Ok(())
}
