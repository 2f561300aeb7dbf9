//! The bounds of the program that are no settings, each with its reason (invariant 10); those of one file stand there.
//!
//! A proxy sits between clients nobody controls and servers that must not fall over: whatever can grow has a limit,
//! and the limit has an answer (an error, a closed connection, or back-pressure). What an operator may want to change
//! is a setting in `proxy.toml` and only has its default here.

/// Longest inline command (a line without a RESP header), in bytes. Redis: `PROTO_INLINE_MAX_SIZE`.
pub const INLINE_BYTES_MAX: usize = 64 * 1024;

/// Longest `*<n>` or `$<n>` header line, in bytes: a sign, 20 digits, CRLF, and some room for leading zeros.
pub const HEADER_BYTES_MAX: usize = 32;

/// Most arguments in one command. Redis: 1024 * 1024.
pub const COMMAND_ARGS_MAX: usize = 1024 * 1024;

/// Largest single argument, in bytes. Redis: `proto-max-bulk-len`, 512 MiB.
pub const BULK_BYTES_MAX: usize = 512 * 1024 * 1024;

/// Deepest nesting of a reply. Real replies reach 7 (`XINFO STREAM FULL`); a script may nest further.
pub const REPLY_DEPTH_MAX: usize = 128;

/// Largest reply of a node that is taken into memory, in bytes.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// Replica sets have at most this many nodes: more copies cost throughput and add nothing a zone does not.
pub const REPLICAS_MAX: usize = 7;

/// Most nodes in one pool. Bounded by the bits a `SCAN` cursor has for the node.
pub const NODES_MAX: usize = 256;

/// Most partitions in one pool.
pub const PARTITIONS_MAX: usize = 4096;

/// Most scripts kept. A driver has a few dozen; one that puts its data into scripts' texts would have any number.
pub const SCRIPTS_MAX: usize = 4096;

/// Their texts together, in bytes. Every node keeps them twice: to be executed, and to be known to the next sidecar.
pub const SCRIPTS_BYTES_MAX: usize = 32 * 1024 * 1024;

/// How long `SCRIPT KILL` waits for a node, in ms. A server does not listen to anybody while a script runs, until it has run for
/// `busy-reply-threshold` (5 s).
pub const KILL_WAIT_MS: u64 = 10_000;

/// A node that has been silent for so long since it was sent a script executes it, as far as anybody can tell; in ms.
pub const SCRIPT_NOTICED_MS: u64 = 20;

/// How long a node may execute a script without having said that it does, in ms: some more than `busy-reply-threshold`.
pub const SCRIPT_SILENCE_MS: u64 = 8_000;

/// A worker's read buffer that its clients share, in bytes. One allocation for so much traffic.
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// Keys of one partition that are noted as changed while it is copied. If there are more, all of its streams are copied again.
pub const CHANGES_MAX: usize = 50_000;

/// Bunches of messages that may wait for a worker.
pub const MAILBOX_BUNCHES: usize = 1024;

/// Commands between `MULTI` and `EXEC`.
pub const TRANSACTION_COMMANDS_MAX: usize = 1024 * 1024;

/// Arguments of a command, or of a transaction's commands together, of which some must be looked up before it can go on: striped queues,
/// and messages of which it is not known where they are. As many are remembered for sure.
pub const LOOKED_UP_MAX: usize = 100_000;

/// Replies of reads that a node may be making at once, in bytes, as far as the size of its last replies tells.
pub const READ_WINDOW_BYTES: usize = 32 * 1024 * 1024;

/// Fewest and most reads in flight to a node. More than a few hundred make no better batch.
pub const READ_WINDOW_MIN: usize = 4;
/// See [`READ_WINDOW_MIN`].
pub const READ_WINDOW_MAX: usize = 256;
/// What a reply is taken for where none has been seen, in bytes.
pub const REPLY_BYTES_FIRST: usize = 1024 * 1024;

/// How long a client may take nothing of its replies while there are so many that no more of its commands are taken up, in ms.
/// It may be waiting itself for its commands to be read. Redis' soft limits: 60 s.
pub const CLIENT_STALL_MS: u64 = 60_000;

/// How often a read is asked of another node, because one has died or does not answer, before it is refused: a read
/// that brings nodes to a halt must not be taken to all of them.
pub const READ_MOVES_MAX: u8 = 2;

/// Memory that a stream's outgoing buffer keeps while it is empty, in bytes.
pub const STREAM_BUFFER_BYTES: usize = 256 * 1024;

/// What one client's subscriptions may take, in bytes: nearly a million channels. Their names are in memory as long as it
/// is connected.
pub const SUBSCRIPTIONS_BYTES_MAX: usize = 256 * 1024 * 1024;
