//! Opens the alerts that a loop or a task of an account has found the need of.

use tracing::warn;

use crate::db::alerts::{self, About};
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::telemetry::Chain;
use crate::worker::alerting::{self, Alert};
use crate::worker::wake::Wake;

/// Opens an alert, or has the open one say this.
pub async fn open(pool: &Pool, account: &AccountName, alert: &Alert) -> Result<(), DbError> {
    let (kind, severity) = (alert.kind, alert.severity);
    if kind == alerting::STUCK {
        return alerts::tell_stuck(pool, account, severity, &alert.text, false).await;
    }
    if matches!(kind, alerting::HELD | alerting::DUPLICATE) {
        return alerts::tell_held(pool, account, kind, severity, &alert.text).await;
    }
    let about = About::account(account, kind, severity);
    if alert.renews {
        return alerts::say(pool, &about, &alert.text).await;
    }
    alerts::open(pool, &about, &alert.text).await
}

/// Opens an alert if that is possible now; whoever calls comes again.
pub async fn try_to_open(pool: &Pool, wake: &Wake, account: &AccountName, alert: &Alert) {
    match open(pool, account, alert).await {
        Ok(()) => wake.deliver.notify_one(),
        Err(error) => {
            warn!(account = %account, kind = alert.kind, error = %Chain(&error), "an alert could not be opened now");
        }
    }
}

/// Has the open alert about a stuck job say this from now on, if that is possible now.
pub async fn try_to_change(pool: &Pool, wake: &Wake, account: &AccountName, alert: &Alert) {
    match alerts::tell_stuck(pool, account, alert.severity, &alert.text, true).await {
        Ok(()) => wake.deliver.notify_one(),
        Err(error) => {
            warn!(account = %account, kind = alert.kind, error = %Chain(&error), "an alert could not be changed now");
        }
    }
}
