//! What `loadgen run` tells other tools: an HdrHistogram log, and a page for Prometheus.

mod common;

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::TcpStream,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use common::{Broker, Scratch, free_port, spawn, stderr, wait_for};
use hdrhistogram::serialization::interval_log::{IntervalLogIterator, LogEntry};

#[test]
fn the_log_has_every_delivery_in_an_interval_of_a_second() {
    let broker = Broker::start();
    let (log, json) = (Scratch::new("hlog"), Scratch::new("hlog-json"));
    let line = "run p2p --publishers 3 -q 2 --rate 300 --warm 0.5 --secs 2";
    let child = spawn(&broker, &format!("{line} --hlog {log} --json {json}"));
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    let text = std::fs::read(&log.0).unwrap();
    assert!(text.starts_with(b"#[Histogram log format version 1.3]\n"));
    let mut counts: BTreeMap<String, (u64, u32)> = BTreeMap::new();
    let (mut has_start, mut last_start) = (false, 0.0);
    for entry in IntervalLogIterator::new(&text) {
        match entry.unwrap() {
            LogEntry::StartTime(_) | LogEntry::BaseTime(_) => has_start = true,
            LogEntry::Interval(one) => {
                let bytes = BASE64.decode(one.encoded_histogram()).unwrap();
                let histogram: hdrhistogram::Histogram<u64> =
                    hdrhistogram::serialization::Deserializer::new()
                        .deserialize(&mut bytes.as_slice())
                        .unwrap();
                let (count, intervals) = counts.entry(one.tag().unwrap().to_string()).or_default();
                *count += histogram.len();
                *intervals += 1;
                assert_eq!(one.max().to_bits(), (histogram.max() as f64).to_bits());
                if &*one.tag().unwrap() == "delivery" {
                    let start = one.start_timestamp().as_secs_f64();
                    assert!(start >= last_start && one.duration().as_secs_f64() < 1.5);
                    last_start = start;
                }
            }
        }
    }
    assert!(has_start);
    let run = &json.json()["runs"][0];
    assert_eq!(run["whole_run"]["delivered"], counts["delivery"].0);
    assert!((3..=4).contains(&counts["delivery"].1), "{counts:?}");
    for (tag, name) in [("pubrec", "publish_to_pubrec"), ("pubcomp", "publish_to_pubcomp")] {
        assert_eq!(run["latency_us"][name]["count"], counts[tag].0);
        assert_eq!(counts[tag].1, 1);
    }
}

#[test]
fn prometheus_sees_the_run_while_it_goes_on() {
    let broker = Broker::start();
    let port = free_port();
    let line = "run p2p --publishers 3 -q 1 --rate 300 --warm 0 --secs 4";
    let pid = broker.child.id();
    let mut child = spawn(&broker, &format!("{line} --pid {pid} --prometheus 127.0.0.1:{port}"));
    wait_for(&mut child, "2 s  sent");
    let (head, page) = get(port, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("Content-Type: text/plain; version=0.0.4"), "{head}");
    let samples = parse(&page);
    let labels = "{scenario=\"p2p\",qos=\"1\",run=\"1\"}";
    let value = |name: &str| samples[&format!("loadgen_{name}{labels}")];
    assert!((300.0..=1200.0).contains(&value("messages_sent_total")), "{page}");
    let delivered = value("messages_delivered_total");
    assert!((300.0..=1200.0).contains(&delivered), "{page}");
    assert_eq!(value("delivery_latency_seconds_count").to_bits(), delivered.to_bits());
    assert!(value("delivery_latency_seconds_sum") > 0.0);
    assert_eq!(value("connections").to_bits(), 6.0_f64.to_bits());
    assert_eq!(value("lost_total").to_bits(), 0.0_f64.to_bits());
    assert!(value("broker_resident_memory_bytes") > 1e6);
    for (request, status) in [
        ("GET / HTTP/1.1\r\n\r\n", "404"),
        ("PUT /metrics HTTP/1.1\r\n\r\n", "405"),
        ("hello\r\n\r\n", "400"),
        (&format!("GET /metrics HTTP/1.1\r\n{}", "x: y\r\n".repeat(1500)), "431"),
    ] {
        let (head, _) = get(port, request);
        assert_eq!(&head[9..12], status, "{head}");
    }
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_log_or_a_page_that_cannot_be_is_told_before_the_run() {
    let broker = Broker::start();
    let taken = broker.port;
    for (option, text) in [
        ("--hlog /nowhere/x".to_owned(), "cannot write /nowhere/x: "),
        (format!("--prometheus 127.0.0.1:{taken}"), "for Prometheus: "),
        ("--json x --worker 2/2 --leader 127.0.0.1:1".to_owned(), "for worker 1"),
    ] {
        let output = spawn(&broker, &format!("run p2p {option}")).wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(stderr(&output).contains(text), "{}", stderr(&output));
    }
}

fn get(port: u16, request: &str) -> (String, String) {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).unwrap();
    // Too long a request may be answered before its end.
    let _ = socket.write_all(request.as_bytes());
    let mut answer = Vec::new();
    let _ = socket.read_to_end(&mut answer);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("{answer:?}"));
    (format!("{head}\r\n"), body.to_owned())
}

/// The samples of a page in the text form, version 0.0.4, by name and labels. Strict: each family has
/// its HELP and TYPE before it and stands in one piece; buckets grow up to the count.
fn parse(page: &str) -> BTreeMap<String, f64> {
    let mut samples = BTreeMap::new();
    let (mut families, mut family, mut kind) = (Vec::new(), "", "");
    let mut bucket: (String, f64, f64) = Default::default();
    assert!(page.ends_with('\n'));
    for line in page.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            family = help.split_once(' ').expect("a HELP has a text").0;
            assert!(!families.contains(&family), "{family} stands in one piece");
            families.push(family);
            continue;
        }
        if let Some(of) = line.strip_prefix("# TYPE ") {
            let (name, its_kind) = of.split_once(' ').unwrap();
            assert_eq!(name, family);
            kind = its_kind;
            assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
            continue;
        }
        let (series, value) = line.rsplit_once(' ').unwrap();
        let value: f64 = value.parse().unwrap();
        let (name, labels) = series.strip_suffix('}').unwrap().split_once('{').unwrap();
        assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
        let rest = name.strip_prefix(family).expect("samples follow their TYPE");
        let suffixes: &[&str] =
            if kind == "histogram" { &["_bucket", "_sum", "_count"] } else { &[""] };
        assert!(suffixes.contains(&rest), "{line}");
        for label in labels.split(',') {
            let (label, text) = label.split_once('=').unwrap();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
            assert!(text.len() >= 2 && text.starts_with('"') && text.ends_with('"'), "{line}");
        }
        if rest == "_bucket" {
            let (of, le) = labels.split_once(",le=\"").unwrap();
            let le: f64 = le.trim_end_matches('"').parse().unwrap();
            if bucket.0 == of {
                assert!(le > bucket.1 && value >= bucket.2, "{line}");
            }
            bucket = (of.to_owned(), le, value);
        } else if rest == "_count" {
            assert_eq!((bucket.1, bucket.2), (f64::INFINITY, value), "{line}");
        }
        assert!(samples.insert(series.to_owned(), value).is_none(), "{line} comes once");
    }
    samples
}
