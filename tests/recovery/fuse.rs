//! The kernel's side of a file system in this process: requests from /dev/fuse as bytes, answers to
//! them, and the mount. What a file system does with them is in `power.rs`.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread::JoinHandle;

/// A request: what, about which inode, by which user, and its arguments.
pub(crate) struct Request<'a> {
    pub(crate) opcode: u32,
    pub(crate) node: u64,
    pub(crate) user: (u32, u32),
    pub(crate) body: &'a [u8],
}

impl<'a> Request<'a> {
    pub(crate) fn u32(&self, at: usize) -> u32 {
        u32::from_ne_bytes(self.body[at..at + 4].try_into().expect("four bytes"))
    }

    pub(crate) fn u64(&self, at: usize) -> u64 {
        u64::from_ne_bytes(self.body[at..at + 8].try_into().expect("eight bytes"))
    }

    /// The names behind `at`, each of which ends with a zero byte.
    pub(crate) fn names(&self, at: usize) -> impl Iterator<Item = String> + 'a {
        let names = self.body[at..].split(|byte| *byte == 0);
        names.map(|name| String::from_utf8_lossy(name).into_owned())
    }
}

/// Bytes of an answer, or an `errno`.
pub(crate) type Answer = Result<Vec<u8>, i32>;

pub(crate) const ENOENT: i32 = 2;
pub(crate) const ENOSYS: i32 = 38;
pub(crate) const ENOTEMPTY: i32 = 39;

pub(crate) mod op {
    //! What is asked.

    pub(crate) const LOOKUP: u32 = 1;
    pub(crate) const GETATTR: u32 = 3;
    pub(crate) const SETATTR: u32 = 4;
    pub(crate) const MKDIR: u32 = 9;
    pub(crate) const UNLINK: u32 = 10;
    pub(crate) const RMDIR: u32 = 11;
    pub(crate) const RENAME: u32 = 12;
    pub(crate) const OPEN: u32 = 14;
    pub(crate) const READ: u32 = 15;
    pub(crate) const WRITE: u32 = 16;
    pub(crate) const STATFS: u32 = 17;
    pub(crate) const RELEASE: u32 = 18;
    pub(crate) const FSYNC: u32 = 20;
    pub(crate) const FLUSH: u32 = 25;
    pub(crate) const OPENDIR: u32 = 27;
    pub(crate) const READDIR: u32 = 28;
    pub(crate) const RELEASEDIR: u32 = 29;
    pub(crate) const FSYNCDIR: u32 = 30;
    pub(crate) const ACCESS: u32 = 34;
    pub(crate) const CREATE: u32 = 35;
    pub(crate) const FALLOCATE: u32 = 43;
    pub(crate) const RENAME2: u32 = 45;
    pub(crate) const SYNCFS: u32 = 50;
}

/// A mounted file system, and the thread that answers for it.
pub(crate) struct Mounted<'a> {
    at: &'a Path,
    server: Option<JoinHandle<()>>,
}

impl<'a> Mounted<'a> {
    /// `None` where mounting is not allowed or the kernel has no FUSE.
    pub(crate) fn new(
        at: &'a Path,
        mut answer: impl FnMut(&Request) -> Answer + Send + 'static,
    ) -> Option<Self> {
        let device = File::options().read(true).write(true).open("/dev/fuse").ok()?;
        let mut mount = Command::new("mount");
        // The mount command finds the device as its standard input.
        mount.args(["-i", "-t", "fuse", "-o", "fd=0,rootmode=40000,user_id=0,group_id=0"]);
        mount.arg("ringmq-recovery").arg(at).stdin(Stdio::from(device.try_clone().ok()?));
        if !mount.output().is_ok_and(|output| output.status.success()) {
            return None;
        }
        let server = std::thread::spawn(move || serve(&device, &mut answer));
        Some(Self { at, server: Some(server) })
    }
}

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let unmounted = Command::new("umount").arg(self.at).status().is_ok_and(|s| s.success());
        if !unmounted {
            // Something is still open there: it is let go when that is closed.
            let _ = Command::new("umount").arg("-l").arg(self.at).status();
        } else if let Some(server) = self.server.take() {
            // A panic of its has been told already.
            let _ = server.join();
        }
    }
}

/// Until the file system is unmounted.
fn serve(mut device: &File, answer: &mut impl FnMut(&Request) -> Answer) {
    let mut buffer = vec![0; REQUEST_BYTES_MAX];
    while let Ok(length) = device.read(&mut buffer) {
        let word = |at: usize| u32::from_ne_bytes(buffer[at..at + 4].try_into().expect("4 bytes"));
        let request = Request {
            opcode: word(4),
            node: u64::from_ne_bytes(buffer[16..24].try_into().expect("eight bytes")),
            user: (word(24), word(28)),
            body: &buffer[REQUEST_HEAD_BYTES..length],
        };
        let answered = match request.opcode {
            FORGET | BATCH_FORGET | INTERRUPT => continue,
            INIT => Ok(init()),
            DESTROY => Ok(Vec::new()),
            _ => answer(&request),
        };
        let (error, body) = match answered {
            Ok(body) => (0, body),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut reply = ((16 + body.len()) as u32).to_ne_bytes().to_vec();
        reply.extend(error.to_ne_bytes());
        reply.extend(&buffer[8..16]);
        reply.extend(body);
        // Nobody waits for the answer any more, if that fails.
        let _ = device.write(&reply);
    }
}

/// Protocol 7.31; a write is at most 128 KiB.
fn init() -> Vec<u8> {
    const BIG_WRITES: u32 = 1 << 5;
    let words: [u32; 4] = [7, 31, 64 * 1024, BIG_WRITES];
    let mut bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
    bytes.extend([16u16, 12].iter().flat_map(|half| half.to_ne_bytes()));
    bytes.extend((128 * 1024u32).to_ne_bytes());
    bytes.extend(1u32.to_ne_bytes());
    bytes.resize(64, 0);
    bytes
}

const FORGET: u32 = 2;
const INIT: u32 = 26;
const INTERRUPT: u32 = 36;
const DESTROY: u32 = 38;
const BATCH_FORGET: u32 = 42;
const REQUEST_HEAD_BYTES: usize = 40;
const REQUEST_BYTES_MAX: usize = 1 << 20;
