//! The frames between the server and a keeper.
//!
//! Owns: the words of the socket and their bytes. A frame is a kind (u8), a length (u32, little
//! endian) and that many bytes of payload, at most [`PAYLOAD_MAX`]; a longer one closes the
//! connection. Fields are binary, because argv and environment are bytes and need not be text. This
//! file holds no state and touches no file.
//!
//! The order on a connection: the keeper's first connection begins with SPEC and is attached at
//! once at the start of both streams; every later one begins with ATTACH. HELLO answers either.
//! After that both sides send what they have. A connection replaces the one before it, which gets
//! BYE with [`BYE_REPLACED`].
//!
//! Flow control of stdin: the server may send bytes up to `taken` + [`STDIN_WINDOW`], where `taken`
//! is what the child has read so far (told by HELLO and STDIN_ACCEPTED). So the keeper can always
//! read its socket: a STOP, or the ACK that makes room for a blocked child, is never stuck behind
//! stdin that the child does not read. A frame beyond the window, or one that leaves a gap, closes
//! the connection.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use crate::exit::Exit;

/// The version that HELLO names. A server that meets another one refuses it.
pub const VERSION: u32 = 1;

/// The bytes before the payload.
pub const HEAD_LEN: usize = 5;

/// The longest payload: 1 MiB of bytes and their fields.
pub const PAYLOAD_MAX: usize = 1024 * 1024 + 64;

/// How many bytes of stdin may be on their way to the child without the child having read them.
pub const STDIN_WINDOW: u64 = 8 * 1024 * 1024;

/// The reason in BYE when another connection took over.
pub const BYE_REPLACED: &str = "replaced";

/// The head and the fields of an OUTPUT frame, before its bytes.
pub const OUTPUT_HEAD_LEN: usize = HEAD_LEN + OUTPUT_FIELDS_LEN;
const OUTPUT_FIELDS_LEN: usize = 9;

const SPEC: u8 = 1;
const ATTACH: u8 = 2;
const STDIN: u8 = 3;
const CLOSE_STDIN: u8 = 4;
const ACK: u8 = 5;
const SIGNAL: u8 = 6;
const STOP: u8 = 7;
const KILL: u8 = 8;
const HELLO: u8 = 65;
const OUTPUT: u8 = 66;
const STDIN_ACCEPTED: u8 = 67;
const EXIT: u8 = 68;
const BYE: u8 = 69;

/// One of the two streams that a child writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    Stdout,
    Stderr,
}

impl Stream {
    /// Both, in the order of [`Stream::index`].
    pub const ALL: [Stream; 2] = [Stream::Stdout, Stream::Stderr];

    /// 0 for stdout, 1 for stderr.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The name of the stream, and the first part of the names of its files.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::Stdout => "stdout",
            Stream::Stderr => "stderr",
        }
    }
}

/// What a journal does when it holds as many bytes as it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Stop reading the child's pipe until the server has acknowledged some: nothing is lost, the
    /// child waits.
    Block,
    /// Delete the oldest segments: the child never waits, and the start of the stream moves.
    DropOldest,
    /// Keep the first bytes and count the rest: the child never waits.
    DropNewest,
}

/// The bound of a journal and what happens there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct JournalPolicy {
    pub policy: Policy,
    pub bytes_max: u64,
}

/// What to start and how to hold it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub child_id: String,
    /// The program and its arguments. A name without a slash is looked up in the PATH of `env`.
    pub argv: Vec<OsString>,
    /// The whole environment; nothing is inherited.
    pub env: Vec<(OsString, OsString)>,
    pub cwd: OsString,
    pub stdout: JournalPolicy,
    pub stderr: JournalPolicy,
    /// Between TERM and KILL.
    pub grace_ms: u64,
    /// How long the child may live without a server; 0 is for ever.
    pub lease_ms: u64,
    /// Whether stdin is a pipe. Otherwise it is `/dev/null`.
    pub stdin_pipe: bool,
    pub journal_segment_bytes: u64,
}

/// What the server asks of the keeper.
#[derive(Debug, PartialEq, Eq)]
pub enum Request<'a> {
    Spec(Box<Spec>),
    /// Send both streams from these offsets on.
    Attach {
        stdout_from: u64,
        stderr_from: u64,
    },
    /// Bytes for the child, at this offset of its stdin. What was accepted before is skipped.
    Stdin {
        offset: u64,
        bytes: &'a [u8],
    },
    /// Close the child's stdin when it has taken what was accepted.
    CloseStdin,
    /// What lies below these offsets is not needed any more. `trim` also gives up a segment that is
    /// only partly full.
    Ack {
        stdout: u64,
        stderr: u64,
        trim: bool,
    },
    /// A signal for the child's process group.
    Signal {
        signo: i32,
    },
    /// Close stdin, TERM the tree, wait, KILL what is left.
    Stop {
        grace_ms: u64,
    },
    /// KILL the tree.
    Kill,
}

/// Who and where the child is; the answer to SPEC and ATTACH.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hello {
    pub version: u32,
    pub keeper_pid: u32,
    pub child_pid: u32,
    /// The next offset of stdin that the keeper does not have yet.
    pub stdin_end: u64,
    /// The next offset of stdin that the child has not read yet.
    pub stdin_taken: u64,
    pub stdout_base: u64,
    pub stdout_end: u64,
    pub stderr_base: u64,
    pub stderr_end: u64,
    /// CLOSE_STDIN has come: the child takes no further bytes. On the wire only when it is so, and
    /// not by keepers of versions before it.
    pub is_stdin_closed: bool,
}

/// What the keeper tells the server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    Hello(Hello),
    Output {
        stream: Stream,
        offset: u64,
        bytes: Vec<u8>,
    },
    /// Everything below `end` is in the journal and will reach the child once; everything below
    /// `taken` has.
    StdinAccepted {
        end: u64,
        taken: u64,
    },
    Exit(Exit),
    /// The keeper closes this connection, and why.
    Bye {
        reason: String,
    },
}

impl Request<'_> {
    /// Appends the frame of this request to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Request::Spec(spec) => frame(out, SPEC, |out| spec.encode(out)),
            Request::Attach { stdout_from, stderr_from } => frame(out, ATTACH, |out| {
                put_u64(out, *stdout_from);
                put_u64(out, *stderr_from);
            }),
            Request::Stdin { offset, bytes } => frame(out, STDIN, |out| {
                put_u64(out, *offset);
                out.extend_from_slice(bytes);
            }),
            Request::CloseStdin => frame(out, CLOSE_STDIN, |_| {}),
            Request::Ack { stdout, stderr, trim } => frame(out, ACK, |out| {
                put_u64(out, *stdout);
                put_u64(out, *stderr);
                out.push(u8::from(*trim));
            }),
            Request::Signal { signo } => {
                frame(out, SIGNAL, |out| out.extend_from_slice(&signo.to_le_bytes()));
            }
            Request::Stop { grace_ms } => frame(out, STOP, |out| put_u64(out, *grace_ms)),
            Request::Kill => frame(out, KILL, |_| {}),
        }
    }

    /// Reads the payload of a frame of this kind. None for a kind or a payload that is not ours.
    pub fn decode(kind: u8, payload: &[u8]) -> Option<Request<'_>> {
        let mut fields = Fields(payload);
        let request = match kind {
            SPEC => Request::Spec(Box::new(Spec::decode(&mut fields)?)),
            ATTACH => Request::Attach { stdout_from: fields.u64()?, stderr_from: fields.u64()? },
            STDIN => Request::Stdin { offset: fields.u64()?, bytes: fields.rest() },
            CLOSE_STDIN => Request::CloseStdin,
            ACK => {
                Request::Ack { stdout: fields.u64()?, stderr: fields.u64()?, trim: fields.bool()? }
            }
            SIGNAL => Request::Signal { signo: i32::from_le_bytes(fields.array()?) },
            STOP => Request::Stop { grace_ms: fields.u64()? },
            KILL => Request::Kill,
            _ => return None,
        };
        fields.is_empty().then_some(request)
    }
}

impl Reply {
    /// Appends the frame of this reply to `out`.
    pub fn encode(&self, out: &mut Vec<u8>) {
        match self {
            Reply::Hello(hello) => frame(out, HELLO, |out| hello.encode(out)),
            Reply::Output { stream, offset, bytes } => {
                out.extend_from_slice(&output_head(*stream, *offset, bytes.len()));
                out.extend_from_slice(bytes);
            }
            Reply::StdinAccepted { end, taken } => frame(out, STDIN_ACCEPTED, |out| {
                put_u64(out, *end);
                put_u64(out, *taken);
            }),
            Reply::Exit(exit) => {
                frame(out, EXIT, |out| out.extend_from_slice(exit.to_text().as_bytes()));
            }
            Reply::Bye { reason } => {
                frame(out, BYE, |out| out.extend_from_slice(reason.as_bytes()))
            }
        }
    }

    /// Reads one frame; blocks until it is whole. None when the connection ended, also in the
    /// middle of a frame: what was cut off is still in the journal.
    pub fn read(socket: &mut impl Read) -> io::Result<Option<Reply>> {
        let mut head = [0; HEAD_LEN];
        if !fill(socket, &mut head)? {
            return Ok(None);
        }
        let (kind, len) = split_head(&head);
        if len > PAYLOAD_MAX {
            return Err(invalid("a frame is longer than the bound"));
        }
        if kind == OUTPUT {
            return read_output(socket, len);
        }
        let mut payload = vec![0; len];
        if !fill(socket, &mut payload)? {
            return Ok(None);
        }
        Reply::decode(kind, &payload).map(Some).ok_or_else(|| invalid("a frame is not ours"))
    }

    fn decode(kind: u8, payload: &[u8]) -> Option<Reply> {
        let mut fields = Fields(payload);
        let reply = match kind {
            HELLO => Reply::Hello(Hello::decode(&mut fields)?),
            STDIN_ACCEPTED => Reply::StdinAccepted { end: fields.u64()?, taken: fields.u64()? },
            EXIT => Reply::Exit(Exit::parse(std::str::from_utf8(fields.rest()).ok()?)?),
            BYE => Reply::Bye { reason: String::from_utf8_lossy(fields.rest()).into_owned() },
            _ => return None,
        };
        fields.is_empty().then_some(reply)
    }
}

/// The head and fields of an OUTPUT frame with `len` bytes, which follow it. Apart from the bytes,
/// so that they need no copy.
pub fn output_head(stream: Stream, offset: u64, len: usize) -> [u8; OUTPUT_HEAD_LEN] {
    let mut head = [0; OUTPUT_HEAD_LEN];
    head[0] = OUTPUT;
    head[1..HEAD_LEN].copy_from_slice(&payload_len(len + OUTPUT_FIELDS_LEN));
    head[HEAD_LEN] = stream as u8;
    head[HEAD_LEN + 1..].copy_from_slice(&offset.to_le_bytes());
    head
}

/// The kind and the payload's length that a frame's head names.
pub fn split_head(head: &[u8; HEAD_LEN]) -> (u8, usize) {
    let len = u32::from_le_bytes([head[1], head[2], head[3], head[4]]);
    (head[0], len as usize)
}

fn read_output(socket: &mut impl Read, len: usize) -> io::Result<Option<Reply>> {
    let mut fields = [0; OUTPUT_FIELDS_LEN];
    let Some(bytes_len) = len.checked_sub(OUTPUT_FIELDS_LEN) else {
        return Err(invalid("an OUTPUT frame is too short"));
    };
    if !fill(socket, &mut fields)? {
        return Ok(None);
    }
    let stream = match fields[0] {
        0 => Stream::Stdout,
        1 => Stream::Stderr,
        _ => return Err(invalid("an OUTPUT frame names no stream")),
    };
    let mut offset = [0; 8];
    offset.copy_from_slice(&fields[1..]);
    let mut bytes = vec![0; bytes_len];
    if !fill(socket, &mut bytes)? {
        return Ok(None);
    }
    Ok(Some(Reply::Output { stream, offset: u64::from_le_bytes(offset), bytes }))
}

/// Fills `buffer`; false when the connection ends before that.
fn fill(socket: &mut impl Read, buffer: &mut [u8]) -> io::Result<bool> {
    match socket.read_exact(buffer) {
        Ok(()) => Ok(true),
        Err(error) => match error.kind() {
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => Ok(false),
            _ => Err(error),
        },
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl Spec {
    fn encode(&self, out: &mut Vec<u8>) {
        put_bytes(out, self.child_id.as_bytes());
        put_u32(out, self.argv.len());
        for argument in &self.argv {
            put_bytes(out, argument.as_bytes());
        }
        put_u32(out, self.env.len());
        for (name, value) in &self.env {
            put_bytes(out, name.as_bytes());
            put_bytes(out, value.as_bytes());
        }
        put_bytes(out, self.cwd.as_bytes());
        for journal in [self.stdout, self.stderr] {
            out.push(journal.policy as u8);
            put_u64(out, journal.bytes_max);
        }
        put_u64(out, self.grace_ms);
        put_u64(out, self.lease_ms);
        out.push(u8::from(self.stdin_pipe));
        put_u64(out, self.journal_segment_bytes);
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Spec> {
        let child_id = String::from_utf8(fields.bytes()?.to_vec()).ok()?;
        // The counts are not trusted with an allocation: each element takes at least its own length
        // from the payload.
        let mut argv = Vec::new();
        for _ in 0..fields.u32()? {
            argv.push(fields.os_string()?);
        }
        let mut env = Vec::new();
        for _ in 0..fields.u32()? {
            env.push((fields.os_string()?, fields.os_string()?));
        }
        Some(Spec {
            child_id,
            argv,
            env,
            cwd: fields.os_string()?,
            stdout: fields.journal_policy()?,
            stderr: fields.journal_policy()?,
            grace_ms: fields.u64()?,
            lease_ms: fields.u64()?,
            stdin_pipe: fields.bool()?,
            journal_segment_bytes: fields.u64()?,
        })
    }
}

impl Hello {
    fn encode(&self, out: &mut Vec<u8>) {
        for number in [self.version, self.keeper_pid, self.child_pid] {
            out.extend_from_slice(&number.to_le_bytes());
        }
        for offset in [
            self.stdin_end,
            self.stdin_taken,
            self.stdout_base,
            self.stdout_end,
            self.stderr_base,
            self.stderr_end,
        ] {
            put_u64(out, offset);
        }
        if self.is_stdin_closed {
            out.push(1);
        }
    }

    fn decode(fields: &mut Fields<'_>) -> Option<Hello> {
        Some(Hello {
            version: fields.u32()?,
            keeper_pid: fields.u32()?,
            child_pid: fields.u32()?,
            stdin_end: fields.u64()?,
            stdin_taken: fields.u64()?,
            stdout_base: fields.u64()?,
            stdout_end: fields.u64()?,
            stderr_base: fields.u64()?,
            stderr_end: fields.u64()?,
            is_stdin_closed: !fields.is_empty() && fields.bool()?,
        })
    }
}

fn frame(out: &mut Vec<u8>, kind: u8, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[kind, 0, 0, 0, 0]);
    payload(out);
    let len = payload_len(out.len() - start - HEAD_LEN);
    out[start + 1..start + HEAD_LEN].copy_from_slice(&len);
}

/// A length as the head carries it. One that does not fit is written as the largest, which no
/// reader takes.
fn payload_len(len: usize) -> [u8; 4] {
    u32::try_from(len).unwrap_or(u32::MAX).to_le_bytes()
}

fn put_u32(out: &mut Vec<u8>, number: usize) {
    out.extend_from_slice(&u32::try_from(number).unwrap_or(u32::MAX).to_le_bytes());
}

fn put_u64(out: &mut Vec<u8>, number: u64) {
    out.extend_from_slice(&number.to_le_bytes());
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_u32(out, bytes.len());
    out.extend_from_slice(bytes);
}

/// The part of a payload that is not read yet.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, len: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(len)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn bool(&mut self) -> Option<bool> {
        match self.u8()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let len = self.u32()?;
        self.take(len as usize)
    }

    fn os_string(&mut self) -> Option<OsString> {
        self.bytes().map(|bytes| OsString::from_vec(bytes.to_vec()))
    }

    fn journal_policy(&mut self) -> Option<JournalPolicy> {
        let policy = match self.u8()? {
            0 => Policy::Block,
            1 => Policy::DropOldest,
            2 => Policy::DropNewest,
            _ => return None,
        };
        Some(JournalPolicy { policy, bytes_max: self.u64()? })
    }

    fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests;
