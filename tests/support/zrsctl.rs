//! The operator's tool, asking a node.

use std::process::{Command, Output};

use super::cluster::Node;

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
