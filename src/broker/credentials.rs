//! A CONNECT without enhanced authentication: the chain of methods decides, and what takes time is checked
//! by the shell while the CONNECT is kept and nothing else of the connection is looked at.
//!
//! Knows packets and connections; how anything is checked, `auth` knows.

use std::sync::Arc;

use crate::{
    auth::{
        chain::{self, Check, Decision, Denied, Presented, Verdict},
        verified::Verified,
    },
    base::{ClientId, ConnId, Time},
    codec::{self, Connect, ReasonCode, next_frame},
};

use super::{Broker, Effect, Flow, authenticate::Authentication, close::Cause};

/// A client that has been verified.
#[derive(Debug)]
pub(super) struct Proven {
    pub(super) identity: Verified,
    /// What ends the exchange of its enhanced authentication, if there was one.
    pub(super) server_final: Option<String>,
}

/// A CONNECT whose credentials are being checked.
#[derive(Debug)]
pub(super) struct Checking {
    /// All of the packet: at most [`CONNECT_BYTES_MAX`](crate::base::limits::CONNECT_BYTES_MAX).
    connect: Box<[u8]>,
    /// The Client Identifier, and whether it was assigned here.
    client: (ClientId, bool),
    /// Where the chain goes on if the client is not known.
    next: usize,
    /// Tells whoever checks that the connection is still there.
    #[expect(dead_code, reason = "held for its drop")]
    wanted: Arc<()>,
}

impl Broker {
    /// What came of an [`Effect::Check`]. Means nothing if the connection is gone.
    pub fn authenticated(&mut self, now: Time, conn: ConnId, verdict: Verdict) {
        self.now = now;
        let Some(connection) = self.connections.get_mut(conn) else { return };
        let is_awaited = |state: &mut Box<_>| matches!(**state, Authentication::Checking(_));
        let state = connection.authentication.take_if(is_awaited);
        let Some(Authentication::Checking(checking)) = state.map(|state| *state) else { return };
        connection.paused.verdict = false;
        if self.take_verdict(conn, checking, verdict) == Flow::Continue {
            self.resume(conn);
        }
    }

    /// Puts a client through the chain of methods from a position on. `packet` is all of its CONNECT.
    pub(super) fn check_credentials(
        &mut self,
        conn: ConnId,
        connect: &Connect<'_>,
        packet: &[u8],
        client: (ClientId, bool),
        from: usize,
    ) -> Flow {
        let Some(connection) = self.connections.get_mut(conn) else { return Flow::Gone };
        let presented = Presented {
            user: connect.user_name,
            password: connect.password,
            certificate_user: connection.origin.certificate_user.as_deref(),
            is_local: connection.origin.is_local,
        };
        let methods = self.policy.chain(connection.origin.listener);
        match chain::decide(&self.policy, methods, from, &presented) {
            Decision::Accepted(identity) => {
                let proven = Proven { identity, server_final: None };
                self.accept(conn, connect, client, Some(proven))
            }
            Decision::Anonymous => self.accept(conn, connect, client, None),
            Decision::Refused(Denied::Unproven) => {
                let why = match has_credentials(connect) {
                    false => "anonymous clients are not allowed here",
                    true => "nothing is configured that could check a User Name or Password",
                };
                self.refuse(conn, ReasonCode::NotAuthorized, why)
            }
            Decision::Refused(Denied::WrongCredentials) => {
                let why = format!("no method knows {}", shown(connect));
                self.refuse(conn, ReasonCode::BadUserNameOrPassword, why)
            }
            Decision::Check { task, next } => {
                let wanted = Arc::new(());
                let check = Check {
                    task,
                    user: connect.user_name.map(Into::into),
                    password: connect.password.map(Into::into),
                    client: client.0.as_str().into(),
                    address: connection.origin.peer.ip(),
                    version: connect.version,
                    bytes: 2 * packet.len(),
                    wanted: Arc::downgrade(&wanted),
                };
                let checking = Checking { connect: packet.into(), client, next, wanted };
                connection.authentication = Some(Box::new(Authentication::Checking(checking)));
                connection.paused.verdict = true;
                self.effects.push_back(Effect::Check { conn, check: Box::new(check) });
                Flow::Continue
            }
        }
    }

    fn take_verdict(&mut self, conn: ConnId, checking: Checking, verdict: Verdict) -> Flow {
        let Checking { connect: packet, client, next, .. } = checking;
        let frame = next_frame(&packet, u32::MAX).ok().flatten();
        let Some(Ok(connect)) = frame.as_ref().map(codec::decode_connect) else {
            debug_assert!(false, "it was a CONNECT when the check began");
            return self.close(conn, Cause::NotConnect);
        };
        match verdict {
            Verdict::Accepted(identity) => {
                let proven = Proven { identity, server_final: None };
                self.accept(conn, &connect, client, Some(proven))
            }
            Verdict::Unknown => self.check_credentials(conn, &connect, &packet, client, next),
            Verdict::Refused(why) => {
                let why = format!("{why} ({})", shown(&connect));
                self.refuse(conn, ReasonCode::BadUserNameOrPassword, why)
            }
            Verdict::Unavailable => {
                let why = "whoever decides about the client does not answer";
                self.refuse(conn, ReasonCode::ServerUnavailable, why)
            }
            Verdict::Busy => {
                self.counters.checks_refused += 1;
                let why = "the credentials of too many clients wait to be checked";
                self.refuse(conn, ReasonCode::ServerUnavailable, why)
            }
        }
    }
}

fn has_credentials(connect: &Connect<'_>) -> bool {
    connect.user_name.is_some() || connect.password.is_some()
}

/// Whom the log names for a CONNECT that is refused: never the Password.
fn shown(connect: &Connect<'_>) -> String {
    let user = connect.user_name.unwrap_or_default();
    let user: String = user.chars().take(USER_CHARS_SHOWN).collect();
    format!("user {user:?}")
}

/// Enough to recognise a name by.
const USER_CHARS_SHOWN: usize = 64;
