//! Which shard a client or topic lives on. Logs are laid out by it, so it never changes: neither with the
//! processor nor with the version of a library.

use super::ShardId;

/// The shard, out of so many, that the client with this id or the topic of this name lives on. Who does not
/// know the seed cannot choose texts that all live on one shard.
pub fn home_of(seed: u64, shards: u16, text: &str) -> ShardId {
    let mut state = spread(seed ^ text.len() as u64);
    for chunk in text.as_bytes().chunks(8) {
        let mut word = [0; 8];
        word[..chunk.len()].copy_from_slice(chunk);
        state = spread(state ^ u64::from_le_bytes(word));
    }
    ShardId(((u128::from(state) * u128::from(shards)) >> 64) as u16)
}

/// Spreads each bit over all of the result: a step of SplitMix64.
const fn spread(number: u64) -> u64 {
    let number = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_stay_the_same_for_ever() {
        let homes = ["", "a", "client-1", "sensors/7/temperature", "é"];
        let homes = homes.map(|text| home_of(0x1234_5678_9ABC_DEF0, 128, text).0);
        assert_eq!(homes, HOMES);
    }

    const HOMES: [u16; 5] = [11, 93, 61, 112, 51];

    #[test]
    fn every_shard_gets_its_part() {
        for seed in [0, 1, u64::MAX] {
            let mut counts = [0; 5];
            for client in 0..10_000 {
                counts[home_of(seed, 5, &format!("client-{client}")).index()] += 1;
            }
            assert!(counts.iter().all(|count| (1_800..2_200).contains(count)), "{counts:?}");
        }
        assert_eq!(home_of(7, 1, "any"), ShardId(0));
    }
}
