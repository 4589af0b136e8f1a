//! Options for several processes that make one load.

use crate::load::{TeamOptions, WORKERS_MAX};

/// Which of several workers this process is.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Several processes or hosts")]
pub(super) struct TeamArgs {
    /// This is worker I of N, which make the load together: all are started with the same options
    ///
    /// Each has the same number of threads and its share of the clients. Worker 1 leads and has the
    /// result. A closed loop (--window) needs each message's publisher and subscribers at one worker, as
    /// with pairs. Latencies from one host to another are as right as the hosts' clocks: keep them in step
    /// (NTP, PTP); worker 1 compares them and warns of more than 1 ms.
    #[arg(long, value_name = "I/N", value_parser = worker, requires = "leader")]
    worker: Option<(u32, u32)>,

    /// Where worker 1 listens for the others, such as 127.0.0.1:7883
    ///
    /// Plain text, and whoever can connect is believed: for this host or a network of your own only.
    #[arg(long, value_name = "HOST:PORT", requires = "worker")]
    leader: Option<String>,
}

impl TeamArgs {
    /// The team, unless this worker is the only one.
    pub(super) fn team(self) -> Option<TeamOptions> {
        let ((worker, workers), leader) = self.worker.zip(self.leader)?;
        (workers > 1).then_some(TeamOptions { worker, workers, leader })
    }
}

fn worker(text: &str) -> Result<(u32, u32), String> {
    let numbers = text
        .split_once('/')
        .and_then(|(own, all)| Some((own.parse::<u32>().ok()?, all.parse::<u32>().ok()?)));
    numbers
        .filter(|(own, all)| (1..=WORKERS_MAX).contains(all) && (1..=*all).contains(own))
        .ok_or_else(|| format!("I/N is needed, such as 1/3, with N up to {WORKERS_MAX}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_is_one_of_all() {
        assert_eq!([worker("1/1"), worker("3/3")], [Ok((1, 1)), Ok((3, 3))]);
        assert_eq!(worker("1024/1024"), Ok((1024, 1024)));
        for text in ["", "1", "0/2", "3/2", "1/0", "1/1025", "-1/2", "1/2/3", "a/b"] {
            assert!(worker(text).is_err(), "{text}");
        }
    }
}
