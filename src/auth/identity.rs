//! Who a client has proven to be, and where it comes from: all that access rules know of it besides its
//! Client Identifier. It belongs to the session, since rules are asked while the client is away, too.

use std::net::IpAddr;

/// Who a client is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Identity {
    /// The user it has proven to be. A User Name that nothing proves is none.
    pub user: Option<Box<str>>,
    /// Groups of that user.
    pub groups: Vec<Box<str>>,
    /// Its address, on its present or last connection.
    pub address: Option<IpAddr>,
}

impl Identity {
    /// What is known of a client of whom nothing is.
    pub fn nobody() -> &'static Self {
        static NOBODY: Identity = Identity { user: None, groups: Vec::new(), address: None };
        &NOBODY
    }

    /// Whether it has proven to be somebody.
    pub const fn is_proven(&self) -> bool {
        self.user.is_some()
    }
}
