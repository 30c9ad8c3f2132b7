//! Every limit of the program, with its unit, and what must hold between them.
//!
//! All memory and work that a client, a peer or an operator can cause is bounded by a number of this page: one file
//! tells what a server can cost. The compiler checks the relations at the end of the file. A number that an
//! installation may want to change is a setting instead, and stands in [`Config`](super::Config).

use std::time::Duration;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

// Sizes of messages and records.

/// Bytes of one object's data. The vote of a transaction with a larger object is refused.
pub const OBJECT: usize = 128 * MIB;
/// Bytes of a frame to or from a client: the largest object, and the rest of its call.
pub const FRAME: usize = OBJECT + MIB;
/// Bytes of each frame of a connection until its `register`: such frames only identify the client or peer.
pub const FIRST_FRAME: usize = 4 * KIB;
/// Bytes of a transaction's descriptions, of the bookkeeping for each of its objects, and of its data that is not yet
/// in the log. The vote of a larger transaction is refused.
pub const TRANSACTION_BYTES: usize = 512 * MIB;
/// Bytes of one piece of data that goes through the log ahead of its transaction, and of a command with such pieces.
pub const PIECE: usize = MIB;
/// Bytes of a transaction's user, description and extension, each.
pub const TRANSACTION_TEXT: usize = 64 * KIB - 1;
/// Bytes of a storage's name.
pub const STORAGE_NAME: usize = 255;
/// How deep the values of a call (pickle, msgpack) may nest.
pub const NESTING: usize = 64;
/// Values in one call: without this limit a frame full of one-byte values would fill the memory.
pub const CALL_VALUES: usize = 1 << 17;
/// Bytes that the texts of a pickle may have beyond the pickle's own length, as its memo can name one text many times.
pub const SHARED_BYTES: usize = MIB;
/// Values in one answer of a server (`getInvalidations` may name millions of objects).
pub const ANSWER_VALUES: usize = 1 << 24;
/// Bytes of a frame between peers: the largest transaction as a log entry, in the largest batch.
pub const PEER_FRAME: usize = TRANSACTION_BYTES + APPEND_BYTES + 64 * MIB;

/// Bytes of a transaction that an import puts into one command; further data goes ahead of that command, in commands
/// of this size.
pub const IMPORT: usize = 8 * MIB;
/// Damaged places of a file that an import names one by one; more are counted.
pub const LOST_NAMED: usize = 1_000;

// Connections.

/// Connections to the client port, of all kinds.
pub const CONNECTIONS: usize = 16_384;
/// Clients to which a node that is not primary sends nothing yet.
pub const HELD: usize = 8_192;
/// Connections from the hosts of members that are accepted beyond these limits, until they prove to be peers.
pub const RESERVED: usize = 64;
/// How long the looked-up addresses of the members' hosts are used before the next look-up.
pub const LOOK_UP_AGAIN: Duration = Duration::from_secs(10);
/// Relayed connections of one node.
pub const RELAYS: usize = 8_192;
/// How long a connection may take from its first bytes to a whole first frame, and a peer to prove its membership.
pub const INTRODUCTION: Duration = Duration::from_secs(10);
/// How long the other end may take to read what it is told before its connection is closed.
pub const LAST_WORDS: Duration = Duration::from_secs(1);
/// Within this time a `register` is answered or its connection closed.
pub const REGISTER_ANSWER: Duration = Duration::from_secs(5);
/// How long connecting to another node may take.
pub const CONNECT: Duration = Duration::from_secs(3);
/// How long a node that is primary no more may still answer what it has begun, and what others have passed on to it.
pub const LAST_ANSWERS: Duration = Duration::from_secs(1);
/// Complaints about a connection are logged once in this time for each remote host; others are only counted.
pub const COMPLAIN_AGAIN: Duration = Duration::from_secs(60);
/// Bytes of a complaint; the rest is left out.
pub const COMPLAINT: usize = 2 * KIB;
/// Remote hosts for which the time of the last complaint is remembered.
pub const COMPLAINTS: usize = 1_024;
/// How long a silent remote end counts as alive (TCP keepalive and TCP_USER_TIMEOUT).
pub const SILENCE: Duration = Duration::from_secs(30);
/// How long a closing server waits for the finishes under way, and then for its clients to read their answers.
pub const DRAIN: Duration = Duration::from_secs(5);

// Open files.

/// Files of the database's engine.
pub const STORE_FILES: usize = 1_000;
/// Files for the rest: the log, members' connections, listeners, threads.
pub const OTHER_FILES: usize = 56;
/// The least that a process must be allowed to have open.
pub const OPEN_FILES_LEAST: usize = 160;

// Threads.

/// Threads for work that may block: reads that take long, large commands, flushes.
pub const BLOCKING_THREADS: usize = 64;
/// How long such a thread stays that has nothing to do.
pub const THREAD_KEPT: Duration = Duration::from_secs(86_400);

// All sessions together.

/// Bytes of frames that have not arrived whole. Beyond, a connection of which nothing arrives is closed, or else the
/// one that holds most of them.
pub const INPUT_SUM: usize = 8 * FRAME;
/// Bytes of output that clients have not taken yet. Beyond, a connection that takes nothing is closed, or else the one
/// for which most of it waits.
pub const OUTPUT_SUM: usize = 8 * FRAME;

/// A connection that has made no progress for so long gives way before all others, whatever they hold.
pub const NO_PROGRESS: Duration = Duration::from_secs(1);

// A session.

/// Bytes of output: while more wait for a client, no calls of the client are read.
pub const OUTPUT_HIGH_WATER: usize = 4 * MIB;
/// Bytes of output past which a client is disconnected (only invalidations can fill the output so far).
pub const OUTPUT: usize = OUTPUT_HIGH_WATER + FRAME + 16 * MIB;
/// How long a client may read none of the output that waits for it.
pub const OUTPUT_STALL: Duration = Duration::from_secs(60);
/// A frame of which no byte has come for so long (and twice as long at most) costs its connection.
pub const FRAME_STALL: Duration = Duration::from_secs(30);
/// How long a client is not told of others' transactions after it was sent something, unless there is an answer, too.
pub const NEWS_REST: Duration = Duration::from_millis(1);
/// The same while its own finish is under way, whose answer will have company.
pub const NEWS_WITH_FINISH: Duration = Duration::from_millis(5);
/// Calls of one client that are answered at the same time.
pub const CALLS: usize = 256;
/// Iterators of one client.
pub const ITERATORS: usize = 64;
/// Object ids in one answer to `new_oids`, as in ZEO.
pub const NEW_OIDS: usize = 100;
/// Object ids that one command reserves.
pub const OID_RANGE: u32 = 100_000;
/// Revisions in one answer to `history`.
pub const HISTORY: usize = 100_000;
/// Bytes of descriptions after which an answer to `history` ends early.
pub const HISTORY_BYTES: usize = 16 * MIB;
/// Transactions after which a search of the undo log ends early.
pub const UNDO_SEARCH: usize = 1_000_000;
/// Bytes of a call of `undoInfo`, whose specification is kept until its search is over.
pub const UNDO_SPECIFICATION: usize = 16 * KIB;
/// Searches of the undo log that one client has under way; its next search waits.
pub const UNDO_SEARCHES: usize = 2;
/// Long reads (of the undo log, of the objects of an undo, of records in conflict) of all clients at a time; more
/// wait. Long reads share their threads with the log and with apply, which must always find a free thread.
pub const LONG_READS: usize = 6;
/// Reads of blobs' pieces for all clients at a time; more wait.
pub const PIECE_READS: usize = 16;
/// Writes that a client may have missed and still be told of. A client that missed more drops its cache
/// (`getInvalidations`); a session that fell further behind is closed.
pub const INVALIDATIONS: usize = 1_000_000;
/// Bytes of a client's label (`set_client_label`).
pub const CLIENT_LABEL: usize = 255;

// Two-phase commit.

/// Locks of one transaction.
pub const TRANSACTION_LOCKS: usize = 4_000_000;
/// Locks that all transactions of a storage together hold or wait for; about 100 bytes each.
pub const LOCKS: usize = 8_000_000;
/// Votes that wait for locks. Another vote is refused.
pub const WAITING_VOTES: usize = 10_000;
/// How far ahead of the primary's clock the tid of a restored transaction may be: all later tids are greater still.
pub const TID_AHEAD: Duration = Duration::from_secs(86_400);
/// Bytes of all transactions in the buffers of a node.
pub const TRANSACTIONS_BYTES: usize = 4 * TRANSACTION_BYTES;

// Data that goes through the log ahead of its transaction.

/// Bytes of records in a `Commit` command; further records of the transaction go ahead of it, as all blobs do.
pub const COMMIT_INLINE: usize = 2 * MIB;
/// Bytes of a client's transaction that wait to go into the log; while more wait, no calls of the client are read.
pub const STAGING_HIGH_WATER: usize = 8 * MIB;
/// Commands with pieces, of all clients together, that wait for the log: a small commit may have to wait for so many.
pub const STAGES: usize = 2;
/// How long the log is left to others after such a command, at most: otherwise for as long as the command took.
pub const STAGE_REST: Duration = Duration::from_millis(250);
/// Pieces in one `Stage` command.
pub const STAGE_PIECES: usize = 4_096;
/// Pieces in one `Discard` command.
pub const DISCARD: u32 = 4_096;
/// Pieces of unfinished transactions that the status counts at most.
pub const STAGED_COUNTED: usize = 10_000;
/// How long a client with data in the log may make no call for its transaction. After that its connection is closed.
pub const STAGE_EXPIRY: Duration = Duration::from_secs(15 * 60);
/// Blobs that are sent to one client at the same time; more wait.
pub const BLOB_SENDS: usize = 4;
/// Bytes of the chunks of a blob that is sent to a client, as in ZEO.
pub const BLOB_CHUNK: usize = 59_000;

// Memory of a storage.

/// Applied transactions that a storage's feed remembers; a session that is further behind reads the table of
/// transactions.
pub const FEED: usize = 4_096;
/// Object ids in all transactions of the feed together (8 bytes each), unless the newest transaction alone has more.
pub const FEED_OIDS: usize = 1 << 18;

/// Bytes of a record that may be kept in the cache of hot objects: reading a larger one costs little beside sending it.
pub const CACHED_RECORD: usize = 64 * KIB;

// Packing.

/// Revisions (or transactions) that one step of a pack removes.
pub const PACK_REVISIONS: usize = 512;
/// Bytes of records that one step of a pack moves to other revisions, or reads in order to remove them, unless a
/// single record is larger.
pub const PACK_BYTES: u64 = 8 * MIB as u64;
/// Items that the scanner of a record's references may hold: on its stack, in its memo, and as references found. A
/// record that needs more of any of them can't be read.
pub const PICKLE_ITEMS: usize = 8 * MIB;

// Consensus.

/// Nodes of a cluster.
pub const MEMBERS: usize = 9;
/// Proposals of one reign that may wait for the log.
pub const PROPOSALS: usize = 4_096;
/// Log entries of one message to a peer.
pub const APPEND_ENTRIES: u64 = 1_024;
/// Bytes of log entries in one message to a peer, unless a single entry is larger.
pub const APPEND_BYTES: usize = 4 * MIB;
/// Messages with entries that are on their way to one peer at a time.
pub const APPENDS: usize = 2;
/// How long a peer may not be told of what is committed, so that the next entries tell it.
pub const COMMITTED_HELD: Duration = Duration::from_millis(3);
/// Log entries that a secondary may be behind and still be handed the primary's role.
pub const TRANSFER_BEHIND: u64 = APPEND_ENTRIES;
/// Calls to one peer that wait for their answers.
pub const PEER_CALLS: usize = 256;
/// How long a call to a peer may take if the peer must write to its disk first.
pub const PEER_CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Errands of other nodes that are under way at a node at a time, and that wait there.
pub const ERRANDS: usize = 16;
/// How long an operator's request waits for a primary to be known.
pub const PRIMARY_AWAITED: Duration = Duration::from_secs(5);
/// How long the primary may take for what an operator asks of it at another node.
pub const ERRAND: Duration = Duration::from_secs(22);
/// How long the primary waits for another node to say whether it needs a storage that is to be dropped.
pub const STORAGE_LOOK: Duration = Duration::from_secs(3);
/// Names of storages that a refusal names.
pub const NAMES_TOLD: usize = 20;
/// How long a peer may take to prove its membership.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a command that is applied on the calling task; a larger command is applied on a thread for blocking work.
pub const APPLY_INLINE: usize = 64 * KIB;
/// Writes of a transaction whose serials are read and whose command is made on the client's task, and pieces of a
/// command that is applied on the calling task; larger ones go to a thread for blocking work.
pub const WRITES_INLINE: usize = 1_000;
/// Changes of the log that may wait for the log's writer.
pub const LOG_QUEUE: usize = 4_096;
/// Bytes of the log's first segment; each later one has twice as many as the one before it, up to `SEGMENT_LARGEST`.
pub const SEGMENT_SMALLEST: u64 = MIB as u64;
/// Bytes of a segment of the log, unless a single entry is larger.
pub const SEGMENT_LARGEST: u64 = 64 * MIB as u64;
/// Bytes of the newest log entries that are kept in memory, for peers that are nearly up to date.
pub const LOG_TAIL_BYTES: usize = 16 * MIB;
/// Bytes of the log after which the store is flushed, so that less must be replayed after a crash.
pub const FLUSH_AFTER_BYTES: u64 = 256 * MIB as u64;
/// Bytes removed by packs and ended transactions after which the store gives the disk their space back.
pub const RECLAIM_AFTER_BYTES: u64 = 32 * MIB as u64;
/// How long nothing more must have been removed before it does.
pub const RECLAIM_CHECK: Duration = Duration::from_secs(5);
/// How often the size of the log is compared with `FLUSH_AFTER_BYTES`.
pub const FLUSH_CHECK: Duration = Duration::from_secs(1);
/// The same while this node reaches a majority that elects a primary.
pub const ELECTION_ANSWER: Duration = Duration::from_secs(120);
/// How often a closing server looks whether all transactions and connections are done.
pub const DRAIN_LOOK: Duration = Duration::from_millis(10);
/// How often a node looks whether it is fit to lead, and asks the others the same.
pub const CHECKUP: Duration = Duration::from_secs(1);
/// An answer to that older than this counts for nothing.
pub const CHECKUP_AGE: Duration = Duration::from_secs(5);
/// By how much a node's clock may be ahead of a majority's for it to lead: the tids that it makes are what clients see
/// as the time of their transactions.
pub const CLOCK_AHEAD: Duration = Duration::from_secs(30);
/// A clock that was too far ahead is right again when it is ahead by no more than this.
pub const CLOCK_RIGHT: Duration = Duration::from_secs(25);
/// Bytes of entries that a node takes although its disk is full: a new leader's first ones.
pub const SMALL_APPEND: usize = 4 * KIB;
/// A machine that was suspended for longer than this has lost its lease.
pub const SUSPENDED: Duration = Duration::from_millis(5);
/// Bytes of a part of a database that is fetched from another node.
pub const FETCH_PART: usize = MIB;
/// Such parts that are asked for and have not come.
pub const FETCH_AHEAD: usize = 4;
/// How long either end of a fetch waits for the other: also while a checkpoint is made, which flushes the store, and
/// while others have their turn by `--snapshot-rate`.
pub const FETCH_SILENCE: Duration = Duration::from_secs(60);
/// For how long a node that can't reach the source of what it has begun to fetch waits for that source, before it
/// begins anew with another one.
pub const FETCH_CUT: Duration = Duration::from_secs(5);
/// How long after a failure a node tries again to fetch a database.
pub const FETCH_AGAIN: Duration = Duration::from_secs(2);
/// How long a checkpoint is shared by all that ask for one.
pub const CHECKPOINT_SHARED: Duration = Duration::from_secs(5 * 60);
/// How long a checkpoint stays that was made, and nobody has read: its receiver could not use it.
pub const CHECKPOINT_AWAITED: Duration = Duration::from_secs(2 * 60);
/// How long a checkpoint stays that nobody reads any more. So long it keeps files of the store and of the log from
/// going.
pub const CHECKPOINT_KEPT: Duration = Duration::from_secs(10 * 60);
/// How long after its last read of a checkpoint a node that has fetched it may take to catch up by the log, which waits
/// for it as long.
pub const FETCHED_KEPT: Duration = Duration::from_secs(3_600);
/// Bytes of the log that a node which has fetched a database may keep, however short the log is to be: it grows while
/// that node begins anew.
pub const LOG_FOLLOWED: u64 = 64 * MIB as u64;
/// A member that has begun to follow the log, and is silent for so long, is not waited for.
pub const FOLLOWER_AWAY: Duration = Duration::from_secs(60);
/// How often a leader asks a member that fetches a database how far it is, and how often that one says so to all.
pub const CATCH_UP_AGAIN: Duration = Duration::from_secs(1);
/// How long the answer may take.
pub const CATCH_UP_ANSWER: Duration = Duration::from_secs(2);
/// How often a node looks whether its log can be shortened.
pub const SHORTEN_LOOK: Duration = Duration::from_secs(1);
/// How old the addresses may be to which a primary's witness sends the word of its end.
pub const WILL_AGE: Duration = Duration::from_secs(1);
/// How many heartbeats openraft may take to notice what the store has flushed.
pub const SNAPSHOT_LOOKS: usize = 20;
/// How exactly the age of the log's entries is known, at least.
pub const MARK_LOG: Duration = Duration::from_secs(60);
/// Into so many parts `--log-keep` is divided for that.
pub const LOG_MARKS: u32 = 60;
/// KiB of committed entries that may wait for the task that applies them.
pub const APPLY_KIB: u32 = 32 * 1024;
/// After how many entries of the log each a digest of the whole state is made.
pub const MARK_EVERY: u64 = 64;
/// How many such digests a node keeps.
pub const MARKS: usize = 256;
/// How many of them a node tells another one.
pub const MARKS_TOLD: usize = 8;
/// How often nodes compare them.
pub const COMPARE_LOOK: Duration = Duration::from_secs(1);
/// After a node has come with another data folder, no other folder of a number is taken for so long.
pub const FOLDER_KEPT: Duration = Duration::from_secs(5);
/// How often a node looks whether the members are those that are wanted.
pub const STEWARD_LOOK: Duration = Duration::from_millis(500);
/// How often a node takes to its disk what the other members have proven to have on theirs.
pub const KEEP_MEMORY: Duration = Duration::from_secs(5);
/// Bytes of the cluster's secret, at least and at most.
pub const SECRET: std::ops::RangeInclusive<usize> = 16..=4 * KIB;

// HTTP.

/// Connections to the HTTP address.
pub const HTTP_CONNECTIONS: usize = 256;
/// Bytes of an HTTP request's line and headers.
pub const HTTP_HEAD: usize = 16 * KIB;
/// Headers of an HTTP request.
pub const HTTP_HEADERS: usize = 64;
/// How long an HTTP request and its answer may take together.
pub const HTTP_EXCHANGE: Duration = Duration::from_secs(30);
/// How long to wait after an accept failed (too many open files, for example).
pub const HTTP_RETRY: Duration = Duration::from_millis(100);

// The log.

/// Lines that wait to be written; further ones are lost, and counted. A line of the usual kind has 150 bytes.
pub const LOG_LINES: usize = 10_000;
/// How long a process that ends waits for its last lines to be written.
pub const LOG_FLUSH: Duration = Duration::from_secs(1);

// Settings that [`Config::check`](super::Config::check) refuses beyond these.

/// The shortest heartbeat.
pub const HEARTBEAT_MIN: Duration = Duration::from_millis(5);
/// The longest election timeout.
pub const ELECTION_TIMEOUT_MAX: Duration = Duration::from_secs(60);
/// Heartbeats that must fit into an election timeout, so that one lost packet causes no election.
pub const HEARTBEATS_PER_ELECTION: u32 = 3;

const _: () = assert!(OBJECT < FRAME, "the largest object must fit into a frame, with its call");
const _: () = assert!(FRAME <= PEER_FRAME && PEER_FRAME <= u32::MAX as usize, "lengths are four bytes");
const _: () = assert!(FIRST_FRAME < FRAME);
const _: () = assert!(OBJECT + MIB <= TRANSACTION_BYTES, "the largest object must fit into a transaction");
const _: () = assert!(TRANSACTION_TEXT <= u16::MAX as usize, "Data.fs gives these lengths two bytes");
const _: () = assert!(PEER_FRAME >= TRANSACTION_BYTES + APPEND_BYTES, "the largest entry must be replicable");
const _: () = assert!(LONG_READS * 2 + PIECE_READS <= BLOCKING_THREADS / 2, "reads leave threads for the rest");
const _: () = assert!(INPUT_SUM > 2 * FRAME && OUTPUT_SUM > 2 * OUTPUT, "one client does not close another");
const _: () = assert!(OUTPUT > OUTPUT_HIGH_WATER + FRAME, "the largest answer must not cost a connection");
const _: () = assert!(TRANSACTIONS_BYTES > TRANSACTION_BYTES, "a large transaction must not wait for itself");
const _: () = assert!(TRANSACTION_LOCKS <= LOCKS / 2, "one transaction leaves room for another");
const _: () = assert!(STAGING_HIGH_WATER >= COMMIT_INLINE + 2 * PIECE, "a client that is not read has pieces to send");
const _: () = assert!(BLOB_CHUNK < PIECE);
const _: () = assert!(LOG_TAIL_BYTES > APPEND_BYTES, "peers that keep up are served from memory");
const _: () = assert!(WAITING_VOTES < LOCKS, "every waiting vote has a lock at least");
const _: () = assert!(NEW_OIDS as u64 <= OID_RANGE as u64, "one call must be answerable from one range");
const _: () = assert!(HELD < CONNECTIONS && RELAYS < CONNECTIONS);
const _: () = assert!(HTTP_HEAD >= 8 * KIB, "hyper refuses a smaller buffer");
const _: () = assert!(HTTP_EXCHANGE.as_secs() > 2 * DRAIN.as_secs(), "handing over must fit into a request");
const _: () =
    assert!(ERRAND.as_secs() + PRIMARY_AWAITED.as_secs() < HTTP_EXCHANGE.as_secs(), "its report must be told");
const _: () = assert!(PRIMARY_AWAITED.as_secs() + 2 * DRAIN.as_secs() < ERRAND.as_secs(), "a hand-over fits into it");
const _: () = assert!(
    PRIMARY_AWAITED.as_secs() + STORAGE_LOOK.as_secs() + PEER_CALL_TIMEOUT.as_secs() < ERRAND.as_secs(),
    "to drop a storage fits into it"
);
const _: () = assert!(DRAIN.as_secs() < 10, "supervisors kill after ten seconds");
