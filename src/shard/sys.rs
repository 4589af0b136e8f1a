//! System calls that neither std nor socket2 has a name for.

use std::{
    fs::File,
    io::{self, Read},
    mem,
    os::fd::FromRawFd,
};

/// A blocking eventfd: readable once written to.
pub(super) fn new_eventfd() -> io::Result<File> {
    // SAFETY: creates a descriptor from constants.
    let fd = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    match fd {
        -1 => Err(io::Error::last_os_error()),
        // SAFETY: the descriptor is new and nobody else owns it.
        fd => Ok(unsafe { File::from_raw_fd(fd) }),
    }
}

/// Bytes from the kernel's randomness, fit for keys.
pub(crate) fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The CPUs this process may run on, in ascending order (`taskset`, cgroup cpusets).
pub fn allowed_cpus() -> io::Result<Vec<usize>> {
    // SAFETY: all-zero is an empty set.
    let mut set: libc::cpu_set_t = unsafe { mem::zeroed() };
    // SAFETY: the kernel writes at most the given size to the set.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&set), &raw mut set) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is below the size of the set.
    let allowed = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
    Ok((0..libc::CPU_SETSIZE as usize).filter(allowed).collect())
}
