//! Client identifiers that place the clients on the shards of ringmq as a measurement wants them. Pure
//! arithmetic; to any other broker they are names like others.

use ringmq::base::{ShardId, home_of};

/// How a broker places its clients, and how it is to: what `--homes` says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Homes {
    seed: u64,
    shards: u16,
    /// Subscribers live on other shards than their publisher.
    are_apart: bool,
}

impl Homes {
    /// Reads `SEED/SHARDS/near` or `SEED/SHARDS/apart`, the seed in hexadecimal digits, as the file `meta` of a
    /// data directory has it.
    pub(crate) fn parse(text: &str) -> Result<Self, String> {
        let parse = || {
            let mut parts = text.split('/');
            let seed = u64::from_str_radix(parts.next()?, 16).ok()?;
            let shards = parts.next()?.parse().ok().filter(|shards| *shards > 0)?;
            let are_apart = match parts.next()? {
                "near" => false,
                "apart" => true,
                _ => return None,
            };
            parts.next().is_none().then_some(Self { seed, shards, are_apart })
        };
        parse().ok_or_else(|| "such as 1f2e3d4c5b6a7988/2/apart is needed".to_owned())
    }

    /// Where a publisher is to live: they take turns.
    pub(crate) fn of_publisher(&self, publisher: u32) -> ShardId {
        ShardId((publisher % u32::from(self.shards)) as u16)
    }

    /// Where a subscriber is to live, if publishers have one each or share all: with its publisher, or on the
    /// others in turn.
    pub(crate) fn of_subscriber(&self, subscriber: u32, publishers: u32) -> ShardId {
        let shards = u32::from(self.shards);
        let (turn, publisher) = (subscriber / publishers.max(1), subscriber % publishers.max(1));
        let away = if self.are_apart { 1 + turn % (shards - 1).max(1) } else { 0 };
        ShardId(((publisher % shards + away) % shards) as u16)
    }

    /// A client identifier that lives there and begins with this one.
    pub(crate) fn name(&self, stem: &str, home: ShardId) -> String {
        let lives_there = |name: &String| home_of(self.seed, self.shards, name) == home;
        let mut names = (0_u64..).map(|number| format!("{stem}-{number}"));
        names.find(lives_there).expect("some name lives on each shard")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscribers_live_with_their_publisher_or_not() {
        for shards in [1, 2, 3, 16] {
            let [near, apart] = ["near", "apart"]
                .map(|word| Homes::parse(&format!("0123456789abcdef/{shards}/{word}")).unwrap());
            for publishers in [1, 50] {
                for subscriber in 0..200 {
                    let publisher = near.of_publisher(subscriber % publishers);
                    assert_eq!(near.of_subscriber(subscriber, publishers), publisher);
                    let is_apart = apart.of_subscriber(subscriber, publishers) != publisher;
                    assert_eq!(is_apart, shards > 1);
                }
            }
            let others: Vec<u16> = (0..4).map(|one| apart.of_subscriber(one, 1).0).collect();
            assert!(shards != 3 || others == [1, 2, 1, 2], "{others:?}");
        }
    }

    #[test]
    fn names_live_where_they_are_to() {
        let homes = Homes::parse("1/5/apart").unwrap();
        for shard in (0..5).map(ShardId) {
            assert_eq!(home_of(1, 5, &homes.name("loadgen-s7", shard)), shard);
        }
    }

    #[test]
    fn what_says_no_homes_is_refused() {
        for text in ["", "1", "1/2", "x/2/near", "1/0/near", "1/2/far", "1/2/near/3"] {
            assert!(Homes::parse(text).is_err(), "{text}");
        }
    }
}
