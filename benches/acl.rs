//! What a decision by the access rules costs, with few and with a hundred thousand of them: by the rules,
//! and remembered.

mod support;

use std::{hint::black_box, path::Path};

use criterion::{BenchmarkId, Criterion};
use ringmq::{
    auth::{
        Identity,
        acl::{Acl, Question, Subject, Verdicts},
    },
    base::QoS,
    config::AclRules,
    topic::TopicName,
};

fn main() {
    let mut criterion = support::criterion();
    for (kind, rule) in KINDS {
        bench_decisions(&mut criterion, kind, rule);
    }
    bench_remembered(&mut criterion);
    criterion.final_summary();
}

const SIZES: [u32; 3] = [10, 1_000, 100_000];

/// How a rule is made from the number of a device.
type RuleText = fn(u32) -> String;

const KINDS: [(&str, RuleText); 3] = [
    ("users", |n| format!("user u{n}\ntopic readwrite site/{:03}/device/{n:07}/#\n", n % 200)),
    ("topics", |n| format!("pattern readwrite site/{:03}/device/{n:07}/#\n", n % 200)),
    ("patterns", |n| format!("pattern readwrite site/{n:07}/%u/#\n")),
];

fn acl(size: u32, rule: RuleText) -> Acl {
    let text: String = (0..size).map(rule).collect();
    let rules = AclRules::parse(Path::new("rules"), &text, false).expect("rules");
    Acl::new(rules)
}

fn ann() -> Identity {
    Identity { user: Some("u7".into()), ..Identity::default() }
}

fn bench_decisions(criterion: &mut Criterion, kind: &str, rule: RuleText) {
    let identity = ann();
    let subject = Subject { client: "client-7", identity: &identity };
    let mut group = criterion.benchmark_group(format!("decide/{kind}"));
    for size in SIZES {
        let acl = acl(size, rule);
        let text = if kind == "patterns" {
            "site/0000007/u7/temp"
        } else {
            "site/007/device/0000007/temp"
        };
        let topic = TopicName::parse(text).expect("a topic");
        assert!(acl.publish(subject, topic, QoS::AtMostOnce, false).allowed);
        group.bench_function(BenchmarkId::from_parameter(size), |bencher| {
            bencher.iter(|| acl.publish(subject, black_box(topic), QoS::AtMostOnce, false).allowed);
        });
        group.bench_function(BenchmarkId::new("subscribe", size), |bencher| {
            bencher.iter(|| acl.is_open(subject, black_box(text)));
        });
    }
}

fn bench_remembered(criterion: &mut Criterion) {
    let mut verdicts = Verdicts::default();
    let text = "site/007/device/0000007/temp";
    criterion.bench_function("remembered", |bencher| {
        bencher.iter(|| verdicts.answer(Question::Receive, black_box(text), black_box(7), || true));
    });
}
