//! Receive side of QoS 2: which Packet Identifiers of the client were received
//! and not yet released (MQTT-4.3.3-10).

use std::collections::HashMap;

use ahash::RandomState;

use crate::base::PacketId;

/// Identifiers between PUBLISH and PUBREL, at most 65,535, and whether the log knows of each.
#[derive(Debug, Default)]
pub struct Inbox(Option<Box<HashMap<PacketId, bool, RandomState>>>);

impl Inbox {
    /// Notes a QoS 2 PUBLISH; false if it is a repetition, which is
    /// acknowledged again but not delivered again.
    pub fn receive(&mut self, id: PacketId) -> bool {
        let ids = self.0.get_or_insert_default();
        let is_new = !ids.contains_key(&id);
        if is_new {
            ids.insert(id, false);
        }
        is_new
    }

    /// Notes that the log knows of the identifier.
    pub fn note_logged(&mut self, id: PacketId) {
        self.0.get_or_insert_default().insert(id, true);
    }

    /// Notes a PUBREL. `None`: the identifier is not known; otherwise whether the log knows of it.
    pub fn release(&mut self, id: PacketId) -> Option<bool> {
        self.0.as_mut().and_then(|ids| ids.remove(&id))
    }

    /// The identifiers that the log knows of.
    pub fn logged(&self) -> impl Iterator<Item = PacketId> {
        let logged = self.0.iter().flat_map(|ids| ids.iter()).filter(|(_, logged)| **logged);
        logged.map(|(id, _)| *id)
    }

    /// Whether the identifier awaits its PUBREL.
    pub fn contains(&self, id: PacketId) -> bool {
        self.0.as_ref().is_some_and(|ids| ids.contains_key(&id))
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
        assert_eq!(inbox.release(id), None);
        assert!(inbox.receive(id) && !inbox.receive(id));
        assert!(inbox.release(id) == Some(false) && inbox.receive(id));
        inbox.note_logged(id);
        assert!(inbox.logged().eq([id]));
        assert_eq!(inbox.len(), 1);
    }
}
