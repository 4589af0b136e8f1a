//! What a broker's disk can do at best: the time of one write with its sync, one after the other, into
//! blocks that are only reserved and into blocks that were written before.
//!
//! Knows no broker: its figures are what a broker's acknowledgements are compared with.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    time::Instant,
};

use hdrhistogram::Histogram;
use rustix::fs::{FallocateFlags, fallocate};

use crate::result::LatencyResult;

/// What is to be measured.
#[derive(Clone, Debug)]
pub(crate) struct DiskSetup {
    /// Where a file is made, and removed again.
    pub(crate) directory: PathBuf,
    /// Of one write.
    pub(crate) bytes: u32,
    /// How many writes of each kind.
    pub(crate) count: u32,
}

/// Times of one write with its sync, in microseconds.
#[derive(Debug)]
pub(crate) struct DiskFigures {
    /// Into blocks that are reserved but were never written: as a log goes on.
    pub(crate) reserved: LatencyResult,
    /// Into blocks that were written before, so that only data has to reach the disk.
    pub(crate) written: LatencyResult,
}

impl DiskSetup {
    /// Measures.
    ///
    /// # Errors
    /// The disk's.
    pub(crate) fn measure(&self) -> io::Result<DiskFigures> {
        let place = Place::new(&self.directory);
        let room = u64::from(self.bytes) * u64::from(self.count);
        let file = OpenOptions::new().write(true).create_new(true).open(&place.0)?;
        fallocate(&file, FallocateFlags::empty(), 0, room)?;
        file.sync_all()?;
        let reserved = self.pass(&file)?;
        Ok(DiskFigures { reserved, written: self.pass(&file)? })
    }

    /// One write and sync after the other, from the file's beginning on.
    fn pass(&self, file: &File) -> io::Result<LatencyResult> {
        let block = vec![b'x'; self.bytes as usize];
        let bounds = Histogram::<u64>::new_with_bounds(1, LONGEST_US, 3);
        let mut histogram = bounds.map_err(io::Error::other)?;
        for number in 0..self.count {
            let began = Instant::now();
            file.write_all_at(&block, u64::from(number) * u64::from(self.bytes))?;
            file.sync_data()?;
            histogram.saturating_record(began.elapsed().as_micros() as u64);
        }
        Ok(LatencyResult::new(&histogram))
    }
}

/// A file that is removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(directory: &Path) -> Self {
        Self(directory.join(format!("loadgen-disk-{}", std::process::id())))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // It may not have been made.
        let _ = fs::remove_file(&self.0);
    }
}

/// An hour: longer ones count as that.
const LONGEST_US: u64 = 3_600_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_write_is_timed_and_the_file_removed() {
        let directory = std::env::temp_dir().join(format!("loadgen-disk-{}", std::process::id()));
        fs::create_dir(&directory).unwrap();
        let setup = DiskSetup { directory: directory.clone(), bytes: 4096, count: 5 };
        let figures = setup.measure().unwrap();
        assert_eq!((figures.reserved.count, figures.written.count), (5, 5));
        // Fails if anything is left in it.
        fs::remove_dir(&directory).unwrap();
        assert!(setup.measure().is_err(), "the directory is gone");
    }
}
