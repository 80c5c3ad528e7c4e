//! Everything at once: a gateway that fails at random, daemons that are killed, and jobs of every
//! kind. What must always hold is checked at the end of the world.
//!
//! A storm follows from its seed and a few words. The tests here are storms of a minute; the one in
//! `rounds` goes on for as long as `scripts/chaos` says.

mod plan;
mod rounds;
mod storm;

use std::time::Duration;

pub(crate) use plan::Dice;
use plan::{Protection, Storm};

/// Kills of each of the great storms.
const KILLS: usize = 55;

const GREAT: [Storm; 4] = [
    Storm {
        seed: 1,
        kills: KILLS,
        ..Storm::CALM
    },
    Storm {
        seed: 2,
        daemons: 3,
        faults: true,
        kills: KILLS,
        ..Storm::CALM
    },
    Storm {
        seed: 3,
        protection: Protection::Lookup,
        kills: KILLS,
        ..Storm::CALM
    },
    Storm {
        seed: 4,
        protection: Protection::Lookup,
        daemons: 2,
        faults: true,
        kills: KILLS,
        ..Storm::CALM
    },
];

const _: () = assert!(
    GREAT.len() * KILLS >= 200,
    "a full run kills two hundred daemons"
);

async fn kill_again_and_again(storm: &Storm) {
    let tally = storm.rage().await;
    tally.expect_harm();
    assert_eq!(tally.kills, KILLS);
    assert!(tally.in_lookups > 0, "no kill hit a look-up: {tally}");
}

#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_repeats_nothing_and_loses_nothing() {
    kill_again_and_again(&GREAT[0]).await;
}

#[tokio::test]
async fn daemons_that_are_killed_before_a_failing_gateway_repeat_nothing_and_lose_nothing() {
    kill_again_and_again(&GREAT[1]).await;
}

/// The gateway ignores keys, and its lists are late: the look-up alone must be enough.
#[tokio::test]
async fn a_daemon_that_is_killed_again_and_again_needs_no_keys() {
    kill_again_and_again(&GREAT[2]).await;
}

#[tokio::test]
async fn daemons_that_are_killed_before_a_failing_gateway_need_no_keys() {
    kill_again_and_again(&GREAT[3]).await;
}

#[tokio::test]
async fn daemons_that_are_stopped_and_wake_up_late_repeat_nothing_and_lose_nothing() {
    let storm = Storm {
        seed: 5,
        daemons: 2,
        faults: true,
        kills: 12,
        pauses: 6,
        // Longer than a claim may wait to be sent.
        longest_pause: Duration::from_secs(6),
        ..Storm::CALM
    };
    storm.rage().await.expect_harm();
}

#[tokio::test]
async fn a_database_that_is_killed_under_load_costs_no_job() {
    let storm = Storm {
        seed: 6,
        daemons: 2,
        faults: true,
        kills: 12,
        outages: 3,
        ..Storm::CALM
    };
    storm.rage().await.expect_harm();
}
