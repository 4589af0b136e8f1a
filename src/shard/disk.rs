//! The disk of one shard: a thread of its own that writes, syncs, reads and deletes what the shard's log
//! asks for, in that order, and wakes the shard with each answer.
//!
//! Owns the files of the segments and the trouble with them: what fails is tried again until it succeeds,
//! and the shard only hears that and why. Knows no record and not what the bytes mean.

use std::{
    fmt,
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, TryRecvError, channel},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use rustix::fs::{FallocateFlags, fallocate};
use tracing::warn;

use crate::{
    base::{ShardId, give_back_some},
    storage::{Batch, Write},
};

/// What the thread needs to begin.
pub struct DiskSetup {
    /// The directory of the log's files; it is there.
    pub directory: PathBuf,
    /// Whose log it is.
    pub shard: ShardId,
    /// Room that the next segment's file is made with.
    pub segment_bytes: u32,
    /// Called after each answer.
    pub wake: Box<dyn Fn() + Send>,
}

/// What a shard asks of its disk. Jobs are done in their order, but for a batch that fails: it is tried
/// again once a second, and the jobs behind it are done meanwhile.
#[derive(Debug)]
pub enum Job {
    /// Write this and sync it. No other batch until [`Answer::Committed`].
    Write(Batch),
    /// Read what was committed.
    Read {
        /// Number of the segment.
        segment: u32,
        /// First byte in its file.
        offset: u32,
        /// How many.
        bytes: u32,
    },
    /// Delete a segment's file.
    Delete {
        /// Number of the segment.
        segment: u32,
    },
}

/// What becomes of the jobs.
#[derive(Debug)]
pub enum Answer {
    /// The batch is on disk.
    Committed,
    /// What a [`Job::Read`] found.
    Read {
        /// As asked for.
        segment: u32,
        /// As asked for.
        offset: u32,
        /// All the bytes that were asked for.
        bytes: io::Result<Vec<u8>>,
    },
    /// The batch could not be written, or no file for the next segment be made: said once, and then tried
    /// again each second. A batch may still be committed before [`Answer::Recovered`], if only the
    /// next file lacks.
    Failing(String),
    /// All is well again.
    Recovered,
}

/// What was done, for the log line at the end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct DiskSummary {
    /// Batches that were synced.
    pub syncs: u64,
    /// Bytes in them.
    pub bytes: u64,
    /// The longest time that writing and syncing one took.
    pub longest: Duration,
    /// Whether a batch was left unwritten.
    pub is_cut_short: bool,
}

impl fmt::Display for DiskSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { syncs, bytes, longest, is_cut_short } = self;
        let micros = longest.as_micros();
        write!(f, "{syncs} syncs of {bytes} bytes, the longest took {micros} us")?;
        f.write_str(if *is_cut_short { "; the last batch could not be written" } else { "" })
    }
}

/// The shard's end of its disk. Dropped, it waits until all jobs are done, or as [`Disk::stop`] does.
#[derive(Debug)]
pub struct Disk {
    jobs: Option<Sender<Job>>,
    answers: Receiver<Answer>,
    /// Comes when the thread has done all there was.
    ended: Receiver<DiskSummary>,
    thread: Option<JoinHandle<()>>,
}

impl Disk {
    /// Starts the thread `ringmq-log-N`.
    ///
    /// # Errors
    /// The thread cannot be had.
    pub fn start(setup: DiskSetup) -> io::Result<Self> {
        let (jobs, incoming) = channel();
        let (outgoing, answers) = channel();
        let (end, ended) = channel();
        let name = format!("ringmq-log-{}", setup.shard);
        let worker = Worker::new(setup, incoming, outgoing);
        let run = move || {
            // An error means that nobody has waited for it that long.
            let _ = end.send(worker.run());
        };
        let thread = thread::Builder::new().name(name).spawn(run)?;
        Ok(Self { jobs: Some(jobs), answers, ended, thread: Some(thread) })
    }

    /// Adds a job.
    ///
    /// # Panics
    /// The thread has panicked: the shard cannot go on without it.
    pub fn send(&self, job: Job) {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        assert!(matches!(sent, Some(Ok(()))), "the log's thread has ended");
    }

    /// The next answer, if there is one.
    ///
    /// # Panics
    /// As [`Disk::send`].
    pub fn try_answer(&self) -> Option<Answer> {
        match self.answers.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => panic!("the log's thread has ended"),
        }
    }

    /// Waits until all jobs are done, and tells what that was. A batch that fails is tried once more; a disk
    /// that does not answer is given up, and the thread with it.
    pub fn stop(mut self) -> DiskSummary {
        self.end(END_MAX)
    }

    fn end(&mut self, max: Duration) -> DiskSummary {
        drop(self.jobs.take());
        let Some(thread) = self.thread.take() else { return DiskSummary::default() };
        match self.ended.recv_timeout(max) {
            Err(RecvTimeoutError::Timeout) => {
                DiskSummary { is_cut_short: true, ..DiskSummary::default() }
            }
            ended => {
                // A panic there was logged when it happened.
                let _ = thread.join();
                ended.unwrap_or(DiskSummary { is_cut_short: true, ..DiskSummary::default() })
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.end(END_MAX);
    }
}

/// The file of a segment.
pub(crate) fn segment_path(directory: &Path, shard: ShardId, segment: u32) -> PathBuf {
    directory.join(format!("{:03}-{segment:010}.log", shard.0))
}

/// Which segment of which shard a file of that name is.
pub(crate) fn parse_segment_name(name: &str) -> Option<(ShardId, u32)> {
    let (shard, segment) = name.strip_suffix(".log")?.split_once('-')?;
    let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    if shard.len() != 3 || segment.len() != 10 || !is_number(shard) || !is_number(segment) {
        return None;
    }
    Some((ShardId(shard.parse().ok()?), segment.parse().ok()?))
}

/// Makes what was created, renamed or deleted in a directory last.
///
/// # Errors
/// The disk's.
pub(crate) fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Writes to a segment's file, piece by piece.
///
/// # Errors
/// The disk's.
pub(crate) fn write_at(file: &File, write: &Write) -> io::Result<()> {
    let mut at = u64::from(write.offset);
    write.bytes.pieces().flat_map(|piece| piece.chunks(WRITTEN_BYTES_MAX)).try_for_each(|piece| {
        file.write_all_at(piece, at)?;
        at += piece.len() as u64;
        Ok(())
    })
}

/// Creates a segment's file with room for so many bytes, and makes it last.
fn create_segment(directory: &Path, path: &Path, room: u32) -> io::Result<File> {
    // Whatever is there was never committed.
    let mut options = OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(true).mode(0o600).open(path)?;
    reserve(&file, room)?;
    file.sync_all()?;
    sync_directory(directory)?;
    Ok(file)
}

/// Sees to it that writing to the first `room` bytes of the file neither lacks space nor changes its size.
fn reserve(file: &File, room: u32) -> io::Result<()> {
    match fallocate(file, FallocateFlags::empty(), 0, room.into()) {
        // Not every file system can; there, space may lack only when it is written.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => file.set_len(room.into()),
        done => Ok(done?),
    }
}

/// The thread's side.
struct Worker {
    setup: DiskSetup,
    jobs: Receiver<Job>,
    answers: Sender<Answer>,
    /// Files that are open, the one used last at the end.
    open: Vec<(u32, File)>,
    /// The segment that is written to, and the end of what is in it.
    head: Option<(u32, u32)>,
    /// Segments before it, with the bytes in them: the rest of their room is to be given back.
    sealed: Vec<(u32, u32)>,
    /// The segment whose file is ready.
    prepared: Option<u32>,
    /// Its making failed.
    lacks_next: bool,
    /// The batch that failed.
    kept: Option<Batch>,
    /// Segments to delete, after a failure to do so.
    undeleted: Vec<u32>,
    is_undeleted_told: bool,
    is_failing: bool,
    try_again_at: Option<Instant>,
    done: DiskSummary,
}

impl Worker {
    fn new(setup: DiskSetup, jobs: Receiver<Job>, answers: Sender<Answer>) -> Self {
        Self {
            setup,
            jobs,
            answers,
            open: Vec::new(),
            head: None,
            sealed: Vec::new(),
            prepared: None,
            lacks_next: false,
            kept: None,
            undeleted: Vec::new(),
            is_undeleted_told: false,
            is_failing: false,
            try_again_at: None,
            done: DiskSummary::default(),
        }
    }

    fn run(mut self) -> DiskSummary {
        loop {
            // However many jobs come.
            if self.try_again_at.is_some_and(|at| at <= Instant::now()) {
                self.try_again();
            }
            let job = match self.try_again_at {
                None => self.jobs.recv().map_err(|_| RecvTimeoutError::Disconnected),
                Some(at) => self.jobs.recv_timeout(at.saturating_duration_since(Instant::now())),
            };
            match job {
                Ok(job) => {
                    self.handle(job);
                    // A shard that shares the processor comes in between.
                    while give_back_some() {}
                }
                Err(RecvTimeoutError::Timeout) => self.try_again(),
                Err(RecvTimeoutError::Disconnected) => return self.end(),
            }
        }
    }

    fn handle(&mut self, job: Job) {
        match job {
            Job::Write(batch) => {
                debug_assert!(self.kept.is_none(), "one batch is under way at a time");
                self.commit(batch);
            }
            Job::Read { segment, offset, bytes } => {
                let bytes = self.read(segment, offset, bytes);
                self.answer(Answer::Read { segment, offset, bytes });
            }
            Job::Delete { segment } => {
                self.undeleted.push(segment);
                self.delete();
            }
        }
        // Between two batches there is time for what none has to wait for.
        if self.kept.is_none() {
            self.trim();
            self.prepare();
        }
    }

    /// Everything that failed.
    fn try_again(&mut self) {
        self.try_again_at = None;
        // It may have freed the space that the others lack.
        self.delete();
        if let Some(batch) = self.kept.take() {
            self.commit(batch);
        }
        if self.kept.is_none() {
            self.lacks_next = false;
            self.prepare();
        }
    }

    fn end(mut self) -> DiskSummary {
        if self.kept.is_some() {
            self.try_again();
        }
        self.done.is_cut_short = self.kept.is_some();
        if !self.done.is_cut_short {
            self.sealed.extend(self.head);
            self.trim();
        }
        if let Some(next) = self.prepared.take() {
            // Nothing is in it: at the worst it is deleted at the next start.
            let _ = fs::remove_file(self.path(next));
        }
        self.done
    }

    fn commit(&mut self, mut batch: Batch) {
        let began = Instant::now();
        batch.writes.iter_mut().for_each(Write::seal);
        match self.write(&batch) {
            Ok(()) => {
                self.done.syncs += 1;
                self.done.bytes +=
                    batch.writes.iter().map(|write| write.bytes.len() as u64).sum::<u64>();
                self.done.longest = self.done.longest.max(began.elapsed());
                self.succeeded();
                self.answer(Answer::Committed);
            }
            Err((segment, error)) => {
                // Opened again, they tell of no error that was told.
                self.open.clear();
                self.kept = Some(batch);
                self.failed(segment, &error);
            }
        }
    }

    /// Writes the batch and syncs it; an error comes with the number of its segment.
    fn write(&mut self, batch: &Batch) -> Result<(), (u32, io::Error)> {
        for write in &batch.writes {
            self.write_one(write).map_err(|error| (write.segment, error))?;
        }
        for write in &batch.writes {
            let synced = self.file(write.segment).and_then(|file| file.sync_data());
            synced.map_err(|error| (write.segment, error))?;
        }
        for write in &batch.writes {
            let end = write.offset + write.bytes.len() as u32;
            self.sealed.extend(self.head.filter(|(head, _)| *head != write.segment));
            self.head = Some((write.segment, end));
        }
        Ok(())
    }

    fn write_one(&mut self, write: &Write) -> io::Result<()> {
        let segment = write.segment;
        if write.offset == 0 {
            let room = write.segment_bytes.max(write.bytes.len() as u32);
            let is_prepared = self.prepared.take() == Some(segment);
            // A record that has a segment of its own needs another room than was prepared.
            if !is_prepared || room != self.setup.segment_bytes {
                let file = create_segment(&self.setup.directory, &self.path(segment), room)?;
                self.keep_open(segment, file);
            }
        }
        write_at(self.file(segment)?, write)
    }

    fn read(&mut self, segment: u32, offset: u32, bytes: u32) -> io::Result<Vec<u8>> {
        let mut found = vec![0; bytes as usize];
        self.file(segment)?.read_exact_at(&mut found, offset.into())?;
        Ok(found)
    }

    /// Deletes oldest first, so that no gap is left between those that remain.
    fn delete(&mut self) {
        while let Some(segment) = self.undeleted.first().copied() {
            self.open.retain(|(open, _)| *open != segment);
            self.sealed.retain(|(sealed, _)| *sealed != segment);
            let path = self.path(segment);
            let deleted = match fs::remove_file(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                done => done.and_then(|()| sync_directory(&self.setup.directory)),
            };
            if let Err(error) = deleted {
                if !std::mem::replace(&mut self.is_undeleted_told, true) {
                    warn!(
                        "{}: cannot be deleted, which is tried each second: {error}",
                        path.display()
                    );
                }
                self.try_again_soon();
                return;
            }
            self.undeleted.remove(0);
            self.is_undeleted_told = false;
        }
    }

    /// Gives back the room that segments did not need.
    fn trim(&mut self) {
        for (segment, end) in std::mem::take(&mut self.sealed) {
            // What is behind its end is zeros, and told from records by that.
            let _ = self.file(segment).and_then(|file| file.set_len(end.into()));
        }
    }

    /// Makes the next segment's file, so that no batch waits for it.
    fn prepare(&mut self) {
        let Some((head, _)) = self.head else { return };
        let next = head + 1;
        if self.prepared == Some(next) || self.lacks_next {
            return;
        }
        match create_segment(&self.setup.directory, &self.path(next), self.setup.segment_bytes) {
            Ok(file) => {
                self.prepared = Some(next);
                self.keep_open(next, file);
                self.succeeded();
            }
            Err(error) => {
                // Room that was had in part.
                let _ = fs::remove_file(self.path(next));
                self.lacks_next = true;
                self.failed(next, &error);
            }
        }
    }

    fn failed(&mut self, segment: u32, error: &io::Error) {
        self.try_again_soon();
        if !self.is_failing {
            self.is_failing = true;
            let reason = format!("{}: {error}", self.path(segment).display());
            self.answer(Answer::Failing(reason));
        }
    }

    fn succeeded(&mut self) {
        if self.is_failing && self.kept.is_none() && !self.lacks_next {
            self.is_failing = false;
            self.answer(Answer::Recovered);
        }
    }

    fn try_again_soon(&mut self) {
        self.try_again_at.get_or_insert_with(|| Instant::now() + TRY_AGAIN_AFTER);
    }

    fn answer(&self, answer: Answer) {
        // At the end of the shard nobody listens any more.
        let _ = self.answers.send(answer);
        (self.setup.wake)();
    }

    fn path(&self, segment: u32) -> PathBuf {
        segment_path(&self.setup.directory, self.setup.shard, segment)
    }

    /// The file of a segment that is there.
    fn file(&mut self, segment: u32) -> io::Result<&File> {
        match self.open.iter().position(|(open, _)| *open == segment) {
            Some(at) => self.open[at..].rotate_left(1),
            None => {
                let file = OpenOptions::new().read(true).write(true).open(self.path(segment))?;
                self.keep_open(segment, file);
            }
        }
        Ok(&self.open[self.open.len() - 1].1)
    }

    fn keep_open(&mut self, segment: u32, file: File) {
        self.open.retain(|(open, _)| *open != segment);
        if self.open.len() == OPEN_FILES_MAX {
            self.open.remove(0);
        }
        self.open.push((segment, file));
    }
}

/// A disk that takes longer for what it has to do at the end may take for ever.
const END_MAX: Duration = Duration::from_secs(10);

/// Bytes written at a time: a shard that shares the processor comes in between.
const WRITTEN_BYTES_MAX: usize = 1024 * 1024;

/// Between two attempts at what failed.
const TRY_AGAIN_AFTER: Duration = Duration::from_secs(1);

/// Files that one shard's thread keeps open.
const OPEN_FILES_MAX: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of its own, removed at the end.
    struct Place(PathBuf);

    impl Place {
        fn new(name: &str) -> Self {
            let path =
                std::env::temp_dir().join(format!("ringmq-disk-{name}-{}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir(&path).unwrap();
            Self(path)
        }

        fn start(&self) -> (Disk, Receiver<()>) {
            let (wake, woken) = channel();
            let (directory, shard) = (self.0.clone(), ShardId(3));
            let wake = Box::new(move || _ = wake.send(()));
            let setup = DiskSetup { directory, shard, segment_bytes: ROOM, wake };
            (Disk::start(setup).unwrap(), woken)
        }

        fn bytes(&self, segment: u32) -> Vec<u8> {
            fs::read(segment_path(&self.0, ShardId(3), segment)).unwrap()
        }

        fn has(&self, segment: u32) -> bool {
            segment_path(&self.0, ShardId(3), segment).exists()
        }
    }

    impl Drop for Place {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const ROOM: u32 = 64 * 1024;

    fn batch(writes: &[(u32, u32, &[u8])]) -> Job {
        let write = |&(segment, offset, bytes): &(u32, u32, &[u8])| Write {
            segment,
            offset,
            segment_bytes: ROOM,
            bytes: bytes.to_vec().into(),
            unsealed: Vec::new(),
        };
        Job::Write(Batch { writes: writes.iter().map(write).collect() })
    }

    /// The next answer; a call is what tells of it.
    fn answer(disk: &Disk, woken: &Receiver<()>) -> Answer {
        loop {
            if let Some(answer) = disk.try_answer() {
                return answer;
            }
            woken.recv().unwrap();
        }
    }

    #[track_caller]
    fn check_read(disk: &Disk, wake: &Receiver<()>, segment: u32, offset: u32, expected: &[u8]) {
        let bytes = expected.len() as u32;
        disk.send(Job::Read { segment, offset, bytes });
        match answer(disk, wake) {
            Answer::Read { bytes, .. } => assert_eq!(bytes.unwrap(), expected),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn batches_are_written_read_and_counted() {
        let place = Place::new("written");
        let (disk, wake) = place.start();
        disk.send(batch(&[(7, 0, b"head"), (7, 4, b"er")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        check_read(&disk, &wake, 7, 2, b"ader");
        // While the answer was on its way, the next one was made.
        check_read(&disk, &wake, 8, 0, &[0; 8]);
        assert_eq!(place.bytes(7).len(), ROOM as usize);
        disk.send(batch(&[(7, 6, b"!"), (8, 0, b"next")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        check_read(&disk, &wake, 8, 0, b"next");
        assert_eq!(place.bytes(7), b"header!", "what it did not need is given back");
        disk.send(Job::Delete { segment: 7 });
        disk.send(Job::Delete { segment: 6 });
        disk.send(Job::Read { segment: 7, offset: 0, bytes: 1 });
        assert!(matches!(answer(&disk, &wake), Answer::Read { bytes: Err(_), .. }));
        let summary = disk.stop();
        assert_eq!((summary.syncs, summary.bytes, summary.is_cut_short), (2, 11, false));
        assert_eq!(place.bytes(8), b"next");
        assert!(!place.has(7) && !place.has(9), "only what holds records is left");
    }

    #[test]
    fn a_record_may_have_a_segment_of_its_own() {
        let place = Place::new("large");
        let (disk, wake) = place.start();
        disk.send(batch(&[(1, 0, b"x")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        let large = vec![7; ROOM as usize + 1];
        disk.send(batch(&[(2, 0, &large), (3, 0, b"y")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        drop(disk);
        assert_eq!((place.bytes(2), place.bytes(3)), (large, b"y".to_vec()));
    }

    #[test]
    fn what_fails_is_tried_again_and_reads_go_on() {
        let place = Place::new("fails");
        let (disk, wake) = place.start();
        disk.send(batch(&[(1, 0, b"one")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        // Nothing can be created, written or synced there.
        let blocked = segment_path(&place.0, ShardId(3), 5);
        fs::create_dir(&blocked).unwrap();
        disk.send(batch(&[(1, 3, b"two"), (5, 0, b"three")]));
        let Answer::Failing(reason) = answer(&disk, &wake) else { panic!("a failure expected") };
        assert!(reason.starts_with(&*blocked.to_string_lossy()), "{reason}");
        check_read(&disk, &wake, 1, 0, b"one");
        fs::remove_dir(&blocked).unwrap();
        assert!(matches!(answer(&disk, &wake), Answer::Recovered));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        disk.stop();
        assert_eq!((place.bytes(1), place.bytes(5)), (b"onetwo".to_vec(), b"three".to_vec()));
    }

    #[test]
    fn a_next_segment_that_cannot_be_had_is_told_and_tried_again() {
        let place = Place::new("next");
        let (disk, wake) = place.start();
        let blocked = segment_path(&place.0, ShardId(3), 2);
        fs::create_dir(&blocked).unwrap();
        disk.send(batch(&[(1, 0, b"one")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        assert!(matches!(answer(&disk, &wake), Answer::Failing(_)));
        // There is room for this one still.
        disk.send(batch(&[(1, 3, b"two")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        fs::remove_dir(&blocked).unwrap();
        assert!(matches!(answer(&disk, &wake), Answer::Recovered));
        assert!(!disk.stop().is_cut_short);
    }

    /// A file system of this size in the directory, if this process may make one.
    struct Small(Place);

    impl Small {
        fn mount(name: &str, bytes: &str) -> Option<Self> {
            let place = Place::new(name);
            let mut mount = std::process::Command::new("mount");
            mount.args(["-t", "tmpfs", "-o", bytes, "tmpfs"]).arg(&place.0);
            mount.output().is_ok_and(|done| done.status.success()).then_some(Self(place))
        }
    }

    impl Drop for Small {
        fn drop(&mut self) {
            let _ = std::process::Command::new("umount").arg(&self.0.0).status();
        }
    }

    #[test]
    fn a_full_disk_is_told_before_it_is_needed_and_again_when_there_is_room() {
        let Some(small) = Small::mount("full", "size=128k") else {
            eprintln!("skipped: only root may mount a file system");
            return;
        };
        let (disk, wake) = small.0.start();
        let filler = small.0.0.join("filler");
        fs::write(&filler, [1; 32 * 1024]).unwrap();
        disk.send(batch(&[(1, 0, b"one")]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        let Answer::Failing(reason) = answer(&disk, &wake) else { panic!("no room is left") };
        assert!(reason.contains("003-0000000002.log: No space left on device"), "{reason}");
        assert!(!small.0.has(2), "what was had of it is given back");
        // The segment that is there can be filled.
        disk.send(batch(&[(1, 3, &[2; ROOM as usize - 3])]));
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        disk.send(batch(&[(2, 0, b"two")]));
        check_read(&disk, &wake, 1, 0, b"one");
        fs::remove_file(&filler).unwrap();
        assert!(matches!(answer(&disk, &wake), Answer::Committed));
        // Until the first is gone there is no room for a third.
        disk.send(Job::Delete { segment: 1 });
        assert!(matches!(answer(&disk, &wake), Answer::Recovered));
        check_read(&disk, &wake, 3, 0, &[0; 8]);
        assert!(!disk.stop().is_cut_short);
        assert_eq!(small.0.bytes(2), b"two");
    }

    #[test]
    fn a_batch_that_cannot_be_written_at_the_end_is_told() {
        let place = Place::new("end");
        let (disk, wake) = place.start();
        fs::create_dir(segment_path(&place.0, ShardId(3), 1)).unwrap();
        disk.send(batch(&[(1, 0, b"one")]));
        assert!(matches!(answer(&disk, &wake), Answer::Failing(_)));
        let summary = disk.stop();
        assert!(summary.is_cut_short);
        assert!(summary.to_string().ends_with("; the last batch could not be written"));
    }

    #[test]
    fn a_disk_that_does_not_answer_is_given_up() {
        let (jobs, incoming) = channel::<Job>();
        let (_answers, answers) = channel();
        let (stalled, ended) = channel();
        // Until the end of the test.
        let thread = thread::spawn(move || while incoming.recv().is_ok() {});
        let mut disk = Disk { jobs: Some(jobs), answers, ended, thread: Some(thread) };
        assert!(disk.end(Duration::from_millis(10)).is_cut_short);
        drop((disk, stalled));
    }

    #[test]
    fn segments_have_names() {
        let path = segment_path(Path::new("/d"), ShardId(12), 34);
        assert_eq!(path, Path::new("/d/012-0000000034.log"));
        assert_eq!(parse_segment_name("012-0000000034.log"), Some((ShardId(12), 34)));
        for other in
            ["12-0000000034.log", "012-34.log", "012-+000000034.log", "012-0000000034", "x"]
        {
            assert_eq!(parse_segment_name(other), None, "{other}");
        }
    }
}
