//! What to do: pure functions from facts to decisions.
//!
//! Time and randomness are arguments. Nothing here knows sqlx, reqwest, tokio or a clock, so every
//! decision about money can be tested as a table.
//!
//! - [`last_look`]: whether a request may leave, just before it does.
//! - [`judge`](judge::judge): an answer to a send → what becomes of the job and its account.
//! - [`reconcile`](reconcile::reconcile): what a look-up found → adopt, send again, wait or hold.
//! - [`check_stated`](stated::check_stated): what somebody said of a job → adopt it, or hold it again; and
//!   [`call_off`](stated::call_off): that it is to end → end it, or hold it again.
//! - [`follow`](follow::follow): what an accepted object looks like → done, failed, keep watching; [`asynchronous`]: what
//!   the code means with which it failed at Kaspi; [`checks`]: when it is looked at again.
//! - [`organization`]: whether a key is of the organization that its account is for; [`inquiry`]: which invoices it is
//!   asked for, so that one is shown.
//! - [`outage`]: a gateway that gives no clear answer → one trial at a time, and who is told.
//! - [`division`]: invoices that the gateway cannot show → about which of the others a check asks.
//! - [`remedy`]: what is wrong with a parked or failing account, and what to do.
//! - [`breaker`]: when a parked account is probed, and how fast it starts again.
//! - [`combined`]: what answers that come together mean for their account.
//! - [`backoff`]: the curves of delays.
//! - [`finding`]: what a look-up brought, and whose it is; [`found`]: the same in words.
//! - [`quoted`]: what an answer says, for people.
//! - [`unseen`]: what could not be seen before a bill is sent, in words.
//! - [`progress`]: whether what is due moves.
//! - [`unserved`]: what to do about accounts that no daemon serves.
//! - [`refusals`]: rows that the database refuses, and when which of them is tried again.
//! - [`spells`]: failures that a loop meets again and again, and when one of them is logged.
//! - [`unwritten`]: alerts that the database does not take, and when which of them is logged instead.
//! - [`clock`]: whether the database's clock was set.
//! - [`bounds`]: how far ahead a stored moment may lie.

pub mod asynchronous;
pub mod backoff;
pub mod bounds;
pub mod breaker;
pub mod checks;
pub mod clock;
pub mod combined;
pub mod division;
pub mod finding;
#[cfg(test)]
mod fixtures;
pub mod follow;
pub mod found;
pub mod given_back;
pub mod hints;
pub mod inquiry;
pub mod judge;
pub mod last_look;
#[cfg(test)]
mod laws;
pub mod organization;
pub mod others;
pub mod outage;
pub mod progress;
pub mod quoted;
pub mod reconcile;
pub mod refusals;
pub mod remedy;
pub mod rules;
pub mod spells;
pub mod stated;
pub mod unseen;
pub mod unserved;
pub mod unwritten;
pub mod verdict;
