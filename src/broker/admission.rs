//! Whether a client that is who it says may come in now: bans, those for coming too often among them, and how many
//! connections its user has.
//!
//! What is known of an address before CONNECT, the shell goes by.

use std::sync::Arc;

use crate::{
    auth::places::Places,
    base::{ClientId, ConnId, Time, source},
    codec::{Connect, ReasonCode},
    config::Bans,
};

use super::{
    Broker,
    close::Cause,
    connect::user_name,
    credentials::Proven,
    flapping::{Coming, Key, KnownBy},
};

/// Why a client is not let in, as it is told.
type Refusal = (ReasonCode, &'static str);

const BANNED: Refusal = (ReasonCode::Banned, "the client, its user or its address is banned");

impl Broker {
    /// Has the connections of users counted together with those of other shards.
    pub fn count_users_with(&mut self, users: Arc<Places<Box<str>>>) {
        self.users = users;
    }

    /// Who is banned by the configuration.
    pub fn bans(&self) -> &Bans {
        &self.policy.bans
    }

    /// Goes by other bans from now on: clients that are connected and banned now are disconnected.
    pub fn set_bans(&mut self, now: Time, bans: Arc<Bans>) {
        self.now = now;
        self.policy.bans = bans;
        if self.policy.bans.is_empty() {
            return;
        }
        for conn in self.connections.ids() {
            if self.is_banned_now(conn) {
                self.close(conn, Cause::Banned);
            }
        }
    }

    /// The shell has closed a connection that it did not let in.
    pub fn note_turned_away(&mut self) {
        self.counters.turned_away += 1;
    }

    /// Whether nothing speaks against the names in a CONNECT, before its credentials are checked.
    pub(super) fn admit_names(
        &mut self,
        client: &ClientId,
        connect: &Connect<'_>,
    ) -> Result<(), Refusal> {
        let bans = &self.policy.bans;
        // Whoever is not the user that it names has lost nothing either.
        let is_banned = bans.has_client(client.as_str())
            || connect.user_name.is_some_and(|user| {
                let key = || Key { client: client.clone(), known_by: KnownBy::User(user.into()) };
                bans.has_user(user) || self.flapping.is_banned(self.now, key)
            });
        if is_banned { Err(BANNED) } else { Ok(()) }
    }

    /// Whether nothing speaks against the client but what it asks for. Its user's place is its own then.
    pub(super) fn admit_client(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        (client, assigned): (&ClientId, bool),
        proven: Option<&Proven>,
    ) -> Result<(), Refusal> {
        let peer = self.connections.get(conn).and_then(|connection| connection.origin.peer.ip());
        let user = user_name(connect, proven);
        let bans = &self.policy.bans;
        if bans.has_client(client.as_str())
            || user.is_some_and(|user| bans.has_user(user))
            || peer.is_some_and(|address| bans.has_address(address))
        {
            return Err(BANNED);
        }
        // A name that is new each time says nothing.
        if self.policy.limits.flapping_connects_max > 0 && !assigned {
            let known_by = match proven {
                Some(proven) => KnownBy::User(proven.identity.user.clone()),
                None => KnownBy::Address(peer.map(source)),
            };
            self.note_coming(Key { client: client.clone(), known_by })?;
        }
        match proven {
            Some(proven) => self.take_place(conn, client, &proven.identity.user),
            None => Ok(()),
        }
    }

    fn note_coming(&mut self, key: Key) -> Result<(), Refusal> {
        let limits = &self.policy.limits;
        match self.flapping.note(self.now, key.clone(), limits) {
            Coming::Welcome => Ok(()),
            Coming::Banned => Err(BANNED),
            Coming::BannedNow => {
                self.counters.flapping_bans += 1;
                let known_by = match key.known_by {
                    KnownBy::User(user) => format!("user {user:?}"),
                    KnownBy::Address(Some(address)) => address.to_string(),
                    KnownBy::Address(None) => "unix".to_owned(),
                };
                let (client, secs) = (key.client, limits.ban_secs);
                tracing::warn!(%client, known_by, secs, "client banned for a while: it connects too often");
                Err(BANNED)
            }
        }
    }

    /// Counts the connection as one of its user; that of a connection that it takes over it has already.
    fn take_place(&mut self, conn: ConnId, client: &ClientId, user: &str) -> Result<(), Refusal> {
        if self.policy.limits.connections_per_user_max == 0 {
            return Ok(());
        }
        let known = self.sessions.find(client.as_str()).and_then(|key| self.sessions.get(key));
        let old = known.and_then(|session| session.conn);
        let handed_over = old.and_then(|old| {
            let old = self.connections.get_mut(old)?;
            old.terms.as_deref_mut()?.place.take_if(|place| **place.key() == *user)
        });
        let place = handed_over.or_else(|| self.users.take(user.into()));
        if place.is_none() {
            return Err((ReasonCode::QuotaExceeded, "connections_per_user_max reached"));
        }
        if let Some(connection) = self.connections.get_mut(conn) {
            connection.terms.get_or_insert_default().place = place;
        }
        Ok(())
    }

    fn is_banned_now(&self, conn: ConnId) -> bool {
        let Some(connection) = self.connections.get(conn) else { return false };
        let session = connection.session.and_then(|key| self.sessions.get(key));
        let bans = &self.policy.bans;
        let address = connection.origin.peer.ip();
        address.is_some_and(|address| bans.has_address(address))
            || session.is_some_and(|session| {
                bans.has_client(session.client.as_str())
                    || session.user_name.as_deref().is_some_and(|user| bans.has_user(user))
            })
    }
}
