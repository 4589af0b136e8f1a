//! What is asked over HTTP about a client, what the answer means, which answers are remembered, and when
//! nobody is asked because nobody answers.
//!
//! Values: time is an argument, and requests are somebody else's.

use std::{
    collections::{HashMap, VecDeque},
    fmt,
};

use ahash::RandomState;
use base64ct::{Base64, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Map, Value};
use sha2::Sha256;

use super::{chain::Check, verified::Verified};
use crate::{
    base::{Time, limits::HTTP_CACHE_MAX},
    config::HttpRules,
};

/// The JSON of a request.
pub fn request_body(check: &Check) -> Vec<u8> {
    let mut body = Map::new();
    let mut add = |name: &str, value: &str| _ = body.insert(name.to_owned(), value.into());
    add("client_id", &check.client);
    if let Some(address) = check.address {
        add("address", &address.to_canonical().to_string());
    }
    add("protocol", "mqtt");
    add("version", &check.version.to_string());
    if let Some(user) = &check.user {
        add("user", user);
    }
    match check.password.as_deref().map(|bytes| (bytes, str::from_utf8(bytes))) {
        None => {}
        Some((_, Ok(text))) => add("password", text),
        // JSON has no bytes.
        Some((bytes, Err(_))) => add("password_base64", &Base64::encode_string(bytes)),
    }
    Value::Object(body).to_string().into_bytes()
}

/// An answer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The client may connect, as this user.
    Allow(Verified),
    /// It may not.
    Deny,
    /// Somebody else has to say.
    Ignore,
}

/// Reads an answer to what `user` has asked for.
///
/// # Errors
/// It is none; the text is for the log and has nothing of it.
pub fn read_answer(status: u16, body: &[u8], user: Option<&str>) -> Result<Answer, String> {
    if status != 200 {
        return Err(format!("the answer has status {status} instead of 200"));
    }
    let answer: Value = serde_json::from_slice(body).map_err(|_| "the answer is not JSON")?;
    match answer.get("result").and_then(Value::as_str) {
        Some("allow") => {}
        Some("deny") => return Ok(Answer::Deny),
        Some("ignore") => return Ok(Answer::Ignore),
        _ => return Err("the answer's result is none of allow, deny and ignore".to_owned()),
    }
    let user = match answer.get("user") {
        None | Some(Value::Null) => user.ok_or("the answer names no user, nor does the client")?,
        Some(user) => user.as_str().ok_or("the answer's user is no text")?,
    };
    let groups = match answer.get("groups") {
        None | Some(Value::Null) => Box::default(),
        Some(groups) => texts(groups).ok_or("the answer's groups are no list of texts")?,
    };
    let valid_secs = match answer.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(secs) => {
            let secs = secs.as_u64().filter(|secs| *secs > 0);
            Some(secs.ok_or("the answer's expires_in is no whole number of seconds above 0")?)
        }
    };
    let identity = Verified { user: user.into(), groups, valid_secs }.checked()?;
    Ok(Answer::Allow(identity))
}

pub(super) fn texts(list: &Value) -> Option<Box<[Box<str>]>> {
    list.as_array()?.iter().map(|text| text.as_str().map(Into::into)).collect()
}

/// Clients that were let in, by what they had shown. Holds no password, but a keyed hash.
pub struct Cache {
    secret: [u8; 32],
    entries: HashMap<Shown, Remembered, RandomState>,
    /// In the order in which they came.
    order: VecDeque<Shown>,
}

/// All that a request has in it, hashed.
pub type Shown = [u8; 32];

struct Remembered {
    identity: Verified,
    since: Time,
    until: Time,
}

impl Cache {
    /// An empty one. The secret comes from a source of randomness.
    pub fn new(secret: [u8; 32]) -> Self {
        Self { secret, entries: HashMap::default(), order: VecDeque::new() }
    }

    /// By what the client is remembered.
    pub fn key(&self, check: &Check) -> Shown {
        let mut mac =
            <Hmac<Sha256> as KeyInit>::new_from_slice(&self.secret).expect("a key of any length");
        mac.update(&request_body(check));
        mac.finalize().into_bytes().into()
    }

    /// Who that was, if it is not too long ago.
    pub fn get(&self, now: Time, key: &Shown) -> Option<Verified> {
        let found = self.entries.get(key).filter(|found| found.until > now)?;
        let age_secs = now.millis_since(found.since) / 1000;
        let valid_secs = found.identity.valid_secs.map(|secs| secs.saturating_sub(age_secs));
        Some(Verified { valid_secs, ..found.identity.clone() })
    }

    /// Remembers who that is, for so long or as long as it holds.
    pub fn insert(&mut self, now: Time, key: Shown, secs: u32, identity: &Verified) {
        let secs = identity.valid_secs.unwrap_or(u64::MAX).min(secs.into());
        if secs == 0 {
            return;
        }
        let new = Remembered { identity: identity.clone(), since: now, until: now.plus_secs(secs) };
        if self.entries.insert(key, new).is_none() {
            self.order.push_back(key);
        }
        if self.order.len() > HTTP_CACHE_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.entries.remove(&oldest);
        }
    }
}

/// Shows how many there are.
impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Cache({} clients)", self.entries.len())
    }
}

/// Whether it is worth asking.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Breaker {
    /// Failures since the last success.
    failures: u32,
    /// Nobody is asked before, but for one who finds out.
    open_until: Option<Time>,
}

impl Breaker {
    /// Whether to ask now. After a pause one may; the others go on waiting for what comes of it.
    pub fn admits(&mut self, now: Time, rules: &HttpRules) -> bool {
        match self.open_until {
            None => true,
            Some(until) if until > now => false,
            Some(_) => {
                self.open_until = Some(now.plus_secs(rules.retry_secs.into()));
                true
            }
        }
    }

    /// Takes in what came of asking; true if that changes whether to ask.
    pub fn note(&mut self, now: Time, rules: &HttpRules, is_answered: bool) -> bool {
        let was_open = self.open_until.is_some();
        if is_answered {
            *self = Self::default();
            return was_open;
        }
        self.failures = self.failures.saturating_add(1);
        if was_open || self.failures >= rules.failures_max {
            self.open_until = Some(now.plus_secs(rules.retry_secs.into()));
        }
        was_open != self.open_until.is_some()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Weak};

    use super::*;
    use crate::{auth::chain::Task, base::limits::GROUPS_MAX, codec::Version};

    fn check(user: Option<&str>, password: Option<&[u8]>) -> Check {
        Check {
            task: Task::Http(Arc::new(HttpRules::default())),
            user: user.map(Into::into),
            password: password.map(Into::into),
            client: "c\"1".into(),
            address: Some("::ffff:1.2.3.4".parse().unwrap()),
            version: Version::V5,
            bytes: 0,
            wanted: Weak::new(),
        }
    }

    #[test]
    fn a_request_has_what_the_client_has_shown() {
        let body = |check: &Check| String::from_utf8(request_body(check)).unwrap();
        assert_eq!(
            body(&check(Some("ann"), Some(b"pe\"n"))),
            r#"{"address":"1.2.3.4","client_id":"c\"1","password":"pe\"n","protocol":"mqtt","user":"ann","version":"5.0"}"#
        );
        assert_eq!(
            body(&check(None, Some(b"\xff"))),
            r#"{"address":"1.2.3.4","client_id":"c\"1","password_base64":"/w==","protocol":"mqtt","version":"5.0"}"#
        );
        assert!(!format!("{:?}", check(Some("ann"), Some(b"pen"))).contains("pen"));
    }

    #[test]
    fn answers_are_read() {
        let allow = |user: &str, groups: &[&str], valid_secs| {
            let groups = groups.iter().map(|group| (*group).into()).collect();
            Answer::Allow(Verified { user: user.into(), groups, valid_secs })
        };
        for (body, expected) in [
            (r#"{"result": "allow"}"#, allow("ann", &[], None)),
            (
                r#"{"result": "allow", "user": null, "groups": null, "expires_in": null}"#,
                allow("ann", &[], None),
            ),
            (
                r#"{"result": "allow", "user": "bob", "groups": ["a", "b"], "expires_in": 5, "x": 1}"#,
                allow("bob", &["a", "b"], Some(5)),
            ),
            (r#"{"result": "deny"}"#, Answer::Deny),
            (r#"{"result": "ignore", "user": 7}"#, Answer::Ignore),
        ] {
            assert_eq!(
                read_answer(200, body.as_bytes(), Some("ann")).as_ref(),
                Ok(&expected),
                "{body}"
            );
        }
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        let many =
            format!(r#"{{"result": "allow", "groups": [{}"x"]}}"#, r#""x","#.repeat(GROUPS_MAX));
        let deep = "[".repeat(10_000);
        for body in [
            "",
            "allow",
            "[]",
            "{}",
            r#"{"result": true}"#,
            r#"{"result": "Allow"}"#,
            r#"{"result": "allow"}"#,
            r#"{"result": "allow", "user": 1}"#,
            r#"{"result": "allow", "user": ""}"#,
            r#"{"result": "allow", "user": "a\u0000"}"#,
            r#"{"result": "allow", "user": "a", "groups": "x"}"#,
            r#"{"result": "allow", "user": "a", "groups": [1]}"#,
            r#"{"result": "allow", "user": "a", "expires_in": 0}"#,
            r#"{"result": "allow", "user": "a", "expires_in": -1}"#,
            r#"{"result": "allow", "user": "a", "expires_in": "1"}"#,
            &many,
            &deep,
        ] {
            assert!(read_answer(200, body.as_bytes(), None).is_err(), "{body}");
        }
        for status in [199, 204, 302, 401, 500] {
            assert!(read_answer(status, br#"{"result": "allow"}"#, Some("ann")).is_err());
        }
    }

    #[test]
    fn the_cache_forgets_in_time_and_is_bounded() {
        let mut cache = Cache::new([1; 32]);
        let at = Time::from_millis;
        let key = cache.key(&check(Some("ann"), Some(b"pencil")));
        for other in [check(Some("ann"), Some(b"pencils")), check(Some("bob"), Some(b"pencil"))] {
            assert_ne!(cache.key(&other), key);
        }
        let ann = Verified { valid_secs: Some(30), ..Verified::of_user("ann") };
        cache.insert(at(0), key, 60, &ann);
        assert_eq!(cache.get(at(10_000), &key).unwrap().valid_secs, Some(20));
        assert_eq!(cache.get(at(30_000), &key), None);
        cache.insert(at(0), key, 5, &Verified::of_user("ann"));
        assert_eq!(cache.get(at(4_999), &key), Some(Verified::of_user("ann")));
        assert_eq!(cache.get(at(5_000), &key), None);
        cache.insert(at(0), [9; 32], 0, &ann);
        assert_eq!(cache.get(at(0), &[9; 32]), None);
        for number in 0..HTTP_CACHE_MAX as u32 {
            let mut key = [0; 32];
            key[..4].copy_from_slice(&number.to_be_bytes());
            cache.insert(at(0), key, 60, &ann);
        }
        assert_eq!((cache.entries.len(), cache.order.len()), (HTTP_CACHE_MAX, HTTP_CACHE_MAX));
        assert_eq!(cache.get(at(0), &key), None);
    }

    #[test]
    fn the_breaker_opens_after_failures_and_lets_one_find_out() {
        let rules = HttpRules { failures_max: 2, retry_secs: 10, ..HttpRules::default() };
        let mut breaker = Breaker::default();
        let at = |secs: u64| Time::from_millis(secs * 1000);
        assert!(breaker.admits(at(0), &rules) && !breaker.note(at(0), &rules, false));
        assert!(!breaker.note(at(0), &rules, true), "a success begins the count anew");
        assert!(!breaker.note(at(1), &rules, false) && breaker.note(at(2), &rules, false));
        assert!(!breaker.admits(at(11), &rules));
        assert!(breaker.admits(at(12), &rules) && !breaker.admits(at(12), &rules));
        assert!(!breaker.note(at(13), &rules, false) && !breaker.admits(at(22), &rules));
        assert!(breaker.admits(at(23), &rules) && breaker.note(at(24), &rules, true));
        assert!(breaker.admits(at(24), &rules) && breaker.admits(at(24), &rules));
    }
}
