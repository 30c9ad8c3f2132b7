//! The operator's tool, asking a node.

use std::process::{Command, Output};

use super::cluster::{Cluster, Node};
use super::{PATIENCE, wait_for};

pub fn zrsctl(node: &Node, arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_zrsctl"));
    command.args(arguments).args(["--http", &node.http_address()]).output().unwrap()
}

/// The output of a success.
pub fn done(node: &Node, arguments: &[&str]) -> String {
    let output = zrsctl(node, arguments);
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

/// The words of a failure.
pub fn refused(node: &Node, arguments: &[&str]) -> String {
    let output = zrsctl(node, arguments);
    assert_eq!(output.status.code(), Some(1), "{arguments:?}: {output:?}");
    String::from_utf8(output.stderr).unwrap()
}

/// Waits until the failure has all of these words. (A node that nobody has heard for a moment may be the reason before
/// that, or an election.)
pub fn refused_as(node: &Node, arguments: &[&str], words: &[&str]) -> String {
    let why = || Some(refused(node, arguments)).filter(|why| words.iter().all(|word| why.contains(word)));
    wait_for(|| format!("{words:?} from {arguments:?}, not {}", refused(node, arguments)), PATIENCE, why)
}

/// Asks a node to have the role handed to node `to`, until that is done. -> what was said then
///
/// No hand-over begins to a node that was silent for a moment, and one that takes long is told as such: whoever asks
/// has to ask again.
pub fn handed_over(cluster: &Cluster, asked: &Node, to: u64) -> String {
    let to = to.to_string();
    let done = || {
        let output = zrsctl(asked, &["transfer", "--to", &to]);
        if !output.status.success() {
            println!("not yet: {}", String::from_utf8_lossy(&output.stderr));
            return None;
        }
        Some(String::from_utf8(output.stdout).unwrap())
    };
    let said = wait_for(|| format!("node {to} to take over: {}", cluster.situation()), PATIENCE, done);
    // ("Already", if a hand-over that took long has come to its end meanwhile.)
    let [now, already] = ["now", "already"].map(|word| format!("Node {to} is the primary {word}.\n"));
    assert!(said == now || said == already, "{said}");
    said
}
