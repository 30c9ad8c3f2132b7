//! The log of the transactions that can be undone: `undoLog` and `undoInfo`.

use std::io;

use futures_util::FutureExt;

use super::desk::{Answer, Desk, Done, End};
use crate::config::limits;
use crate::storage::{Stop, UndoEntry};
use crate::zeo::{MessageId, Reply, UndoItem, Value};

/// The searches of one client.
#[derive(Default)]
pub struct UndoLog {
    /// Searches that are under way.
    searches: usize,
}

impl UndoLog {
    /// Whether another search may begin.
    pub fn has_room(&self) -> bool {
        self.searches < limits::UNDO_SEARCHES
    }

    /// `undoLog`, and `undoInfo`, whose specification every entry has to match.
    pub fn search(
        &mut self,
        desk: &mut Desk,
        id: &MessageId,
        first: i64,
        last: i64,
        specification: Vec<(String, Value<'static>)>,
    ) -> Result<Answer, End> {
        desk.tell_news()?;
        // As `FileStorage.undoLog` has it, a negative `last` is how many entries to give at most.
        let last = if last < 0 { first.saturating_sub(last) } else { last };
        let (id, store) = (id.clone(), desk.store().clone());
        let (storage, view) = (desk.storage(), desk.view.tid());
        let item = |entry: UndoEntry| UndoItem { tid: entry.tid, meta: entry.meta, size: entry.size };
        let search = move |stop: &Stop| {
            let wanted = |entry: &UndoEntry| specification.is_empty() || item(entry.clone()).matches(&specification);
            let found = store.undo_log(storage, view, first, last, stop, wanted)?;
            Ok(found.into_iter().map(item).collect())
        };
        self.searches += 1;
        let found = desk.shared.long_reads.begin(search);
        desk.wait(found.map(move |found| Done::UndoLogSearched(id, found)));
        Ok(Answer::Later)
    }

    /// A search is over.
    pub fn searched(&mut self, desk: &mut Desk, id: &MessageId, found: io::Result<Vec<UndoItem>>) -> Result<(), End> {
        self.searches -= 1;
        desk.reply(id, Reply::UndoLog(found?));
        Ok(())
    }
}
