//! Asks over HTTP who may connect, on the threads that may wait for it.
//!
//! Owns the connections to whoever answers; what is asked and what an answer means, `auth::http` knows.

use std::{
    io,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use tracing::{info, warn};
use ureq::Agent;

use super::sys;
use crate::{
    auth::{
        chain::{Check, Verdict},
        http::{Answer, Breaker, Cache, read_answer, request_body},
    },
    base::{Time, limits::HTTP_ANSWER_BYTES_MAX},
    config::HttpRules,
};

/// Asks by one set of rules; shared by the threads.
pub(super) struct HttpAsker {
    rules: Arc<HttpRules>,
    agent: Agent,
    memory: Mutex<Memory>,
    started: Instant,
}

/// What was learned so far.
struct Memory {
    cache: Cache,
    breaker: Breaker,
}

impl HttpAsker {
    pub(super) fn new(rules: Arc<HttpRules>) -> io::Result<Self> {
        let timeout = Duration::from_millis(rules.timeout_millis.into());
        let config = Agent::config_builder()
            .timeout_global(Some(timeout))
            .http_status_as_error(false)
            // Credentials go where the operator has said, nowhere else.
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .max_idle_connections_per_host(IDLE_CONNECTIONS_MAX)
            .user_agent(concat!("ringmq/", env!("CARGO_PKG_VERSION")))
            .build();
        let memory = Memory { cache: Cache::new(sys::random()?), breaker: Breaker::default() };
        let memory = Mutex::new(memory);
        Ok(Self { rules, agent: config.into(), memory, started: Instant::now() })
    }

    /// Whether these are the rules.
    pub(super) fn goes_by(&self, rules: &Arc<HttpRules>) -> bool {
        Arc::ptr_eq(&self.rules, rules) || self.rules == *rules
    }

    /// What becomes of a client.
    pub(super) fn ask(&self, check: &Check) -> Verdict {
        let rules = &*self.rules;
        let mut memory = self.memory();
        let key = memory.cache.key(check);
        if let Some(identity) = memory.cache.get(self.now(), &key) {
            return Verdict::Accepted(identity);
        }
        if !memory.breaker.admits(self.now(), rules) {
            return self.without_answer();
        }
        drop(memory);
        let answer = self.request(check);
        let answer =
            answer.and_then(|(status, body)| read_answer(status, &body, check.user.as_deref()));
        let (now, mut memory) = (self.now(), self.memory());
        let is_news = memory.breaker.note(now, rules, answer.is_ok());
        if let Ok(Answer::Allow(identity)) = &answer {
            memory.cache.insert(now, key, rules.cache_secs, identity);
        }
        drop(memory);
        let (url, retry_secs) = (&rules.url, rules.retry_secs);
        match &answer {
            Ok(_) if is_news => info!("{url} answers again"),
            Err(why) if is_news => warn!("{url}: {why}; nobody is asked for {retry_secs} s"),
            Err(why) => warn!("{url}: {why}"),
            Ok(_) => {}
        }
        match answer {
            Ok(Answer::Allow(identity)) => Verdict::Accepted(identity),
            Ok(Answer::Deny) => Verdict::Refused("denied over HTTP".to_owned()),
            Ok(Answer::Ignore) => Verdict::Unknown,
            Err(_) => self.without_answer(),
        }
    }

    /// Status and body of an answer, or why there is none.
    fn request(&self, check: &Check) -> Result<(u16, Vec<u8>), String> {
        let mut request =
            self.agent.post(&*self.rules.url).header("Content-Type", "application/json");
        if let Some(header) = &self.rules.header {
            request = request.header(&*header.name, &*header.value);
        }
        let answer = request.send(&request_body(check)[..]).map_err(|error| error.to_string())?;
        let status = answer.status().as_u16();
        let body = answer.into_body().into_with_config().limit(HTTP_ANSWER_BYTES_MAX).read_to_vec();
        Ok((status, body.map_err(|error| error.to_string())?))
    }

    fn without_answer(&self) -> Verdict {
        if self.rules.failing_is_next { Verdict::Unknown } else { Verdict::Unavailable }
    }

    fn now(&self) -> Time {
        Time::from_millis(self.started.elapsed().as_millis() as u64)
    }

    fn memory(&self) -> std::sync::MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Connections that are kept for the next request: one for each thread that asks.
const IDLE_CONNECTIONS_MAX: usize = 8;
