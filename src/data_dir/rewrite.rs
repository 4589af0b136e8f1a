//! Logs for another number of shards in a data directory, which take the place of the old ones as a whole.
//!
//! All that is written is on disk before `meta` names the new generation; what is in memory of it is what
//! `reshard.rs` keeps, and a segment of an old log.

use std::{
    cell::RefCell,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::Instant,
};

use super::{
    DataDir, DataDirError, META, Meta, create_generation,
    error::At,
    generation_path,
    progress::RewriteProgress,
    recover::{Layout, read_file},
    reshard::{NewLogs, Resharding},
};
use crate::{
    base::{ShardId, TimeOrigin},
    shard::{segment_path, sync_directory, write_at},
    storage::{RecoveredShard, Write},
};

impl DataDir {
    /// Writes what the logs amount to anew, and lets the new ones take the place of the old ones.
    pub(super) fn rewrite(
        &mut self,
        shards: &[RecoveredShard],
        layout: Layout,
        origin: TimeOrigin,
    ) -> Result<(), DataDirError> {
        let meta =
            Meta { shards: layout.shards, generation: self.meta.generation + 1, ..self.meta };
        let directory = create_generation(&self.path, meta.generation)?;
        self.write_new_logs(shards, meta, layout, origin, &directory)?;
        sync_directory(&directory).at(&directory)?;
        meta.write(&self.path).at(&self.path.join(META))?;
        let old = generation_path(&self.path, self.meta.generation);
        self.meta = meta;
        // A crash before this leaves it to the next start.
        fs::remove_dir_all(&old).at(&old)?;
        sync_directory(&self.path).at(&self.path)
    }

    fn write_new_logs(
        &self,
        shards: &[RecoveredShard],
        meta: Meta,
        layout: Layout,
        origin: TimeOrigin,
        directory: &Path,
    ) -> Result<(), DataDirError> {
        let new = NewLogs {
            generation: meta.generation,
            seed: meta.seed,
            shards: meta.shards,
            segment_bytes: layout.segment_bytes(),
            bytes_max: layout.bytes_max_per_shard(),
        };
        let mut heads: Vec<_> = (0..meta.shards).map(|_| Head::default()).collect();
        let files = self.files()?;
        let bytes = files.iter().flatten().map(|file| file.bytes).sum();
        let progress = RefCell::new(RewriteProgress::new(bytes, Instant::now()));
        let mut put = |shard: ShardId, write: &Write| {
            progress.borrow_mut().add(0, write.bytes.len() as u64);
            heads[shard.index()].put(directory, shard, write)
        };
        let mut resharding = Resharding::new(shards, new, origin, &mut put).at(directory)?;
        let mut buffer = Vec::new();
        for (shard, files) in files.iter().enumerate() {
            let id = self.log_id(ShardId(shard as u16));
            for file in files {
                read_file(&file.path, &mut buffer).at(&file.path)?;
                resharding.add_segment(id, file.segment, &buffer).at(directory)?;
                progress.borrow_mut().add(file.bytes, 0);
            }
        }
        resharding.finish().at(directory)?;
        heads.iter_mut().try_for_each(Head::sync).at(directory)
    }
}

/// The segment of a new log that is written to, and its file.
#[derive(Default)]
struct Head(Option<(u32, File)>);

impl Head {
    fn put(&mut self, directory: &Path, shard: ShardId, write: &Write) -> io::Result<()> {
        if self.0.as_ref().is_none_or(|(segment, _)| *segment != write.segment) {
            self.sync()?;
            let path = segment_path(directory, shard, write.segment);
            self.0 = Some((write.segment, create_file(&path)?));
        }
        match &self.0 {
            Some((_, file)) => write_at(file, write),
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.0.take().map_or(Ok(()), |(_, file)| file.sync_all())
    }
}

fn create_file(path: &Path) -> io::Result<File> {
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}
