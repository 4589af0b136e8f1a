//! Start-up checks: does this machine let the broker run, and if not, what has
//! to change? Raises the soft limits that it may, fits the configuration into
//! those that it may not.
//!
//! Runs once on the main thread, before any shard. The decisions are pure
//! functions; the system calls around them are the file's only `unsafe`.

use std::{fmt, fs, io};

use io_uring::{IoUring, opcode};
use thiserror::Error;

use crate::{base::limits::MEMORY_BYTES_MIN, config::Config, memory_there_is};

/// Checks kernel, io_uring, locked memory and descriptors; lowers
/// `limits.connections_max` to what the descriptor limit allows, and finds `limits.memory_bytes_max` if nothing says it.
///
/// # Errors
/// Every check that failed, with what to change.
pub fn run(config: &mut Config) -> Result<Vec<Warning>, Failures> {
    let mut failures = Vec::new();
    let mut warnings = Vec::new();
    let shards = config.shards.get() as u64;

    failures.extend(check_kernel(&read("/proc/sys/kernel/osrelease")));
    // On a kernel that is too old the ring fails as well, for the reason given.
    if failures.is_empty()
        && let Err((call, error)) = try_ring()
    {
        let sysctl = read("/proc/sys/kernel/io_uring_disabled");
        failures.push(explain_ring(call, error, sysctl.parse().unwrap_or(0)));
    }
    match raised(libc::RLIMIT_MEMLOCK, memlock_needed(shards)) {
        Ok(limit) => failures.extend(check_memlock(limit, shards)),
        Err(error) => failures.push(Failure::Unreadable("RLIMIT_MEMLOCK", error)),
    }
    match raised(libc::RLIMIT_NOFILE, 0) {
        Ok(limit) => match connections_allowed(limit, shards) {
            Some(allowed) if allowed < config.policy.limits.connections_max => {
                let wanted = config.policy.limits.connections_max;
                warnings.push(Warning::ConnectionsLowered { wanted, allowed, limit });
                config.policy.limits.connections_max = allowed;
            }
            Some(_) => {}
            None => {
                let needed = descriptor_reserve(shards) + 1;
                failures.push(Failure::Descriptors { limit, needed, shards });
            }
        },
        Err(error) => failures.push(Failure::Unreadable("RLIMIT_NOFILE", error)),
    }
    if !failures.is_empty() {
        return Err(Failures(failures));
    }
    let memory = &mut config.policy.limits.memory_bytes_max;
    // What the allocator keeps for later, stacks and the program itself need some as well.
    *memory = memory.or_else(|| Some((memory_there_is::bytes()? / 4 * 3).max(MEMORY_BYTES_MIN)));
    widen_descriptor_table(
        descriptor_reserve(shards) + u64::from(config.policy.limits.connections_max),
    );
    Ok(warnings)
}

/// Raises the limits that [`run`] looks at, as far as the process may: before it becomes a user who may not. What
/// fails here is told there.
pub fn raise_limits(config: &Config) {
    let _ = raised(libc::RLIMIT_MEMLOCK, memlock_needed(config.shards.get() as u64));
    let _ = raised(libc::RLIMIT_NOFILE, 0);
}

/// Has the kernel make room for so many descriptors before there are threads. Later it would do so each time
/// that their number doubles, and wait some 10 ms for all processors to notice, and with it whoever connects.
fn widen_descriptor_table(descriptors: u64) {
    let highest = i32::try_from(descriptors).unwrap_or(i32::MAX).min(DESCRIPTORS_WIDENED_MAX) - 1;
    // What fails here only makes that happen later.
    let _ = rustix::io::fcntl_dupfd_cloexec(io::stderr(), highest);
}

/// Something that the broker runs without, but not as asked.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Warning {
    /// Fewer connections than configured.
    #[error(
        "limits.connections_max is lowered from {wanted} to {allowed}: the process may open {limit} \
         descriptors. To serve more, raise that with `ulimit -Hn`, LimitNOFILE= (systemd) or \
         --ulimit nofile= (containers)"
    )]
    ConnectionsLowered {
        /// As configured.
        wanted: u32,
        /// In force now.
        allowed: u32,
        /// The descriptor limit behind it.
        limit: u64,
    },
}

/// Every check that failed, never none.
#[derive(Debug, Error)]
pub struct Failures(Vec<Failure>);

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, failure) in self.0.iter().enumerate() {
            write!(f, "{}{failure}", if index == 0 { "" } else { "\n" })?;
        }
        Ok(())
    }
}

#[derive(Debug, Error)]
enum Failure {
    #[error("Linux {KERNEL_MIN_MAJOR}.{KERNEL_MIN_MINOR} or newer is needed, but this is {0}")]
    Kernel(String),
    #[error(
        "io_uring is switched off on this machine (kernel.io_uring_disabled = {sysctl}); switch it \
         on with `sysctl -w kernel.io_uring_disabled=0`{}",
        if *sysctl == 1 { ", or run as root or in the group kernel.io_uring_group" } else { "" }
    )]
    Disabled { sysctl: u32 },
    #[error("{call} is blocked ({error}), most likely by the seccomp profile: {PROFILE}")]
    Blocked { call: &'static str, error: io::Error },
    #[error(
        "{call} is missing ({error}): either the kernel was built without CONFIG_IO_URING, or the \
         seccomp profile hides it: {PROFILE}"
    )]
    Missing { call: &'static str, error: io::Error },
    #[error(
        "{call} lacks memory ({error}): raise the limit of locked memory with `ulimit -l`, \
         LimitMEMLOCK= (systemd) or --ulimit memlock= (containers), or the memory limit of the \
         container"
    )]
    NoMemory { call: &'static str, error: io::Error },
    #[error(
        "{call} does not know what the broker needs ({error}): Linux \
         {KERNEL_MIN_MAJOR}.{KERNEL_MIN_MINOR} or newer with CONFIG_IO_URING is needed"
    )]
    Unsupported { call: &'static str, error: io::Error },
    #[error("{call} failed: {error}")]
    Ring { call: &'static str, error: io::Error },
    #[error(
        "{shards} shards lock up to {kib} KiB of memory, but the process may lock {} KiB: raise \
         that with `ulimit -l {kib}`, LimitMEMLOCK={kib}K (systemd) or --ulimit memlock={needed} \
         (containers), or start fewer shards with --shards",
        limit / 1024, kib = needed / 1024
    )]
    Memlock { limit: u64, needed: u64, shards: u64 },
    #[error(
        "{shards} shards need {needed} descriptors before the first connection, but the process \
         may open {limit}: raise that with `ulimit -n`, LimitNOFILE= (systemd) or --ulimit nofile= \
         (containers), or start fewer shards with --shards"
    )]
    Descriptors { limit: u64, needed: u64, shards: u64 },
    #[error("{0} cannot be read: {1}")]
    Unreadable(&'static str, io::Error),
}

/// `None` also for a release whose form is unknown: the ring is tried next anyway.
fn check_kernel(release: &str) -> Option<Failure> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let (major, minor) = (numbers.next()?.ok()?, numbers.next()?.ok()?);
    ((major, minor) < (KERNEL_MIN_MAJOR, KERNEL_MIN_MINOR))
        .then(|| Failure::Kernel(format!("Linux {release}")))
}

/// The likely reason why `call` failed, given the value of `kernel.io_uring_disabled`.
fn explain_ring(call: &'static str, error: io::Error, sysctl: u32) -> Failure {
    match error.raw_os_error().unwrap_or(0) {
        libc::EPERM if sysctl != 0 => Failure::Disabled { sysctl },
        libc::EPERM | libc::EACCES => Failure::Blocked { call, error },
        // Some profiles answer ENOSYS, so that programs fall back to something older.
        libc::ENOSYS => Failure::Missing { call, error },
        libc::ENOMEM => Failure::NoMemory { call, error },
        libc::EINVAL => Failure::Unsupported { call, error },
        _ => Failure::Ring { call, error },
    }
}

fn check_memlock(limit: u64, shards: u64) -> Option<Failure> {
    let needed = memlock_needed(shards);
    (limit < needed).then_some(Failure::Memlock { limit, needed, shards })
}

const fn memlock_needed(shards: u64) -> u64 {
    shards * MEMLOCK_BYTES_PER_SHARD
}

/// Connections that `limit` descriptors leave room for, if any.
fn connections_allowed(limit: u64, shards: u64) -> Option<u32> {
    let rest = limit.checked_sub(descriptor_reserve(shards)).filter(|rest| *rest > 0)?;
    Some(u32::try_from(rest).unwrap_or(u32::MAX))
}

/// Descriptors that are not connections: listeners, rings, event descriptors, files.
const fn descriptor_reserve(shards: u64) -> u64 {
    DESCRIPTORS_PER_PROCESS + shards * DESCRIPTORS_PER_SHARD
}

/// What a seccomp profile has to allow.
const PROFILE: &str = "allow io_uring_setup, io_uring_enter and io_uring_register there (Docker \
                       and Podman: --security-opt seccomp=PROFILE, or seccomp=unconfined to try \
                       it; systemd: SystemCallFilter=)";
/// Multishot receive, provided buffer rings and DEFER_TASKRUN together.
const KERNEL_MIN_MAJOR: u32 = 6;
const KERNEL_MIN_MINOR: u32 = 1;
/// What glommio asks for before it starts an executor.
const MEMLOCK_BYTES_PER_SHARD: u64 = 512 * 1024;
const DESCRIPTORS_PER_PROCESS: u64 = 64;
const DESCRIPTORS_PER_SHARD: u64 = 32;

/// The trimmed text of a file of /proc; empty if there is none.
fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

/// Makes all three io_uring calls the way a shard does.
fn try_ring() -> Result<(), (&'static str, io::Error)> {
    // Before the ring, so that it is freed after the ring is closed.
    let mut page = Box::new(Page([0; 4096]));
    let address = std::ptr::from_mut(page.as_mut()) as u64;

    let mut ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .build(u32::from(RING_ENTRIES))
        .map_err(|error| ("io_uring_setup", error))?;

    // SAFETY: the page is aligned as the kernel wants it, holds more than
    // RING_ENTRIES descriptors of 16 bytes, and outlives the ring.
    unsafe { ring.submitter().register_buf_ring_with_flags(address, RING_ENTRIES, 0, 0) }
        .map_err(|error| ("io_uring_register", error))?;

    let nop = opcode::Nop::new().build();
    // SAFETY: a no-op refers to no memory.
    let pushed = unsafe { ring.submission().push(&nop) };
    debug_assert!(pushed.is_ok(), "a new queue has room");
    ring.submit_and_wait(1).map_err(|error| ("io_uring_enter", error))?;
    Ok(())
}

/// A page, for memory that the kernel wants aligned to one.
#[repr(C, align(4096))]
struct Page([u8; 4096]);

const RING_ENTRIES: u16 = 8;

/// The soft limit after raising it to the hard one, and both to `needed` if the
/// process is privileged enough. Keeps what it has where the kernel refuses.
fn raised(resource: libc::__rlimit_resource_t, needed: u64) -> io::Result<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is valid for the one write of the call.
    if unsafe { libc::getrlimit(resource, &raw mut limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    for hard in [limit.rlim_max.max(needed), limit.rlim_max] {
        if limit.rlim_cur >= hard {
            break;
        }
        let wanted = libc::rlimit { rlim_cur: hard, rlim_max: hard };
        // SAFETY: `wanted` is valid for the one read of the call.
        if unsafe { libc::setrlimit(resource, &raw const wanted) } == 0 {
            return Ok(hard);
        }
    }
    Ok(limit.rlim_cur)
}

/// Descriptors that the kernel's table is widened for at the start, at 8 bytes each.
const DESCRIPTORS_WIDENED_MAX: i32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn text(failure: Option<Failure>) -> String {
        failure.map_or_else(String::new, |failure| failure.to_string())
    }

    #[test]
    fn kernels_before_6_1_are_refused() {
        for release in ["6.1.0", "6.1", "6.18.44-fc", "7.0.0-rc1", "10.2", "", "unknown", "6"] {
            assert_eq!(text(check_kernel(release)), "", "{release}");
        }
        for release in ["6.0.19", "5.15.0-113-generic", "4.4.0"] {
            let expected = format!("Linux 6.1 or newer is needed, but this is Linux {release}");
            assert_eq!(text(check_kernel(release)), expected);
        }
    }

    #[test]
    fn a_refused_ring_says_what_to_change() {
        for (errno, sysctl, expected) in [
            (
                libc::EPERM,
                2,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = 2); switch \
                 it on with `sysctl -w kernel.io_uring_disabled=0`",
            ),
            (
                libc::EPERM,
                1,
                "io_uring is switched off on this machine (kernel.io_uring_disabled = 1); switch \
                 it on with `sysctl -w kernel.io_uring_disabled=0`, or run as root or in the \
                 group kernel.io_uring_group",
            ),
            (
                libc::EPERM,
                0,
                "io_uring_setup is blocked (Operation not permitted (os error 1)), most likely by \
                 the seccomp profile: allow io_uring_setup, io_uring_enter and io_uring_register \
                 there (Docker and Podman: --security-opt seccomp=PROFILE, or seccomp=unconfined \
                 to try it; systemd: SystemCallFilter=)",
            ),
            (
                libc::ENOSYS,
                0,
                "io_uring_setup is missing (Function not implemented (os error 38)): either the \
                 kernel was built without CONFIG_IO_URING, or the seccomp profile hides it: allow \
                 io_uring_setup, io_uring_enter and io_uring_register there (Docker and Podman: \
                 --security-opt seccomp=PROFILE, or seccomp=unconfined to try it; systemd: \
                 SystemCallFilter=)",
            ),
            (
                libc::ENOMEM,
                0,
                "io_uring_setup lacks memory (Cannot allocate memory (os error 12)): raise the \
                 limit of locked memory with `ulimit -l`, LimitMEMLOCK= (systemd) or --ulimit \
                 memlock= (containers), or the memory limit of the container",
            ),
            (
                libc::EINVAL,
                0,
                "io_uring_setup does not know what the broker needs (Invalid argument (os error \
                 22)): Linux 6.1 or newer with CONFIG_IO_URING is needed",
            ),
            (libc::EMFILE, 0, "io_uring_setup failed: Too many open files (os error 24)"),
        ] {
            let error = io::Error::from_raw_os_error(errno);
            assert_eq!(explain_ring("io_uring_setup", error, sysctl).to_string(), expected);
        }
    }

    #[test]
    fn memlock_is_needed_for_each_shard() {
        assert_eq!(text(check_memlock(2 * 512 * 1024, 2)), "");
        assert_eq!(text(check_memlock(u64::MAX, 128)), "");
        assert_eq!(
            text(check_memlock(64 * 1024, 2)),
            "2 shards lock up to 1024 KiB of memory, but the process may lock 64 KiB: raise that \
             with `ulimit -l 1024`, LimitMEMLOCK=1024K (systemd) or --ulimit memlock=1048576 \
             (containers), or start fewer shards with --shards"
        );
    }

    #[test]
    fn connections_get_the_descriptors_that_shards_leave() {
        assert_eq!(connections_allowed(20_000, 2), Some(20_000 - 64 - 64));
        assert_eq!(connections_allowed(64 + 32 + 1, 1), Some(1));
        assert_eq!(connections_allowed(64 + 32, 1), None);
        assert_eq!(connections_allowed(10, 1), None);
        assert_eq!(connections_allowed(u64::MAX, 128), Some(u32::MAX));
        assert_eq!(
            Failure::Descriptors { limit: 90, needed: 97, shards: 1 }.to_string(),
            "1 shards need 97 descriptors before the first connection, but the process may open \
             90: raise that with `ulimit -n`, LimitNOFILE= (systemd) or --ulimit nofile= \
             (containers), or start fewer shards with --shards"
        );
        assert_eq!(
            Warning::ConnectionsLowered { wanted: 1_000_000, allowed: 19_872, limit: 20_000 }
                .to_string(),
            "limits.connections_max is lowered from 1000000 to 19872: the process may open 20000 \
             descriptors. To serve more, raise that with `ulimit -Hn`, LimitNOFILE= (systemd) or \
             --ulimit nofile= (containers)"
        );
    }
}
