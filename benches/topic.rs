//! What a publication costs in the index, and a retained message in its store,
//! with few and with millions of neighbours. Topics are drawn at random: from all
//! that there are, so that large stores pay for their cache misses, and (`hot`) from
//! a thousand, which tells the work from the misses.

mod support;

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion};
use ringmq::{
    base::{SessionKey, ShardId},
    topic::{
        Index, Matches, Member, OfTopic, Retained, Strategies, Strategy, SubscriptionOptions,
        TopicFilter, TopicName,
    },
};

fn main() {
    let mut criterion = support::criterion();
    bench_index(&mut criterion);
    bench_strategies(&mut criterion);
    bench_retained(&mut criterion);
    criterion.final_summary();
}

const SIZES: [u32; 4] = [10, 1_000, 10_000, 1_000_000];
/// So many that those of a large store do not stay in a core's own cache.
const TOPICS_DRAWN: usize = 1 << 18;

/// Topics that are published to again and again, among however many.
const HOT: u32 = 1_000;

/// How a filter and a topic that it matches are made from the number of a device.
struct Kind {
    name: &'static str,
    filter: fn(u32) -> String,
    topic: fn(u32) -> String,
}

const KINDS: [Kind; 6] = [
    Kind { name: "exact", filter: state_topic, topic: state_topic },
    Kind {
        name: "plus",
        filter: |n| format!("devices/+/{n:07}/state"),
        topic: |n| format!("devices/eu/{n:07}/state"),
    },
    Kind {
        name: "hash",
        filter: |n| format!("site/{n:07}/#"),
        topic: |n| format!("site/{n:07}/door/open"),
    },
    Kind {
        name: "deep_plus",
        filter: |n| format!("site/{:03}/device/{n:07}/+", n % 200),
        topic: device_topic,
    },
    Kind {
        name: "deep_hash",
        filter: |n| format!("site/{:03}/device/{n:07}/#", n % 200),
        topic: device_topic,
    },
    Kind {
        name: "shared",
        filter: |n| format!("$share/workers/{}", device_topic(n)),
        topic: device_topic,
    },
];

fn state_topic(n: u32) -> String {
    format!("devices/{n:07}/state")
}

fn device_topic(n: u32) -> String {
    format!("site/{:03}/device/{n:07}/temp", n % 200)
}

/// Topics of random devices, of `of` that are spread over all below `size`.
fn drawn(size: u32, of: u32, topic: fn(u32) -> String) -> Vec<String> {
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 16) as u32 % of
    };
    (0..TOPICS_DRAWN).map(|_| topic(next() * (size / of))).collect()
}

fn name(text: &str) -> TopicName<'_> {
    TopicName::parse(text).expect("a topic")
}

fn filter(text: &str) -> TopicFilter {
    TopicFilter::parse(text).expect("a filter")
}

fn index_of(size: u32, text: fn(u32) -> String) -> Index {
    let mut index = Index::new(1);
    for slot in 0..size {
        let filter = filter(&text(slot));
        let session = SessionKey { slot, generation: 0 };
        let options = SubscriptionOptions::default();
        if filter.share_name().is_some() {
            let member = Member { shard: ShardId(1), session };
            index.join(&filter, member, u64::from(slot), options, true);
        } else {
            index.subscribe(&filter, session, options);
        }
    }
    index
}

fn bench_index(criterion: &mut Criterion) {
    for kind in KINDS {
        let mut group = criterion.benchmark_group(format!("match/{}", kind.name));
        for size in SIZES {
            // Made when this benchmark is asked for: millions of filters take seconds.
            let mut made = None;
            for (set, of) in [("all", size), ("hot", size.min(HOT))] {
                let texts = drawn(size, of, kind.topic);
                let topics: Vec<_> = texts.iter().map(|text| name(text)).collect();
                let (mut out, mut at) = (Matches::default(), 0);
                group.bench_function(BenchmarkId::new(set, size), |bencher| {
                    let index = made.get_or_insert_with(|| index_of(size, kind.filter));
                    index.matches(topics[at], || 0, &mut out);
                    assert_eq!(out.local.len() + out.shared.len(), 1);
                    bencher.iter(|| {
                        at = (at + 1) % TOPICS_DRAWN;
                        index.matches(topics[at], || 0, &mut out);
                        black_box(out.local.len() + out.shared.len())
                    });
                });
            }
        }
    }
}

/// The choice of one of a thousand members.
fn bench_strategies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("share/of_1000");
    for strategy in Strategy::ALL {
        let strategies = Strategies { default: strategy, by_prefix: Vec::new() };
        let mut index = Index::with_strategies(1, ShardId(0), strategies);
        let filter = filter("$share/workers/job/+");
        for slot in 0..1000 {
            let session = SessionKey { slot, generation: 0 };
            let member = Member { shard: ShardId(slot as u16 % 4), session };
            index.join(&filter, member, u64::from(slot), SubscriptionOptions::default(), true);
        }
        let (mut out, mut publisher) = (Matches::default(), 0);
        group.bench_function(strategy.name(), |bencher| {
            bencher.iter(|| {
                publisher += 1;
                index.matches(name("job/x"), || publisher, &mut out);
                black_box(out.shared.len())
            });
        });
    }
}

/// What stands for a retained message.
struct Kept(String, u32);

impl OfTopic for Kept {
    fn topic(&self) -> &str {
        &self.0
    }
}

fn bench_retained(criterion: &mut Criterion) {
    for size in SIZES {
        let mut retained = Retained::new(1);
        for n in 0..size {
            retained.set(Kept(device_topic(n), n));
        }
        let texts = drawn(size, size, device_topic);
        let mut at = 0;
        criterion.bench_function(&format!("retained/replace/{size}"), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % TOPICS_DRAWN;
                retained.set(Kept(texts[at].clone(), 7))
            });
        });
        criterion.bench_function(&format!("retained/remove_and_add/{size}"), |bencher| {
            bencher.iter(|| {
                at = (at + 1) % TOPICS_DRAWN;
                retained.remove(name(&texts[at]));
                retained.set(Kept(texts[at].clone(), 7))
            });
        });
        let pattern = filter("site/+/device/+/temp");
        criterion.bench_function(&format!("retained/page_of_1000/{size}"), |bencher| {
            bencher.iter(|| {
                let mut sum = 0;
                let take = &mut |_: TopicName<'_>, kept: &Kept| {
                    sum += u64::from(kept.1);
                    true
                };
                let cursor = retained.page(&pattern, None, 1000, take);
                black_box((sum, cursor))
            });
        });
    }
}
