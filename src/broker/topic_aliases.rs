//! Topic aliases of one connection, in both directions (MQTT 5.0 section
//! 3.3.2.3.4). They end with the connection; the two directions share nothing.

use std::rc::Rc;

use crate::{base::limits, codec::ReasonCode, message::TopicForm, topic::TopicName};

/// The topic of a PUBLISH, by name or by alias.
pub(super) enum Topic<'a> {
    Named(TopicName<'a>),
    Aliased(Rc<str>),
}

impl Topic<'_> {
    pub(super) fn name(&self) -> TopicName<'_> {
        match self {
            Self::Named(name) => *name,
            Self::Aliased(name) => TopicName::trusted(name),
        }
    }
}

/// Aliases that the client has set.
#[derive(Debug, Default)]
pub(super) struct FromClient(Option<Box<[Option<Rc<str>>]>>);

impl FromClient {
    /// Sets or looks up an alias of at most `maximum`.
    ///
    /// # Errors
    /// The reason to end the connection for.
    pub(super) fn resolve<'p>(
        &mut self,
        maximum: u16,
        alias: u16,
        topic: Option<TopicName<'p>>,
    ) -> Result<Topic<'p>, (ReasonCode, &'static str)> {
        if alias == 0 || alias > maximum {
            return Err((ReasonCode::TopicAliasInvalid, "topic alias above topic_alias_maximum"));
        }
        let aliases = self.0.get_or_insert_with(|| vec![None; usize::from(maximum)].into());
        let known = &mut aliases[usize::from(alias) - 1];
        match topic {
            Some(topic) => {
                *known = Some(topic.as_str().into());
                Ok(Topic::Named(topic))
            }
            None => known
                .clone()
                .map(Topic::Aliased)
                .ok_or((ReasonCode::ProtocolError, "topic alias was not set")),
        }
    }
}

/// Aliases towards the client. The most used topics get them: each use makes an
/// alias harder to take, and each topic without one makes one alias, in turn,
/// easier.
#[derive(Debug)]
pub(super) struct ToClient {
    maximum: u16,
    /// The alias that the next topic without one wears down.
    hand: usize,
    /// At most [`limits::TOPIC_ALIASES_OUT_MAX`], in the order of their numbers.
    aliases: Vec<Alias>,
}

#[derive(Debug)]
struct Alias {
    topic: Box<str>,
    strength: u8,
}

impl ToClient {
    /// At most `maximum` aliases; `None` if that is none.
    pub(super) fn new(maximum: u16) -> Option<Box<Self>> {
        let maximum = maximum.min(limits::TOPIC_ALIASES_OUT_MAX);
        (maximum > 0).then(|| Box::new(Self { maximum, hand: 0, aliases: Vec::new() }))
    }

    /// How the topic goes into the next packet, which must then be sent or
    /// [taken back](Self::take_back).
    pub(super) fn form(&mut self, topic: &str) -> TopicForm {
        if topic.len() <= PROPERTY_BYTES {
            return TopicForm::Name;
        }
        if let Some(at) = self.aliases.iter().position(|alias| *alias.topic == *topic) {
            let alias = &mut self.aliases[at];
            alias.strength = (alias.strength + 1).min(STRENGTH_MAX);
            return TopicForm::Alias(number(at));
        }
        let new = Alias { topic: topic.into(), strength: 1 };
        if self.aliases.len() < usize::from(self.maximum) {
            self.aliases.push(new);
            return TopicForm::NameAndAlias(number(self.aliases.len() - 1));
        }
        let at = self.hand;
        self.hand = (at + 1) % usize::from(self.maximum);
        let worn = &mut self.aliases[at];
        if worn.strength > 0 {
            worn.strength -= 1;
            return TopicForm::Name;
        }
        *worn = new;
        TopicForm::NameAndAlias(number(at))
    }

    /// The packet that was to set an alias was not sent: the client does not
    /// know it, nor may what it stood for before be used.
    pub(super) fn take_back(&mut self, form: TopicForm) {
        let TopicForm::NameAndAlias(alias) = form else { return };
        let at = usize::from(alias) - 1;
        if at + 1 == self.aliases.len() {
            self.aliases.pop();
        } else if let Some(alias) = self.aliases.get_mut(at) {
            *alias = Alias { topic: "".into(), strength: 0 };
        }
    }
}

const fn number(at: usize) -> u16 {
    at as u16 + 1
}

/// What the Topic Alias property takes: shorter topics gain nothing.
const PROPERTY_BYTES: usize = 3;

/// Uses that count in favour of an alias. With more, a topic that was used much
/// once would keep it for long.
const STRENGTH_MAX: u8 = 8;

#[cfg(test)]
mod tests {
    use super::*;
    use TopicForm::{Alias, Name, NameAndAlias};

    #[test]
    fn each_alias_is_set_once_and_used_then() {
        let mut aliases = ToClient::new(2).unwrap();
        let forms = ["one/1", "two/2", "one/1", "two/2", "a/b"].map(|topic| aliases.form(topic));
        assert_eq!(forms, [NameAndAlias(1), NameAndAlias(2), Alias(1), Alias(2), Name]);
        assert!(ToClient::new(0).is_none());
    }

    #[test]
    fn rare_topics_leave_the_aliases_to_the_most_used_ones() {
        let mut aliases = ToClient::new(2).unwrap();
        for n in 0..1000 {
            aliases.form("often/1");
            aliases.form("often/2");
            aliases.form(&format!("rare/{n}"));
        }
        assert!(matches!(aliases.form("often/1"), Alias(_)));
        assert!(matches!(aliases.form("often/2"), Alias(_)));
        for _ in 0..30 {
            aliases.form("new/1");
        }
        assert!(matches!(aliases.form("new/1"), Alias(_)), "it is the most used one by now");
    }

    #[test]
    fn an_alias_whose_packet_was_not_sent_is_set_again() {
        let mut aliases = ToClient::new(1).unwrap();
        let form = aliases.form("topic");
        aliases.take_back(form);
        assert_eq!(aliases.form("topic"), NameAndAlias(1));
        aliases.take_back(Name);
        assert_eq!(aliases.form("topic"), Alias(1));
    }
}
