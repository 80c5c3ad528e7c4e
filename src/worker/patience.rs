//! How long to wait for a database that fails.

use std::time::Duration;

use crate::policy::backoff;
use crate::policy::rules::{Curve, Jitter};

/// How a loop waits after the database failed it.
const DATABASE_BACKOFF: Curve = Curve {
    initial: Duration::from_millis(200),
    max: Duration::from_secs(5),
    multiplier: 2.0,
    jitter: 0.5,
    attempts: 0,
};

/// Waits for the database: long enough not to hurt it, short enough to move again soon.
pub(crate) async fn wait_for_database(failures: u32, jitter: Jitter) {
    tokio::time::sleep(backoff::delay(&DATABASE_BACKOFF, failures, jitter)).await;
}
