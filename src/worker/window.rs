//! The send window: how old a claim may be.

use std::time::Duration;

/// How old a claim may be when its request leaves. The configuration keeps the lease longer than
/// this and a whole request together, so within it the lease, and with it the epoch, is still ours.
pub const SEND_WINDOW: Duration = Duration::from_secs(5);
