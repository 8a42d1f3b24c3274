//! The bounds that are not settings: each constant says what it bounds and what happens at it.

use std::time::Duration;

/// Jobs waiting for the writer. At the bound the caller waits: that is the back-pressure on agents and clients.
pub const WRITER_QUEUE: usize = 1024;
/// Jobs that one transaction takes. More would make the first of them wait longer for its answer.
pub const WRITER_BATCH: usize = 256;
/// Scopes whose head the writer remembers; at the bound it forgets all and asks the database again.
pub const SCOPE_HEADS: usize = 8192;
/// Pages of 4 KiB in the write-ahead log at which they begin to be moved into the database: about 16 MiB.
pub const WAL_PAGES: usize = 4000;
/// Pages in the log at which the writer waits until those that are being moved are.
pub const WAL_PAGES_MAX: usize = 4 * WAL_PAGES;
/// Pages that may be left to be moved by the writer; and that come before it is tried again after a reader of an old
/// snapshot was in the way.
pub const WAL_PAGES_LAST: usize = 500;
/// Read-only connections; a further read waits for one.
pub const READERS: usize = 4;

/// Committed frames that the tail keeps for streams; an older cursor reads from the database.
pub const TAIL_FRAMES: usize = 4096;
/// The same in bytes of JSON.
pub const TAIL_BYTES: usize = 4 * 1024 * 1024;
/// Events in one page of a stream's backlog.
pub const PAGE_EVENTS: usize = 500;
/// A page ends early when it holds this many bytes of JSON; one larger event still makes a page of its own.
pub const PAGE_BYTES: usize = 512 * 1024;

/// Positions of the log that one read looks at for what a filter takes; then others have the connection.
pub const PAGE_LOOK: i64 = 20_000;
/// Kinds and families that one filter may name.
pub const FILTER_KINDS: usize = 100;

/// Sessions whose serialised record is kept for `GET /v1/sessions/{id}`; at the bound all are forgotten.
pub const SESSION_CACHE: usize = 2048;
/// The same in bytes of their JSON.
pub const SESSION_CACHE_BYTES: usize = 8 * 1024 * 1024;

/// One `item.delta` holds at most this much text; a longer run of deltas becomes several events.
pub const DELTA_BYTES: usize = 64 * 1024;
/// The text or output of one item. A message that grows beyond it goes on in a new item; a command's output keeps its
/// end.
pub const ITEM_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// The assistant's text in a turn record keeps its last bytes up to here; the items have it whole.
pub const ASSISTANT_TEXT_BYTES: usize = 4 * 1024 * 1024;
/// One line of an agent's stdout. The rest of a longer line is dropped, and `agent.unparsed` tells so.
pub const AGENT_LINE_BYTES: usize = 32 * 1024 * 1024;
/// What of an agent's line `agent.unparsed` keeps.
pub const UNPARSED_BYTES: usize = 8 * 1024;
/// The last bytes of stderr that `agent.exited` tells.
pub const STDERR_TAIL_BYTES: usize = 8 * 1024;
/// Commands waiting for a session's thread; at the bound the client gets 503.
pub const SESSION_INBOX: usize = 256;
/// Chunks of agent output waiting for a session's thread; at the bound the keeper keeps the rest in its journal.
pub const AGENT_INBOX: usize = 64;
/// Bytes of agent output that one commit of a session covers.
pub const SESSION_BATCH_BYTES: usize = 1024 * 1024;
/// How long text of an item may leave the time of its session as it is. What else a client can see moves it at once.
pub const SESSION_TIME_STEP: Duration = Duration::from_secs(1);
/// Turns waiting in one session; a further one is 409.
pub const QUEUED_TURNS: usize = 100;
/// Approvals pending in one turn; a further one is answered at once: with an error by an adapter that has as many open,
/// else `cancelled`.
pub const PENDING_APPROVALS: usize = 256;
/// Items open in one turn; the oldest is completed when there is one more.
pub const OPEN_ITEMS: usize = 1024;
/// A file that an agent may read or write through the client (ACP `fs/*`).
pub const CLIENT_FILE_BYTES: u64 = 8 * 1024 * 1024;
/// Terminals that one session may have open.
pub const TERMINALS: usize = 16;
/// The output of a terminal that is kept when the agent names no limit, and the most it may name.
pub const TERMINAL_OUTPUT_BYTES: u64 = 1024 * 1024;

/// Processes that wait for a place to run; a further one is 503.
pub const QUEUED_PROCESSES: i64 = 1000;
/// Processes that one change asks to end, when all of them are to.
pub const PROCESSES_ENDED: usize = 50;
/// Bytes for the stdin of one process that it has not read; more is 503.
pub const PROCESS_STDIN_BYTES: i64 = 8 * 1024 * 1024;
/// Chunks of output waiting for a process's thread; at the bound the keeper keeps the rest in its journal.
pub const PROCESS_INBOX: usize = 16;
/// Bytes of output that one commit of a process covers.
pub const PROCESS_BATCH_BYTES: u64 = 1024 * 1024;
/// The text of one `process.output`: the end of what it covers.
pub const PROCESS_TEXT_BYTES: usize = 32 * 1024;
/// Output of a process is told at most once in this time, so that a command of many lines does not keep the disk busy.
pub const PROCESS_OUTPUT_PAUSE_MS: u64 = 50;
/// The content of one answer of a process's log when the client names no `max_bytes`, and the most it may name.
pub const PROCESS_LOG_BYTES: u64 = 1024 * 1024;
pub const PROCESS_LOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Events that one step of a purge removes, so that the writer is free in between.
pub const PURGE_STEP_EVENTS: usize = 1000;
/// How long a request that waits may go on for a client that is gone.
pub const CLIENT_LOOK: Duration = Duration::from_secs(5);
/// Requests from one address that wait for the end of a turn or a process; one more is 429.
pub const WAITS: usize = 256;
/// Members of one team; one more is 409.
pub const TEAM_MEMBERS: usize = 1000;
/// Members that are being spawned at once; one more is 503.
pub const SPAWNS: usize = 16;
/// Deliveries that wait for one recipient; a further message to it is 503, a broadcast leaves it out.
pub const MAIL_WAITING: usize = 10_000;
/// Changes of deliveries that one commit of the dispatcher makes, and of those that wait that one ends with their team
/// or a membership; the rest is ended behind it.
pub const MAIL_CHANGES: usize = 500;
/// Waiting deliveries that one look at a recipient reads; those behind wait until the front has moved.
pub const MAIL_LOOK: usize = 100;
/// Messages that share one turn, and the bytes of their content; the rest goes into the next one.
pub const MAIL_TURN: usize = 50;
pub const MAIL_TURN_BYTES: usize = 1024 * 1024;
/// Attempts at once to bring mail to sessions whose agent lives, and to those whose agent is woken for it.
pub const MAIL_LANE_FAST: usize = 4;
pub const MAIL_LANE_SLOW: usize = 4;

/// A body on a route that takes none is read and ignored up to here. Some of these routes need no token, so every
/// connection may hold as much.
pub const IGNORED_BODY_BYTES: usize = 8 * 1024;
/// A JSON body; more where an image or the stdin of a process may be in it.
pub const BODY_BYTES: usize = 2 * 1024 * 1024;
/// Values in a JSON body: read into memory each takes up to a hundred times its own bytes, so more is 413.
pub const BODY_VALUES: usize = 50_000;
/// Items of an input, and image files that one request names; more is 400.
pub const INPUT_ITEMS: usize = 1000;
/// The images of one input together, in images of `limits.max_image_bytes`; more is 413.
pub const INPUT_IMAGES: usize = 4;
/// MCP servers of one session; more is 400.
pub const MCP_SERVERS: usize = 100;
/// The environment that a client gives a child, and a command with it; a keeper takes a little more. Beyond it 413.
pub const ENV_BYTES: usize = 1_000_000;
/// A text of one word in a record: a model, a mode, an id that is only kept; a longer one is 400.
pub const WORD_BYTES: usize = 256;
/// A text of one line in a record: a title, a name, a reason.
pub const LINE_BYTES: usize = 1024;
/// The `metadata` of a session, as JSON: every list of sessions has it.
pub const METADATA_BYTES: usize = 64 * 1024;
/// The `system_prompt` of a session.
pub const PROMPT_BYTES: usize = 256 * 1024;
/// A page of a list ends early when it holds this many bytes; one larger record still makes a page of its own. Of open
/// items it bounds what they have said so far, of teams their members, for themselves.
pub const LIST_BYTES: usize = 8 * 1024 * 1024;
/// The message of an error; a longer one, that quotes what was sent, ends here.
pub const ERROR_BYTES: usize = 4 * 1024;
/// Time between two log lines that tell of refused requests; those in between are counted and told with the next.
pub const REFUSAL_PAUSE_SECS: u64 = 10;
/// A body on the routes of the MCP gateway; more is 413.
pub const GATEWAY_BODY_BYTES: usize = 64 * 1024;
/// Calls of one caller that are one after the other; a further one is refused.
pub const TOOL_LINE: usize = 16;
/// The arguments, and the result, of one call of a tool in the log; beyond it their beginning and their size.
pub const TOOL_CALL_BYTES: usize = 16 * 1024;
/// The part of a log that a tool answers, of each stream, when its caller names no `max_bytes`; a model reads it.
pub const TOOL_LOG_BYTES: u64 = 32 * 1024;
/// One text in what a tool tells of a team; of a longer one the beginning and the end.
pub const TOOL_TEXT_BYTES: usize = 4 * 1024;
/// The text of the newest message in the status of a member; it ends here.
pub const MESSAGE_PREVIEW_BYTES: usize = 2 * 1024;
/// How long an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_HOURS: i64 = 24;
/// Rows that one step of retention drops; other changes wait behind a step, so it is small.
pub const RETENTION_ROWS: usize = 256;
/// The same in bytes of their payloads; one larger row still makes a step of its own.
pub const RETENTION_BYTES: usize = 1024 * 1024;
/// Rows that one step of retention looks at, with a reading connection.
pub const RETENTION_LOOK: usize = 2000;

/// What a program may write while it is asked whether it is ready; more is no answer.
pub const PROBE_BYTES: usize = 4 * 1024 * 1024;
/// A multipart body, its parts, and the fields of one part; more is refused.
pub const MULTIPART_BYTES: usize = 1024 * 1024;
pub const MULTIPART_PARTS: usize = 16;
pub const MULTIPART_HEAD_BYTES: usize = 4 * 1024;
/// Changed files, and commits, that a kept worktree tells by name; beyond it they are only counted.
pub const LOST_LISTED: usize = 100;
/// The end of an init script's output that a failure tells.
pub const INIT_OUTPUT_BYTES: usize = 64 * 1024;
/// A diff of a worktree ends here and says so.
pub const DIFF_BYTES: usize = 4 * 1024 * 1024;
