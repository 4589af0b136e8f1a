//! Makes a failing simulation small: leaves out clients, then runs of beats,
//! ever shorter ones, as long as the same rule is broken.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use crate::{
    runner::violation_of,
    script::{Beat, Case, Recording},
    trace::Trace,
};

pub(crate) struct Shrunk {
    pub(crate) case: Case,
    /// What the whole simulation ends with.
    pub(crate) violation: String,
    pub(crate) beats_before: usize,
    pub(crate) tries: usize,
}

/// The smallest case found that breaks the same rule; `None` if this one breaks none.
pub(crate) fn shrink(case: &Case) -> Option<Shrunk> {
    let recording = Recording::default();
    let violation = violation_of(case, Trace::default(), Some(&recording)).err()?;
    let beats = recording.take();
    let beats_before = beats.len();
    eprintln!("seed {} fails, shrinking: {violation}", case.seed);
    let mut shrinker =
        Shrinker { case: case.clone(), rule: rule(&violation), tries: 0, start: Instant::now() };
    let scripted = Case { script: Some(Rc::new(beats)), ..case.clone() };
    if shrinker.accepts(scripted) {
        shrinker.drop_clients();
        shrinker.drop_beats();
        shrinker.drop_clients();
    }
    let Shrinker { case, tries, .. } = shrinker;
    Some(Shrunk { case, violation, beats_before, tries })
}

/// What two violations of one rule have in common: their words without numbers.
pub(crate) fn rule(violation: &str) -> String {
    let start = violation.find("rule ").unwrap_or(0);
    let words = violation[start..].chars().filter(|letter| !letter.is_ascii_digit());
    words.take(RULE_LETTERS).collect()
}

struct Shrinker {
    case: Case,
    rule: String,
    tries: usize,
    start: Instant,
}

impl Shrinker {
    /// Goes on from a case if it breaks the same rule.
    fn accepts(&mut self, case: Case) -> bool {
        if self.is_over() {
            return false;
        }
        self.tries += 1;
        let violation = violation_of(&case, Trace::default(), None).err();
        let is_same = violation.is_some_and(|violation| rule(&violation) == self.rule);
        if is_same {
            self.case = case;
        }
        is_same
    }

    fn drop_clients(&mut self) {
        for client in (0..CLIENTS_MAX).rev() {
            let mut case = self.case.clone();
            if case.absent.insert(client) {
                self.accepts(case);
            }
        }
    }

    fn drop_beats(&mut self) {
        let mut length = self.beats().len().div_ceil(2);
        while length > 0 && !self.is_over() {
            // From the end: what comes last explains least.
            let mut end = self.beats().len();
            while end > 0 && !self.is_over() {
                let start = end.saturating_sub(length);
                let mut fewer: Vec<Beat> = self.beats().to_vec();
                fewer.drain(start..end);
                self.accepts(Case { script: Some(Rc::new(fewer)), ..self.case.clone() });
                end = start;
            }
            length /= 2;
        }
    }

    fn is_over(&self) -> bool {
        self.tries == TRIES_MAX || self.start.elapsed() > TIME_MAX
    }

    fn beats(&self) -> &[Beat] {
        self.case.script.as_ref().map_or(&[], |script| &script[..])
    }
}

/// A run takes some milliseconds, but there are much longer ones.
const TRIES_MAX: usize = 2_000;
const TIME_MAX: Duration = Duration::from_secs(30);
/// More than any plan has.
const CLIENTS_MAX: usize = 16;
/// Enough to tell the rules apart.
const RULE_LETTERS: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    /// A world whose lanes lose messages breaks rules, and what is left of it
    /// after shrinking breaks the same one.
    #[test]
    fn a_world_that_loses_messages_is_shrunk() {
        let lossy = |seed| Case { loses_batches: true, ..Case::of_seed(seed) };
        let found = (0..100).find_map(|seed| shrink(&lossy(seed)));
        let Shrunk { case, violation, beats_before, tries } = found.expect("it is noticed");
        let beats = case.script.as_ref().expect("it was recorded").clone();
        assert!(tries <= TRIES_MAX && beats.len() * 4 < beats_before, "{} beats", beats.len());
        assert!(!case.absent.is_empty(), "some client had nothing to do with it");
        let again = violation_of(&case, Trace::default(), None).expect_err("it fails still");
        assert_eq!(rule(&again), rule(&violation));
        let sound = Case { loses_batches: false, ..case };
        assert_eq!(violation_of(&sound, Trace::default(), None).err(), None, "{violation}");
    }

    /// A recorded script leads to the same run.
    #[test]
    fn a_script_replays_its_seed() {
        for seed in 0..20 {
            let case = Case::of_seed(seed);
            let recording = Recording::default();
            let stats = violation_of(&case, Trace::default(), Some(&recording)).unwrap();
            let script = Some(Rc::new(recording.take()));
            let again = violation_of(&Case { script, ..case }, Trace::default(), None).unwrap();
            assert_eq!(format!("{stats:?}"), format!("{again:?}"), "seed {seed}");
        }
    }
}
