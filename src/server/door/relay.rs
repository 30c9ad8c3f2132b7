//! Relays a writer at a node that is not primary: bytes are passed on, both ways, as they are.
//!
//! After the register, the client's bytes go to the primary without being looked at, and the primary's to the client.
//! The two buffers are all that a relay costs; a side that reads nothing stops the other. A relay ends when either
//! side closes or the primary changes. Unless the client closed it, the last answers of the old primary are passed on
//! first, and reach the client though it goes on sending.

use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::limits;
use crate::net::{FrameReader, FrameWriter, lingering_close};
use crate::server::client::{Client, Incoming};
use crate::server::counts::{Present, Why};
use crate::server::shared::Shared;

/// Bytes of each direction's buffer.
const BUFFER: usize = 64 << 10;

/// An open relay, before its client's bytes are passed on.
pub struct Relay {
    /// The number of the node that the streams lead to.
    pub primary: u64,
    pub reader: FrameReader,
    pub writer: FrameWriter,
    /// Counts the relay.
    pub present: Present,
}

impl Relay {
    /// Passes bytes on until the relay ends.
    pub async fn pass(self, shared: &Arc<Shared>, client: Client) {
        let Relay { primary, reader, mut writer, present: _present } = self;
        tracing::debug!(peer = %client.peer, primary, "relaying a client");
        let Incoming { early, reader: incoming } = client.incoming;
        for frame in early {
            writer.push(&frame);
        }
        if writer.flush().await.is_err() {
            return;
        }
        let (mut from_client, said) = incoming.into_parts();
        let (from_primary, answered) = reader.into_parts();
        let (mut to_client, sent) = (client.writer.into_writer(), shared.metrics.sent.clone());
        let client_left = {
            // (It keeps the connection to the primary open while answers are waited for.)
            let mut up = std::pin::pin!(copy(&mut from_client, writer.into_writer(), said.freeze(), |_| {}));
            let count = |bytes| {
                sent.inc_by(bytes as u64);
            };
            let mut down = std::pin::pin!(copy(from_primary, &mut to_client, answered.freeze(), count));
            tokio::select! { biased;
                _ = &mut down => false,
                // (One that fails could not be passed on: the primary may have answered before it closed.)
                passed = &mut up => {
                    if passed.is_err() {
                        let _ = shared.env.timeout(limits::LAST_ANSWERS, down).await;
                    }
                    passed.is_ok()
                }
                _ = shared.leaves(primary) => {
                    shared.metrics.closed(Why::PrimaryChanged);
                    let _ = shared.env.timeout(limits::LAST_ANSWERS, down).await;
                    false
                }
            }
        };
        if !client_left {
            lingering_close(&shared.env, to_client, from_client).await;
        }
    }
}

/// Copies `first`, and then everything from `from`.
async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    first: bytes::Bytes,
    mut count: impl FnMut(usize),
) -> std::io::Result<()> {
    to.write_all(&first).await?;
    to.flush().await?;
    count(first.len());
    // (It keeps the buffer that it was read into.)
    drop(first);
    let mut buffer = vec![0; BUFFER];
    loop {
        let got = from.read(&mut buffer).await?;
        if got == 0 {
            return Ok(());
        }
        to.write_all(&buffer[..got]).await?;
        to.flush().await?;
        count(got);
    }
}
