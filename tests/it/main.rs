//! What the daemon promises, shown with the real binary, a real Postgres and a stand-in for the
//! gateway. One file per behaviour; `world` is the harness.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and the place says why"
)]

mod accepted;
mod alerts;
mod anothers;
mod answers;
mod bindings;
mod books;
mod by_hand;
mod cancelling;
mod caps;
mod chaos;
mod claim_plan;
mod clocks;
mod connections;
mod copies;
#[cfg(feature = "crash-points")]
mod crash_points;
mod creating;
mod culprits;
mod database;
mod denials;
mod doors;
mod encodings;
mod failing;
mod fields;
mod flapping;
mod following;
mod given_back;
mod hanging_names;
mod heavy;
mod held_starts;
mod history;
mod instead;
mod isolation;
mod locks;
mod mended;
mod migrating;
mod muted;
mod notifications;
mod one_at_a_time;
mod organizations;
mod outage;
mod parking;
mod passing_over;
mod progress;
mod queueing;
mod quota;
mod readme;
mod refunding;
mod released;
mod reloading;
mod resolving;
mod restoring;
mod schema;
mod shares;
mod starting;
mod states;
mod stopping;
mod strangers;
mod stuck;
mod swallowed;
mod tidy;
mod times;
mod turns;
mod uncertain;
mod undelivered;
mod unread;
mod watchdog;
mod watched;
mod world;
