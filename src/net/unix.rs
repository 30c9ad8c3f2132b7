//! Unix sockets: for clients on the same host, at a path in the file system.
//!
//! A server creates the file when it begins to listen, and removes the file when it stops. A file that a killed server
//! left behind is replaced, by one server at a time (the one with the lock on `PATH.lock`). A file at which a server
//! listens, or that is not a socket, is left alone, and the new server does not start. A user who may write to the
//! file may connect: the permissions of folder and file (umask) decide. TLS is never used there.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use futures_util::future::BoxFuture;
use tokio::net::{UnixListener, UnixStream};

use super::network::{Listener, Wire};

/// A listening socket at a path; dropping it removes the file.
pub struct Unix {
    listener: UnixListener,
    path: PathBuf,
    /// Device and inode of the file as created here: another file in its place belongs to another server.
    file: (u64, u64),
}

/// Listens at `path`.
pub async fn listen(path: &str) -> io::Result<Unix> {
    let turn = Turn::take(path)?;
    make_room(path).await?;
    let listener = UnixListener::bind(path)?;
    let made = fs::symlink_metadata(path)?;
    drop(turn);
    // (An absolute path, as the file is removed by this path later.)
    Ok(Unix { listener, path: fs::canonicalize(path)?, file: (made.dev(), made.ino()) })
}

/// Connects to the server at `path`.
pub async fn connect(path: &str) -> io::Result<Wire> {
    let mut wire = wire(UnixStream::connect(path).await?);
    wire.peer = path.to_owned();
    Ok(wire)
}

/// The right to replace the file at a path; dropping it removes the lock's file.
struct Turn {
    path: String,
    /// The locked file; closing it ends the lock.
    _file: fs::File,
}

impl Turn {
    fn take(path: &str) -> io::Result<Turn> {
        let taken = || Err(io::Error::new(io::ErrorKind::AddrInUse, "another server is beginning to listen there"));
        let path = format!("{path}.lock");
        let file = fs::OpenOptions::new().create(true).append(true).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(fs::TryLockError::WouldBlock) => return taken(),
            Err(fs::TryLockError::Error(error)) => return Err(error),
        }
        // The last owner may have removed the lock's file since it was opened here: then the lock excludes no other
        // server.
        let ours = file.metadata()?;
        match fs::symlink_metadata(&path) {
            Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(Turn { path, _file: file }),
            Ok(_) => taken(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => taken(),
            Err(error) => Err(error),
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        // (The lock ends after this, with the file.)
        let _ = fs::remove_file(&self.path);
    }
}

/// Removes a socket file that a dead server left behind.
async fn make_room(path: &str) -> io::Result<()> {
    let found = match fs::symlink_metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let taken = |why: &str| Err(io::Error::new(io::ErrorKind::AddrInUse, why));
    if !found.file_type().is_socket() {
        return taken("the file there is no socket; it is left alone");
    }
    match UnixStream::connect(path).await {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(_) => taken("another server listens there"),
    }
}

fn wire(stream: UnixStream) -> Wire {
    let process = stream.peer_cred().ok().and_then(|peer| peer.pid());
    let peer = process.map_or("unix".to_owned(), |process| format!("unix:{process}"));
    let (reader, writer) = stream.into_split();
    Wire { reader: Box::new(reader), writer: Box::new(writer), peer }
}

impl Listener for Unix {
    fn address(&self) -> String {
        self.path.display().to_string()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Wire>> {
        Box::pin(async move { Ok(wire(self.listener.accept().await?.0)) })
    }
}

impl Drop for Unix {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.file;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            let _ = fs::remove_file(&self.path);
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    use super::super::{Network as _, Tcp};
    use super::*;

    #[tokio::test]
    async fn the_ends_talk_and_the_file_goes_with_the_listener() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").display().to_string();
        let mut listener = Tcp.listen(&path).await.unwrap();
        assert!(listener.address().ends_with("/socket"));
        let (near, far) = tokio::join!(Tcp.connect(&path), listener.accept());
        let (mut near, mut far) = (near.unwrap(), far.unwrap());
        assert_eq!(far.peer, format!("unix:{}", std::process::id()));
        near.writer.write_all(b"hello").await.unwrap();
        drop(near);
        let mut heard = Vec::new();
        far.reader.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"hello");
        drop(listener);
        assert!(!fs::exists(&path).unwrap());
    }

    #[tokio::test]
    async fn only_what_a_dead_server_left_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").display().to_string();
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(fs::exists(&path).unwrap(), "left behind");
        let listener = Tcp.listen(&path).await.unwrap();
        let refused = Tcp.listen(&path).await.err().unwrap();
        assert_eq!(refused.kind(), io::ErrorKind::AddrInUse);
        assert!(refused.to_string().contains("another server"), "{refused}");
        drop(listener);

        fs::write(&path, "precious").unwrap();
        let refused = Tcp.listen(&path).await.err().unwrap();
        assert!(refused.to_string().contains("no socket"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"precious");
    }

    #[test]
    fn one_of_many_that_begin_at_once_gets_what_a_dead_server_left() {
        let folder = tempfile::tempdir().unwrap();
        for round in 0..100 {
            let path = folder.path().join(format!("socket{round}")).display().to_string();
            drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
            let all = std::sync::Barrier::new(4);
            let begin = || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                all.wait();
                let listener = runtime.block_on(Tcp.listen(&path));
                all.wait();
                listener.map(drop).map_err(|refused| refused.kind())
            };
            let begun: Vec<_> = std::thread::scope(|scope| {
                let threads: Vec<_> = (0..4).map(|_| scope.spawn(begin)).collect();
                threads.into_iter().map(|thread| thread.join().unwrap()).collect()
            });
            assert_eq!(begun.iter().filter(|one| one.is_ok()).count(), 1, "{begun:?}");
            assert!(begun.iter().flat_map(|one| one.err()).all(|kind| kind == io::ErrorKind::AddrInUse), "{begun:?}");
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no locks stay behind");
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket").display().to_string();
        let first = Tcp.listen(&path).await.unwrap();
        fs::remove_file(&path).unwrap();
        let _second = Tcp.listen(&path).await.unwrap();
        drop(first);
        assert!(fs::exists(&path).unwrap());
    }
}
