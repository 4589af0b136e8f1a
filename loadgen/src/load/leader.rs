//! The leader's side of a team: waits for the members, announces runs, and makes each member's
//! connection look like threads.

use std::{
    io,
    net::{SocketAddr, TcpListener, TcpStream},
    ops::Range,
    sync::{
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use super::{
    orders::{News, Order},
    team::{Hello, PROTOCOL, Run, TeamError, TeamOptions, Terms, ToLeader, ToMember},
    wire::{self, Receiver, Sender, WireError},
};

/// The connections to all members; none if this process makes the load alone.
#[derive(Default)]
pub(crate) struct Leader {
    members: Vec<Member>,
}

/// Another worker.
pub(super) struct Member {
    number: u32,
    /// For messages.
    name: String,
    /// The numbers of its threads.
    threads: Range<usize>,
    sender: Sender,
    /// While no run is made.
    receiver: Option<Receiver>,
    /// While one is. Gives the receiver back, unless it has failed.
    relay: Option<JoinHandle<Option<Receiver>>>,
}

impl Leader {
    /// Waits for all members, each with so many `threads`. What happens is told to `note`.
    ///
    /// # Errors
    /// Nobody can connect, or not all did in time.
    pub(crate) fn assemble(
        options: &TeamOptions,
        terms: &Terms,
        threads: usize,
        interrupt: &AtomicBool,
        note: &mut dyn FnMut(Note),
    ) -> Result<Self, TeamError> {
        let address = &options.leader;
        let failed = |source| TeamError::Listen { address: address.clone(), source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        let mut own = Self::default();
        let deadline = Instant::now() + ASSEMBLE_MAX;
        note(Note::Info(format!("waiting at {address} for {}", own.missing(options.workers))));
        while own.members.len() + 1 < options.workers as usize {
            match listener.accept() {
                Ok((socket, from)) => match own.welcome(socket, from, options, terms, threads) {
                    Ok((member, skew)) => {
                        note(skew.note(&member.name));
                        own.members.push(member);
                    }
                    Err(TeamError::Refused(reason)) => {
                        note(Note::Warning(format!("{from} is refused: {reason}")));
                    }
                    Err(error) => note(Note::Warning(error.to_string())),
                },
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if interrupt.load(Ordering::Relaxed) {
                        return Err(TeamError::Interrupted);
                    }
                    if Instant::now() >= deadline {
                        let missing = own.missing(options.workers);
                        let secs = ASSEMBLE_MAX.as_secs();
                        return Err(TeamError::Missing { missing, address: address.clone(), secs });
                    }
                    std::thread::sleep(LOOK_EVERY);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        own.members.sort_by_key(|member| member.number);
        Ok(own)
    }

    fn missing(&self, workers: u32) -> String {
        let is_missing = |number: &u32| !self.members.iter().any(|member| member.number == *number);
        let numbers = (2..=workers).filter(is_missing).map(|number| number.to_string());
        let numbers: Vec<String> = numbers.collect();
        let one = if numbers.len() == 1 { "worker" } else { "workers" };
        format!("{one} {}", numbers.join(", "))
    }

    /// Takes in a member, or tells it why not.
    fn welcome(
        &self,
        socket: TcpStream,
        from: SocketAddr,
        options: &TeamOptions,
        terms: &Terms,
        threads: usize,
    ) -> Result<(Member, Skew), TeamError> {
        let who = || from.to_string();
        let gone = |error: WireError| TeamError::Gone { who: who(), error };
        let (mut sender, mut receiver) =
            wire::ends(socket).map_err(|error| gone(WireError::Socket(error)))?;
        let hello = match receiver.receive(HANDSHAKE_MAX).map_err(gone)? {
            Some(ToLeader::Hello(hello)) => hello,
            Some(_) => return Err(TeamError::OutOfTurn { who: who() }),
            None => return Err(TeamError::Silent { who: who() }),
        };
        if let Err(reason) = self.check(&hello, options, terms) {
            // Whether it hears it or not, it is refused.
            let _ = sender.send(&ToMember::Refused(reason.clone()));
            return Err(TeamError::Refused(reason));
        }
        let skew = Skew::measure(&mut sender, &mut receiver, &who())?;
        let first = (hello.worker as usize - 1) * threads;
        let member = Member {
            number: hello.worker,
            name: format!("worker {} ({from})", hello.worker),
            threads: first..first + threads,
            sender,
            receiver: Some(receiver),
            relay: None,
        };
        Ok((member, skew))
    }

    fn check(&self, hello: &Hello, options: &TeamOptions, terms: &Terms) -> Result<(), String> {
        let number = hello.worker;
        if hello.protocol != PROTOCOL {
            return Err("it is of another version".to_owned());
        }
        if let Some(difference) = hello.terms.difference(terms, &format!("worker {number}")) {
            return Err(difference);
        }
        if !(2..=options.workers).contains(&number) {
            return Err(format!("there is no worker {number} of {}", options.workers));
        }
        if self.members.iter().any(|member| member.number == number) {
            return Err(format!("there is a worker {number} already"));
        }
        Ok(())
    }

    /// Announces a run and waits until all members are ready for its orders.
    ///
    /// # Errors
    /// One of them is not.
    pub(crate) fn begin(&mut self, run: &Run, interrupt: &AtomicBool) -> Result<(), TeamError> {
        for member in &mut self.members {
            let sent = member.sender.send(&ToMember::Run(run.clone()));
            sent.map_err(|error| TeamError::Gone { who: member.name.clone(), error })?;
        }
        let deadline = Instant::now() + READY_MAX;
        for member in &mut self.members {
            while !member.is_ready()? {
                if interrupt.load(Ordering::Relaxed) {
                    return Err(TeamError::Interrupted);
                }
                if Instant::now() >= deadline {
                    return Err(TeamError::Silent { who: member.name.clone() });
                }
            }
        }
        Ok(())
    }

    pub(super) fn members(&mut self) -> &mut [Member] {
        &mut self.members
    }

    /// There are no more runs: all went well, or nothing more can be done for that reason.
    pub(crate) fn dismiss(mut self, failure: Option<String>) {
        for member in &mut self.members {
            // Who does not hear it finds the connection closed.
            let _ = member.sender.send(&match &failure {
                None => ToMember::Over,
                Some(reason) => ToMember::GaveUp(reason.clone()),
            });
        }
    }
}

impl Member {
    pub(super) fn threads(&self) -> Range<usize> {
        self.threads.clone()
    }

    fn is_ready(&mut self) -> Result<bool, TeamError> {
        let who = || self.name.clone();
        let Some(receiver) = &mut self.receiver else {
            return Err(TeamError::Unable {
                who: who(),
                reason: "a thread does not end".to_owned(),
            });
        };
        match receiver.receive(LOOK_EVERY) {
            Ok(Some(ToLeader::Ready)) => Ok(true),
            Ok(Some(ToLeader::Unable(reason))) => Err(TeamError::Unable { who: who(), reason }),
            Ok(Some(_)) => Err(TeamError::OutOfTurn { who: who() }),
            Ok(None) => Ok(false),
            Err(error) => Err(TeamError::Gone { who: who(), error }),
        }
    }

    /// Passes on what its threads have to tell from now on, until the last has ended.
    pub(super) fn relay(&mut self, news: mpsc::Sender<(usize, News)>) -> io::Result<()> {
        let Some(receiver) = self.receiver.take() else { return Ok(()) };
        let (threads, name) = (self.threads.clone(), self.name.clone());
        let builder = std::thread::Builder::new().name(format!("worker-{}", self.number));
        self.relay = Some(builder.spawn(move || relay(receiver, threads, &name, &news))?);
        Ok(())
    }

    /// Gives its threads an order. If it cannot be told, the relay finds the connection closed.
    pub(super) fn order(&mut self, order: &Order) {
        let _ = self.sender.send(&ToMember::Order(order.clone()));
    }

    /// Takes the connection back from the relay; only if all threads have ended, or it would wait.
    pub(super) fn settle(&mut self) {
        if let Some(relay) = self.relay.take() {
            self.receiver = relay.join().unwrap_or_default();
        }
    }
}

fn relay(
    mut receiver: Receiver,
    threads: Range<usize>,
    name: &str,
    news: &mpsc::Sender<(usize, News)>,
) -> Option<Receiver> {
    // Fails only if nobody wants to know any more.
    let tell = |thread, what| _ = news.send((thread, what));
    let mut left: Vec<usize> = threads.clone().collect();
    let who = name.to_owned();
    while !left.is_empty() {
        let error = match receiver.receive(SILENCE_MAX) {
            Ok(Some(ToLeader::News { thread, news })) if threads.contains(&thread) => {
                if matches!(news, News::Ended(_)) {
                    left.retain(|one| *one != thread);
                }
                tell(thread, news);
                continue;
            }
            Ok(Some(ToLeader::Unable(reason))) => TeamError::Unable { who, reason },
            Ok(Some(_)) => TeamError::OutOfTurn { who },
            Ok(None) => TeamError::Silent { who },
            Err(error) => TeamError::Gone { who, error },
        };
        tell(threads.start, News::Failed(error.to_string()));
        left.into_iter().for_each(|thread| tell(thread, News::Ended(Box::default())));
        return None;
    }
    Some(receiver)
}

/// What the leader has to tell the user.
pub(crate) enum Note {
    Info(String),
    /// To be shown in any case.
    Warning(String),
}

/// How far a member's clock is ahead (us), and half of the time that asking took.
struct Skew {
    ahead_us: i64,
    uncertainty_us: u64,
}

impl Skew {
    /// Asks some times: the quickest answer is the best one.
    fn measure(sender: &mut Sender, receiver: &mut Receiver, who: &str) -> Result<Self, TeamError> {
        let gone = |error| TeamError::Gone { who: who.to_owned(), error };
        let mut best: Option<Self> = None;
        for _ in 0..CLOCK_PROBES {
            let asked = unix_us();
            sender.send(&ToMember::TellTime).map_err(gone)?;
            let theirs = match receiver.receive(HANDSHAKE_MAX).map_err(gone)? {
                Some(ToLeader::Time { unix_us }) => unix_us,
                Some(_) => return Err(TeamError::OutOfTurn { who: who.to_owned() }),
                None => return Err(TeamError::Silent { who: who.to_owned() }),
            };
            let uncertainty_us = unix_us().saturating_sub(asked) / 2;
            let ahead_us = theirs.wrapping_sub(asked + uncertainty_us) as i64;
            if best.as_ref().is_none_or(|best| uncertainty_us < best.uncertainty_us) {
                best = Some(Self { ahead_us, uncertainty_us });
            }
        }
        best.ok_or_else(|| TeamError::Silent { who: who.to_owned() })
    }

    fn note(&self, name: &str) -> Note {
        let [ahead, uncertainty] =
            [self.ahead_us as f64, self.uncertainty_us as f64].map(|micros| micros / 1000.0);
        let clock =
            format!("its clock is {ahead:+.3} ms (within {uncertainty:.3} ms) from this one");
        if self.ahead_us.unsigned_abs() > SKEW_US_MAX {
            let harm = "latencies from one host to another are wrong by that much";
            Note::Warning(format!("{name}: {clock}: {harm}"))
        } else {
            Note::Info(format!("{name} is there; {clock}"))
        }
    }
}

fn unix_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64
}

/// Time for all members to come.
const ASSEMBLE_MAX: Duration = Duration::from_secs(60);

/// Time for each word of a handshake.
const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

/// Time to get ready for a run: to plan it, and to find the broker.
const READY_MAX: Duration = Duration::from_secs(60);

/// Members report each second: who says nothing for that long has broken down.
const SILENCE_MAX: Duration = Duration::from_secs(10);

const LOOK_EVERY: Duration = Duration::from_millis(20);

const CLOCK_PROBES: usize = 8;

/// Clocks that are further apart are worth a warning.
const SKEW_US_MAX: u64 = 1_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clocks_that_differ_are_warned_of() {
        for (ahead_us, warns) in [(0, false), (-1_000, false), (1_001, true), (-5_000_000, true)] {
            let note = Skew { ahead_us, uncertainty_us: 40 }.note("worker 2");
            assert_eq!(matches!(note, Note::Warning(_)), warns, "{ahead_us}");
        }
    }
}
