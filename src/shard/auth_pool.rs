//! The threads that check credentials for all shards: some hash passwords and check tokens, others ask over
//! HTTP. None of this ever holds up a shard.
//!
//! Owns the threads, what waits for them and the way of a verdict back to its shard; how anything is checked,
//! `auth` knows. Threads start with the first that there is to do.

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{SystemTime, UNIX_EPOCH},
};

use tracing::error;

use super::{Shard, auth_http::HttpAsker, wake::Wake};
use crate::{
    auth::{
        chain::{Check, Task, Verdict},
        jwt,
        password::Checker,
        queue::FairQueue,
        verified::Verified,
    },
    base::{ConnId, ShardId},
    config::HttpRules,
};

/// What all shards give their checks to.
pub(crate) struct AuthPool(Arc<Shared>);

struct Shared {
    hashing: Lane,
    asking: Lane,
    /// By shard.
    mailboxes: Box<[Mailbox]>,
    /// Who asks by the rules that hold, once there was something to ask.
    asker: Mutex<Option<Arc<HttpAsker>>>,
}

/// What waits for one kind of threads.
#[derive(Default)]
struct Lane {
    state: Mutex<LaneState>,
    added: Condvar,
}

#[derive(Default)]
struct LaneState {
    waiting: FairQueue<Job>,
    has_threads: bool,
    is_ended: bool,
}

struct Job {
    shard: ShardId,
    conn: ConnId,
    check: Box<Check>,
}

/// Verdicts for one shard, and what wakes it.
struct Mailbox {
    verdicts: Mutex<Vec<(ConnId, Verdict)>>,
    /// Whether there may be some: the shard looks each turn.
    has_some: AtomicBool,
    wake: Arc<Wake>,
}

impl AuthPool {
    /// For shards that these wake.
    pub(crate) fn new(wakes: impl IntoIterator<Item = Arc<Wake>>) -> Arc<Self> {
        let mailbox =
            |wake| Mailbox { verdicts: Mutex::default(), has_some: AtomicBool::new(false), wake };
        Arc::new(Self(Arc::new(Shared {
            hashing: Lane::default(),
            asking: Lane::default(),
            mailboxes: wakes.into_iter().map(mailbox).collect(),
            asker: Mutex::default(),
        })))
    }

    /// Takes a check of a shard. Its verdict comes some time, or [`Verdict::Busy`] at once to whom there is no
    /// room for.
    pub(super) fn submit(&self, shard: ShardId, conn: ConnId, check: Box<Check>) {
        let is_asking = matches!(check.task, Task::Http(_));
        let lane = self.0.lane(is_asking);
        let (address, bytes) = (check.address, check.bytes);
        let mut state = locked(&lane.state);
        if !state.has_threads {
            state.has_threads = self.0.start_threads(is_asking);
        }
        let dropped = state.waiting.push(address, bytes, Job { shard, conn, check });
        drop(state);
        lane.added.notify_one();
        if let Some(Job { shard, conn, .. }) = dropped {
            self.0.post(shard, conn, Verdict::Busy);
        }
    }

    /// The verdicts that have come for a shard.
    pub(super) fn take(&self, shard: ShardId) -> Vec<(ConnId, Verdict)> {
        let mailbox = &self.0.mailboxes[shard.index()];
        if !mailbox.has_some.load(Ordering::Acquire) {
            return Vec::new();
        }
        // Before they are taken: what comes behind that is announced anew.
        mailbox.has_some.store(false, Ordering::Relaxed);
        std::mem::take(&mut *locked(&mailbox.verdicts))
    }
}

impl Drop for AuthPool {
    fn drop(&mut self) {
        for lane in [&self.0.hashing, &self.0.asking] {
            locked(&lane.state).is_ended = true;
            lane.added.notify_all();
        }
    }
}

impl Shared {
    fn lane(&self, is_asking: bool) -> &Lane {
        if is_asking { &self.asking } else { &self.hashing }
    }

    /// True if there is at least one.
    fn start_threads(self: &Arc<Self>, is_asking: bool) -> bool {
        let (kind, count) =
            if is_asking { ("ask", ASKING_THREADS) } else { ("hash", HASHING_THREADS) };
        let start = |number: &usize| {
            let shared = Arc::clone(self);
            let run = move || shared.work(is_asking);
            let thread = thread::Builder::new().name(format!("ringmq-{kind}-{number}"));
            thread.stack_size(STACK_BYTES).spawn(run).map_err(|error| {
                error!(%error, "a thread that checks credentials cannot be started");
            })
        };
        (0..count).filter(|number| start(number).is_ok()).count() > 0
    }

    /// One thread's life.
    fn work(&self, is_asking: bool) {
        if !is_asking {
            // Clients that are connected come first. It may only be refused, and then nothing else is to do.
            let _ = rustix::process::nice(HASHING_NICENESS);
        }
        let mut checker = Checker::default();
        while let Some(Job { shard, conn, check }) = self.lane(is_asking).next() {
            // Whoever has gone leaves no work.
            if check.wanted.strong_count() > 0 {
                // A fault in a library costs one client its verdict, not all who come later their thread.
                let verdict = catch_unwind(AssertUnwindSafe(|| self.verdict(&check, &mut checker)));
                self.post(shard, conn, verdict.unwrap_or(Verdict::Unavailable));
            }
        }
    }

    fn verdict(&self, check: &Check, checker: &mut Checker) -> Verdict {
        let password = check.password.as_deref().unwrap_or_default();
        match &check.task {
            Task::Password { user, hash, exists } => {
                // Both are found out before either counts.
                match (checker.is_right(hash, password), exists) {
                    (true, true) => Verdict::Accepted(Verified::of_user(user)),
                    (false, true) => Verdict::Refused("wrong password".to_owned()),
                    (_, false) => Verdict::Refused("unknown user".to_owned()),
                }
            }
            Task::Token(rules) => {
                let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                match jwt::verify(rules, password, &check.client, since_1970.as_secs()) {
                    Ok(identity) => Verdict::Accepted(identity),
                    Err(error) => Verdict::Refused(error.to_string()),
                }
            }
            Task::Http(rules) => match self.asker(rules) {
                Some(asker) => asker.ask(check),
                None => Verdict::Unavailable,
            },
        }
    }

    /// Who asks by these rules; another one if they have changed.
    fn asker(&self, rules: &Arc<HttpRules>) -> Option<Arc<HttpAsker>> {
        let mut asker = locked(&self.asker);
        if !asker.as_ref().is_some_and(|asker| asker.goes_by(rules)) {
            let new = HttpAsker::new(rules.clone());
            let new =
                new.inspect_err(|error| error!(%error, "no randomness to ask over HTTP with"));
            *asker = new.ok().map(Arc::new);
        }
        asker.clone()
    }

    fn post(&self, shard: ShardId, conn: ConnId, verdict: Verdict) {
        let mailbox = &self.mailboxes[shard.index()];
        locked(&mailbox.verdicts).push((conn, verdict));
        mailbox.has_some.store(true, Ordering::Release);
        mailbox.wake.alarm();
    }
}

impl Lane {
    /// Waits for the next job; `None` at the end.
    fn next(&self) -> Option<Job> {
        let mut state = locked(&self.state);
        loop {
            if state.is_ended {
                return None;
            }
            if let Some(job) = state.waiting.pop() {
                return Some(job);
            }
            state = self.added.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shard {
    /// Takes in what came of checks.
    pub(super) fn take_verdicts(&mut self) {
        for (conn, verdict) in self.auth.take(self.own) {
            self.broker.authenticated(self.now, conn, verdict);
        }
    }
}

/// Nothing that is done with these locked can leave them half done.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Threads that hash: as many hashes take memory at a time.
const HASHING_THREADS: usize = 2;

/// How much these give way to the shards' threads.
const HASHING_NICENESS: i32 = 15;

/// Requests over HTTP at a time; their threads mostly wait.
const ASKING_THREADS: usize = 8;

/// Ample for a hash, whose memory is on the heap, and for a TLS handshake.
const STACK_BYTES: usize = 512 * 1024;
