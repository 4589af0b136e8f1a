//! How much memory the process may use: that of the machine, or what a control group leaves of it, of version 1 or 2.

use std::fs;

/// Bytes; `None` if the kernel does not say.
pub fn bytes() -> Option<u64> {
    least(|path| fs::read_to_string(path).ok())
}

/// The least of all that is said.
fn least(read: impl Fn(&str) -> Option<String>) -> Option<u64> {
    let total = read("/proc/meminfo").as_deref().and_then(total_of_machine);
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = groups.lines().filter_map(files_of_group).flat_map(|(root, path, files)| {
        // Within a container the path may be that outside, while the root is the container's own.
        let mut paths: Vec<_> = path.match_indices('/').map(|(at, _)| &path[..at]).collect();
        paths.push(path.trim_end_matches('/'));
        let one = |path: &str| {
            files.iter().map(|file| format!("{root}{path}/{file}")).collect::<Vec<_>>()
        };
        paths.into_iter().flat_map(one).collect::<Vec<_>>()
    });
    limits.filter_map(|path| read(&path)?.trim().parse().ok()).chain(total).min()
}

fn total_of_machine(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// Of a line such as `0::/a/b`: where groups are, the path of this one, and what its files are called. "max" in one
/// of them is no number, and none of version 1 is more than any machine has.
fn files_of_group(line: &str) -> Option<(&'static str, &str, &'static [&'static str])> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    if controllers.is_empty() {
        return Some(("/sys/fs/cgroup", path, &["memory.max", "memory.high"]));
    }
    let is_of_memory = controllers.split(',').any(|controller| controller == "memory");
    is_of_memory.then_some(("/sys/fs/cgroup/memory", path, &["memory.limit_in_bytes"]))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMINFO: (&str, &str) =
        ("/proc/meminfo", "MemTotal:       24680000 kB\nMemFree:        1 kB\n");
    const MACHINE: Option<u64> = Some(24_680_000 * 1024);

    #[test]
    fn the_least_of_machine_and_groups_holds() {
        let own = |text| ("/proc/self/cgroup", text);
        let v1 = "12:cpu:/a\n5:memory:/docker/7\n0::/x\n";
        for (files, expected) in [
            (&[] as &[(&str, &str)], MACHINE),
            (&[own("0::/\n"), ("/sys/fs/cgroup/memory.max", "max\n")], MACHINE),
            (&[own("0::/\n"), ("/sys/fs/cgroup/memory.max", "1000000\n")], Some(1_000_000)),
            (&[own("0::/a/b\n"), ("/sys/fs/cgroup/a/memory.max", "2000\n")], Some(2000)),
            (&[own("0::/a/b\n"), ("/sys/fs/cgroup/a/b/memory.high", "3000\n")], Some(3000)),
            (
                &[
                    own("0::/a/b\n"),
                    ("/sys/fs/cgroup/a/memory.max", "2000\n"),
                    ("/sys/fs/cgroup/a/b/memory.max", "1000\n"),
                ],
                Some(1000),
            ),
            (&[own(v1), ("/sys/fs/cgroup/memory/docker/7/memory.limit_in_bytes", "7\n")], Some(7)),
            (&[own(v1), ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "8\n")], Some(8)),
            (
                &[
                    own(v1),
                    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
                ],
                MACHINE,
            ),
            (&[own("nonsense"), ("/sys/fs/cgroup/memory.max", "1\n")], MACHINE),
        ] {
            let read = |path: &str| {
                let mut all = files.iter().chain([&MEMINFO]);
                all.find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned())
            };
            assert_eq!(least(read), expected, "{files:?}");
        }
        assert_eq!(least(|_| None), None);
    }
}
