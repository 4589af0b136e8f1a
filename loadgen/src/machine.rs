//! Facts about this machine and this process that a result needs beside it, out of /proc.

use std::{fs, time::Duration};

/// CPU time that this process has used, user and system (proc(5), 10 ms ticks).
pub(crate) fn cpu_time() -> Duration {
    cpu_time_of(&fs::read_to_string("/proc/self/stat").unwrap_or_default())
}

/// The running kernel's release; empty if unknown.
pub(crate) fn kernel() -> String {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    release.trim().to_owned()
}

/// CPUs of the machine, not only those that this process may use.
pub(crate) fn cpus() -> usize {
    cpus_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default())
}

/// The model of the first CPU; empty if unknown.
pub(crate) fn cpu_model() -> String {
    model_in(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()).to_owned()
}

fn cpu_time_of(stat: &str) -> Duration {
    // The process name is in parentheses and may hold anything; fields 14 and 15 follow it.
    let after_name = stat.rsplit(')').next().unwrap_or_default();
    let ticks = after_name.split_whitespace().skip(11).take(2);
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

/// USER_HZ is 100 on every Linux that Rust's standard library runs on.
const MILLIS_PER_TICK: u64 = 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_time_is_read_behind_any_process_name() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 100 0 0 0 150 25 3 4 20 0 1 0 5 0";
        assert_eq!(cpu_time_of(stat), Duration::from_millis(1750));
        assert_eq!(cpu_time_of(""), Duration::ZERO);
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
