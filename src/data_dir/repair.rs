//! Damaged logs made readable again: first what would be lost, then the change. A file that is changed is
//! kept beside the new one.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    ops::Range,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use super::{
    DataDir, DataDirError,
    error::At,
    recover::{SegmentFile, read_file},
};
use crate::{
    base::{ShardId, TimeOrigin},
    shard::{segment_path, sync_directory},
    storage::{Damage, Gap, LogReader, Repaired, Repairer, SEGMENT_HEADER_BYTES},
};

/// What has to be given up so that all logs can be read again.
#[derive(Debug, Default)]
pub struct Plan {
    /// By file.
    pub losses: Vec<Loss>,
    /// Sessions that will lack messages, as far as that shows.
    pub gaps: Vec<Gap>,
    /// Shards with such files, each with the first segment that is to be there.
    shards: Vec<(ShardId, u32)>,
}

/// What cannot be read of a file.
#[derive(Debug)]
pub struct Loss {
    /// The file.
    pub path: PathBuf,
    /// Whether it is there.
    pub is_missing: bool,
    /// Bytes of it.
    pub unreadable: Vec<Range<u32>>,
    /// Whole records that stay.
    pub records: u64,
}

impl DataDir {
    /// What it takes to read all logs again; nothing if they can be read. Changes nothing.
    ///
    /// # Errors
    /// See [`DataDirError`].
    pub fn plan_repair(&self) -> Result<Plan, DataDirError> {
        let mut plan = Plan::default();
        for (shard, files) in self.files()?.iter().enumerate() {
            let shard = ShardId(shard as u16);
            let Some(first) = files.first().map(|file| file.segment) else { continue };
            if !self.is_damaged(shard, files)? {
                continue;
            }
            match self.plan_log(shard, files, first, &mut plan)? {
                Ok(()) => plan.shards.push((shard, first)),
                // That the oldest ones are missing shows when all others can be read. In place of all of
                // them one is enough that says so.
                Err(missing) if missing.at.segment < first => {
                    let older = missing.at.segment..first - 1;
                    plan.losses.extend(older.map(|segment| self.missing(shard, segment)));
                    let planned = self.plan_log(shard, files, first - 1, &mut plan)?;
                    planned.map_err(|damage| self.beyond_repair(shard, damage))?;
                    plan.shards.push((shard, first - 1));
                }
                Err(damage) => return Err(self.beyond_repair(shard, damage)),
            }
        }
        Ok(plan)
    }

    /// Adds what it takes to read one log from this segment on, or says why that is not enough.
    fn plan_log(
        &self,
        shard: ShardId,
        files: &[SegmentFile],
        first: u32,
        plan: &mut Plan,
    ) -> Result<Result<(), Damage>, DataDirError> {
        let mut reader = LogReader::new(self.log_id(shard), TimeOrigin::default());
        let mut losses = Vec::new();
        self.repair_each(shard, files, first, |Step { segment, path, bytes, repaired }| {
            let file = repaired.bytes.as_deref().or(bytes).unwrap_or_default();
            reader.read(segment, file).map_err(|damage| self.beyond_repair(shard, damage))?;
            if repaired.bytes.is_some() {
                let Repaired { unreadable, records, .. } = repaired;
                let is_missing = bytes.is_none();
                losses.push(Loss { path, is_missing, unreadable, records });
            }
            Ok(())
        })?;
        Ok(reader.finish().map(|log| {
            plan.losses.extend(losses);
            plan.gaps.extend(log.gaps);
        }))
    }

    /// Carries out what was planned. Each file that is changed stays under the name that is returned for it.
    ///
    /// # Errors
    /// See [`DataDirError`]. It can be begun again then.
    pub fn repair(&self, plan: &Plan) -> Result<Vec<PathBuf>, DataDirError> {
        let mut kept = Vec::new();
        for (shard, files) in self.files()?.iter().enumerate() {
            let shard = ShardId(shard as u16);
            let planned = plan.shards.iter().find(|(planned, _)| *planned == shard);
            let Some((_, first)) = planned else { continue };
            self.repair_each(shard, files, *first, |Step { path, bytes, repaired, .. }| {
                let Some(repaired) = repaired.bytes else { return Ok(()) };
                if bytes.is_some() {
                    kept.push(keep(&path).at(&path)?);
                }
                replace(&path, &repaired).at(&path)
            })?;
        }
        let directory = self.log_directory();
        sync_directory(&directory).at(&directory)?;
        Ok(kept)
    }

    fn is_damaged(&self, shard: ShardId, files: &[SegmentFile]) -> Result<bool, DataDirError> {
        let mut reader = LogReader::new(self.log_id(shard), TimeOrigin::default());
        let mut buffer = Vec::new();
        for file in files {
            read_file(&file.path, &mut buffer).at(&file.path)?;
            if reader.read(file.segment, &buffer).is_err() {
                return Ok(true);
            }
        }
        Ok(reader.finish().is_err())
    }

    /// Each segment of a log from `first` on, those that are missing too, and what it is to be.
    fn repair_each(
        &self,
        shard: ShardId,
        files: &[SegmentFile],
        first: u32,
        mut visit: impl FnMut(Step<'_>) -> Result<(), DataDirError>,
    ) -> Result<(), DataDirError> {
        let directory = self.log_directory();
        let mut repairer = Repairer::new(self.log_id(shard));
        let mut next_segment = first;
        let mut buffer = Vec::new();
        for file in files {
            let begin = beginning(&file.path).at(&file.path)?;
            for segment in next_segment..file.segment {
                let next = (segment + 1 == file.segment).then_some(&begin[..]);
                let repaired = repairer.segment(segment, &[], next);
                let path = segment_path(&directory, shard, segment);
                visit(Step { segment, path, bytes: None, repaired })?;
            }
            next_segment = file.segment + 1;
            read_file(&file.path, &mut buffer).at(&file.path)?;
            let is_last = files.last().is_some_and(|last| last.segment == file.segment);
            if is_last && buffer.iter().all(|byte| *byte == 0) {
                // Made ahead and not used.
                return Ok(());
            }
            let next = files.iter().find(|other| other.segment == next_segment);
            let next = next.map(|next| beginning(&next.path).at(&next.path)).transpose()?;
            let repaired = repairer.segment(file.segment, &buffer, next.as_deref());
            let (segment, path) = (file.segment, file.path.clone());
            visit(Step { segment, path, bytes: Some(&buffer), repaired })?;
        }
        Ok(())
    }

    fn missing(&self, shard: ShardId, segment: u32) -> Loss {
        let path = segment_path(&self.log_directory(), shard, segment);
        Loss { path, is_missing: true, unreadable: Vec::new(), records: 0 }
    }

    fn beyond_repair(&self, shard: ShardId, damage: Damage) -> DataDirError {
        DataDirError::BeyondRepair {
            directory: self.path.clone(),
            file: segment_path(&self.log_directory(), shard, damage.at.segment),
            damage,
        }
    }
}

/// One segment on the way through a log.
struct Step<'a> {
    segment: u32,
    path: PathBuf,
    /// What its file holds, if it is there.
    bytes: Option<&'a [u8]>,
    repaired: Repaired,
}

/// The header of a segment's file, as far as there is one.
fn beginning(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(SEGMENT_HEADER_BYTES.into()).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Gives the file another name beside its own, which no earlier one has.
fn keep(path: &Path) -> io::Result<PathBuf> {
    let mut number = 1;
    loop {
        let suffix = if number == 1 { ".damaged".to_owned() } else { format!(".damaged.{number}") };
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        match fs::hard_link(path, &name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => number += 1,
            linked => return linked.map(|()| name.into()),
        }
    }
}

/// Puts a file in the place of the one that is there, all of it at once.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = path.with_extension("repaired");
    let mut options = OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&new, path)
}
