//! Lengths of time that several parts of the daemon, and the database, must agree on.

use std::time::Duration;

/// How old a claim may be when its request leaves. The configuration keeps the lease longer than this and a whole request
/// together, so within it the lease, and with it the epoch, is still ours. The quota's window is longer by this than the
/// minute that the gateway counts (`apipay._quota_seconds`).
pub const SEND_WINDOW: Duration = Duration::from_secs(5);

/// How long a key counts as known to be of the account's organization after it was last read that it is. Less than the time
/// for which the database takes a daemon to serve an account (`apipay._serving`), or two organizations might be served as
/// one account.
pub const KEY_KNOWN: Duration = Duration::from_secs(20);

/// How long a daemon counts as running after its last sign of life, in the database's views and functions, too.
pub const ALIVE_FOR: Duration = Duration::from_secs(60);

/// How long a cancellation may be accepted without a trace before it is asked for again: the gateway promises the real
/// status within minutes (API, section 2.5). `explain` says it as well (`apipay._explain_accepted`).
pub const SILENT_CANCEL: Duration = Duration::from_secs(600);
