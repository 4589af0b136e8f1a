//! The simulated shell of a shard: what it does with effects, output and
//! sockets, as the contract at the methods of `Broker` asks it to.

use std::io;

use ringmq::{
    base::{ConnId, ShardId, limits},
    broker::{Effect, Origin},
};

use crate::{
    book::Word,
    link::{LinkId, Place, take_front},
    world::World,
};

/// What a connection's bounds add up to; one message may pass each.
const OUTPUT_BYTES_MAX: usize = limits::OUTPUT_BYTES_MAX as usize
    + limits::OUTPUT_BYTES_HIGH
    + limits::REPLY_BYTES_MAX
    + (4 << 20);

impl World {
    pub(crate) fn turn(&mut self, id: ShardId) {
        self.shards[id.index()].touched = false;
        self.give_jobs(id);
        while let Some(effect) = self.shards[id.index()].broker.pop_effect() {
            self.effect(id, effect);
        }
        while let Some(conn) = self.shards[id.index()].broker.pop_dirty() {
            if let Some(link) = self.link_of(id, conn) {
                let touched_at = self.shards[id.index()].touched_at;
                let holds_connack = self.holds_connack;
                let link = &mut self.links[link];
                if !link.dirty {
                    link.dirty = true;
                    if link.is_welcomed || !holds_connack {
                        link.empty_at = link.empty_at.max(touched_at);
                    }
                }
            }
        }
    }

    fn effect(&mut self, id: ShardId, effect: Effect) {
        match effect {
            Effect::Close { conn, last } => {
                let now = self.now;
                let Some(link) = self.unbind(id, conn) else { return };
                self.trace.note(|| format!("  shard {id} closes link {link}"));
                let id_of_link = link;
                let last = last.into_vec();
                let link = &mut self.links[link];
                link.stamp(last.len(), link.empty_at, now);
                link.sending.extend(last);
                link.closing = true;
                let is_refusal = matches!(link.sending[..], [0x20, _, _, 0x97, ..]);
                // With the DISCONNECT that has waited, if one has.
                self.hear(id_of_link);
                if is_refusal {
                    self.book.refuse(self.links[id_of_link].owner.0, id_of_link);
                }
            }
            Effect::Move { conn, to, bytes, .. } => {
                let Some(link) = self.unbind(id, conn) else { return };
                self.trace.note(|| format!("  link {link} moves from shard {id} to {to}"));
                assert!(self.links[link].sending.is_empty(), "moved with output");
                self.stats.moves += 1;
                self.links[link].place = Place::Lane;
                self.lane(id, to).moves.push_back((link, bytes));
            }
            Effect::Check { .. } => unreachable!("no client of a plan has a password in CONNECT"),
            Effect::PauseReading { conn } => {
                let Some(link) = self.link_of(id, conn) else { return };
                self.trace.note(|| format!("  shard {id} pauses link {link}"));
                self.stats.pauses += u64::from(!self.links[link].paused);
                self.links[link].paused = true;
                self.is_waiting |= self.storage.is_some();
            }
            Effect::ResumeReading { conn } => {
                let Some(link) = self.link_of(id, conn) else { return };
                self.trace.note(|| format!("  shard {id} resumes link {link}"));
                self.stats.resumes += u64::from(self.links[link].paused);
                self.links[link].paused = false;
                self.book.read_on(self.now, self.links[link].owner.0, link);
            }
        }
    }

    pub(crate) fn receive(&mut self, link: LinkId) {
        let count = self.chunk();
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        if !self.broker(shard).is_settled(conn) {
            // The broker may have closed it already.
            self.turn(shard);
        }
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        let count = count.min(self.links[link].heard_at_once_max());
        let bytes = take_front(&mut self.links[link].inbound, count);
        self.links[link].heard += bytes.len() as u64;
        self.trace
            .note(|| format!("shard {shard} receives {} bytes from link {link}", bytes.len()));
        let now = self.now;
        self.touch(shard).receive(now, conn, &bytes);
        let may_move = !self.broker(shard).is_settled(conn);
        if may_move || self.links[link].may_wait() {
            // Later bytes must go with it, or wait as well.
            self.turn(shard);
        }
        if self.links[link].place != Place::Lane {
            self.hear(link);
        }
    }

    /// The book learns what the broker has learned.
    pub(crate) fn hear(&mut self, link: LinkId) {
        let (client, _) = self.links[link].owner;
        let home = self.links[link].home;
        while !self.defers(link)
            && let Some(word) = self.links[link].next_heard()
        {
            if let Word::Connect(_) = word {
                self.links[link].empty_at = self.now;
            }
            self.book.hear(self.now, (client, link), home, word);
        }
    }

    /// Whether the broker has not looked at the DISCONNECT that is next.
    fn defers(&mut self, link: LinkId) -> bool {
        if !self.links[link].may_defer() {
            return false;
        }
        let waits = match self.links[link].place {
            Place::Shard(shard, conn) => self.broker(shard).is_settled(conn),
            Place::Lane | Place::Gone => false,
        };
        self.is_waiting |= waits;
        waits
    }

    pub(crate) fn hang_up(&mut self, link: LinkId) {
        let Place::Shard(shard, _) = self.links[link].place else { return };
        // The shell looks at effects first: a pause or a close may be among them.
        self.turn(shard);
        let Place::Shard(shard, conn) = self.links[link].place else { return };
        let severed = self.links[link].severed;
        if self.links[link].paused && !severed {
            return;
        }
        self.trace.note(|| format!("shard {shard} sees the end of link {link}"));
        self.unbind(shard, conn);
        let error = severed.then(|| io::Error::from(io::ErrorKind::ConnectionReset));
        let buffer = std::mem::take(&mut self.links[link].sending);
        let now = self.now;
        let broker = self.touch(shard);
        broker.disconnected(now, conn, error);
        broker.recycle(buffer.into());
        self.book.hang_up(now, self.links[link].owner.0, link);
        let link = &mut self.links[link];
        link.sent = 0;
        link.inbound.clear();
        link.outbound_ends = true;
    }

    pub(crate) fn take(&mut self, id: LinkId) {
        self.links[id].dirty = false;
        let Place::Shard(shard, conn) = self.links[id].place else { return };
        let now = self.now;
        let output = self.touch(shard).take_output(conn).into_vec();
        assert!(output.len() <= OUTPUT_BYTES_MAX, "rule 8: {} bytes of output", output.len());
        let link = &mut self.links[id];
        if !output.is_empty() {
            // Otherwise there may be some in a close that was not looked at yet.
            link.stamp(output.len(), link.empty_at, now);
            link.empty_at = now;
            link.is_welcomed = self.book.welcome(id).is_some();
        }
        link.sending = output;
        link.sent = 0;
    }

    pub(crate) fn send(&mut self, id: LinkId) {
        let count = self.chunk();
        let now = self.now;
        let link = &mut self.links[id];
        if !link.send(count) {
            return;
        }
        let buffer = std::mem::take(&mut link.sending);
        link.sent = 0;
        if link.closing {
            link.closing = false;
            link.outbound_ends = true;
        } else if let Place::Shard(shard, conn) = link.place {
            self.touch(shard).written(now, conn, buffer.into());
        }
    }

    /// Gives a link a slot on a shard.
    pub(crate) fn open(&mut self, id: ShardId, link: LinkId) -> ConnId {
        let shard = &mut self.shards[id.index()];
        let slot = shard.free.pop().unwrap_or_else(|| {
            shard.slots.push((0, None));
            shard.slots.len() as u32 - 1
        });
        let entry = &mut shard.slots[slot as usize];
        entry.1 = Some(link);
        let conn = ConnId { slot, generation: entry.0 };
        self.trace.note(|| format!("link {link} opens on shard {id} as {conn}"));
        let origin = Origin::new(([127, 0, 0, 1], 1024 + link as u16), true);
        let now = self.now;
        self.touch(id).open(now, conn, origin);
        self.links[link].place = Place::Shard(id, conn);
        self.links[link].home = id;
        conn
    }

    /// Takes a link off its slot, which is free for another one at once.
    fn unbind(&mut self, id: ShardId, conn: ConnId) -> Option<LinkId> {
        let link = self.link_of(id, conn)?;
        let shard = &mut self.shards[id.index()];
        shard.slots[conn.slot as usize] = (conn.generation.wrapping_add(1), None);
        shard.free.push(conn.slot);
        let entry = &mut self.links[link];
        entry.place = Place::Gone;
        entry.paused = false;
        entry.dirty = false;
        Some(link)
    }

    fn link_of(&self, id: ShardId, conn: ConnId) -> Option<LinkId> {
        let (generation, link) = *self.shards[id.index()].slots.get(conn.slot as usize)?;
        link.filter(|_| generation == conn.generation)
    }
}
