//! A page for Prometheus: what the runs of this command have done so far, updated each second.
//!
//! A thread of its own serves it, one request after the other, on std's listener: one page that only
//! changes once a second needs no HTTP library. Size and time of a request are bounded.

use std::{
    fmt::{self, Write as _},
    io::{self, Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use crate::{
    measure::Progress,
    record::Latency,
    result::{Counts, Second},
};

/// The served page.
pub(crate) struct Prometheus {
    page: Arc<Mutex<String>>,
    runs: Vec<Run>,
}

/// The page cannot be served.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen at {address} for Prometheus: {source}")]
pub(crate) struct PrometheusError {
    address: SocketAddr,
    source: io::Error,
}

/// One run so far.
#[derive(Default)]
struct Run {
    /// As they stand between braces.
    labels: String,
    connected: u64,
    sent: u64,
    delivered: u64,
    latency: Latency,
    latency_sum_secs: f64,
    generator_cpu_secs: f64,
    /// CPU seconds and bytes, if the broker's process is known.
    broker: Option<(f64, u64)>,
    /// Known at the end.
    counts: Counts,
    is_over: bool,
}

impl Prometheus {
    /// Serves an empty page from now on, as long as the process lives.
    pub(crate) fn serve(address: SocketAddr) -> Result<Self, PrometheusError> {
        let failed = |source| PrometheusError { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        let page = Arc::new(Mutex::new(String::new()));
        let served = page.clone();
        let builder = std::thread::Builder::new().name("prometheus".to_owned());
        let serve = move || {
            for socket in listener.incoming() {
                match socket {
                    // A reader that gives up is no concern of the measurement.
                    Ok(socket) => _ = answer(socket, &served),
                    // Out of descriptors, perhaps: there may be some again soon.
                    Err(_) => std::thread::sleep(RETRY_AFTER),
                }
            }
        };
        builder.spawn(serve).map_err(failed)?;
        Ok(Self { page, runs: Vec::new() })
    }

    /// Shows what is new.
    pub(crate) fn take(&mut self, progress: &Progress<'_>) {
        match progress {
            Progress::Run(scenario) => {
                let (name, qos) = (escaped(&scenario.name), scenario.qos().bits());
                let labels =
                    format!("scenario=\"{name}\",qos=\"{qos}\",run=\"{}\"", self.runs.len() + 1);
                self.runs.push(Run { labels, ..Run::default() });
            }
            Progress::Second(second, latency) | Progress::Rest(second, latency) => {
                if let Some(run) = self.runs.last_mut() {
                    run.add(second, latency);
                }
            }
            Progress::Result(result) => {
                if let Some(run) = self.runs.last_mut() {
                    (run.counts, run.is_over) = (result.whole_run, true);
                    run.connected = 0;
                }
            }
            Progress::Note(_) | Progress::Warning(_) | Progress::Found(_) => return,
        }
        *self.page.lock().unwrap_or_else(PoisonError::into_inner) = Page(&self.runs).to_string();
    }
}

impl Run {
    fn add(&mut self, second: &Second, latency: &Latency) {
        self.connected = second.connected;
        self.sent += second.sent;
        self.delivered += second.delivered;
        self.generator_cpu_secs += second.generator_cpu;
        if let (Some(cpu), Some(rss_bytes)) = (second.broker_cpu, second.broker_rss_bytes) {
            self.broker = Some((self.broker.unwrap_or_default().0 + cpu, rss_bytes));
        }
        let histogram = latency.histogram();
        self.latency_sum_secs += histogram.mean() * histogram.len() as f64 / 1e6;
        self.latency.merge(latency);
    }
}

/// How a family's value is found.
type Value = fn(&Run) -> f64;

/// All runs in Prometheus' text form, version 0.0.4.
struct Page<'a>(&'a [Run]);

impl fmt::Display for Page<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counters: [(&str, &str, Value); 10] = [
            ("messages_sent", "Messages sent.", |run| run.sent as f64),
            ("messages_delivered", "Deliveries, each counted once.", |run| run.delivered as f64),
            ("lost", "Deliveries missing at the end of the run.", |run| run.counts.lost as f64),
            ("duplicates", "Repeated deliveries, as of the end of the run.", |run| {
                run.counts.duplicates as f64
            }),
            ("reordered", "Deliveries out of order, as of the end of the run.", |run| {
                run.counts.reordered as f64
            }),
            ("strays", "Deliveries nobody asked for, as of the end of the run.", |run| {
                run.counts.strays as f64
            }),
            ("refused", "Publications that the broker refused, as of the end of the run.", |run| {
                run.counts.refused as f64
            }),
            (
                "unacknowledged",
                "Publications never acknowledged, as of the end of the run.",
                |run| run.counts.unacknowledged as f64,
            ),
            ("runs_completed", "1 once the run is over.", |run| f64::from(u8::from(run.is_over))),
            ("generator_cpu_seconds", "CPU time of the load generator.", |run| {
                run.generator_cpu_secs
            }),
        ];
        for (name, help, value) in counters {
            let values = self.0.iter().map(|run| (run, value(run)));
            write_family(f, &format!("{name}_total"), "counter", help, values)?;
        }
        let connections = self.0.iter().map(|run| (run, run.connected as f64));
        let help = "Clients that are connected and, if they asked for it, subscribed.";
        write_family(f, "connections", "gauge", help, connections)?;
        self.write_latency(f)?;
        let broker = || self.0.iter().filter_map(|run| run.broker.map(|broker| (run, broker)));
        if broker().next().is_some() {
            let cpu = broker().map(|(run, (cpu_secs, _))| (run, cpu_secs));
            let help = "CPU time of the broker's process.";
            write_family(f, "broker_cpu_seconds_total", "counter", help, cpu)?;
            let memory = broker().map(|(run, (_, bytes))| (run, bytes as f64));
            let help = "Memory of the broker's process in RAM.";
            write_family(f, "broker_resident_memory_bytes", "gauge", help, memory)?;
        }
        Ok(())
    }
}

impl Page<'_> {
    fn write_latency(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = "loadgen_delivery_latency_seconds";
        writeln!(f, "# HELP {name} From the time a message was meant to be sent to its delivery.")?;
        writeln!(f, "# TYPE {name} histogram")?;
        for Run { labels, latency, latency_sum_secs, .. } in self.0 {
            let histogram = latency.histogram();
            for micros in BUCKETS_US {
                let (le, count) = (micros as f64 / 1e6, histogram.count_between(0, micros));
                writeln!(f, "{name}_bucket{{{labels},le=\"{le}\"}} {count}")?;
            }
            let count = histogram.len();
            writeln!(f, "{name}_bucket{{{labels},le=\"+Inf\"}} {count}")?;
            writeln!(f, "{name}_sum{{{labels}}} {latency_sum_secs}")?;
            writeln!(f, "{name}_count{{{labels}}} {count}")?;
        }
        Ok(())
    }
}

fn write_family<'a>(
    f: &mut fmt::Formatter<'_>,
    name: &str,
    kind: &str,
    help: &str,
    values: impl Iterator<Item = (&'a Run, f64)>,
) -> fmt::Result {
    writeln!(f, "# HELP loadgen_{name} {help}")?;
    writeln!(f, "# TYPE loadgen_{name} {kind}")?;
    for (run, value) in values {
        writeln!(f, "loadgen_{name}{{{}}} {value}", run.labels)?;
    }
    Ok(())
}

/// As a label's value is written.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

/// Reads one request and answers it.
fn answer(mut socket: TcpStream, page: &Mutex<String>) -> io::Result<()> {
    let deadline = Instant::now() + REQUEST_MAX;
    socket.set_write_timeout(Some(REQUEST_MAX))?;
    let (mut request, mut len) = ([0; REQUEST_BYTES_MAX], 0);
    let is_whole = |request: &[u8]| request.windows(4).any(|end| end == b"\r\n\r\n");
    let mut status = "431 Request Header Fields Too Large";
    while len < REQUEST_BYTES_MAX {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        socket.set_read_timeout(Some(left))?;
        match socket.read(&mut request[len..])? {
            0 => return Ok(()),
            more => len += more,
        }
        if is_whole(&request[..len]) {
            status = status_of(&request[..len]);
            break;
        }
    }
    let text = match status {
        OK => page.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        _ => format!("{status}\n"),
    };
    let mut answer = format!("HTTP/1.1 {status}\r\n");
    let length = text.len();
    let _ = write!(
        answer,
        "Content-Type: text/plain; version=0.0.4; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{text}"
    );
    socket.write_all(answer.as_bytes())
}

fn status_of(request: &[u8]) -> &'static str {
    let line = request.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let [method, target, version] = std::array::from_fn(|_| words.next().unwrap_or_default());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    if !version.starts_with(b"HTTP/1.") || words.next().is_some() {
        "400 Bad Request"
    } else if path != b"/metrics" {
        "404 Not Found"
    } else if method != b"GET" {
        "405 Method Not Allowed"
    } else {
        OK
    }
}

const OK: &str = "200 OK";

/// Upper ends of the latency's buckets.
const BUCKETS_US: [u64; 19] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000,
    1_000_000, 2_500_000, 5_000_000, 10_000_000, 30_000_000, 60_000_000,
];

const REQUEST_BYTES_MAX: usize = 8 * 1024;
const REQUEST_MAX: Duration = Duration::from_secs(2);
const RETRY_AFTER: Duration = Duration::from_millis(100);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_page_is_served() {
        for (request, status) in [
            (&b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n"[..], "200"),
            (b"GET /metrics?x=1 HTTP/1.0\r\n\r\n", "200"),
            (b"GET / HTTP/1.1\r\n\r\n", "404"),
            (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
            (b"GET /metrics\r\n\r\n", "400"),
            (b"GET /metrics HTTP/1.1 x\r\n\r\n", "400"),
            (b"\r\n\r\n", "400"),
            (b"\xFF\x00 \r\n\r\n", "400"),
        ] {
            assert_eq!(&status_of(request)[..3], status);
        }
    }

    #[test]
    fn buckets_are_cumulative_and_end_with_all() {
        let mut run = Run { labels: "run=\"1\"".to_owned(), ..Run::default() };
        for micros in [40, 50, 51, 900_000, 3_000_000_000] {
            let mut latency = Latency::default();
            latency.add(0, micros * 1000);
            run.add(&Second { sent: 2, ..Second::default() }, &latency);
        }
        let page = Page(&[run]).to_string();
        for line in [
            "loadgen_messages_sent_total{run=\"1\"} 10",
            "loadgen_delivery_latency_seconds_bucket{run=\"1\",le=\"0.00005\"} 2",
            "loadgen_delivery_latency_seconds_bucket{run=\"1\",le=\"0.0001\"} 3",
            "loadgen_delivery_latency_seconds_bucket{run=\"1\",le=\"1\"} 4",
            "loadgen_delivery_latency_seconds_bucket{run=\"1\",le=\"60\"} 4",
            "loadgen_delivery_latency_seconds_bucket{run=\"1\",le=\"+Inf\"} 5",
            "loadgen_delivery_latency_seconds_count{run=\"1\"} 5",
        ] {
            assert!(page.lines().any(|found| found == line), "{line} is not in\n{page}");
        }
        assert_eq!(escaped("a\\b\"c\nd"), "a\\\\b\\\"c\\nd");
    }
}
