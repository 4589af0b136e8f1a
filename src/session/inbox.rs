//! Receive side of QoS 2: which Packet Identifiers of the client were received
//! and not yet released (MQTT-4.3.3-10).

use std::collections::HashSet;

use ahash::RandomState;

use crate::base::PacketId;

/// Identifiers between PUBLISH and PUBREL, at most 65,535.
#[derive(Debug, Default)]
pub struct Inbox(Option<Box<HashSet<PacketId, RandomState>>>);

impl Inbox {
    /// Notes a QoS 2 PUBLISH; false if it is a repetition, which is
    /// acknowledged again but not delivered again.
    pub fn receive(&mut self, id: PacketId) -> bool {
        self.0.get_or_insert_default().insert(id)
    }

    /// Notes a PUBREL; false if the identifier is not known.
    pub fn release(&mut self, id: PacketId) -> bool {
        self.0.as_mut().is_some_and(|ids| ids.remove(&id))
    }

    /// Whether the identifier awaits its PUBREL.
    pub fn contains(&self, id: PacketId) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.contains(&id))
    }

    /// Identifiers that await their PUBREL.
    pub fn len(&self) -> usize {
        self.0.as_ref().map_or(0, |ids| ids.len())
    }

    /// Whether none does.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identifier_is_new_again_after_its_release() {
        let mut inbox = Inbox::default();
        let id = PacketId::FIRST;
        assert!(!inbox.release(id));
        assert!(inbox.receive(id) && !inbox.receive(id));
        assert!(inbox.release(id) && inbox.receive(id));
        assert_eq!(inbox.len(), 1);
    }
}
