//! What all benchmarks have in common: how long they run, and the program's allocator.

use std::time::Duration;

use criterion::Criterion;

/// Short enough for all benchmarks to take a few minutes together; arguments override it.
pub(crate) fn criterion() -> Criterion {
    Criterion::default()
        .sample_size(20)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(1))
        .without_plots()
        .configure_from_args()
}

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;
