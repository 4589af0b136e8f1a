//! Decisions about topics that one session has had to do with of late: most publish to few topics, again and
//! again.

use crate::base::{
    QoS,
    limits::{ACL_VERDICT_TOPIC_BYTES_MAX, ACL_VERDICTS},
};

/// A few decisions, each found by a hash of its topic. One takes the place of another.
#[derive(Debug, Default)]
pub struct Verdicts {
    slots: [Option<Slot>; ACL_VERDICTS],
}

#[derive(Debug)]
struct Slot {
    question: Question,
    topic: Box<str>,
    allowed: bool,
}

/// What is asked about a topic.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Question {
    /// Whether it may be published to so.
    Publish(QoS, bool),
    /// Whether a message with it may be received.
    Receive,
}

impl Verdicts {
    /// The answer, out of `decide` if it is not known. `hash` is that of the topic.
    pub fn answer(
        &mut self,
        question: Question,
        topic: &str,
        hash: u64,
        decide: impl FnOnce() -> bool,
    ) -> bool {
        let slot = &mut self.slots[hash as usize % ACL_VERDICTS];
        match slot {
            Some(known) if known.question == question && *known.topic == *topic => known.allowed,
            _ => {
                let allowed = decide();
                if topic.len() <= ACL_VERDICT_TOPIC_BYTES_MAX {
                    *slot = Some(Slot { question, topic: topic.into(), allowed });
                }
                allowed
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_remembered_for_the_question_and_the_topic() {
        let mut verdicts = Verdicts::default();
        let mut ask = |question, topic, truth: bool| {
            let mut asked = false;
            let answer = verdicts.answer(question, topic, 3, || {
                asked = true;
                truth
            });
            (answer, asked)
        };
        let publish = Question::Publish(QoS::AtMostOnce, false);
        assert_eq!(ask(publish, "a", true), (true, true));
        assert_eq!(ask(publish, "a", false), (true, false));
        assert_eq!(ask(Question::Publish(QoS::AtMostOnce, true), "a", false), (false, true));
        assert_eq!(ask(publish, "b", false), (false, true), "of another topic with the same hash");
        assert_eq!(ask(Question::Receive, "b", true), (true, true));
        let long = "x".repeat(ACL_VERDICT_TOPIC_BYTES_MAX + 1);
        assert_eq!(ask(publish, &long, true), (true, true));
        assert_eq!(ask(publish, &long, true), (true, true), "too long to be remembered");
    }
}
