//! libFuzzer's driver for one target, named in `RINGMQ_FUZZ_TARGET`. `tests/fuzz/run` builds and starts
//! it; with `RINGMQ_FUZZ_SEEDS` it writes the target's seeds into that folder first.

#![no_main]

use std::{env, fs, path::Path, sync::LazyLock};

use fuzz::Target;

static TARGET: LazyLock<Target> = LazyLock::new(|| {
    let name = env::var("RINGMQ_FUZZ_TARGET").expect("RINGMQ_FUZZ_TARGET names the target");
    Target::find(&name).expect("a name out of fuzz::TARGETS")
});

fn write_seeds() {
    let Some(folder) = env::var_os("RINGMQ_FUZZ_SEEDS") else { return };
    for (number, seed) in (TARGET.seeds)().iter().enumerate() {
        let file = Path::new(&folder).join(format!("seed-{number}"));
        fs::write(file, seed).expect("a folder for the seeds");
    }
}

libfuzzer_sys::fuzz_target!(init: write_seeds(), |input: &[u8]| TARGET.check(input));
