//! Every bound that is not configurable, in one place, with what happens at it.
//! The configurable ones are in [`crate::config::Limits`].

/// Connections that a shard takes from one listener in a turn. The others wait for the next turn, in the kernel:
/// however many come at once, those who are connected are served in between.
pub const ACCEPTS_PER_TURN: usize = 16;
/// What `connects_per_second_max` lets come at once: what comes together in this time.
pub const CONNECT_BURST_MILLIS: u64 = 100;
/// Addresses that have come in the last second, of which `connects_per_address_per_second_max` knows. Of further
/// ones nothing is counted.
pub const ADDRESSES_PACED_MAX: usize = 65_536;
/// Clients of one shard whose connections are counted for `flapping_connects_max`, and those that are banned for
/// them. Beyond, the oldest is forgotten.
pub const FLAPPING_CLIENTS_MAX: usize = 65_536;

/// Shards in one process. More are refused at start-up.
pub const SHARDS_MAX: usize = 128;

/// Socket addresses to listen on. More are refused at start-up: each costs
/// every shard one descriptor of those set aside before connections get theirs.
pub const LISTEN_ADDRESSES_MAX: usize = 16;

/// TLS handshakes under way in the process: each holds some 20 KiB before it has proven anything. One address has no
/// more of them than are left for the others. Further connections to TLS listeners are closed at once (logged).
pub const HANDSHAKES_MAX: u32 = 16_384;
/// Time of a turn that goes to TLS handshakes, if more than one waits. The others wait for the next turn, so that
/// clients who are connected are served in between.
pub const HANDSHAKE_MICROS_PER_TURN: u64 = 200;

/// Bytes of the head of a WebSocket's HTTP request. A longer one is refused with status 431.
pub const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Header fields of such a request. More are refused with status 431.
pub const HTTP_FIELDS_MAX: usize = 64;
/// Payload bytes of one WebSocket frame to a client. More go in several: some clients read a frame as a whole.
pub const WEBSOCKET_FRAME_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a PROXY protocol header of version 2 with all it carries. A longer one ends the connection.
pub const PROXY_HEADER_BYTES_MAX: usize = 4096;

/// Bytes of one file with certificates, keys or a revocation list. A larger one is refused.
pub const PEM_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a configuration file. A larger one is refused: it is none.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Bytes of a password file, some 100,000 users. A larger one is refused.
pub const PASSWORD_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of a file of access rules, some million of them. A larger one is refused.
pub const ACL_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Mistakes in such a file that are told; of further ones nothing is said.
pub const ACL_ERRORS_MAX: usize = 20;

/// Topics of one session whose decisions by the access rules are remembered, and the bytes of each; a
/// longer one, or one that another has taken the place of, is decided anew.
pub const ACL_VERDICTS: usize = 8;
/// See [`ACL_VERDICTS`].
pub const ACL_VERDICT_TOPIC_BYTES_MAX: usize = 256;
/// Rules that deny something to one user, or to all, which a SUBSCRIBE is compared with, to see whether what it
/// brings needs no decision for each message. With more of them it does.
pub const ACL_DENIALS_COMPARED: usize = 256;

/// Iterations of a password's hash; fewer are refused (RFC 7677 section 4).
pub const SCRAM_ITERATIONS_MIN: u32 = 4096;

/// Bytes of a password's salt; more are refused.
pub const SCRAM_SALT_BYTES_MAX: usize = 64;

/// What checking one Argon2 hash of a password file may cost: memory (KiB), passes and lanes; a hash that
/// costs more is refused with its line. Each thread that checks has so much memory at most.
pub const ARGON2_KIB_MAX: u32 = 64 * 1024;
/// See [`ARGON2_KIB_MAX`].
pub const ARGON2_PASSES_MAX: u32 = 10;
/// See [`ARGON2_KIB_MAX`].
pub const ARGON2_LANES_MAX: u32 = 16;

/// Iterations of a PBKDF2 hash of a password file, about a second; more are refused with their line.
pub const PBKDF2_ITERATIONS_MAX: u32 = 1_000_000;

/// Clients whose credentials wait to be checked by a thread, and bytes of what is kept of them. Past it, of
/// the address that most wait from, the latest is refused with 0x88 (counted).
pub const CHECKS_WAITING_MAX: usize = 1000;
/// See [`CHECKS_WAITING_MAX`].
pub const CHECKS_WAITING_BYTES_MAX: usize = 32 * 1024 * 1024;

/// Bytes of a User Name in CONNECT, where it is to be checked; a longer one is nobody's.
pub const USER_NAME_BYTES_MAX: usize = 1024;

/// Bytes of a token, a longer one is refused.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;

/// Keys of a key set, each of which may be tried; a larger set is refused at start.
pub const TOKEN_KEYS_MAX: usize = 64;

/// Groups of one client and bytes of the name of one; who has more is refused.
pub const GROUPS_MAX: usize = 64;
/// See [`GROUPS_MAX`].
pub const GROUP_BYTES_MAX: usize = 256;

/// Bytes of an answer over HTTP about a client; a longer one is none.
pub const HTTP_ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Answers over HTTP that are remembered. Beyond, the oldest is forgotten.
pub const HTTP_CACHE_MAX: usize = 10_000;

/// Bytes of a client's SCRAM message: room for any user name and nonce that is
/// meant. Past it the exchange fails.
pub const SCRAM_MESSAGE_BYTES_MAX: usize = 4096;

/// Bytes of a password, both that `ringmq passwd` takes and that is checked; a longer one is refused.
pub const PASSWORD_BYTES_MAX: usize = 1024;

/// Largest Remaining Length that MQTT can express (section 1.5.5).
pub const REMAINING_LENGTH_MAX: u32 = 268_435_455;

/// Longest UTF-8 string or binary field (section 1.5.4).
pub const STRING_BYTES_MAX: usize = 65_535;

/// Topic levels in a name or filter. Past it a PUBLISH is refused as a
/// malformed topic, a SUBSCRIBE likewise: one deep filter must not buy
/// thousands of trie nodes on every shard for 64 KiB of input.
pub const TOPIC_LEVELS_MAX: usize = 256;

/// Topic aliases towards one client, each found by a look at all of them; a
/// higher configured number is refused at start-up.
pub const TOPIC_ALIASES_OUT_MAX: u16 = 64;

/// Bytes of a packet before the connection is accepted. A larger CONNECT is
/// refused with 0x95: room for every field at its longest, but not for 256 MiB
/// from somebody unknown. Where authentication takes more packets, CONNECT is
/// kept until it has succeeded, and the same bound holds for each of those.
pub const CONNECT_BYTES_MAX: u32 = 512 * 1024;

const _: () = assert!(CONNECT_BYTES_MAX as usize > 6 * STRING_BYTES_MAX);
const _: () = assert!(CONNECT_BYTES_MAX < REMAINING_LENGTH_MAX);

/// Bytes of a payload, and of the packet it came in, from which on it is held once and not copied for each who gets
/// it. Below, a copy costs less than what it takes to send it as a piece of its own (`perf/README.md`).
pub const SHARED_BYTES_MIN: usize = 16 * 1024;

/// Bytes of a packet that have to have come before room is reserved for all that it claims to be; until then room
/// grows with what comes. What is reserved takes memory as it is filled, a huge page at a time at most.
pub const INPUT_PROOF_BYTES: usize = 2 * 1024 * 1024;

/// Bytes that go through the layers of a connection (TLS, WebSocket) at a time: what they make of a large output is
/// there piece by piece, as the client takes it.
pub const LAYERED_BYTES_MAX: usize = 256 * 1024;

/// Bytes waiting to be sent to one connection above which queued QoS 1 and 2
/// deliveries and retained messages stay where they are until some are sent.
pub const OUTPUT_BYTES_HIGH: usize = 256 * 1024;

/// Default of `output_bytes_max`: bytes waiting to be sent to one connection above which QoS 0 deliveries to
/// it are dropped (counted and logged), or it is closed; `queue_bytes_max` can lower it. One message may pass it.
pub const OUTPUT_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of one send operation; the rest follows as the next, so that a turn copies no more of an output to the kernel
/// before others have theirs. A connection that does not take as much within
/// `output_stalled_secs_max` is closed.
pub const SEND_BYTES_MAX: usize = 256 * 1024;

/// Bytes of acknowledgements and replies waiting to be sent to one connection
/// above which nothing more is read from it: it must read before it asks again.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

const _: () = assert!((OUTPUT_BYTES_HIGH as u64) < OUTPUT_BYTES_MAX);

/// Percent of `memory_bytes_max` from which connections that publish are not read from.
pub const MEMORY_PERCENT_PUBLISHERS: u64 = 80;
/// Percent from which new clients are refused (0x97) as well.
pub const MEMORY_PERCENT_CLIENTS: u64 = 90;
/// Percent from which those for which most waits are disconnected (0x97) and subscriptions refused (0x97) as well.
pub const MEMORY_PERCENT_SLOWEST: u64 = 95;
/// Time for which publishers wait without any memory becoming free. Then the slowest are disconnected as well; after
/// the same time again what is published is refused (0x97), so that nobody waits for ever.
pub const MEMORY_STALL_SECS: u64 = 5;
/// Time for which a step has to be over before the log says so.
pub const MEMORY_CALM_SECS: u64 = 5;
/// Time between two looks at how much memory is used, while there are turns or it is not normal.
pub const MEMORY_LOOK_MILLIS: u64 = 100;
/// The same while less than half of it is.
pub const MEMORY_LOOK_MILLIS_FAR: u64 = 1_000;
/// Time between two disconnections of the slowest, for the memory of the former to become free.
pub const MEMORY_DISCONNECT_MILLIS: u64 = 1_200;
/// Connections of a shard that are disconnected at once for their memory, and bytes that wait for the least of them.
pub const MEMORY_DISCONNECTS: usize = 64;
/// See [`MEMORY_DISCONNECTS`].
pub const MEMORY_DISCONNECT_BYTES_MIN: usize = 64 * 1024;
/// Bytes read from a connection that do not count for that.
pub const MEMORY_INPUT_BYTES_FREE: usize = 1024 * 1024;
/// Connections that are read from again in one call of `Broker::advance` when publishers go on.
pub const MEMORY_RESUMES_PER_TURN: usize = 64;
/// Least that `memory_bytes_max` can be: what a broker of a few shards uses before anybody connects, several times.
pub const MEMORY_BYTES_MIN: u64 = 32 * 1024 * 1024;

/// Messages and bytes waiting for one client that are held in memory, if the log has them: of further
/// ones, and of all while the client is away, only the place in the log is kept. One message may pass it.
pub const QUEUE_MEMORY_MESSAGES: usize = 512;
/// See [`QUEUE_MEMORY_MESSAGES`].
pub const QUEUE_MEMORY_BYTES: u64 = 256 * 1024;
/// Bytes of the log that are read at once for such a queue, or to clean its oldest segment. A larger
/// record is read whole.
pub const LOG_READ_BYTES: u32 = 256 * 1024;

/// Messages and bytes waiting for one lane above which publishers of the shard
/// are not read from until the lane takes some. Replies between shards are
/// exempt; each answers one message, so they are bounded by the lanes too.
pub const LANE_MESSAGES_MAX: usize = 4096;
/// See [`LANE_MESSAGES_MAX`].
pub const LANE_BYTES_MAX: usize = 8 * 1024 * 1024;

/// How often a message for a shared subscription is passed on in search of a
/// member that is online. Past it the chosen one gets it, online or not.
pub const SHARE_HOPS_MAX: u8 = 3;
/// The same, if the chosen member has left: there is no one to give it to yet.
/// News of members travel on the same lanes, so it ends when they have arrived.
/// Past it the message is dropped (counted).
pub const SHARE_DEPARTURES_MAX: u8 = 200;
const _: () = assert!(SHARE_DEPARTURES_MAX > SHARE_HOPS_MAX);

/// Retained messages in one page of a new subscription's walk.
pub const RETAINED_PAGE_MESSAGES: usize = 64;
/// Bytes in one such page; one message may pass it.
pub const RETAINED_PAGE_BYTES: usize = 32 * 1024;
/// Bytes on their way to one connection above which its walk waits: enough to
/// keep its reader busy, little enough to send between the packets of others.
pub const RETAINED_OUTPUT_BYTES: usize = 64 * 1024;
/// Topic tree nodes looked at for one such page.
pub const RETAINED_PAGE_VISITS: usize = 4096;
/// Pages handled for sessions that are ready, in one call of `Broker::advance`.
pub const RETAINED_PAGES_PER_TURN: usize = 1;

/// Stored retained messages looked at in one portion of the search for expired ones, which goes on
/// after [`RETAINED_SWEEP_MILLIS`], or when a message finds the store full.
pub const RETAINED_SWEEP_VISITS: usize = 4096;
/// See [`RETAINED_SWEEP_VISITS`].
pub const RETAINED_SWEEP_MILLIS: u64 = 1_000;

/// Longest delay of a delayed publication, 49 days. A longer one makes the topic invalid (0x90).
pub const DELAY_SECS_MAX: u32 = 4_294_967;
/// Delayed publications that are published in one call of `Broker::advance`. The next call goes on.
pub const DELAYED_PER_TURN: usize = 256;

/// Wildcards of a rewrite rule's filter that its template can name: `$1` to `$9`.
pub const REWRITE_WILDCARDS_MAX: usize = 9;

/// `$request/FILTER` registrations with wildcards in one session: a request for a single topic looks
/// at all of them. Further ones are refused with 0x97.
pub const REQUEST_WILDCARDS_MAX: usize = 100;

/// Requests for the retained messages of one filter that wait behind one for the
/// same. The answer to the last of them is that to any further one.
pub const REQUEST_REPEATS_MAX: u16 = 64;

/// Traces under way on one shard, finished ones that wait for their log line included.
/// Past it a publication is not traced (counted).
pub const TRACES_MAX: usize = 64;
/// Sends that one trace waits for. Past it the trace is incomplete.
pub const TRACE_SENDS_MAX: usize = 4096;
/// Time that a trace waits for its sends. Then it is incomplete.
pub const TRACE_MILLIS_MAX: u64 = 1_000;

/// Output buffers that a shard keeps for reuse, and the largest kept.
pub const SPARE_BUFFERS_MAX: usize = 256;
/// See [`SPARE_BUFFERS_MAX`].
pub const SPARE_BUFFER_BYTES_MAX: usize = 64 * 1024;

/// Bytes of one record of a log with its frame. The largest are a message of
/// [`REMAINING_LENGTH_MAX`] with all the sessions of a shard that it is for. A longer one is not read: it
/// cannot have been written.
pub const LOG_RECORD_BYTES_MAX: u32 = 1024 * 1024 * 1024;
const _: () = assert!(LOG_RECORD_BYTES_MAX > 2 * REMAINING_LENGTH_MAX);

/// Bytes of a log that wait for its disk, above which nothing adds to them that can do without: no segment is
/// cleaned, and while the disk refuses them, no client comes to a persistent session or with a retained will, and no
/// QoS 2 PUBLISH of a persistent session is taken.
pub const LOG_PENDING_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Deliveries of one session that a log may have between the first and the last that are needed: 3 GiB of
/// what is kept in memory of them. A log that has more is damaged.
pub const LOG_DELIVERIES_MAX: u64 = 256 * 1024 * 1024;
