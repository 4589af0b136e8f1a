//! Real directories: what is refused, what a crash leaves behind, other numbers of shards, repair.

use std::{
    fs::Permissions,
    os::unix::{
        fs::{FileExt, PermissionsExt},
        process::parent_id,
    },
};

use super::*;
use crate::{
    base::{QoS, ShardId, TimeOrigin, home_of},
    shard::segment_path,
    storage::{
        Boot, Delivery, DeliveryNumber, Intake, Log, LogSetup, MessageRecord, PublicationRecord,
        Record, RecoveredShard, Scanned, SegmentScan, SessionNumber, SessionRecord, Source, Target,
    },
    topic::SubscriptionOptions,
};

/// A directory to put a data directory into, removed at the end.
struct Place(PathBuf);

impl Place {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("ringmq-data-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    fn path(&self) -> PathBuf {
        self.0.join("data")
    }

    /// A data directory in which these clients wait for so many messages each, with a retained message for
    /// each of them too.
    fn filled(name: &str, shards: u16, clients: &[&str], messages: u64) -> Self {
        let place = Self::new(name);
        let mut directory = DataDir::open(&place.path(), shards, 7).unwrap();
        for (setup, _) in recover(&mut directory, shards) {
            let shard = setup.id.shard;
            let is_home = |text: &&&str| home_of(7, shards, text) == shard;
            let own: Vec<_> = clients.iter().filter(is_home).copied().collect();
            let log = directory.log_directory();
            let mut writer = Writer { directory: log, shard, log: Log::new(setup) };
            writer.fill(&own, messages);
            own.iter().for_each(|client| writer.retain(client));
            writer.write();
        }
        place
    }

    fn segment(&self, shard: u16, segment: u32) -> PathBuf {
        segment_path(&generation_path(&self.path(), 1), ShardId(shard), segment)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn layout(shards: u16) -> Layout {
    Layout { shards, bytes_max: u64::from(shards) << 23 }
}

fn recover(directory: &mut DataDir, shards: u16) -> Vec<(LogSetup, RecoveredShard)> {
    directory.recover(layout(shards), TimeOrigin::default()).unwrap()
}

/// Writes a log without a thread.
struct Writer {
    directory: PathBuf,
    shard: ShardId,
    log: Log,
}

impl Writer {
    /// Sessions that all get the same messages, one batch each.
    fn fill(&mut self, clients: &[&str], messages: u64) {
        for (number, client) in clients.iter().enumerate() {
            let options = SubscriptionOptions { qos: QoS::AtLeastOnce, ..Default::default() };
            self.log.append(&Record::Session(SessionRecord {
                number: SessionNumber(number as u64),
                client,
                expiry_secs: 3600,
                subscriptions: vec![("a/#", options)],
                ..SessionRecord::default()
            }));
        }
        self.write();
        for delivery in 0..messages {
            let target = |number| Target {
                session: SessionNumber(number as u64),
                delivery: DeliveryNumber(delivery),
                qos: QoS::AtLeastOnce,
                retain: false,
                identifiers: Default::default(),
            };
            let targets: Vec<_> = (0..clients.len()).map(target).collect();
            let payload = vec![delivery as u8; 100 + delivery as usize];
            self.publish("a/b", &payload, false, &targets);
            self.write();
        }
        for number in 0..clients.len() as u64 {
            let (session, delivery) = (SessionNumber(number), DeliveryNumber(1));
            self.log.append(&Record::Done { session, delivery });
        }
        self.write();
    }

    /// A session that shares a subscription.
    fn join(&mut self, number: SessionNumber, client: &str) {
        let options = SubscriptionOptions { qos: QoS::ExactlyOnce, ..Default::default() };
        self.log.append(&Record::Session(SessionRecord {
            number,
            client,
            subscriptions: vec![("$share/members/a/x", options)],
            ..SessionRecord::default()
        }));
    }

    fn retain(&mut self, topic: &str) {
        self.publish(topic, b"kept", true, &[]);
    }

    fn publish(&mut self, topic: &str, payload: &[u8], is_retained: bool, targets: &[Target]) {
        self.log.append(&Record::Publication(PublicationRecord {
            message: message(topic, payload, is_retained),
            is_retained,
            publisher: None,
            origin: None,
            targets,
        }));
    }

    fn write(&mut self) {
        while let Some(batch) = self.log.next_batch() {
            for write in batch.writes {
                let path = segment_path(&self.directory, self.shard, write.segment);
                let mut options = OpenOptions::new();
                let file = options.write(true).create(true).truncate(false).open(path).unwrap();
                if write.offset == 0 {
                    file.set_len(write.segment_bytes.into()).unwrap();
                }
                crate::shard::write_at(&file, &write).unwrap();
            }
            self.log.batch_committed();
        }
    }
}

fn message<'a>(topic: &'a str, payload: &'a [u8], retain: bool) -> MessageRecord<'a> {
    let (properties, qos, expires_at) = (&[][..], QoS::AtLeastOnce, None);
    MessageRecord { topic, properties, payload, shared: None, qos, retain, expires_at }
}

/// A client and the payloads that it has yet to get.
type Waiting = (String, Vec<Vec<u8>>);

/// All clients, and the retained topics.
fn content(directory: &DataDir) -> (Vec<Waiting>, Vec<String>) {
    let logs = directory.read(TimeOrigin::default()).unwrap();
    let (mut sessions, mut retained) = (Vec::new(), Vec::new());
    for (shard, log) in logs.iter().enumerate() {
        let shard = ShardId(shard as u16);
        for session in &log.shard.sessions {
            assert_eq!(home_of(7, directory.shards(), session.client.as_str()), shard);
            let payload = |slot: &crate::storage::Slot| match slot.get() {
                Delivery::Message(hold) => Some(payload_at(directory, shard, hold.at)),
                _ => None,
            };
            let payloads = session.deliveries.iter().filter_map(payload).collect();
            sessions.push((session.client.as_str().to_owned(), payloads));
        }
        for one in &log.shard.retained {
            let topic = one.publication.message().topic.as_str().to_owned();
            assert_eq!(home_of(7, directory.shards(), &topic), shard);
            retained.push(topic);
        }
    }
    sessions.sort();
    retained.sort();
    (sessions, retained)
}

fn payload_at(directory: &DataDir, shard: ShardId, at: crate::storage::Position) -> Vec<u8> {
    let path = segment_path(&directory.log_directory(), shard, at.segment);
    let bytes = fs::read(path).unwrap();
    let mut targets = Vec::new();
    let mut scan = SegmentScan::new(directory.log_id(shard), at.segment, &bytes).unwrap();
    loop {
        match scan.next(&mut targets) {
            Scanned::Record(found, _, Record::Publication(record)) if found == at => {
                return record.message.payload.to_vec();
            }
            Scanned::End(end) => panic!("{at:?}: {end:?}"),
            _ => {}
        }
    }
}

const CLIENTS: [&str; 7] = ["a", "b", "c", "d", "e", "f", "g"];

#[test]
fn a_new_directory_is_ours_alone_and_stays_as_it_was_made() {
    let place = Place::new("new");
    let directory = DataDir::open(&place.path(), 2, 7).unwrap();
    assert_eq!(fs::metadata(place.path()).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!((directory.seed(), directory.shards(), directory.generation()), (7, 2, 1));
    let expected = format!(
        "{}: is in use by process {}, another ringmq",
        place.path().display(),
        std::process::id()
    );
    for other in [
        DataDir::open(&place.path(), 2, 8),
        DataDir::open_existing(&place.path()),
        DataDir::open_to_read(&place.path()),
    ] {
        assert_eq!(other.unwrap_err().to_string(), expected);
    }
    drop(directory);
    let readers = [(); 2].map(|()| DataDir::open_to_read(&place.path()).unwrap());
    assert!(matches!(DataDir::open(&place.path(), 2, 8), Err(DataDirError::InUse { .. })));
    drop(readers);
    // The seed and the number of shards are those of the logs.
    let again = DataDir::open(&place.path(), 3, 8).unwrap();
    assert_eq!((again.seed(), again.shards()), (7, 2));
}

#[test]
fn what_is_no_data_directory_is_refused_and_left_alone() {
    let place = Place::new("refused");
    let path = place.path();
    let refused = || DataDir::open(&path, 1, 7).unwrap_err().to_string();
    fs::write(&path, "").unwrap();
    assert_eq!(refused(), format!("{}: is not a directory", path.display()));
    fs::remove_file(&path).unwrap();

    fs::create_dir(&path).unwrap();
    fs::write(path.join("photo.jpg"), "").unwrap();
    assert!(
        refused().contains("holds \"photo.jpg\", and so is no data directory"),
        "{}",
        refused()
    );
    assert_eq!(fs::read_dir(&path).unwrap().count(), 1, "nothing was added");
    fs::remove_file(path.join("photo.jpg")).unwrap();
    let empty = DataDir::open_to_read(&path).unwrap_err().to_string();
    assert!(empty.ends_with("is no data directory: nothing is in it"), "{empty}");

    drop(DataDir::open(&path, 1, 7).unwrap());
    let meta = fs::read_to_string(path.join(META)).unwrap();
    fs::write(path.join(META), meta.replace("shards 1", "shards 2")).unwrap();
    assert!(refused().contains("meta: is damaged"), "{}", refused());
    fs::write(path.join(META), meta.replace("format 1", "format 9")).unwrap();
    assert!(refused().contains("meta: has format 9, which this version"), "{}", refused());
    fs::remove_file(path.join(META)).unwrap();
    fs::write(place.segment(0, 1), "x").unwrap();
    assert!(refused().contains("the file \"meta\" is missing"), "{}", refused());
    fs::remove_file(place.segment(0, 1)).unwrap();
    // A crash before the first `meta` has left nothing of value.
    assert!(DataDir::open(&path, 1, 7).is_ok());
}

#[test]
fn a_directory_of_another_user_is_refused() {
    let place = Place::new("owner");
    fs::create_dir(place.path()).unwrap();
    // Only root can give it away.
    if std::os::unix::fs::chown(place.path(), Some(12_345), None).is_err() {
        return;
    }
    let error = DataDir::open(&place.path(), 1, 7).unwrap_err().to_string();
    assert!(error.contains("belongs to user 12345, but this process to user"), "{error}");
}

#[test]
fn a_lock_of_a_process_that_has_ended_names_nobody() {
    let place = Place::new("lock");
    let holder = DataDir::open(&place.path(), 1, 7).unwrap();
    for (text, expected) in [
        (format!("{}\n", parent_id()), format!("process {}, another ringmq", parent_id())),
        ("4294967294\n".to_owned(), "another process".to_owned()),
        ("\u{1b}[2J".to_owned(), "another process".to_owned()),
    ] {
        fs::write(place.path().join(LOCK), text).unwrap();
        let error = DataDir::open(&place.path(), 1, 7).unwrap_err().to_string();
        assert!(error.ends_with(&format!("is in use by {expected}")), "{error}");
    }
    drop(holder);
}

#[test]
fn what_was_written_is_recovered_and_a_torn_end_cut_off() {
    let place = Place::filled("torn", 2, &CLIENTS, 5);
    let mut directory = DataDir::open(&place.path(), 2, 0).unwrap();
    let before = content(&directory);
    assert_eq!(before.0.len(), CLIENTS.len());
    assert_eq!(before.0[0].1.len(), 4, "one of five was over");
    assert_eq!(before.1, CLIENTS);
    // The next segment was made ahead; the end of the last batch is not whole.
    let prepared = place.segment(1, 2);
    fs::write(&prepared, [0; 4096]).unwrap();
    let end = directory.read(TimeOrigin::default()).unwrap()[0].segments[0].1;
    let file = OpenOptions::new().write(true).open(place.segment(0, 1)).unwrap();
    file.write_all_at(&[9, 1, 0, 0, 1, 2, 3, 4, 5], end).unwrap();
    let setups: Vec<_> = recover(&mut directory, 2).into_iter().map(|(setup, _)| setup).collect();
    assert_eq!(fs::metadata(place.segment(0, 1)).unwrap().len(), end);
    assert!(!prepared.exists());
    assert_eq!(setups[0].next_segment, 2, "nothing is added to an old segment");
    assert_eq!((setups[0].segment_bytes, setups[0].bytes_max), (1 << 20, 1 << 23));
    assert_eq!(content(&directory), before);
    recover(&mut directory, 2);
    assert_eq!(content(&directory), before);
}

#[test]
fn damage_is_refused_and_repair_says_what_it_costs() {
    let place = Place::filled("damage", 1, &["a"], 5);
    let path = place.segment(0, 1);
    let bytes = fs::read(&path).unwrap();
    // In the third message.
    let at = bytes.windows(8).position(|bytes| bytes == [2; 8]).unwrap();
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    file.write_all_at(&[0xFF; 4], at as u64).unwrap();
    let damaged = fs::read(&path).unwrap();

    let mut directory = DataDir::open(&place.path(), 1, 0).unwrap();
    let refused = directory.recover(layout(1), TimeOrigin::default()).unwrap_err().to_string();
    assert!(refused.starts_with(&format!("{}: damaged at byte ", path.display())), "{refused}");
    assert!(refused.contains(&format!("`ringmq repair {}`", place.path().display())), "{refused}");

    let plan = directory.plan_repair().unwrap();
    let [Loss { path: lost, is_missing: false, unreadable, records: 7 }] = &plan.losses[..] else {
        panic!("{plan:?}");
    };
    assert_eq!((lost, unreadable.len()), (&path, 1));
    assert!(unreadable[0].contains(&(at as u32)));
    assert_eq!(plan.gaps.len(), 1);
    assert_eq!((plan.gaps[0].client.as_str(), plan.gaps[0].deliveries), ("a", 1));
    assert_eq!(fs::read(&path).unwrap(), damaged, "a plan changes nothing");

    let kept = directory.repair(&plan).unwrap();
    assert_eq!(kept, [path.with_extension("log.damaged")]);
    assert_eq!(fs::read(&kept[0]).unwrap(), damaged);
    assert!(directory.plan_repair().unwrap().losses.is_empty());
    recover(&mut directory, 1);
    assert_eq!(content(&directory).0[0].1.len(), 3);
}

#[test]
fn a_missing_segment_is_damage_too() {
    let place = Place::filled("missing", 1, &["a"], 3);
    let mut directory = DataDir::open(&place.path(), 1, 0).unwrap();
    (0..2).for_each(|_| go_on(&mut directory, |writer| writer.retain("topic")));
    fs::remove_file(place.segment(0, 2)).unwrap();
    let refused = directory.recover(layout(1), TimeOrigin::default()).unwrap_err().to_string();
    assert!(refused.contains("segment is missing"), "{refused}");
    let plan = directory.plan_repair().unwrap();
    assert!(plan.losses.iter().any(|loss| loss.is_missing), "{plan:?}");
    directory.repair(&plan).unwrap();
    recover(&mut directory, 1);
    assert_eq!(content(&directory).1, ["a", "topic"]);
}

/// Goes on with a log as a start does, in a segment of its own.
fn go_on(directory: &mut DataDir, write: impl FnOnce(&mut Writer)) {
    let (setup, _) = recover(directory, 1).remove(0);
    let (log_directory, shard) = (directory.log_directory(), ShardId(0));
    let mut writer = Writer { directory: log_directory, shard, log: Log::new(setup) };
    write(&mut writer);
    writer.write();
}

#[test]
fn the_oldest_segments_are_missed_unless_they_were_given_up() {
    for removed in [1, 2] {
        let place = Place::filled(&format!("oldest{removed}"), 1, &["a"], 3);
        let mut directory = DataDir::open(&place.path(), 1, 0).unwrap();
        go_on(&mut directory, |writer| writer.retain("b"));
        go_on(&mut directory, |writer| writer.retain("c"));
        (1..=removed).for_each(|segment| fs::remove_file(place.segment(0, segment)).unwrap());
        let refused = directory.recover(layout(1), TimeOrigin::default()).unwrap_err().to_string();
        let first = place.segment(0, 1).display().to_string();
        assert!(refused.starts_with(&first) && refused.contains("is missing"), "{refused}");
        let plan = directory.plan_repair().unwrap();
        let lost: Vec<_> = plan.losses.iter().map(|loss| (&loss.path, loss.is_missing)).collect();
        let segments: Vec<_> = (1..=removed).map(|segment| place.segment(0, segment)).collect();
        assert_eq!(lost, segments.iter().map(|path| (path, true)).collect::<Vec<_>>());
        assert_eq!(fs::read_dir(directory.log_directory()).unwrap().count(), 3 - removed as usize);
        directory.repair(&plan).unwrap();
        assert!(directory.plan_repair().unwrap().losses.is_empty());
        go_on(&mut directory, |writer| writer.retain("d"));
        assert_eq!(content(&directory).1, ["b", "c", "d"][removed as usize - 1..]);
    }
}

#[test]
fn segments_that_were_given_up_are_not_missed() {
    let place = Place::filled("given-up", 1, &["a"], 3);
    let mut directory = DataDir::open(&place.path(), 1, 0).unwrap();
    go_on(&mut directory, |writer| writer.retain("b"));
    go_on(&mut directory, |writer| {
        writer.log.append(&Record::Boot(Boot { given_up: 1, ..Boot::default() }));
    });
    // A crash may leave its file.
    recover(&mut directory, 1);
    fs::remove_file(place.segment(0, 1)).unwrap();
    recover(&mut directory, 1);
    fs::remove_file(place.segment(0, 2)).unwrap();
    let refused = directory.recover(layout(1), TimeOrigin::default()).unwrap_err().to_string();
    assert!(refused.starts_with(&place.segment(0, 2).display().to_string()), "{refused}");
}

#[test]
fn other_numbers_of_shards_keep_everything() {
    let place = Place::filled("shards", 2, &CLIENTS, 40);
    let mut directory = DataDir::open(&place.path(), 2, 0).unwrap();
    let before = content(&directory);
    for (shards, generation) in [(3, 2), (1, 3), (5, 4), (5, 4)] {
        let recovered = recover(&mut directory, shards);
        assert_eq!((directory.shards(), directory.generation()), (shards, generation));
        assert_eq!(recovered.len(), usize::from(shards));
        assert_eq!(content(&directory), before, "{shards} shards");
        let logs = fs::read_dir(place.path()).unwrap();
        let logs = logs.filter(|entry| entry.as_ref().unwrap().file_type().unwrap().is_dir());
        assert_eq!(logs.count(), 1, "the old logs are gone");
    }
    drop(directory);
    assert_eq!(DataDir::open(&place.path(), 5, 0).unwrap().generation(), 4);
}

#[test]
fn messages_between_two_shards_reach_those_that_have_not_got_them() {
    // (which of the old shards have taken it; whether it is for the chosen member only)
    for (takers, chosen_only) in [
        (&[][..], false),
        (&[0], false),
        (&[1], false),
        (&[0, 1], false),
        (&[], true),
        (&[1], true),
    ] {
        let case = format!("{takers:?} {chosen_only}");
        let place = Place::filled(&format!("between{takers:?}{chosen_only}"), 2, &CLIENTS, 1);
        let mut directory = DataDir::open(&place.path(), 2, 0).unwrap();
        let before = content(&directory);
        let mut writers: Vec<_> = Vec::new();
        for (setup, recovered) in recover(&mut directory, 2) {
            let (log, shard) = (directory.log_directory(), setup.id.shard);
            let number = SessionNumber(recovered.boot.next_session);
            let mut writer = Writer { directory: log, shard, log: Log::new(setup) };
            writer.join(number, ["member 0", "member 1"][shard.index()]);
            if takers.contains(&shard.0) {
                let taken = vec![(ShardId(0), 4)];
                writer.log.append(&Record::Boot(Boot { taken, ..Boot::default() }));
            }
            writers.push(writer);
        }
        writers[0].log.append(&Record::Intake(Intake {
            stamp: 4,
            source: Source::PassedOn(None),
            client: Some(CLIENTS[0]),
            chosen: vec![("$share/members/a/x", ShardId(1))],
            chosen_only,
            message: message("a/x", b"between", true),
        }));
        writers.iter_mut().for_each(Writer::write);

        recover(&mut directory, 3);
        let after = content(&directory);
        let is_left = |text: &str| !takers.contains(&home_of(7, 2, text).0);
        let got = |name: &str| {
            let (_, payloads) = after.0.iter().find(|(client, _)| client == name).unwrap();
            payloads.iter().filter(|payload| *payload == b"between").count()
        };
        for (client, payloads) in &before.0 {
            assert_eq!(
                got(client),
                usize::from(!chosen_only && is_left(client)),
                "{case} {client}"
            );
            let (_, more) = after.0.iter().find(|(other, _)| other == client).unwrap();
            assert!(more.starts_with(payloads), "{case} {client}: the last one comes last");
        }
        let of_group = got("member 0") + got("member 1");
        assert_eq!(of_group, usize::from(!takers.contains(&1)), "{case}");
        let is_retained = after.1.iter().any(|topic| topic == "a/x");
        assert_eq!(is_retained, !chosen_only && is_left("a/x"), "{case}");
        let logs = directory.read(TimeOrigin::default()).unwrap();
        assert!(logs.iter().all(|log| log.shard.intakes.is_empty()), "{case}");
    }
}

#[test]
fn an_interrupted_change_of_the_logs_leaves_the_old_or_the_new() {
    let place = Place::filled("interrupted", 2, &CLIENTS, 3);
    let before = content(&DataDir::open(&place.path(), 2, 0).unwrap());
    // Before `meta` says otherwise, the old ones hold, however much there is of the new ones.
    let new = generation_path(&place.path(), 2);
    fs::create_dir(&new).unwrap();
    fs::copy(place.segment(0, 1), new.join("000-0000000001.log")).unwrap();
    fs::write(place.path().join(META_NEW), "ringmq").unwrap();
    let mut directory = DataDir::open(&place.path(), 2, 0).unwrap();
    assert!(!new.exists());
    assert_eq!(content(&directory), before);
    // Afterwards the new ones do, while the old ones are still there.
    let old = generation_path(&place.path(), 1);
    recover(&mut directory, 3);
    drop(directory);
    fs::create_dir(&old).unwrap();
    fs::write(old.join("000-0000000001.log"), "old").unwrap();
    let directory = DataDir::open(&place.path(), 3, 0).unwrap();
    assert!(!old.exists());
    assert_eq!(content(&directory), before);
}

#[test]
fn what_cannot_be_created_names_the_ways_out() {
    let error = DataDir::open(Path::new("/proc/ringmq/data"), 1, 7).unwrap_err().to_string();
    assert!(
        error.starts_with("/proc/ringmq/data: the data directory cannot be created: "),
        "{error}"
    );
    assert!(error.ends_with("--data-dir DIR, or keep nothing on disk with --ephemeral"), "{error}");
    let place = Place::new("writable");
    fs::create_dir(place.path()).unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o500)).unwrap();
    // Root may write there all the same.
    if let Err(error) = DataDir::open(&place.path(), 1, 7) {
        assert!(error.to_string().contains("cannot be written to: "), "{error}");
    }
}

#[test]
fn segments_are_a_small_part_of_their_log() {
    for (shards, bytes_max, expected) in [
        (1, 8 << 20, 1 << 20),
        (1, 1 << 30, 64 << 20),
        (2, 1 << 30, 32 << 20),
        (128, 1 << 30, 1 << 20),
        (4, 64 << 30, 64 << 20),
    ] {
        assert_eq!(Layout { shards, bytes_max }.segment_bytes(), expected);
    }
}
