//! A member's side of a team: comes to the leader, and passes its orders to the threads of this
//! process and their news back. Has no will of its own, except to end when the leader is gone.

use std::{
    io,
    net::{TcpStream, ToSocketAddrs},
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    crew::{Crew, LoadSetup},
    leader::Note,
    orders::{News, Order},
    team::{Hello, PROTOCOL, Run, TeamError, TeamOptions, Terms, ToLeader, ToMember},
    wire::{self, Receiver, Sender, WireError},
};
use crate::machine;

/// The connection to the leader.
pub(crate) struct Membership {
    sender: Sender,
    receiver: Receiver,
    /// The leader knows of Ctrl-C: it ends everything in order.
    has_told_interrupt: bool,
}

impl Membership {
    /// Comes to the leader, who may refuse this worker later.
    ///
    /// # Errors
    /// It is not there, and does not come in time.
    pub(crate) fn join(
        options: &TeamOptions,
        terms: Terms,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(Note),
    ) -> Result<Self, TeamError> {
        let deadline = Instant::now() + JOIN_MAX;
        let address = &options.leader;
        let mut is_first = true;
        let (sender, receiver) = loop {
            let source = match connect(address).and_then(wire::ends) {
                Ok(ends) => break ends,
                Err(error) => error,
            };
            if interrupt.load(Ordering::Relaxed) {
                return Err(TeamError::Interrupted);
            }
            if Instant::now() >= deadline {
                return Err(TeamError::NoLeader { address: address.clone(), source });
            }
            if std::mem::take(&mut is_first) {
                note(Note::Info(format!("waiting for worker 1 at {address}: {source}")));
            }
            std::thread::sleep(RETRY_AFTER);
        };
        let mut own = Self { sender, receiver, has_told_interrupt: false };
        let protocol = PROTOCOL.to_owned();
        own.tell(&ToLeader::Hello(Hello { protocol, worker: options.worker, terms }))?;
        Ok(own)
    }

    /// The next run; `None` if there is none any more.
    ///
    /// # Errors
    /// The leader refuses this worker, cannot go on, or is gone.
    pub(crate) fn next_run(&mut self, interrupt: &AtomicBool) -> Result<Option<Run>, TeamError> {
        loop {
            match self.receiver.receive(LOOK_EVERY).map_err(gone)? {
                Some(ToMember::Refused(reason)) => return Err(TeamError::Refused(reason)),
                Some(ToMember::GaveUp(reason)) => return Err(TeamError::GaveUp(reason)),
                Some(ToMember::Over) => return Ok(None),
                Some(ToMember::Run(run)) => return Ok(Some(run)),
                Some(ToMember::TellTime) => {
                    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH);
                    let unix_us = since_1970.unwrap_or_default().as_micros() as u64;
                    self.tell(&ToLeader::Time { unix_us })?;
                }
                Some(ToMember::Order(_)) => return Err(out_of_turn()),
                None if interrupt.load(Ordering::Relaxed) && !self.has_told_interrupt => {
                    return Err(TeamError::Interrupted);
                }
                None => {}
            }
        }
    }

    /// Tells the leader that the run it has announced is impossible here.
    pub(crate) fn refuse(&mut self, reason: String) {
        // The leader finds the connection closed if it does not hear it.
        let _ = self.tell(&ToLeader::Unable(reason));
    }

    /// Makes this worker's part of a run.
    ///
    /// # Errors
    /// The leader is gone, or a thread cannot be started or does not end.
    pub(crate) fn serve(
        &mut self,
        setup: &LoadSetup,
        interrupt: &AtomicBool,
    ) -> Result<(), TeamError> {
        let (sender, news) = mpsc::channel();
        let crew = Crew::start(setup, &sender).map_err(|error| {
            self.refuse(format!("cannot start a thread: {error}"));
            TeamError::Thread(error)
        })?;
        drop(sender);
        let mut service = Service { own: self, crew, news, left: setup.own_threads().collect() };
        let outcome = service.make_load(setup.first_thread, interrupt);
        outcome.and(service.end())
    }

    fn tell(&mut self, what: &ToLeader) -> Result<(), TeamError> {
        self.sender.send(what).map_err(gone)
    }
}

/// One run.
struct Service<'a> {
    own: &'a mut Membership,
    crew: Crew,
    news: mpsc::Receiver<(usize, News)>,
    /// Threads that have not ended.
    left: Vec<usize>,
}

impl Service<'_> {
    /// Follows the leader's orders until all threads have ended.
    fn make_load(&mut self, first: usize, interrupt: &AtomicBool) -> Result<(), TeamError> {
        self.own.tell(&ToLeader::Ready)?;
        let (mut report_at, mut leave_by) = (Instant::now(), None);
        while !self.left.is_empty() {
            match self.own.receiver.receive(LOOK_EVERY).map_err(gone)? {
                Some(ToMember::Order(order)) => {
                    if matches!(order, Order::Leave) {
                        leave_by = Some(Instant::now() + LEAVE_MAX);
                    }
                    self.crew.order(&order);
                }
                Some(ToMember::GaveUp(reason)) => return Err(TeamError::GaveUp(reason)),
                Some(ToMember::Over) => return Err(TeamError::LeftBehind),
                Some(_) => return Err(out_of_turn()),
                None => {}
            }
            let now = Instant::now();
            if now >= report_at {
                report_at = now + Duration::from_secs(1);
                let usage = machine::usage(std::process::id()).unwrap_or_default();
                self.own.tell(&ToLeader::News { thread: first, news: News::Usage(usage) })?;
            }
            if interrupt.load(Ordering::Relaxed) && !self.own.has_told_interrupt {
                self.own.has_told_interrupt = true;
                self.own.tell(&ToLeader::News { thread: first, news: News::Interrupted })?;
            }
            while let Ok((thread, news)) = self.news.try_recv() {
                self.note_end(thread, &news);
                self.own.tell(&ToLeader::News { thread, news })?;
            }
            if leave_by.is_some_and(|by| now >= by) {
                return Err(TeamError::Stuck);
            }
        }
        Ok(())
    }

    /// Sends home who is still there.
    fn end(mut self) -> Result<(), TeamError> {
        self.crew.order(&Order::Leave);
        let deadline = Instant::now() + LEAVE_MAX;
        while !self.left.is_empty() {
            let wait = deadline.saturating_duration_since(Instant::now());
            let Ok((thread, news)) = self.news.recv_timeout(wait) else { break };
            self.note_end(thread, &news);
        }
        let Self { mut crew, left, .. } = self;
        crew.join(|thread| !left.contains(&thread));
        if left.is_empty() { Ok(()) } else { Err(TeamError::Stuck) }
    }

    fn note_end(&mut self, thread: usize, news: &News) {
        if matches!(news, News::Ended(_)) {
            self.left.retain(|one| *one != thread);
        }
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let mut outcome = Err(io::ErrorKind::NotFound.into());
    for to in address.to_socket_addrs()? {
        outcome = TcpStream::connect_timeout(&to, CONNECT_MAX);
        match &outcome {
            // Where nobody listens, a socket that gets the same port is connected with itself.
            Ok(socket) if socket.local_addr()? == to => {
                outcome = Err(io::ErrorKind::ConnectionRefused.into());
            }
            Ok(_) => break,
            Err(_) => {}
        }
    }
    outcome
}

fn gone(error: WireError) -> TeamError {
    TeamError::Gone { who: LEADER.to_owned(), error }
}

fn out_of_turn() -> TeamError {
    TeamError::OutOfTurn { who: LEADER.to_owned() }
}

const LEADER: &str = "worker 1";

/// Time for the leader to come.
const JOIN_MAX: Duration = Duration::from_secs(30);
const RETRY_AFTER: Duration = Duration::from_millis(100);
const CONNECT_MAX: Duration = Duration::from_secs(5);

/// How often a run looks at what the threads have to tell, and everything at Ctrl-C.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Time for all threads to disconnect their clients.
const LEAVE_MAX: Duration = Duration::from_secs(10);
