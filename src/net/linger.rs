//! Ends a connection so that what was written last arrives.

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use crate::config::limits;
use crate::env::Env;

/// Sends what is buffered and the end of the stream, and reads on until the other end has closed, too, for
/// [`limits::LAST_WORDS`] at most. (A connection that is closed with bytes that nobody has read is reset, and what was
/// written last may never arrive.)
pub async fn lingering_close(env: &Env, mut writer: impl AsyncWrite + Unpin, mut reader: impl AsyncRead + Unpin) {
    let parting = async {
        writer.shutdown().await?;
        tokio::io::copy(&mut reader, &mut tokio::io::sink()).await
    };
    // (It is closed in any case.)
    let _ = env.timeout(limits::LAST_WORDS, parting).await;
}
