//! Every limit of the program, with its unit, and what must hold between them.
//!
//! Whatever may grow because of somebody outside (a client, a peer, an operator) is bounded by a number of this page, so
//! that what a server can cost is known by reading one file. The relations at its end are checked by the compiler.
//! What an installation may want to choose is no limit but a setting and stands in [`Config`](super::Config).

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// Sizes of what is said and stored.

/// Bytes of one object's data. A larger one is refused at vote.
pub const OBJECT: usize = 128 * MIB;
/// Bytes of a frame to or from a client: the largest object, and what a call says around it.
pub const FRAME: usize = OBJECT + MIB;
/// Bytes of the first frame of a connection, and of every frame before the register: who is there, not what is wanted.
pub const FIRST_FRAME: usize = 4 * KIB;
/// Bytes of a transaction's descriptions, of what is kept about each of its objects, and of their data until that is in the
/// log. A larger one is refused at vote.
pub const TRANSACTION_BYTES: usize = 256 * MIB;
/// Bytes of one piece of what goes through the log ahead of its transaction, and of a command with such pieces.
pub const PIECE: usize = MIB;
/// Bytes of a transaction's user, description and extension, each.
pub const TRANSACTION_TEXT: usize = 64 * KIB - 1;
/// Bytes of the name of a storage.
pub const STORAGE_NAME: usize = 255;
/// How deep the values of a call (pickle, msgpack) may nest.
pub const NESTING: usize = 64;
/// How many values a call may consist of: a frame full of one-byte values would else fill the memory.
pub const CALL_VALUES: usize = 1 << 17;
/// How many values a server's answer may consist of (`getInvalidations` may name millions of objects).
pub const ANSWER_VALUES: usize = 1 << 24;
/// Bytes of a frame between peers: the largest transaction as a log entry, in the largest batch.
pub const PEER_FRAME: usize = TRANSACTION_BYTES + APPEND_BYTES + 64 * MIB;

/// Bytes of a transaction that an import takes in one command; what is more goes ahead of it in pieces, as much at a time.
pub const IMPORT: usize = 8 * MIB;

// Connections.

/// Connections to the client port, of all kinds.
pub const CONNECTIONS: usize = 16_384;
/// Clients that a node which is not primary keeps waiting in silence.
pub const HELD: usize = 8_192;
/// Connections from the hosts of members that are let in beyond these limits, until it is clear that they are peers'.
pub const RESERVED: usize = 64;
/// How long the hosts of members are taken to be where they were looked up.
pub const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);
/// Relayed connections of one node.
pub const RELAYS: usize = 8_192;
/// How long a connection may take from its first bytes to a whole first frame, and a peer to prove that it is one.
pub const INTRODUCTION: Duration = Duration::from_secs(10);
/// A register is answered or closed within this time.
pub const REGISTER_ANSWER: Duration = Duration::from_secs(5);
/// How long to wait for a connection to another node.
pub const CONNECT: Duration = Duration::from_secs(3);
/// What was wrong with strangers is said once in this time for each of them; meanwhile it is only counted.
pub const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);
/// Strangers of whom that is remembered.
pub const COMPLAINTS: usize = 1_024;
/// How long an end that is silent is believed to be there (TCP keepalive and TCP_USER_TIMEOUT).
pub const SILENCE: Duration = Duration::from_secs(30);
/// How long a closing server waits for finishes that were begun, and then for its clients to take their answers.
pub const DRAIN: Duration = Duration::from_secs(5);

// A session.

/// Bytes that wait to be sent to a client, from which on no more of its calls are read.
pub const OUTPUT_HIGH_WATER: usize = 4 * MIB;
/// Bytes that may wait to be sent to a client at all; it is closed past this (only invalidations can get there).
pub const OUTPUT: usize = OUTPUT_HIGH_WATER + FRAME + 16 * MIB;
/// How long a client may take none of what waits for it.
pub const OUTPUT_STALL: Duration = Duration::from_secs(60);
/// Calls of one client that are being answered at the same time.
pub const CALLS: usize = 256;
/// Iterators of one client.
pub const ITERATORS: usize = 64;
/// Object ids that one `new_oids` call gives, as in ZEO.
pub const NEW_OIDS: usize = 100;
/// Object ids that are reserved in the log at a time.
pub const OID_RANGE: u32 = 100_000;
/// Revisions that one `history` call gives.
pub const HISTORY: usize = 100_000;
/// Bytes of the descriptions in one `history` answer, from which on it ends early.
pub const HISTORY_BYTES: usize = 16 * MIB;
/// Transactions that one search of the undo log looks at, from which on it ends early.
pub const UNDO_SEARCH: usize = 1_000_000;
/// Searches of the undo log that one client has under way, from which on its next call waits.
pub const UNDO_SEARCHES: usize = 2;
/// Long reads (of the undo log, of what an undo touches, of what met a conflict) of all clients at a time; more wait. They
/// share their threads with the log and with apply, which must always find one.
pub const LONG_READS: usize = 6;
/// Pieces of blobs that are being read for all clients at a time; more wait.
pub const PIECE_READS: usize = 16;
/// Writes that a client may have missed and yet be told of. One that missed more drops its cache (`getInvalidations`), or is
/// closed (a session that fell that far behind).
pub const INVALIDATIONS: usize = 1_000_000;
/// Bytes of the label that a client may give itself.
pub const CLIENT_LABEL: usize = 255;

// Two-phase commit.

/// Locks of one transaction.
pub const TRANSACTION_LOCKS: usize = 4_000_000;
/// Locks that all transactions of a storage together hold or wait for; about 100 bytes each.
pub const LOCKS: usize = 8_000_000;
/// Votes that wait for locks. One more is refused.
pub const WAITING_VOTES: usize = 10_000;
/// How far ahead of the primary's clock a tid may be that a client brings: all later ones of the storage follow it.
pub const TID_AHEAD: Duration = Duration::from_secs(86_400);
/// Bytes of all transactions that are buffered in a node.
pub const TRANSACTIONS_BYTES: usize = 4 * TRANSACTION_BYTES;

// What goes through the log ahead of its transaction.

/// Bytes of records that a commit takes along; what a transaction has beyond them goes ahead of it, as all blobs do.
pub const COMMIT_INLINE: usize = 2 * MIB;
/// Bytes of a client's transaction that wait to go into the log, from which on no more of its calls are read.
pub const STAGING_HIGH_WATER: usize = 8 * MIB;
/// Commands with pieces, of all clients together, that wait for the log: what a small commit may have to wait for.
pub const STAGES: usize = 2;
/// Pieces that one command brings.
pub const STAGE_PIECES: usize = 4_096;
/// Pieces that one command discards.
pub const DISCARD: u32 = 4_096;
/// Pieces of transactions on their way that the status counts.
pub const STAGED_COUNTED: usize = 10_000;
/// How long a client may say nothing of a transaction that has data in the log. After that its connection is closed.
pub const STAGE_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// Blobs that are being sent to one client at the same time; more wait.
pub const BLOB_SENDS: usize = 4;
/// Bytes of the parts in which a blob is sent, as ZEO does it.
pub const BLOB_CHUNK: usize = 59_000;

// What a storage keeps in memory.

/// Applied transactions that a storage remembers for those who follow it; who is further behind reads the tid index.
pub const FEED: usize = 4_096;
/// Object ids in all of them together (8 bytes each), unless the newest transaction alone has more.
pub const FEED_OIDS: usize = 1 << 18;

// Packing.

/// Revisions (or transactions) that one step of a pack removes.
pub const PACK_REVISIONS: usize = 512;
/// Bytes of records that one step of a pack moves to other revisions, and that it reads to remove them, unless a single one
/// is larger.
pub const PACK_BYTES: u64 = 8 * MIB as u64;
/// What the reader of a record's references holds at once: on its stack, in its memo, and of references. A record that needs
/// more of any can't be read.
pub const PICKLE_ITEMS: usize = 8 * MIB;

// Consensus.

/// Nodes of a cluster.
pub const MEMBERS: usize = 9;
/// Proposals of one reign that wait for the log.
pub const PROPOSALS: usize = 4_096;
/// Log entries of one message to a peer.
pub const APPEND_ENTRIES: u64 = 1_024;
/// Bytes of log entries in one message to a peer, unless a single one is larger.
pub const APPEND_BYTES: usize = 4 * MIB;
/// Calls to one peer that wait for their answers.
pub const PEER_CALLS: usize = 256;
/// How long a call to a peer may take that a slow disk may hold up.
pub const PEER_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer may take to prove that it is a member.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a command that is applied on the task it came to; a larger one goes to a thread that may take its time.
pub const APPLY_INLINE: usize = 64 * KIB;
/// Writes of a transaction whose serials are read, and whose command is made, on the task of its client, and pieces of a
/// command that is applied on the task it came to; more go to a thread that may take its time.
pub const WRITES_INLINE: usize = 1_000;
/// Changes of the log that wait for its writer.
pub const LOG_QUEUE: usize = 4_096;
/// Bytes of the newest log entries that are kept in memory, for peers that are nearly up to date.
pub const LOG_TAIL_BYTES: usize = 16 * MIB;
/// Bytes of the log after which the store is flushed, so that less must be replayed after a crash.
pub const FLUSH_AFTER_BYTES: u64 = 256 * MIB as u64;
/// How often to look for that.
pub const FLUSH_CHECK: Duration = Duration::from_secs(1);
/// Bytes of the cluster's secret, at least and at most.
pub const SECRET: std::ops::RangeInclusive<usize> = 16..=4 * KIB;

// HTTP.

/// Connections to the HTTP address.
pub const HTTP_CONNECTIONS: usize = 256;
/// Bytes of a request's line and headers.
pub const HTTP_HEAD: usize = 16 * KIB;
/// Headers of a request.
pub const HTTP_HEADERS: usize = 64;
/// How long a request and its answer may take together.
pub const HTTP_EXCHANGE: Duration = Duration::from_secs(30);
/// How long to wait after accepting failed (too many open files, for example).
pub const HTTP_RETRY: Duration = Duration::from_millis(100);

// Settings that [`Config::check`](super::Config::check) refuses beyond these.

/// The shortest heartbeat.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(5);
/// The longest election timeout.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Heartbeats that must fit into an election timeout, so that one lost packet is no election.
pub const HEARTBEATS_PER_ELECTION: u32 = 3;

const _: () = assert!(OBJECT < FRAME, "the largest object must fit into a frame, with its call");
const _: () = assert!(FRAME <= PEER_FRAME && PEER_FRAME <= u32::MAX as usize, "lengths are four bytes");
const _: () = assert!(FIRST_FRAME < FRAME);
const _: () = assert!(OBJECT + MIB <= TRANSACTION_BYTES, "the largest object must fit into a transaction");
const _: () = assert!(TRANSACTION_TEXT <= u16::MAX as usize, "Data.fs gives these lengths two bytes");
const _: () = assert!(PEER_FRAME >= TRANSACTION_BYTES + APPEND_BYTES, "the largest entry must be replicable");
const _: () = assert!(OUTPUT > OUTPUT_HIGH_WATER + FRAME, "the largest answer must not close who reads slowly");
const _: () = assert!(TRANSACTIONS_BYTES > TRANSACTION_BYTES, "a large transaction must not wait for itself");
const _: () = assert!(TRANSACTION_LOCKS <= LOCKS / 2, "one transaction leaves room for another");
const _: () = assert!(STAGING_HIGH_WATER >= COMMIT_INLINE + 2 * PIECE, "who may not go on must have something to send");
const _: () = assert!(BLOB_CHUNK < PIECE);
const _: () = assert!(LOG_TAIL_BYTES > APPEND_BYTES, "peers that keep up are served from memory");
const _: () = assert!(WAITING_VOTES < LOCKS, "every waiting vote has a lock at least");
const _: () = assert!(NEW_OIDS as u64 <= OID_RANGE as u64, "one call must be answerable from one range");
const _: () = assert!(HELD < CONNECTIONS && RELAYS < CONNECTIONS);
const _: () = assert!(HTTP_HEAD >= 8 * KIB, "hyper refuses a smaller buffer");
const _: () = assert!(HTTP_EXCHANGE.as_secs() > 2 * DRAIN.as_secs(), "handing over must fit into a request");
const _: () = assert!(DRAIN.as_secs() < 10, "supervisors kill after ten seconds");
