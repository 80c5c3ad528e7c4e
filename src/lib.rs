//! apipayd takes payment jobs from a Postgres table, asks ApiPay.kz to do them, and writes down what
//! happened: never twice, never lost, never silent.
//!
//! # Map
//!
//! In reading order: [`domain`] has the words of the trade as values; [`policy`] decides, purely;
//! [`db`] has every statement; [`gateway`] makes every request to ApiPay; [`alert`] tells people;
//! [`worker`] has the loops that tie them together, claim → call → decide → record. Around them:
//! [`config`], [`telemetry`], [`service`] and [`watchdog`] (systemd), [`heart`] (a loop's sign of life),
//! [`names`] (of hosts, to addresses), [`beside`] (work that may hang, on threads of its own),
//! [`app`] (wiring, start and stop), [`cli`], and [`crash`] (points at which a test lets it die).
//!
//! # Invariants
//!
//! - Nothing is sent without an attempt that was committed before.
//! - What may have had its effect is looked up before anything is sent again.
//! - Every transition is one autocommit statement, guarded by the job's token, account, state, epoch and worker; what
//!   operators do runs in their own transactions.
//! - While an account is parked nothing of it is sent but its probe and, once health says that it is well, one trial job.
//!
//! # One job's walk
//!
//! A row in `apipay.jobs` is claimed ([`db::claim`]), prepared by its operation
//! ([`domain::operation`]), sent if its claim is young enough ([`worker::send`]), judged by its answer
//! ([`policy::judge`]) and recorded ([`worker::recorder`]). What the gateway accepted is followed to its
//! end ([`worker::follow`]); what is unclear is looked up ([`worker::lookup`], [`policy::reconcile`]).

pub mod domain;
pub mod policy;

pub mod db;
pub mod gateway;

pub mod alert;
pub mod worker;

pub mod app;
pub mod beside;
pub mod cli;
pub mod config;
pub mod crash;
pub mod heart;
pub mod names;
pub mod reload;
pub mod service;
pub mod telemetry;
pub mod watchdog;
