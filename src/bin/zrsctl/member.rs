//! `zrsctl member`: shows and changes the members of a cluster that runs.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use serde_json::Value;

use zrs::env::Env;

use crate::ask;
use crate::cluster::{change, first, look, write};
use crate::glance::{shown, table};

/// How often the members are looked at while they change.
const LOOK: Duration = Duration::from_millis(500);
/// For how many looks no node may know a primary.
const PATIENCE: u32 = 60;

/// A task about members.
#[derive(Args)]
pub struct MemberFlags {
    #[command(subcommand)]
    task: MemberTask,
    /// Wait until the members are as wanted, and tell what is waited for
    #[arg(long, global = true)]
    wait: bool,
}

#[derive(Subcommand)]
enum MemberTask {
    /// Lists the members, and what is about to change
    List,
    /// Lets a new node in. Start it first, with an empty data folder and with all members and itself in its --peers. It
    /// votes once it has caught up
    Add {
        /// Its number and its address
        #[arg(value_name = "N=HOST:PORT", value_parser = place)]
        node: (u64, String),
        /// Never let it vote: it has all data and serves reads, and nobody waits for it
        #[arg(long)]
        observer: bool,
    },
    /// Makes an observer a voter
    Promote {
        /// Its number
        node: u64,
    },
    /// Makes a voter an observer
    Observer {
        /// Its number
        node: u64,
    },
    /// Takes a node out of the cluster
    Remove {
        /// Its number
        node: u64,
    },
    /// Puts a new node, started as for `add`, in the place of one that is gone
    Replace {
        /// The number of the one that leaves
        old: u64,
        /// The number and the address of the new one
        #[arg(value_name = "N=HOST:PORT", value_parser = place)]
        node: (u64, String),
        /// The one that leaves is there: it goes on until the new one has caught up
        #[arg(long)]
        planned: bool,
    },
    /// Gives a node another address: start it there first
    Address {
        /// Its number
        node: u64,
        /// Its new address
        #[arg(value_name = "HOST:PORT", value_parser = ask::address)]
        address: String,
    },
}

/// Reads `N=HOST:PORT`.
fn place(text: &str) -> Result<(u64, String), String> {
    let wrong = || format!("{text:?} is not a node's number and address, as 4=host4:8100 is");
    let (node, address) = text.split_once('=').ok_or_else(wrong)?;
    let node = node.parse().ok().filter(|node| *node > 0).ok_or_else(wrong)?;
    Ok((node, ask::address(address)?))
}

/// Does the task at the nodes with these HTTP addresses.
pub async fn member(addresses: &[String], flags: &MemberFlags) -> anyhow::Result<()> {
    if let Some(path) = path(&flags.task) {
        change(addresses, &path).await?;
    }
    if flags.wait {
        wait(addresses).await?;
    }
    if matches!(flags.task, MemberTask::List) {
        write(&members(&first(addresses).await?))?;
    }
    Ok(())
}

/// The page that does the task; `None`: nothing is to be done.
fn path(task: &MemberTask) -> Option<String> {
    let flag = |given: bool, name: &str| if given { format!("&{name}") } else { String::new() };
    Some(match task {
        MemberTask::List => return None,
        MemberTask::Add { node: (node, address), observer } => {
            format!("/member/add?node={node}&address={}{}", ask::encoded(address), flag(*observer, "observer"))
        }
        MemberTask::Promote { node } => format!("/member/promote?node={node}"),
        MemberTask::Observer { node } => format!("/member/observer?node={node}"),
        MemberTask::Remove { node } => format!("/member/remove?node={node}"),
        MemberTask::Replace { old, node: (node, address), planned } => {
            let (address, planned) = (ask::encoded(address), flag(*planned, "planned"));
            format!("/member/replace?old={old}&node={node}&address={address}{planned}")
        }
        MemberTask::Address { node, address } => {
            format!("/member/address?node={node}&address={}", ask::encoded(address))
        }
    })
}

/// Waits until the members are as wanted; tells what is still to be done whenever that changes.
async fn wait(addresses: &[String]) -> anyhow::Result<()> {
    let mut said = String::new();
    let mut silent = 0;
    loop {
        match following(addresses).await {
            Some(status) => {
                silent = 0;
                let left = changes(&status);
                if left.is_empty() {
                    return write("The members are as wanted.");
                }
                let now = left.join("; ");
                if now != said && !now.is_empty() {
                    write(&now)?;
                    said = now;
                }
            }
            // (An election may go on.)
            None if silent > PATIENCE => bail!("none of these nodes knows a primary: ask others, by --http"),
            None => silent += 1,
        }
        Env::current().sleep(LOOK).await;
    }
}

/// The status of the first node that knows the primary: one that was taken out does not hear what goes on.
async fn following(addresses: &[String]) -> Option<Value> {
    for address in addresses {
        if let Ok((status, _)) = look(address).await
            && matches!(status["role"].as_str(), Some("primary" | "secondary"))
        {
            return Some(status);
        }
    }
    None
}

fn changes(status: &Value) -> Vec<&str> {
    let mut left: Vec<&str> = status["changes"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    left.dedup();
    left
}

/// The members, a line each, and what is about to change.
fn members(status: &Value) -> String {
    let mut rows = vec![["node", "address", "part"].map(str::to_owned).to_vec()];
    for member in status["members"].as_array().into_iter().flatten() {
        let leads = member["node"] == status["primary"];
        let part = if leads { "primary".into() } else { shown(&member["part"]) };
        rows.push(vec![shown(&member["node"]), shown(&member["address"]), part]);
    }
    let mut text = table(&rows);
    for change in changes(status) {
        text.push_str(change);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_of_members() {
        let status = serde_json::json!({"primary": 1, "changes": ["node 4 is to become a voter"], "members": [
            {"node": 1, "address": "a:1", "part": "voter"},
            {"node": 2, "address": "b:1", "part": "voter"},
            {"node": 4, "address": "d:1", "part": "observer"},
        ]});
        assert_eq!(
            members(&status),
            "node  address  part\n\
             1     a:1      primary\n\
             2     b:1      voter\n\
             4     d:1      observer\n\
             node 4 is to become a voter\n"
        );
    }

    #[test]
    fn a_task_is_a_page() {
        assert_eq!(place("4=host4:8100"), Ok((4, "host4:8100".into())));
        assert!(place("0=host4:8100").is_err() && place("host4:8100").is_err() && place("4=host4").is_err());
        let node = (4, "h:1".to_owned());
        let page = path(&MemberTask::Replace { old: 2, node: node.clone(), planned: true }).unwrap();
        assert_eq!(page, "/member/replace?old=2&node=4&address=h%3A1&planned");
        assert_eq!(path(&MemberTask::Add { node, observer: false }).unwrap(), "/member/add?node=4&address=h%3A1");
        assert_eq!(path(&MemberTask::List), None);
    }
}
