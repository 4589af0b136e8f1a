//! Fuzz targets: functions of bytes that must hold for whatever these are. `cargo test` gives them the
//! corpus and a fixed number of variants (`tests/replay.rs`), `tests/fuzz/run` lets libFuzzer look for
//! inputs that reach further (`src/bin/fuzz.rs`).

mod input;
pub mod memory;
pub mod mutate;
mod scram;
mod seeds;
mod targets;

/// Something to fuzz.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name, its folder below `corpus` and its file below `src/targets`.
    pub name: &'static str,
    /// Panics if something does not hold.
    run: fn(&[u8]),
    /// Inputs to begin with.
    pub seeds: fn() -> Vec<Vec<u8>>,
    /// Variants that `cargo test` tries: about two seconds in a debug build.
    pub variants: u32,
}

/// All targets.
pub const TARGETS: [Target; 10] = [
    Target {
        name: "packets",
        run: targets::packets::run,
        seeds: seeds::packets,
        variants: 100_000,
    },
    Target {
        name: "properties",
        run: targets::properties::run,
        seeds: seeds::properties,
        variants: 100_000,
    },
    Target { name: "topics", run: targets::topics::run, seeds: seeds::topics, variants: 20_000 },
    Target { name: "session", run: targets::session::run, seeds: seeds::session, variants: 5_000 },
    Target { name: "broker", run: targets::broker::run, seeds: seeds::broker, variants: 3_000 },
    Target { name: "config", run: targets::config::run, seeds: seeds::config, variants: 5_000 },
    Target {
        name: "passwords",
        run: targets::passwords::run,
        seeds: seeds::passwords,
        variants: 10_000,
    },
    Target { name: "acl", run: targets::acl::run, seeds: seeds::acl, variants: 20_000 },
    Target {
        name: "storage",
        run: targets::storage::run,
        seeds: seeds::storage,
        variants: 100_000,
    },
    Target {
        name: "transports",
        run: targets::transports::run,
        seeds: seeds::transports,
        variants: 50_000,
    },
];

/// Seconds that one input may take: more is a hang.
pub const SECONDS_MAX: u64 = 5;

/// Bytes that the work on one input may hold at a time.
pub const HELD_BYTES_MAX: usize = 64 * 1024 * 1024;

impl Target {
    /// The target of this name.
    pub fn find(name: &str) -> Option<Self> {
        TARGETS.into_iter().find(|target| target.name == name)
    }

    /// Tries one input.
    ///
    /// # Panics
    /// If something does not hold for it, or it holds more than [`HELD_BYTES_MAX`].
    pub fn check(&self, input: &[u8]) {
        let ((), peak) = memory::peak_of(|| (self.run)(input));
        assert!(peak <= HELD_BYTES_MAX, "{} bytes of input hold {peak} of memory", input.len());
    }
}
