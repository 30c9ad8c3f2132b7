//! Errors that say which file they are about.

use std::io;
use std::path::Path;

/// `fault`, with the file's path in front.
pub fn of_file(path: &Path, fault: &io::Error) -> io::Error {
    io::Error::new(fault.kind(), format!("{}: {fault}", path.display()))
}
