//! The bytes of a `Data.fs`, wherever they are asked for; fast where reading goes on. An error names file and byte.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use bytes::Bytes;

use super::faults::of_file;

/// Bytes that are read at a time.
pub const WINDOW: usize = 1 << 20;

/// A file that is being read. Bytes that are appended to it later are not.
#[derive(Debug)]
pub struct Source {
    path: PathBuf,
    file: File,
    size: u64,
    window: Vec<u8>,
    window_at: u64,
}

impl Source {
    pub fn open(path: &Path) -> io::Result<Source> {
        let file = File::open(path).map_err(|fault| of_file(path, &fault))?;
        let about = file.metadata().map_err(|fault| of_file(path, &fault))?;
        if !about.is_file() {
            return Err(of_file(path, &io::Error::new(io::ErrorKind::InvalidInput, "is not a file")));
        }
        Ok(Source { path: path.to_owned(), file, size: about.len(), window: Vec::new(), window_at: 0 })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        self.size
    }

    /// An error about this file.
    pub fn wrong(&self, position: u64, what: impl std::fmt::Display) -> io::Error {
        let message = format!("{}: byte {position}: {what}", self.path.display());
        io::Error::new(io::ErrorKind::InvalidData, message)
    }

    fn unread(&self, position: u64, fault: &io::Error) -> io::Error {
        let remedy = match fault.kind() {
            io::ErrorKind::UnexpectedEof => "The file has become shorter while it was read: stop its ZEO server",
            _ => "If the disk fails, copy what it still gives (ddrescue), and import the copy with --salvage",
        };
        let message = format!("{}: byte {position} can't be read: {fault}. {remedy}", self.path.display());
        io::Error::new(fault.kind(), message)
    }

    /// `N` bytes from any position within the file, without moving the window.
    pub fn array<const N: usize>(&self, at: u64) -> io::Result<[u8; N]> {
        let from = at.checked_sub(self.window_at).and_then(|from| usize::try_from(from).ok());
        if let Some(held) = from.and_then(|from| self.window.get(from..)?.first_chunk()) {
            return Ok(*held);
        }
        let mut bytes = [0; N];
        self.file.read_exact_at(&mut bytes, at).map_err(|fault| self.unread(at, &fault))?;
        Ok(bytes)
    }

    pub fn number(&self, at: u64) -> io::Result<u64> {
        Ok(u64::from_be_bytes(self.array(at)?))
    }

    /// `N` bytes from `at`, within the file, by the window.
    pub fn next_array<const N: usize>(&mut self, at: u64) -> io::Result<[u8; N]> {
        Ok(self.bytes(at, N)?.try_into().expect("a window has the length asked for"))
    }

    /// Bytes from `at`, which lie within the file; for long ones there is [`Source::data`].
    pub fn bytes(&mut self, at: u64, length: usize) -> io::Result<&[u8]> {
        let held = self.window_at..self.window_at + self.window.len() as u64;
        if at < held.start || at + length as u64 > held.end {
            let left = self.size.saturating_sub(at);
            let wanted = length.max(WINDOW).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.window.resize(wanted, 0);
            self.window_at = at;
            let read = self.file.read_exact_at(&mut self.window, at);
            if let Err(fault) = read {
                self.window.clear();
                return Err(self.unread(at, &fault));
            }
        }
        let from = (at - self.window_at) as usize;
        self.window.get(from..from + length).ok_or_else(|| {
            io::Error::new(io::ErrorKind::UnexpectedEof, format!("byte {at} lies past the end of the file"))
        })
    }

    /// `length` bytes from `position`, within the file.
    pub fn data(&mut self, position: u64, length: usize) -> io::Result<Bytes> {
        if length <= WINDOW {
            return Ok(Bytes::copy_from_slice(self.bytes(position, length)?));
        }
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, position).map_err(|fault| self.unread(position, &fault))?;
        Ok(bytes.into())
    }

    /// The same from anywhere, without moving the window.
    pub fn data_elsewhere(&self, position: u64, length: usize) -> io::Result<Bytes> {
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, position).map_err(|fault| self.unread(position, &fault))?;
        Ok(bytes.into())
    }
}
