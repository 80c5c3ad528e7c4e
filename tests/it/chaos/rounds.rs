//! The long form: storm after storm, each from a seed of its own, for as long as `scripts/chaos` says.

use std::str::FromStr;
use std::time::{Duration, Instant};

use super::plan::{Dice, Storm};

fn variable<T: FromStr>(name: &str) -> Option<T> {
    let text = std::env::var(name).ok()?;
    let value = text.parse();
    Some(value.unwrap_or_else(|_| panic!("{name} is {text:?}; scripts/chaos sets it")))
}

/// Says how to see a failure again.
struct Replay(u64);

impl Drop for Replay {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let seed = self.0;
            println!("\nFAILED: round {seed}; replay it with: scripts/chaos --round {seed}");
        }
    }
}

/// The runtime has threads: while the database is killed and started, the gateway goes on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/chaos runs it, for as long as it says; scripts/test has it run one round"]
async fn storm_after_storm() {
    if let Some(seed) = variable("APIPAYD_CHAOS_ROUND") {
        rage(seed).await;
        return;
    }
    let seconds = variable("APIPAYD_CHAOS_SECONDS").expect("scripts/chaos says for how long");
    let seed: u64 = variable("APIPAYD_CHAOS_SEED").expect("scripts/chaos chooses a seed");
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut dice = Dice::of(seed);
    let (mut rounds, mut kills) = (0, 0);
    while rounds == 0 || Instant::now() < end {
        kills += rage(dice.roll() >> 32).await;
        rounds += 1;
    }
    println!("\n{rounds} rounds, {kills} kills: nothing happened twice, nothing was lost");
}

/// Returns how many daemons were killed.
async fn rage(seed: u64) -> usize {
    let _replay = Replay(seed);
    let storm = Storm::any(seed);
    println!("\nround {seed}: {storm:?}");
    let tally = storm.rage().await;
    tally.kills
}
