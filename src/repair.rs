//! `ringmq repair`: makes damaged logs readable again, after it has said what that costs.
//!
//! Owns the words; what is done is in `data_dir/repair.rs`.

use std::{
    io::{self, Write},
    path::Path,
};

use thiserror::Error;

use crate::data_dir::{DataDir, DataDirError, Loss};

/// Why it did not come to its end.
#[derive(Debug, Error)]
pub enum RepairError {
    /// The directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// The report cannot be written, so that nothing was changed.
    #[error("the report cannot be written: {0}")]
    Output(#[from] io::Error),
}

/// Says what would be lost and, if that is `agreed` to, makes the change. Returns whether the directory can be
/// used now.
///
/// # Errors
/// [`RepairError`].
pub fn run(path: &Path, agreed: bool, out: &mut impl Write) -> Result<bool, RepairError> {
    let directory = DataDir::open_existing(path)?;
    let plan = directory.plan_repair()?;
    let shown = path.display();
    if plan.losses.is_empty() {
        writeln!(out, "{shown}: nothing to repair")?;
        return Ok(true);
    }
    for loss in &plan.losses {
        write_loss(loss, out)?;
    }
    for gap in &plan.gaps {
        let (client, deliveries) = (gap.client.as_str(), gap.deliveries);
        writeln!(out, "session {client:?} lacks {deliveries} messages that were waiting for it")?;
    }
    writeln!(
        out,
        "whatever else was said there is lost as well: sessions, subscriptions, retained messages"
    )?;
    if !agreed {
        writeln!(out, "nothing is changed; `ringmq repair {shown} --yes` makes the change")?;
        return Ok(false);
    }
    for kept in directory.repair(&plan)? {
        writeln!(out, "{}: the file as it was", kept.display())?;
    }
    writeln!(out, "{shown}: repaired")?;
    Ok(true)
}

fn write_loss(loss: &Loss, out: &mut impl Write) -> io::Result<()> {
    let Loss { path, is_missing, unreadable, records } = loss;
    let path = path.display();
    if *is_missing {
        return writeln!(out, "{path}: the file is missing, with all that was in it");
    }
    for range in unreadable {
        let (bytes, from) = (range.len(), range.start);
        writeln!(out, "{path}: {bytes} bytes from byte {from} on cannot be read")?;
    }
    writeln!(out, "{path}: {records} records stay")
}
