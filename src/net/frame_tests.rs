//! Frames over an in-memory stream that is cut wherever it hurts.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf, duplex};

use super::*;

fn framed(bytes: &[u8]) -> Vec<u8> {
    let mut frame = u32::try_from(bytes.len()).unwrap().to_be_bytes().to_vec();
    frame.extend_from_slice(bytes);
    frame
}

fn reader_of(bytes: Vec<u8>, limit: usize) -> FrameReader {
    FrameReader::new(Box::new(std::io::Cursor::new(bytes)), limit)
}

/// A stream that counts its calls.
struct Counting<S> {
    inner: S,
    calls: Arc<AtomicUsize>,
}

impl<S: AsyncRead + Unpin> AsyncRead for Counting<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        self.calls.fetch_add(1, SeqCst);
        Pin::new(&mut self.inner).poll_read(context, buf)
    }
}

/// A stream that takes at most `most` bytes at a time, and remembers them.
struct Taking {
    taken: Arc<std::sync::Mutex<Vec<u8>>>,
    calls: Arc<AtomicUsize>,
    most: usize,
}

impl AsyncWrite for Taking {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(context, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(self: Pin<&mut Self>, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.calls.fetch_add(1, SeqCst);
        let mut taken = self.taken.lock().unwrap();
        let before = taken.len();
        for byte in bufs.iter().flat_map(|buf| buf.iter()).take(self.most) {
            taken.push(*byte);
        }
        Poll::Ready(Ok(taken.len() - before))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

fn taking(most: usize) -> (FrameWriter, Arc<std::sync::Mutex<Vec<u8>>>, Arc<AtomicUsize>) {
    let taken = Arc::new(std::sync::Mutex::new(Vec::new()));
    let calls = Arc::new(AtomicUsize::new(0));
    let writer = FrameWriter::new(Box::new(Taking { taken: taken.clone(), calls: calls.clone(), most }));
    (writer, taken, calls)
}

#[tokio::test]
async fn many_frames_come_from_one_read() {
    let mut stream = Vec::new();
    for n in 0..100u8 {
        stream.extend(framed(&[n; 9]));
    }
    let calls = Arc::new(AtomicUsize::new(0));
    let counting = Counting { inner: std::io::Cursor::new(stream), calls: calls.clone() };
    let mut reader = FrameReader::new(Box::new(counting), 100);
    for n in 0..100u8 {
        assert_eq!(reader.next().await.unwrap().unwrap(), [n; 9][..]);
    }
    assert_eq!(calls.load(SeqCst), 1);
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn frames_are_slices_of_what_was_received() {
    let mut reader = reader_of([framed(b"one"), framed(b"two")].concat(), 10);
    let one = reader.next().await.unwrap().unwrap();
    let two = reader.buffered().unwrap().unwrap();
    assert_eq!(two.as_ptr() as usize - one.as_ptr() as usize, one.len() + PREFIX);
}

#[tokio::test]
async fn an_empty_frame_is_a_frame() {
    let mut reader = reader_of(framed(b""), 10);
    assert_eq!(reader.next().await.unwrap().unwrap(), b""[..]);
    assert!(reader.next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_frame_may_come_byte_by_byte_and_the_wait_be_given_up_each_time() {
    let (mut near, far) = duplex(1 << 16);
    let mut reader = FrameReader::new(Box::new(far), 1000);
    let bytes = [framed(b"slowly does it"), framed(b"again")].concat();
    let mut frames = Vec::new();
    for byte in bytes {
        let waited = tokio::time::timeout(Duration::ZERO, reader.next()).await;
        assert!(waited.is_err(), "a whole frame is not there yet");
        near.write_all(&[byte]).await.unwrap();
        if let Ok(frame) = tokio::time::timeout(Duration::ZERO, reader.next()).await {
            frames.push(frame.unwrap().unwrap());
        }
    }
    assert_eq!(frames, [&b"slowly does it"[..], b"again"]);
}

#[tokio::test]
async fn an_unfinished_frame_is_known() {
    let (mut near, far) = duplex(1 << 10);
    let mut reader = FrameReader::new(Box::new(far), 1000);
    let mut seen = vec![reader.unfinished()];
    for bytes in [&framed(b"whole")[..], b"\0", b"\0\0", b"\x02o", b"k\0"] {
        near.write_all(bytes).await.unwrap();
        let _ = tokio::time::timeout(Duration::ZERO, reader.next()).await;
        seen.push(reader.unfinished());
    }
    assert_eq!(seen, [None, None, Some(10), Some(12), Some(14), Some(16)]);
}

#[tokio::test]
async fn a_close_inside_a_frame_is_a_cut() {
    for length in 1..framed(b"abcdef").len() {
        let mut reader = reader_of(framed(b"abcdef")[..length].to_vec(), 10);
        assert!(matches!(reader.next().await, Err(FrameFault::Cut)), "after {length} bytes");
    }
}

#[tokio::test]
async fn a_claim_over_the_limit_is_refused_and_costs_nothing() {
    let mut reader = reader_of([framed(b"fine"), vec![0xff; 100]].concat(), 1 << 20);
    assert_eq!(reader.next().await.unwrap().unwrap(), b"fine"[..]);
    for _ in 0..2 {
        match reader.next().await {
            Err(FrameFault::TooLarge { claimed: u32::MAX, limit }) => assert_eq!(limit, 1 << 20),
            other => panic!("{other:?}"),
        }
    }
    assert!(reader.buffer.capacity() <= READ_MOST);
}

#[tokio::test]
async fn a_claim_within_a_huge_limit_takes_memory_only_as_bytes_arrive() {
    let (mut near, far) = duplex(1 << 20);
    let mut reader = FrameReader::new(Box::new(far), usize::MAX);
    near.write_all(&u32::MAX.to_be_bytes()).await.unwrap();
    let mut sent = 0;
    for _ in 0..50 {
        near.write_all(&[7; 50_000]).await.unwrap();
        sent += 50_000;
        assert!(tokio::time::timeout(Duration::ZERO, reader.next()).await.is_err());
        let here = reader.buffer.capacity();
        assert!(here <= 4 * sent + 2 * READ_MOST, "{here} bytes taken for {sent}");
    }
    drop(near);
    assert!(matches!(reader.next().await, Err(FrameFault::Cut)));
}

#[tokio::test]
async fn a_large_frame_arrives_whole_and_the_parts_left_over_can_be_had() {
    let large: Vec<u8> = (0..3_000_000u32).map(|n| n as u8).collect();
    let stream = [framed(&large), framed(b"next"), b"\0\0".to_vec()].concat();
    let mut reader = reader_of(stream, large.len());
    assert_eq!(reader.next().await.unwrap().unwrap(), large);
    reader.set_limit(4);
    assert_eq!(reader.next().await.unwrap().unwrap(), b"next"[..]);
    assert!(reader.buffered().unwrap().is_none());
    let (mut stream, mut rest) = reader.into_parts();
    stream.read_buf(&mut rest).await.unwrap();
    assert_eq!(rest, b"\0\0"[..]);
}

#[tokio::test]
async fn the_memory_of_a_large_frame_goes_with_the_frame() {
    let (mut near, far) = duplex(1 << 22);
    let mut reader = FrameReader::new(Box::new(far), 1 << 22);
    near.write_all(&[framed(&vec![7; 3_000_000]), b"\0\0".to_vec()].concat()).await.unwrap();
    let large = reader.next().await.unwrap().unwrap();
    assert_eq!(large.len(), 3_000_000);
    // Before anything more is said.
    drop(large);
    assert!(reader.buffer.capacity() <= READ_MOST, "{}", reader.buffer.capacity());
    near.write_all(b"\0\x05small").await.unwrap();
    assert_eq!(reader.next().await.unwrap().unwrap(), b"small"[..]);
    assert!(reader.buffer.capacity() <= READ_MOST && reader.allocated <= READ_MOST);
}

#[tokio::test]
async fn a_connection_that_was_busy_and_is_silent_keeps_little() {
    let (mut near, far) = duplex(1 << 22);
    let mut reader = FrameReader::new(Box::new(far), 10_000);
    for rest in [&b""[..], b"\0\0\x01"] {
        near.write_all(&framed(&[5; 5_000]).repeat(200)).await.unwrap();
        near.write_all(rest).await.unwrap();
        for _ in 0..200 {
            reader.next().await.unwrap().unwrap();
        }
        assert!(reader.room > KEEP, "it was busy");
        assert!(tokio::time::timeout(Duration::ZERO, reader.next()).await.is_err());
        assert!(reader.allocated <= KEEP + 4 * rest.len() && reader.buffer.capacity() <= reader.allocated);
        assert_eq!(reader.buffer, *rest);
        // Silence that goes on costs nothing: nothing is allocated and freed again.
        assert!(tokio::time::timeout(Duration::ZERO, reader.next()).await.is_err());
        let place = reader.buffer.as_ptr();
        assert!(tokio::time::timeout(Duration::ZERO, reader.next()).await.is_err());
        assert_eq!(reader.buffer.as_ptr(), place);
        if !rest.is_empty() {
            near.write_all(&[&b"\0"[..], &[9; 256]].concat()).await.unwrap();
            assert_eq!(reader.next().await.unwrap().unwrap(), [9; 256][..]);
        }
    }
}

#[tokio::test]
async fn small_frames_are_merged_into_one_write() {
    let (mut writer, taken, calls) = taking(usize::MAX);
    let mut expected = Vec::new();
    for n in 0..1000u32 {
        writer.push(&n.to_be_bytes());
        expected.extend(framed(&n.to_be_bytes()));
    }
    assert_eq!(writer.queued(), expected.len());
    writer.write_some().await.unwrap();
    assert_eq!((writer.queued(), calls.load(SeqCst)), (0, 1));
    assert_eq!(*taken.lock().unwrap(), expected);
}

#[tokio::test]
async fn large_bodies_keep_their_place_and_go_out_in_the_same_write() {
    let (mut writer, taken, calls) = taking(usize::MAX);
    let body = Bytes::from(vec![5; 100_000]);
    writer.push(b"before");
    writer.push_parts(b"<", body.clone(), b">");
    writer.push_parts(b"(", Bytes::from_static(b"small"), b")");
    writer.push_parts(b"", body.clone(), b"");
    writer.push(b"after");
    writer.flush().await.unwrap();
    let large = [b"<", &body[..], b">"].concat();
    let expected = [framed(b"before"), framed(&large), framed(b"(small)"), framed(&body), framed(b"after")].concat();
    assert_eq!(*taken.lock().unwrap(), expected);
    assert_eq!(calls.load(SeqCst), 1);
}

#[tokio::test]
async fn a_stream_that_takes_little_gets_all_in_order() {
    let (mut writer, taken, _) = taking(7);
    let mut expected = Vec::new();
    for n in 0..200usize {
        let body = Bytes::from(vec![n as u8; n * 97]);
        writer.push_parts(b"h", body.clone(), b"t");
        expected.extend(framed(&[b"h", &body[..], b"t"].concat()));
        if n % 3 == 0 {
            writer.write_some().await.unwrap();
        }
    }
    writer.flush().await.unwrap();
    assert!(*taken.lock().unwrap() == expected);
}

#[tokio::test]
async fn what_is_held_of_a_large_body_is_all_of_it_until_its_end() {
    let (mut writer, _, _) = taking(60_000);
    writer.push(b"before");
    writer.push_parts(b"", Bytes::from(vec![5; 100_000]), b"");
    writer.push_parts(b"", Bytes::from(vec![6; 70_000]), b"");
    let mut seen = Vec::new();
    while writer.queued() > 0 {
        seen.push((writer.queued() / 1_000, writer.held() / 1_000));
        writer.write_some().await.unwrap();
    }
    assert_eq!(seen, [(170, 170), (110, 170), (50, 70)]);
    assert_eq!(writer.held(), 0);
    // Small frames are one buffer.
    let (mut writer, _, _) = taking(300_000);
    for _ in 0..500 {
        writer.push(&[7; 1_000]);
    }
    writer.write_some().await.unwrap();
    assert_eq!((writer.queued() / 1_000, writer.held() / 1_000), (202, 502));
    writer.push_parts(b"", Bytes::from(vec![8; 10_000]), b"");
    assert_eq!((writer.queued() / 1_000, writer.held() / 1_000), (212, 512));
    writer.flush().await.unwrap();
    assert_eq!(writer.held(), 0);
}

#[tokio::test]
async fn a_writer_with_nothing_to_write_keeps_little() {
    let (mut writer, _, _) = taking(usize::MAX);
    for body in [0, 100_000] {
        for _ in 0..500 {
            writer.push(&[7; 1_000]);
        }
        writer.push_parts(b"", Bytes::from(vec![8; body]), b"");
        writer.flush().await.unwrap();
        // (A part of the buffer would keep all of it.)
        assert_eq!(writer.tail.capacity(), 0, "{body}");
    }
}

#[tokio::test]
async fn a_write_given_up_goes_on_where_it_was() {
    let (near, mut far) = duplex(300);
    let mut writer = FrameWriter::new(Box::new(near));
    let body: Vec<u8> = (0..50_000u32).map(|n| (n / 3) as u8).collect();
    writer.push(b"first");
    writer.push_parts(b"", Bytes::from(body.clone()), b"end");
    let mut heard = Vec::new();
    while writer.queued() > 0 {
        let _ = tokio::time::timeout(Duration::ZERO, writer.flush()).await;
        far.read_buf(&mut heard).await.unwrap();
    }
    drop(writer.into_writer());
    far.read_to_end(&mut heard).await.unwrap();
    assert!(heard == [framed(b"first"), framed(&[&body[..], b"end"].concat())].concat());
}

#[tokio::test]
async fn a_closed_stream_is_an_error() {
    let (near, far) = duplex(10);
    drop(far);
    let mut writer = FrameWriter::new(Box::new(near));
    writer.push(b"anybody?");
    assert!(writer.flush().await.is_err());
}
