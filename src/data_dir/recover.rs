//! The logs of a data directory read again, several at a time, each segment as a whole; and what a crash has
//! left at their ends cut off.

use std::{
    fs::{self, File, OpenOptions},
    io::Read,
    num::NonZeroUsize,
    path::{Path, PathBuf},
    sync::{
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, Sender, channel},
    },
    thread,
    time::Instant,
};

use tracing::{info, warn};

use super::{
    DataDir, DataDirError,
    error::At,
    progress::{PROGRESS_EVERY, Progress},
};
use crate::{
    base::{ShardId, TimeOrigin},
    shard::{parse_segment_name, segment_path, sync_directory},
    storage::{Damage, LogId, LogReader, LogSetup, RecoveredLog, RecoveredShard},
};

/// How the logs of all shards are to go on.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// For how many shards.
    pub shards: u16,
    /// Bytes on disk of all logs together.
    pub bytes_max: u64,
}

impl Layout {
    /// Bytes of one shard's log.
    pub(super) fn bytes_max_per_shard(&self) -> u64 {
        self.bytes_max / u64::from(self.shards)
    }

    /// Bytes of a segment: small enough that giving one up is a small part of the log.
    pub fn segment_bytes(&self) -> u32 {
        let part = self.bytes_max_per_shard() / SEGMENTS_PER_LOG;
        part.clamp(SEGMENT_BYTES_MIN, SEGMENT_BYTES_MAX) as u32
    }
}

const SEGMENTS_PER_LOG: u64 = 16;
const SEGMENT_BYTES_MIN: u64 = 1 << 20;
const SEGMENT_BYTES_MAX: u64 = 64 << 20;

/// A file of a log.
#[derive(Clone, Debug)]
pub(super) struct SegmentFile {
    pub(super) segment: u32,
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

impl DataDir {
    /// Reads all logs: for each shard, how its log goes on and what it holds. If they are for another number
    /// of shards, they are written anew before that.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn recover(
        &mut self,
        layout: Layout,
        origin: TimeOrigin,
    ) -> Result<Vec<(LogSetup, RecoveredShard)>, DataDirError> {
        let mut logs = self.read_and_cut(origin)?;
        if layout.shards != self.meta.shards {
            let before = self.meta.shards;
            info!("writing the logs of {before} shards anew for {}", layout.shards);
            let shards: Vec<_> = logs.into_iter().map(|log| log.shard).collect();
            self.rewrite(&shards, layout, origin)?;
            logs = self.read_and_cut(origin)?;
        }
        for gap in logs.iter().flat_map(|log| &log.gaps) {
            warn!(client = %gap.client, deliveries = gap.deliveries, "messages were lost in a damaged log");
        }
        let setup = |(shard, log): (usize, RecoveredLog)| {
            let id = self.log_id(ShardId(shard as u16));
            let setup = log.setup(id, layout.segment_bytes(), layout.bytes_max_per_shard());
            (setup, log.shard)
        };
        Ok(logs.into_iter().enumerate().map(setup).collect())
    }

    /// Reads all logs without changing anything.
    ///
    /// # Errors
    /// As [`DataDir::recover`].
    pub fn read(&self, origin: TimeOrigin) -> Result<Vec<RecoveredLog>, DataDirError> {
        self.read_files(&self.files()?, origin)
    }

    pub(super) fn log_id(&self, shard: ShardId) -> LogId {
        LogId { generation: self.meta.generation, shard }
    }

    /// The files of each shard's log, oldest first.
    pub(super) fn files(&self) -> Result<Vec<Vec<SegmentFile>>, DataDirError> {
        let directory = self.log_directory();
        let mut files = vec![Vec::new(); self.meta.shards.into()];
        for entry in fs::read_dir(&directory).at(&directory)? {
            let entry = entry.at(&directory)?;
            let name = entry.file_name();
            let Some((shard, segment)) = name.to_str().and_then(parse_segment_name) else {
                continue;
            };
            let Some(files) = files.get_mut(shard.index()) else { continue };
            let bytes = entry.metadata().at(&entry.path())?.len();
            files.push(SegmentFile { segment, path: entry.path(), bytes });
        }
        files.iter_mut().for_each(|files| files.sort_unstable_by_key(|file| file.segment));
        Ok(files)
    }

    fn read_and_cut(&self, origin: TimeOrigin) -> Result<Vec<RecoveredLog>, DataDirError> {
        let began = Instant::now();
        let files = self.files()?;
        let logs = self.read_files(&files, origin)?;
        for (log, files) in logs.iter().zip(&files) {
            self.cut(log, files)?;
        }
        let sum = |count: fn(&RecoveredShard) -> usize| {
            logs.iter().map(|log| count(&log.shard)).sum::<usize>()
        };
        let bytes: u64 = files.iter().flatten().map(|file| file.bytes).sum();
        if bytes > 0 {
            info!(
                sessions = sum(|shard| shard.sessions.len()),
                deliveries =
                    sum(|shard| shard.sessions.iter().map(|one| one.deliveries.len()).sum()),
                retained = sum(|shard| shard.retained.len()),
                delayed = sum(|shard| shard.delayed.len()),
                bytes,
                millis = began.elapsed().as_millis() as u64,
                "{}: recovered",
                self.path.display()
            );
        }
        Ok(logs)
    }

    /// Each log on one of a few threads, so that no more than a segment for each of those is in memory.
    fn read_files(
        &self,
        files: &[Vec<SegmentFile>],
        origin: TimeOrigin,
    ) -> Result<Vec<RecoveredLog>, DataDirError> {
        let total = files.iter().flatten().map(|file| file.bytes).sum();
        let progress = Progress { total, ..Progress::default() };
        let next = AtomicUsize::new(0);
        let workers = thread::available_parallelism().map_or(1, NonZeroUsize::get).min(files.len());
        let (results, incoming) = channel();
        thread::scope(|scope| {
            for _ in 0..workers {
                let results = results.clone();
                let (progress, next) = (&progress, &next);
                scope.spawn(move || self.read_some(files, next, progress, origin, &results));
            }
            drop(results);
            let mut logs: Vec<_> = files.iter().map(|_| None).collect();
            loop {
                match incoming.recv_timeout(PROGRESS_EVERY) {
                    Ok((shard, log)) => logs[shard] = Some(log),
                    Err(RecvTimeoutError::Timeout) => progress.tell(),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
            // After an error, some may not have been read; then it is what comes of this.
            logs.into_iter().flatten().collect()
        })
    }

    fn read_some(
        &self,
        files: &[Vec<SegmentFile>],
        next: &AtomicUsize,
        progress: &Progress,
        origin: TimeOrigin,
        results: &Sender<(usize, Result<RecoveredLog, DataDirError>)>,
    ) {
        let mut buffer = Vec::new();
        loop {
            let shard = next.fetch_add(1, Ordering::Relaxed);
            let Some(files) = files.get(shard) else { return };
            let log = self.read_log(ShardId(shard as u16), files, progress, origin, &mut buffer);
            if log.is_err() {
                next.store(usize::MAX / 2, Ordering::Relaxed);
            }
            // Whoever waits for it takes all.
            let _ = results.send((shard, log));
        }
    }

    fn read_log(
        &self,
        shard: ShardId,
        files: &[SegmentFile],
        progress: &Progress,
        origin: TimeOrigin,
        buffer: &mut Vec<u8>,
    ) -> Result<RecoveredLog, DataDirError> {
        let directory = self.log_directory();
        let damaged = |damage: Damage| DataDirError::Damaged {
            directory: self.path.clone(),
            file: segment_path(&directory, shard, damage.at.segment),
            damage,
        };
        let mut reader = LogReader::new(self.log_id(shard), origin);
        for file in files {
            progress.shard.store(shard.index(), Ordering::Relaxed);
            read_file(&file.path, buffer).at(&file.path)?;
            reader.read(file.segment, buffer).map_err(damaged)?;
            progress.done.fetch_add(file.bytes, Ordering::Relaxed);
        }
        reader.finish().map_err(damaged)
    }

    /// Leaves of the files what holds records.
    fn cut(&self, log: &RecoveredLog, files: &[SegmentFile]) -> Result<(), DataDirError> {
        let mut is_deleted = false;
        // The last one first, so that no gap is left between those that remain.
        for file in files.iter().rev() {
            let kept = log.segments.iter().find(|(segment, ..)| *segment == file.segment);
            match kept {
                Some((_, end, _)) if *end < file.bytes => {
                    let cut = OpenOptions::new().write(true).open(&file.path).at(&file.path)?;
                    cut.set_len(*end).and_then(|()| cut.sync_all()).at(&file.path)?;
                }
                Some(_) => {}
                None => {
                    fs::remove_file(&file.path).at(&file.path)?;
                    is_deleted = true;
                }
            }
        }
        if let Some(torn) = log.torn.filter(|torn| torn.at.offset > 0) {
            info!("what had not been committed is cut off: {torn}");
        }
        let directory = self.log_directory();
        if is_deleted { sync_directory(&directory).at(&directory) } else { Ok(()) }
    }
}

/// Reads a whole file into a buffer that serves for the next one too.
pub(super) fn read_file(path: &Path, buffer: &mut Vec<u8>) -> std::io::Result<()> {
    buffer.clear();
    File::open(path)?.read_to_end(buffer).map(drop)
}
