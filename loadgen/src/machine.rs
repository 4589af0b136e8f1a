//! Facts about this machine, this process and the broker's that a result needs beside it, out of /proc.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::Path,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use crate::result::Machine;

/// This machine.
pub(crate) fn facts() -> Machine {
    Machine { kernel: kernel(), cpu: cpu_model(), cpus: cpus(), memory_bytes: memory_bytes() }
}

/// Why there are not enough descriptors.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{clients} clients need {needed} file descriptors, and this process may have {allowed}: raise the hard \
     limit (`ulimit -Hn`), or make the load with fewer clients"
)]
pub(crate) struct DescriptorsError {
    clients: u32,
    needed: u64,
    allowed: u64,
}

/// Whether this process may have a connection for each of the clients, with what so many threads need.
/// Raises the soft limit to the hard one if that takes it.
pub(crate) fn check_descriptors(clients: u32, threads: usize) -> Result<(), DescriptorsError> {
    let needed = u64::from(clients) + threads as u64 * DESCRIPTORS_PER_THREAD + DESCRIPTORS_OTHER;
    // A limit that cannot be read is none: the kernel will tell if it is passed.
    let allowed = rlimit::increase_nofile_limit(u64::MAX).ok().unwrap_or(u64::MAX);
    if needed <= allowed { Ok(()) } else { Err(DescriptorsError { clients, needed, allowed }) }
}

/// What a process uses.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(crate) struct Usage {
    /// User and system (10 ms ticks).
    pub(crate) cpu: Duration,
    /// Memory in RAM.
    pub(crate) rss_bytes: u64,
}

/// What that process uses so far; `None` if there is none.
pub(crate) fn usage(pid: u32) -> Option<Usage> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    Some(Usage { cpu: cpu_time_of(&stat), rss_bytes: kib_in(&status, "VmRSS:") * 1024 })
}

/// Has the calling thread's timers fire when they are due. By default the kernel takes 50 us of liberty,
/// which would be in every latency of an open loop. Where it is not allowed, "generator lateness" tells.
pub(crate) fn wake_on_time() {
    // PID/task/TID
    if let Ok(thread) = fs::read_link("/proc/thread-self")
        && let Some(number) = thread.file_name()
    {
        let _ = fs::write(Path::new("/proc").join(number).join("timerslack_ns"), "1");
    }
}

/// What that process and everything it has started use so far, children that have ended included;
/// `None` if there is none. Memory that they share counts once for each.
pub(crate) fn usage_of_tree(pid: u32) -> Option<Usage> {
    let mut all = usage(pid)?;
    let mut pids = vec![pid];
    let mut at = 0;
    while let Some(pid) = pids.get(at).copied().filter(|_| at < PROCESSES_MAX) {
        // One that has ended meanwhile is among the ended children of its parent.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        all.cpu += cpu_time_of_ended_children(&stat);
        if at > 0 {
            let used = usage(pid).unwrap_or_default();
            all.cpu += used.cpu;
            all.rss_bytes += used.rss_bytes;
        }
        pids.extend(children(pid));
        at += 1;
    }
    Some(all)
}

/// The CPU time of the calling thread, to the nanosecond.
pub(crate) struct ThreadCpu(Option<File>);

impl ThreadCpu {
    /// Of the calling thread; to be asked on it.
    pub(crate) fn open() -> Self {
        Self(File::open("/proc/thread-self/schedstat").ok())
    }

    /// So far; 0 where the kernel does not tell.
    pub(crate) fn nanos(&self) -> u64 {
        let mut text = [0; 64];
        let len = self.0.as_ref().and_then(|file| file.read_at(&mut text, 0).ok()).unwrap_or(0);
        let text = str::from_utf8(&text[..len]).unwrap_or_default();
        text.split_whitespace().next().and_then(|nanos| nanos.parse().ok()).unwrap_or(0)
    }
}

/// The running kernel's release; empty if unknown.
fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// CPUs of the machine, not only those that this process may use.
fn cpus() -> usize {
    cpus_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The model of the first CPU; empty if unknown.
fn cpu_model() -> String {
    model_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()).to_owned()
}

fn memory_bytes() -> u64 {
    kib_in(&fs::read_to_string("/proc/meminfo").unwrap_or_default(), "MemTotal:") * 1024
}

/// The living children of a process; none where the kernel does not tell.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let texts =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    texts.flat_map(|text| pids_in(&text)).collect()
}

fn pids_in(text: &str) -> Vec<u32> {
    text.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn kib_in(text: &str, name: &str) -> u64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name));
    let kib = value.and_then(|value| value.split_whitespace().next()?.parse().ok());
    kib.unwrap_or(0)
}

fn cpu_time_of(stat: &str) -> Duration {
    ticks_from(stat, 14)
}

fn cpu_time_of_ended_children(stat: &str) -> Duration {
    ticks_from(stat, 16)
}

/// User and system time: the fields of that number, from 1, and after it.
fn ticks_from(stat: &str, field: usize) -> Duration {
    // The process name is in parentheses and may hold anything; field 3 follows it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(field - 3).take(2);
    let ticks: u64 = ticks.filter_map(|ticks| ticks.parse::<u64>().ok()).sum();
    Duration::from_millis(ticks * MILLIS_PER_TICK)
}

fn cpus_in(cpuinfo: &str) -> usize {
    cpuinfo.lines().filter(|line| line.starts_with("processor")).count()
}

fn model_in(cpuinfo: &str) -> &str {
    let line = cpuinfo.lines().find(|line| line.starts_with("model name"));
    line.and_then(|line| line.split_once(':')).map_or("", |(_, model)| model.trim())
}

/// Rings, their eventfds, the way for orders and what /proc tells of it.
const DESCRIPTORS_PER_THREAD: u64 = 16;

/// Standard streams, files, those that the libraries hold.
const DESCRIPTORS_OTHER: u64 = 32;

/// USER_HZ is 100 on every Linux that Rust's standard library runs on.
const MILLIS_PER_TICK: u64 = 10;

/// No broker has as many; a fork bomb may.
const PROCESSES_MAX: usize = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_process_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 3 4 20 0 1 0 5 0";
        assert_eq!(cpu_time_of(stat), Duration::from_millis(1750));
        assert_eq!(cpu_time_of_ended_children(stat), Duration::from_millis(70));
        assert_eq!(cpu_time_of(""), Duration::ZERO);
    }

    #[test]
    fn this_process_uses_something() {
        let used = usage(std::process::id()).unwrap();
        assert!(used.rss_bytes > 100_000);
        let cpu = ThreadCpu::open();
        let before = cpu.nanos();
        while cpu.nanos() == before {
            std::hint::black_box((0..1000).sum::<u64>());
        }
        assert_eq!(usage(u32::MAX), None);
    }

    #[test]
    fn clients_need_descriptors() {
        assert_eq!(check_descriptors(1, 1), Ok(()));
        let error = check_descriptors(u32::MAX, 2).unwrap_err();
        assert_eq!(error.needed, u64::from(u32::MAX) + 64);
        assert!(error.to_string().contains("ulimit -Hn"), "{error}");
    }

    #[test]
    fn what_a_process_started_counts_as_its_own() {
        let busy = "while [ $n -lt 200000 ]; do n=$((n+1)); done";
        // One child has ended, the other lives, and so does a child of that.
        let script = format!("(n=0; {busy}); echo 1; (n=0; {busy}; echo 2; sleep 60; :) & wait");
        let mut shell = std::process::Command::new("sh")
            .args(["-c", &script])
            .stdout(std::process::Stdio::piped())
            .stderr(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut said = [0; 4];
        std::io::Read::read_exact(shell.stdout.as_mut().unwrap(), &mut said).unwrap();
        let (own, all) = (usage(shell.id()).unwrap(), usage_of_tree(shell.id()).unwrap());
        let started = children(shell.id());
        for pid in started.iter().copied().flat_map(children).chain(started.iter().copied()) {
            // The parent may have ended its own child by now.
            std::process::Command::new("kill").arg(pid.to_string()).output().unwrap();
        }
        shell.wait().unwrap();
        assert!(all.cpu >= own.cpu + Duration::from_millis(20), "{own:?} {all:?}");
        assert!(all.rss_bytes > own.rss_bytes, "{own:?} {all:?}");
        assert_eq!(started.len(), 1);
        assert_eq!(usage_of_tree(u32::MAX), None);
    }

    #[test]
    fn cpus_are_counted_and_their_model_is_found() {
        assert_eq!(cpus_in("processor\t: 0\nmodel name\t: x\n\nprocessor\t: 1\n"), 2);
        assert_eq!(
            model_in("processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\n"),
            "Some CPU @ 3 GHz"
        );
        assert_eq!(model_in("processor\t: 0\n"), "");
    }
}
