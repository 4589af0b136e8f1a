//! The targets, one file each.

pub(crate) mod acl;
pub(crate) mod broker;
pub(crate) mod config;
pub(crate) mod packets;
pub(crate) mod passwords;
pub(crate) mod properties;
mod reference;
pub(crate) mod session;
pub(crate) mod storage;
pub(crate) mod topics;
pub(crate) mod transports;

use ringmq::codec::Version;

const VERSIONS: [Version; 3] = [Version::V31, Version::V311, Version::V5];
