//! Why this node closes a connection: the label of `zrs_closed_total`, and the word in the log.
//!
//! One line a reason. `docs/operations.md` lists them all, and a test here holds that.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelValue, LabelValueEncoder};

/// Declares the reasons with their words, so that a reason can't be without one.
macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $word:literal,)*) => {
        /// Why this node closes a connection.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Why { $($(#[$doc])* $name,)* }

        impl Why {
            /// All reasons.
            pub const ALL: &'static [Why] = &[$(Why::$name,)*];

            /// The reason in one word, as metrics and logs have it.
            pub fn word(self) -> &'static str {
                match self { $(Why::$name => $word,)* }
            }
        }
    };
}

reasons! {
    /// The client made a call that is refused and awaits no answer: closing is the only way to tell the client.
    AsyncRefused = "async_refused",
    /// The client sent a frame that is no call.
    BadFrame = "bad_frame",
    /// A pack removed the blob that was being sent.
    BlobPacked = "blob_packed",
    /// The socket failed.
    Broken = "broken",
    /// All clients together held too much memory of the same kind, and this one the most of it.
    CrowdedOut = "crowded_out",
    /// The database could not be read.
    Fault = "fault",
    /// The client closed its end.
    Gone = "gone",
    /// The client began a frame, and sent no more of it.
    HalfFrame = "half_frame",
    /// The TLS certificate is none of a client.
    NoClient = "no_client",
    /// No primary was found in time.
    NoPrimary = "no_primary",
    /// Nothing like TLS came in at a port for TLS.
    NoTls = "no_tls",
    /// The port for readers serves only while this node is fresh enough (`--max-lag`).
    NotFresh = "not_fresh",
    /// A client was relayed to a node that is not primary.
    NotPrimary = "not_primary",
    /// There is a primary again for a client that could only read meanwhile.
    PrimaryAgain = "primary_again",
    /// The primary that a client was relayed to is primary no more.
    PrimaryChanged = "primary_changed",
    /// The primary that was asked to pack did not answer.
    PrimaryLost = "primary_lost",
    /// A session registers once.
    RegisteredTwice = "registered_twice",
    /// This node is primary no more.
    ReignOver = "reign_over",
    /// The connection was greeted and said nothing.
    Silent = "silent",
    /// Data had gone into the log ahead of a transaction whose client then fell silent.
    StageExpired = "stage_expired",
    /// The client read nothing of its queued output.
    Stalled = "stalled",
    /// This node stops.
    Stopping = "stopping",
    /// The storage was dropped.
    StorageDropped = "storage_dropped",
    /// The TLS handshake failed, or took too long.
    TlsHandshake = "tls_handshake",
    /// The client is so far behind that dropping its cache costs less than the invalidations.
    TooFarBehind = "too_far_behind",
    /// This node relays as many clients as it may, or may open no connection more for one.
    TooManyRelays = "too_many_relays",
    /// More answers waited for the client than are kept.
    TooSlow = "too_slow",
    /// The transaction held its locks for too long.
    TransactionTimeout = "transaction_timeout",
    /// The outcome of the transaction is unknown.
    UnknownOutcome = "unknown_outcome",
    /// The bytes are no frames.
    Unreadable = "unreadable",
    /// The vote got no verdict, as the reign ended or the disk failed.
    VoteLost = "vote_lost",
}

impl Why {
    /// Whether the connection has ended by itself, and not by this node.
    pub fn is_the_clients(self) -> bool {
        matches!(self, Why::Gone | Why::Broken)
    }

    /// Whether a client whose session ends so is told what is to come within a moment. (The memory of one that is
    /// crowded out is needed at once; and an outcome that it is not told counts as unknown.)
    pub fn leaves_last_words(self) -> bool {
        !self.is_the_clients() && self != Why::CrowdedOut
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.word())
    }
}

impl EncodeLabelValue for Why {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), fmt::Error> {
        self.word().encode(encoder)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operators_find_every_reason_in_the_manual() {
        let manual = include_str!("../../../docs/operations.md");
        let missing: Vec<&str> =
            Why::ALL.iter().map(|why| why.word()).filter(|word| !manual.contains(&format!("| `{word}` |"))).collect();
        assert!(missing.is_empty(), "docs/operations.md has no row in its table of reasons for {missing:?}");
    }

    #[test]
    fn whoever_is_there_is_told_the_last_unless_memory_is_short() {
        let untold: Vec<Why> = Why::ALL.iter().copied().filter(|why| !why.leaves_last_words()).collect();
        assert_eq!(untold, [Why::Broken, Why::CrowdedOut, Why::Gone]);
    }

    #[test]
    fn no_word_stands_for_two_reasons() {
        let words: std::collections::BTreeSet<&str> = Why::ALL.iter().map(|why| why.word()).collect();
        assert_eq!(words.len(), Why::ALL.len());
    }
}
