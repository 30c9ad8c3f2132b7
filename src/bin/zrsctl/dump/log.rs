//! `zrsctl dump log`: a line for each entry.

use anyhow::Context as _;
use clap::Args;
use serde_json::{Value, json};

use zrs::command::{Command, FORMAT};
use zrs::engine::Folder;
use zrs::raft::offline::{self, LogContent, LogEntry, MemberList};

use super::change;
use super::parts::{members, open_log};
use super::sheet::Sheet;

#[derive(Args)]
pub struct LogFlags {
    /// The index of the first entry to print, as /status counts them: from 1
    #[arg(long, value_name = "INDEX", default_value_t = 1)]
    from: u64,
    /// The index of the last entry to print [default: the last in the log]
    #[arg(long, value_name = "INDEX", default_value_t = u64::MAX, hide_default_value = true)]
    to: u64,
}

pub fn print(folder: &Folder, flags: &LogFlags, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
    let log = open_log(folder)?.context("the folder has no log: no node has started on it")?;
    for entry in offline::entries(&log, flags.from, flags.to) {
        entry_line(&entry.context("reading the log")?, sheet)?;
    }
    // (What comes after it can't be told from what never was.)
    if let Some(damage) = &log.damage {
        sheet.note_damage();
        sheet.line(
            || format!("DAMAGED: {damage}"),
            || json!({"index": damage.entry, "kind": "damaged", "fault": damage.to_string()}),
        )?;
    }
    Ok(())
}

fn entry_line(entry: &LogEntry, sheet: &mut Sheet<'_>) -> anyhow::Result<()> {
    let (text, mut document) = match &entry.content {
        LogContent::Blank => ("a new leader's first entry".to_owned(), json!({"kind": "blank"})),
        LogContent::Membership(membership) => membership_words(membership),
        LogContent::Command(bytes) => match Command::decode(bytes, FORMAT) {
            Ok(command) => {
                let mut document = change::document(&command.change);
                document["reign"] = command.reign.to_string().into();
                (format!("{}  {}", command.reign, change::words(&command.change)), document)
            }
            Err(why) => {
                sheet.note_damage();
                (format!("UNREADABLE: {why}"), json!({"kind": "unreadable", "fault": why.to_string()}))
            }
        },
    };
    let (position, size) = (entry.position, entry.size);
    document["index"] = position.index.into();
    document["term"] = position.term.into();
    document["bytes"] = size.into();
    sheet.line(|| format!("{:>9}  {:>5}  {size:>9}  {text}", position.index, position.term), || document)?;
    Ok(())
}

fn membership_words(membership: &MemberList) -> (String, Value) {
    let mut document = serde_json::to_value(membership).unwrap_or_default();
    document["kind"] = "membership".into();
    (members(membership), document)
}
