//! `ringmq inspect`: what a data directory holds, for a reader or, as JSON, for a program.
//!
//! Reads the logs as a broker does at its start, and changes nothing. Not while a broker runs: its logs
//! change under the eyes of whoever reads them.

use std::{
    io::{self, BufWriter, Write},
    path::Path,
    time::Duration,
};

use serde_json::{Value, json};
use thiserror::Error;

use crate::{
    base::{ShardId, TimeOrigin, WallTime},
    data_dir::{DataDir, DataDirError},
    logging::write_utc,
    shard::segment_path,
    storage::{Delivery, RecoveredLog, RecoveredSession},
};

/// Why nothing could be shown.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The directory cannot be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The report cannot be written.
    #[error("the report cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Writes what is in the directory, as text or as one JSON object.
///
/// # Errors
/// [`InspectError`].
pub fn run(path: &Path, as_json: bool, out: impl Write) -> Result<(), InspectError> {
    let directory = DataDir::open_to_read(path)?;
    // Times of day are shown as they are.
    let logs = directory.read(TimeOrigin::default())?;
    let mut out = BufWriter::new(out);
    let totals = Totals::of(&logs);
    if as_json {
        write_json(&directory, &logs, &totals, &mut out)?;
    } else {
        write_text(&directory, &logs, &totals, &mut out)?;
    }
    out.flush()?;
    Ok(())
}

/// What all shards have together.
#[derive(Default)]
struct Totals {
    sessions: usize,
    retained: usize,
    retained_bytes: usize,
    delayed: usize,
    /// Messages on their way from one shard to another.
    routing: usize,
}

impl Totals {
    fn of(logs: &[RecoveredLog]) -> Self {
        let mut totals = Self::default();
        for shard in logs.iter().map(|log| &log.shard) {
            totals.sessions += shard.sessions.len();
            totals.retained += shard.retained.len();
            totals.retained_bytes +=
                shard.retained.iter().map(|one| one.publication.size()).sum::<usize>();
            totals.delayed += shard.delayed.len();
            totals.routing += shard.intakes.len();
        }
        totals
    }
}

/// A session's deliveries, counted.
#[derive(Default)]
struct Queue {
    /// They may have been sent, and are not over.
    in_flight: u64,
    /// They wait to be sent.
    waiting: u64,
    /// Their part of the log.
    bytes: u64,
}

impl Queue {
    fn of(session: &RecoveredSession) -> Self {
        let mut queue = Self::default();
        for (number, slot) in (session.first.0..).zip(&session.deliveries) {
            match slot.get() {
                Delivery::Done => continue,
                Delivery::Received => queue.in_flight += 1,
                Delivery::Message(hold) => {
                    queue.bytes += u64::from(hold.bytes);
                    let count = match number < session.sent.0 {
                        true => &mut queue.in_flight,
                        false => &mut queue.waiting,
                    };
                    *count += 1;
                }
            }
        }
        queue
    }
}

fn write_text(
    directory: &DataDir,
    logs: &[RecoveredLog],
    totals: &Totals,
    out: &mut impl Write,
) -> io::Result<()> {
    let path = directory.path().display();
    writeln!(out, "{path}: {} shards, generation {}", directory.shards(), directory.generation())?;
    for (shard, log) in logs.iter().enumerate() {
        let (segments, bytes, live) = sizes(log);
        writeln!(out, "shard {shard}: {segments} segments, {bytes} bytes, {live} of them needed")?;
        for (segment, bytes, live) in &log.segments {
            let file = segment_path(&directory.log_directory(), ShardId(shard as u16), *segment);
            writeln!(out, "  {}: {bytes} bytes, {live} of them needed", file.display())?;
        }
        // At the beginning of a segment: it was made ahead of its use.
        if let Some(torn) = log.torn.as_ref().filter(|torn| torn.at.offset > 0) {
            writeln!(out, "  to be cut off at the next start, never acknowledged: {torn}")?;
        }
        for gap in &log.gaps {
            let (client, deliveries) = (gap.client.as_str(), gap.deliveries);
            writeln!(out, "  {client:?} has lost {deliveries} messages in an earlier damage")?;
        }
    }
    let Totals { sessions, retained, retained_bytes, delayed, routing } = totals;
    writeln!(out, "retained: {retained} messages, {retained_bytes} bytes")?;
    writeln!(out, "delayed: {delayed} messages")?;
    writeln!(out, "on their way between shards: {routing} messages")?;
    writeln!(out, "sessions: {sessions}")?;
    for (shard, log) in logs.iter().enumerate() {
        for session in &log.shard.sessions {
            let Queue { in_flight, waiting, bytes } = Queue::of(session);
            let (client, state) = (session.client.as_str(), state(session));
            writeln!(
                out,
                "  {client:?}: {state}, shard {shard}, {waiting} waiting, {in_flight} in flight, \
                 {bytes} bytes"
            )?;
            for (filter, options) in &session.subscriptions {
                writeln!(out, "    {:?} QoS {}", filter.as_str(), options.qos)?;
            }
        }
    }
    Ok(())
}

/// The object is written piece by piece: there may be millions of sessions.
fn write_json(
    directory: &DataDir,
    logs: &[RecoveredLog],
    totals: &Totals,
    out: &mut impl Write,
) -> io::Result<()> {
    let shard = |(shard, log): (usize, &RecoveredLog)| {
        let (segments, bytes, live_bytes) = sizes(log);
        let gaps = log.gaps.iter();
        json!({
            "shard": shard,
            "segments": segments,
            "bytes": bytes,
            "live_bytes": live_bytes,
            "torn": log.torn.map(|torn| torn.to_string()),
            "gaps": gaps.map(|gap| json!({
                "client": gap.client.as_str(),
                "deliveries": gap.deliveries,
            })).collect::<Vec<_>>(),
        })
    };
    let head = json!({
        "directory": directory.path().to_string_lossy(),
        "generation": directory.generation(),
        "shards": logs.iter().enumerate().map(shard).collect::<Vec<_>>(),
        "retained": { "messages": totals.retained, "bytes": totals.retained_bytes },
        "delayed": { "messages": totals.delayed },
        "routing": { "messages": totals.routing },
    })
    .to_string();
    // Its last brace comes behind the sessions.
    write!(out, "{},\"sessions\":[", head.strip_suffix('}').unwrap_or_default())?;
    let mut separator = "";
    for (shard, log) in logs.iter().enumerate() {
        for session in &log.shard.sessions {
            write!(out, "{separator}{}", session_json(shard, session))?;
            separator = ",";
        }
    }
    writeln!(out, "]}}")
}

fn session_json(shard: usize, session: &RecoveredSession) -> Value {
    let Queue { in_flight, waiting, bytes } = Queue::of(session);
    let subscriptions = session.subscriptions.iter();
    json!({
        "client": session.client.as_str(),
        "shard": shard,
        "online": session.detached_at.is_none(),
        "offline_since": session.detached_at.map(utc),
        "expiry_secs": session.expiry_secs,
        "user_name": session.user_name.as_deref(),
        "has_will": session.will.is_some(),
        "subscriptions": subscriptions.map(|(filter, options)| json!({
            "filter": filter.as_str(),
            "qos": options.qos as u8,
        })).collect::<Vec<_>>(),
        "waiting": waiting,
        "in_flight": in_flight,
        "queue_bytes": bytes,
    })
}

/// Segments, their bytes, and how many of those are needed.
fn sizes(log: &RecoveredLog) -> (usize, u64, u64) {
    let bytes = log.segments.iter().map(|(_, bytes, _)| bytes).sum();
    let live = log.segments.iter().map(|(_, _, live)| live).sum();
    (log.segments.len(), bytes, live)
}

fn state(session: &RecoveredSession) -> String {
    let expiry = match session.expiry_secs {
        u32::MAX => "never expires".to_owned(),
        secs => format!("expires after {secs} s"),
    };
    match session.detached_at {
        None => format!("online at the end, {expiry}"),
        Some(at) => format!("offline since {}, {expiry}", utc(at)),
    }
}

fn utc(at: WallTime) -> String {
    let mut text = String::new();
    write_utc(Duration::from_millis(at.0), &mut text).expect("text takes any");
    text
}
