//! The threads of this process: started, ordered and joined together, whoever conducts them.

use std::{io, ops::Range, sync::Arc, sync::mpsc, thread::JoinHandle};

use super::{
    channel::{OrderSender, order_channel},
    orders::{News, Order},
    sockets::Route,
    thread::{self, ThreadSetup},
};
use crate::{
    client::Setup, clock::Clock, pace::Settled, plan::Plan, scenario::Scenario,
    transport::TransportSetup,
};

/// What a run needs.
pub(crate) struct LoadSetup {
    /// With one QoS and one pace.
    pub(crate) scenario: Arc<Scenario>,
    pub(crate) plan: Arc<Plan>,
    pub(crate) client: Setup,
    /// The same for clients whose sessions outlive their connections.
    pub(crate) kept: Setup,
    pub(crate) route: Route,
    pub(crate) transport: TransportSetup,
    pub(crate) clock: Clock,
    /// The CPU of each thread of this process; any if not given.
    pub(crate) threads: Vec<Option<usize>>,
    /// The threads never sleep.
    pub(crate) spins: bool,
    /// Number of the first of them among the threads of all workers, and how many those are.
    pub(crate) first_thread: usize,
    pub(crate) all_threads: usize,
    pub(crate) tag: u16,
    pub(crate) payload: Option<Arc<[u8]>>,
    pub(crate) broker_pid: Option<u32>,
}

impl LoadSetup {
    /// The numbers of this process's threads.
    pub(super) fn own_threads(&self) -> Range<usize> {
        self.first_thread..self.first_thread + self.threads.len()
    }
}

/// The running threads of this process.
pub(super) struct Crew {
    senders: Vec<OrderSender>,
    handles: Vec<JoinHandle<()>>,
    first: usize,
}

impl Crew {
    /// Starts the threads. What they have to tell goes to `news`.
    pub(super) fn start(setup: &LoadSetup, news: &mpsc::Sender<(usize, News)>) -> io::Result<Self> {
        let channels: Vec<_> =
            setup.threads.iter().map(|_| order_channel()).collect::<Result<_, _>>()?;
        let (senders, receivers): (Vec<_>, Vec<_>) = channels.into_iter().unzip();
        let settled = Settled::new(setup.scenario.publishers);
        let client = Arc::new(setup.client.clone());
        let kept = Arc::new(setup.kept.clone());
        let route = Arc::new(setup.route.clone());
        let mut crew = Self { senders, handles: Vec::new(), first: setup.first_thread };
        let numbers = setup.own_threads();
        for ((number, orders), cpu) in numbers.zip(receivers).zip(&setup.threads) {
            let thread = ThreadSetup {
                number,
                threads: setup.all_threads,
                first: setup.first_thread,
                siblings: crew.senders.clone(),
                orders,
                news: news.clone(),
                cpu: *cpu,
                spins: setup.spins,
                clock: setup.clock,
                plan: setup.plan.clone(),
                scenario: setup.scenario.clone(),
                client: client.clone(),
                kept: kept.clone(),
                route: route.clone(),
                transport: setup.transport.clone(),
                settled: settled.clone(),
                tag: setup.tag,
                payload: setup.payload.clone(),
            };
            let builder = std::thread::Builder::new().name(format!("loadgen-{number}"));
            let last_word = LastWord { number, news: news.clone() };
            crew.handles.push(builder.spawn(move || {
                let _last_word = last_word;
                thread::run(thread);
            })?);
        }
        Ok(crew)
    }

    /// Gives all of them an order.
    pub(super) fn order(&self, order: &Order) {
        self.senders.iter().for_each(|thread| thread.send(order.clone()));
    }

    /// Waits for the threads, named by their numbers, that have told their end.
    pub(super) fn join(&mut self, has_ended: impl Fn(usize) -> bool) {
        for (number, handle) in (self.first..).zip(self.handles.drain(..)) {
            if has_ended(number) {
                // A thread that panicked has said so on standard error.
                let _ = handle.join();
            }
        }
    }
}

/// Tells the end of a thread that panics: everybody would wait for it.
struct LastWord {
    number: usize,
    news: mpsc::Sender<(usize, News)>,
}

impl Drop for LastWord {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // The receiver is gone only if nobody wants to know any more.
            let failure = "a thread of the load panicked".to_owned();
            let _ = self.news.send((self.number, News::Failed(failure)));
            let _ = self.news.send((self.number, News::Ended(Box::default())));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_that_panics_has_ended() {
        let (sender, news) = mpsc::channel();
        for panics in [false, true] {
            let last_word = LastWord { number: 7, news: sender.clone() };
            let thread = std::thread::spawn(move || {
                let _last_word = last_word;
                assert!(!panics, "on purpose");
            });
            assert_eq!(thread.join().is_err(), panics);
        }
        drop(sender);
        let all: Vec<_> = news.iter().collect();
        assert!(matches!(all[..], [(7, News::Failed(_)), (7, News::Ended(_))]));
    }
}
