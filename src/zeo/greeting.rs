//! The first frames of a connection: which encoding the messages will have, and which kind of program connects.

/// How the messages of a connection are written; the client's first frame chooses, for both directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// `Z5`: pickle protocol 3.
    Pickle,
    /// `M5`, `R5`: msgpack.
    Msgpack,
}

impl Encoding {
    /// The server's first frame, which proposes this encoding.
    pub fn greeting(self) -> &'static [u8; 2] {
        match self {
            Encoding::Pickle => b"Z5",
            Encoding::Msgpack => b"M5",
        }
    }

    /// The encoding that a greeting, or the answer to one, names; `None` for other versions of the protocol.
    pub fn of_greeting(frame: &[u8]) -> Option<Encoding> {
        match frame {
            b"Z5" => Some(Encoding::Pickle),
            b"M5" | b"R5" => Some(Encoding::Msgpack),
            _ => None,
        }
    }
}

/// The kind of program that connects, as its first frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstFrame {
    /// A monitor, which asks for the status as JSON and for nothing else.
    Ruok,
    /// A node of the cluster (or a program that claims to be one).
    Peer,
    /// The witness of a node, with the word that the node's process has ended.
    Obituary,
    /// A ZEO client.
    Client {
        /// The encoding of all further messages.
        encoding: Encoding,
        /// Whether the client follows [`crate::zodb::Refusal::NotPrimary`] to the primary: the Rust client does, stock
        /// ZEO does not.
        follows_redirects: bool,
    },
}

impl FirstFrame {
    /// Reads a first frame. `None`: this protocol is not served, and the connection is to be closed.
    pub fn read(frame: &[u8]) -> Option<FirstFrame> {
        match frame {
            b"ruok" => Some(FirstFrame::Ruok),
            [b'P', b'1', ..] => Some(FirstFrame::Peer),
            [b'O', b'1', ..] => Some(FirstFrame::Obituary),
            _ => {
                let encoding = Encoding::of_greeting(frame)?;
                Some(FirstFrame::Client { encoding, follows_redirects: frame == b"R5" })
            }
        }
    }
}
