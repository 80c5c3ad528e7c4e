//! Everything that comes from outside, as bytes: answers of the gateway, params of jobs, settings.
//!
//! Under `cargo test` each target runs its seeds as they are, then a second of seeds mutated at
//! random; `BOLERO_RANDOM_TEST_TIME_MS` makes that longer. What once went wrong is a seed.

#![expect(
    clippy::unwrap_used,
    reason = "a target that cannot go on fails, and the place says why"
)]

mod answers;
mod hints;
mod jobs;
mod lookups;
mod params;
mod seeds;
mod settings;
