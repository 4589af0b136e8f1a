//! Tracing of publications with the real binary: what the log says of each.

mod common;

use std::collections::BTreeMap;

use common::{Broker, RawClient};

const STAGES: [&str; 7] =
    ["turn_us", "match_us", "lane_us", "encode_us", "encode_rest_us", "send_us", "send_rest_us"];

/// The log line of one trace by its fields, in their order.
struct Line {
    text: String,
    json: bool,
}

impl Line {
    /// The value of a field that holds neither space nor comma.
    fn field(&self, name: &str) -> Option<&str> {
        let (before, ends) = if self.json {
            (format!("\"{name}\":"), [',', '}'])
        } else {
            (format!(" {name}="), [' ', '\n'])
        };
        let (_, rest) = self.text.split_once(&before)?;
        Some(rest.split(ends).next().expect("split has a first part").trim_matches('"'))
    }

    #[track_caller]
    fn number(&self, name: &str) -> f64 {
        let value = self.field(name).unwrap_or_else(|| panic!("no {name} in {}", self.text));
        value.parse().unwrap_or_else(|_| panic!("{name} is no number in {}", self.text))
    }

    /// The stages are in order, the total is their sum.
    #[track_caller]
    fn check_stages(&self) {
        let found: Vec<&str> =
            STAGES.into_iter().filter(|name| self.field(name).is_some()).collect();
        let places: Vec<_> = found.iter().map(|name| self.text.find(name)).collect();
        assert!(places.is_sorted(), "{}", self.text);
        let times: Vec<f64> = found.iter().map(|name| self.number(name)).collect();
        assert!(times.iter().all(|us| *us >= 0.0), "{}", self.text);
        assert!(
            (times.iter().sum::<f64>() - self.number("total_us")).abs() < 0.01,
            "{}",
            self.text
        );
        for always in ["turn_us", "match_us", "encode_us", "send_us"] {
            assert!(found.contains(&always), "no {always} in {}", self.text);
        }
    }
}

/// The trace of the publication to that topic on that shard.
fn trace(broker: &Broker, topic: &str, shard: &str, json: bool) -> Line {
    let text = if json {
        let (topic, shard) = (format!("\"topic\":\"{topic}\""), format!("\"shard\":{shard},"));
        broker.wait_for_log(&["\"message\":\"trace\"", &topic, &shard])
    } else {
        broker.wait_for_log(&[
            " trace shard=",
            &format!("shard={shard} "),
            &format!("topic={topic} "),
        ])
    };
    Line { text, json }
}

/// Subscribers of "#", enough for each of two shards to have some in all but one of 2^23 runs.
fn subscribers(broker: &Broker) -> Vec<RawClient> {
    let subscribe = |number: usize| {
        let mut client = RawClient::v311(broker.port, &format!("taker-{number}"));
        client.send("82 ( 0001 '#' 01 )");
        client.expect("90 03 0001 01");
        client
    };
    (0..24).map(subscribe).collect()
}

/// One publication to takers on both shards.
fn both_shards_tell(json: bool) {
    let format = if json { "json" } else { "text" };
    let flags = ["--trace-sample", "1", "--log-format", format];
    let broker = Broker::start_with(2, &flags);
    let mut takers = subscribers(&broker);
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 'a/b' 0001 `hello` )");
    publisher.expect("40 02 0001");
    for taker in &mut takers {
        taker.expect("32 ( 'a/b' 0001 `hello` )");
    }
    let lines = ["0", "1"].map(|shard| trace(&broker, "a/b", shard, json));
    let mut ids = BTreeMap::new();
    for line in &lines {
        line.check_stages();
        assert_eq!(line.field("client"), Some("publisher"), "{}", line.text);
        assert_eq!([line.number("qos"), line.number("payload_bytes")], [1.0, 5.0], "{}", line.text);
        assert_eq!(line.number("sent"), line.number("takers"), "{}", line.text);
        *ids.entry(line.field("id").expect("an id")).or_insert(0) += 1;
    }
    assert_eq!(ids.into_values().collect::<Vec<_>>(), [2], "one publication has one id");
    assert_eq!(lines.iter().map(|line| line.number("takers")).sum::<f64>(), 24.0);
    let from_afar: Vec<bool> = lines.iter().map(|line| line.field("lane_us").is_some()).collect();
    let forwarded: Vec<bool> = lines.iter().map(|line| line.field("forwarded").is_some()).collect();
    assert!(from_afar == [true, false] || from_afar == [false, true], "{from_afar:?}");
    assert_eq!(forwarded, [from_afar[1], from_afar[0]]);
}

#[test]
fn takers_on_both_shards_make_a_line_each() {
    both_shards_tell(false);
}

#[test]
fn json_has_the_same_as_fields() {
    both_shards_tell(true);
}

#[test]
fn a_taker_that_is_away_is_counted_as_queued() {
    let broker = Broker::start_with(1, &["--trace-sample", "1"]);
    let (mut away, _) = RawClient::v311_resume(broker.port, "away");
    away.send("82 ( 0001 'a' 01 )");
    away.expect("90 03 0001 01");
    away.send("e0 00");
    away.expect_closed();
    let mut publisher = RawClient::v311(broker.port, "publisher");
    publisher.send("32 ( 'a' 0001 `hi` )");
    publisher.expect("40 02 0001");
    let line = trace(&broker, "a", "0", false);
    assert_eq!(["takers", "queued", "sent"].map(|name| line.number(name)), [1.0, 1.0, 0.0]);
    assert_eq!((line.field("encode_us"), line.field("total_us")), (None, None), "{}", line.text);
}

#[test]
fn one_in_n_is_traced_and_the_end_sums_up() {
    let mut broker = Broker::start_with(1, &["--trace-sample", "4"]);
    let mut client = RawClient::v311(broker.port, "both");
    client.send("82 ( 0001 '#' 00 )");
    client.expect("90 03 0001 00");
    for number in 0..9 {
        let packet = format!("30 ( 'n/{number}' `x` )");
        client.send(&packet);
        client.expect(&packet);
    }
    broker.signal("TERM");
    broker.wait_for_exit();
    let total = broker.wait_for_log(&["trace summary", "stage=total"]);
    let total = Line { text: total, json: false };
    assert_eq!(total.number("count"), 3.0);
    let times = ["p50_us", "p99_us", "max_us"].map(|name| total.number(name));
    assert!(times.is_sorted() && times[0] > 0.0, "{}", total.text);
    let lines = broker.log_lines();
    let topics: Vec<_> = lines
        .iter()
        .filter(|line| line.contains(" trace shard="))
        .filter_map(|line| line.split_once(" topic=")?.1.split(' ').next())
        .collect();
    assert_eq!(topics, ["n/0", "n/4", "n/8"]);
}

#[test]
fn nothing_is_traced_by_default() {
    let mut broker = Broker::start_with(1, &[]);
    let mut client = RawClient::v311(broker.port, "publisher");
    client.send("32 ( 'a' 0001 `hi` )");
    client.expect("40 02 0001");
    broker.signal("TERM");
    broker.wait_for_exit();
    broker.wait_for_log(&[" stopped"]);
    assert!(!broker.log_lines().iter().any(|line| line.contains(" trace")));
}
