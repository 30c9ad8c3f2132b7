//! Moves a connection from one runtime to another.
//!
//! A socket is watched by the runtime in which it was made: its events come from there, and wait for that runtime's
//! threads. A connection that must not wait for them moves to the runtime that serves it.

use std::any::Any;
use std::io;
use std::mem;

use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};

use super::frame::{FrameReader, FrameWriter};
use super::network::{Sink, Source};
use super::tls;

/// Moves the connection of `reader` and `writer` to the runtime of the running task. Those of other kinds than TCP,
/// with or without TLS, stay where they are.
///
/// # Errors
/// The operating system's; the connection is lost then.
pub fn rehome(reader: &mut FrameReader, writer: &mut FrameWriter) -> io::Result<()> {
    streams(&mut reader.reader, &mut writer.writer)
}

fn streams(reader: &mut Box<dyn Source>, writer: &mut Box<dyn Sink>) -> io::Result<()> {
    if let Some(reading) = (&mut **reader as &mut dyn Any).downcast_mut::<tls::Reading>() {
        return reading.below(streams);
    }
    if !(&**reader as &dyn Any).is::<OwnedReadHalf>() || !(&**writer as &dyn Any).is::<OwnedWriteHalf>() {
        return Ok(());
    }
    let from: Box<dyn Source> = mem::replace(reader, Box::new(tokio::io::empty()));
    let to: Box<dyn Sink> = mem::replace(writer, Box::new(tokio::io::sink()));
    let (from, to): (Box<dyn Any>, Box<dyn Any>) = (from, to);
    let (Ok(from), Ok(to)) = (from.downcast::<OwnedReadHalf>(), to.downcast::<OwnedWriteHalf>()) else {
        return Err(io::Error::other("a connection changed its kind"));
    };
    let stream = from.reunite(*to).map_err(io::Error::other)?;
    let (from, to) = TcpStream::from_std(stream.into_std()?)?.into_split();
    (*reader, *writer) = (Box::new(from), Box::new(to));
    Ok(())
}

#[cfg(test)]
mod tests {
    use tokio::runtime::{Builder, Runtime};

    use super::super::{Network as _, Tcp, Wire};
    use super::*;

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_all().build().unwrap()
    }

    fn framed(wire: Wire) -> (FrameReader, FrameWriter) {
        (FrameReader::new(wire.reader, 100), FrameWriter::new(wire.writer))
    }

    #[test]
    fn a_connection_outlives_the_runtime_that_accepted_it() {
        let (first, second) = (runtime(), runtime());
        let (near, far) = first.block_on(async {
            let mut listener = Tcp.listen("127.0.0.1:0").await.unwrap();
            let address = listener.address();
            let (near, far) = tokio::join!(Tcp.connect(&address), listener.accept());
            (near.unwrap(), far.unwrap())
        });
        let ((mut reader, mut writer), (mut far_reader, mut far_writer)) = (framed(near), framed(far));
        first.block_on(async {
            far_writer.push(b"before");
            far_writer.flush().await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap(), "before");
        });
        second.block_on(async {
            rehome(&mut reader, &mut writer).unwrap();
            rehome(&mut far_reader, &mut far_writer).unwrap();
        });
        drop(first);
        second.block_on(async {
            writer.push(b"there");
            writer.flush().await.unwrap();
            assert_eq!(far_reader.next().await.unwrap().unwrap(), "there");
            far_writer.push(b"and back");
            far_writer.flush().await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap(), "and back");
            drop((far_reader, far_writer));
            assert!(reader.next().await.unwrap().is_none());
        });
    }
}
