//! The extensions of a simulation, drawn from its seed: each seed has few of them, and what it has
//! is used much.

use ringmq::{
    base::QoS,
    config::Policy,
    topic::{RewriteRule, RewriteScope},
};

use crate::{
    plan::{Kind, Plan},
    random::Random,
    scram,
};

/// Which extensions a simulation is about.
#[derive(Clone, Copy, Default)]
pub(crate) struct Features {
    /// Some topics are published to through `$delayed/`.
    pub(crate) delays: bool,
    pub(crate) exclusive: bool,
    pub(crate) requests: bool,
    /// QoS of what each new session gets of itself.
    pub(crate) automatic: Option<QoS>,
    /// What the rewrite rule is for.
    pub(crate) rewrite: Option<RewriteScope>,
    pub(crate) authenticates: bool,
}

impl Features {
    pub(crate) fn new(random: &mut Random) -> Self {
        let qos = random.pick(&[QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce]);
        let scope =
            random.pick(&[RewriteScope::All, RewriteScope::Publish, RewriteScope::Subscribe]);
        Self {
            delays: random.chance(20),
            exclusive: random.chance(15),
            requests: random.chance(20),
            automatic: random.chance(15).then_some(qos),
            rewrite: random.chance(15).then_some(scope),
            authenticates: random.chance(10),
        }
    }

    /// Has the brokers do it.
    pub(crate) fn configure(&self, policy: &mut Policy) {
        if let Some(scope) = self.rewrite {
            let rule = RewriteRule::new(scope, &format!("{OLD}+/#"), "$1/$2");
            policy.rewrite = vec![rule.unwrap()];
        }
        if let Some(qos) = self.automatic {
            let rules = ["a/%c/#", COMMON].map(|filter| format!("{filter} => {}", qos.bits()));
            policy.auto_subscribe = rules.iter().map(|rule| rule.parse().unwrap()).collect();
        }
        if self.authenticates {
            policy.credentials = scram::credentials();
        }
    }

    /// Gives the clients what there is to do.
    pub(crate) fn equip(&self, random: &mut Random, plan: &mut Plan) {
        if self.delays {
            // To the first, clients publish when nobody is to be found.
            for topic in plan.topics.iter_mut().skip(1) {
                topic.delay_secs = random.chance(40).then(|| random.pick(&[0, 1, 1, 2, 5]));
            }
        }
        if self.exclusive {
            self.add_filters(random, plan, &EXCLUSIVE, Kind::Exclusive);
        }
        if self.requests {
            self.add_filters(random, plan, &REQUESTS, Kind::Request);
            plan.asks = ASKS.iter().map(|text| plan.add_topic((*text).into(), None)).collect();
        }
        if self.automatic.is_some() {
            self.add_automatic(random, plan);
        }
        if self.authenticates {
            for profile in plan.clients.iter_mut().filter(|profile| profile.is_v5()) {
                profile.authenticates = random.chance(50);
            }
        }
    }

    fn add_filters(&self, random: &mut Random, plan: &mut Plan, texts: &[&str], kind: Kind) {
        for text in texts {
            let position = plan.add_filter(text);
            debug_assert_eq!(plan.filters[position].kind, kind);
            for profile in plan.clients.iter_mut().skip(plan.watchers) {
                if !profile.is_shared && random.chance(50) {
                    profile.filters.push(position);
                    if kind == Kind::Exclusive {
                        // The book does not see when the broker reads on.
                        profile.keep_alive_secs = 0;
                    } else {
                        profile.asks += random.below(10);
                    }
                }
            }
        }
    }

    /// A part of the topics for each client, and a retained message for all.
    fn add_automatic(&self, random: &mut Random, plan: &mut Plan) {
        let common = plan.add_filter(COMMON);
        plan.automatic = vec![common];
        let news = plan.add_topic(COMMON.into(), Some(random.pick(&ALL_QOS)));
        let publisher = random.range(plan.watchers, plan.clients.len() - 1);
        plan.clients[publisher].topics.push(news);
        for index in 0..plan.clients.len() {
            let name = plan.clients[index].name.clone();
            let own = plan.add_filter(&format!("a/{name}/#"));
            plan.clients[index].automatic = vec![own, common];
            let topic = plan.add_topic(format!("a/{name}/0"), None);
            for profile in plan.clients.iter_mut().skip(plan.watchers) {
                if random.chance(20) {
                    profile.topics.push(topic);
                }
            }
        }
        for profile in plan.clients.iter_mut().skip(plan.watchers) {
            if !profile.topics.is_empty() {
                profile.publishes = profile.publishes.max(10);
            }
        }
    }
}

/// What the rewrite rule takes away.
pub(crate) const OLD: &str = "old/";
/// What all clients get of themselves.
const COMMON: &str = "a/all";
const EXCLUSIVE: [&str; 3] = ["$exclusive/t/#", "$exclusive/s/+", "$exclusive/u/x/0"];
const REQUESTS: [&str; 3] = ["$request/r/#", "$request/r/+", "$request/r/7"];
/// Registered filters, and single topics.
const ASKS: [&str; 5] =
    ["$request/r/#", "$request/r/+", "$request/r/7", "$request/r/6", "$request/t/0"];
const ALL_QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];
