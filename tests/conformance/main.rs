//! What the standard demands, in literal bytes against the real binary, each on
//! one shard and on four. Clause ids are those of MQTT 5.0 unless marked 3.1.1.

#[path = "../common/mod.rs"]
mod common;

mod acl;
mod auto_subscribe;
mod bans;
mod clauses;
mod connect;
mod connect_payload;
mod delayed;
mod delivery;
mod enhanced_auth;
mod exclusive;
mod flow;
mod http_auth;
mod large;
mod notation;
mod packet_size;
mod passwords;
mod publish;
mod publish_rate;
mod request;
mod resume;
mod retained;
mod retained_ttl;
mod rewrite;
mod server_options;
mod session;
mod shared;
mod shared_delivery;
mod shutdown;
mod subscribe;
mod subscription_options;
mod tokens;
mod topic_alias;
mod user_connections;
mod v3;
mod will;
mod will_values;
mod wire_format;
mod witnesses;
