//! Opens the alerts that a loop or a task of an account has found the need of.
//!
//! Where the database does not take one, because a trigger of somebody else's raises or swallows it, its text is logged.

use std::sync::{Mutex, PoisonError};

use tracing::error;

use crate::db::accounts::AlertText;
use crate::db::alerts::{self, About};
use crate::db::fault::AtFault;
use crate::db::{DbError, Pool};
use crate::domain::account::AccountName;
use crate::domain::phone::without_phones;
use crate::policy::unwritten::{Key, Unwritten};
use crate::telemetry::Chain;
use crate::worker::alerting::{self, Alert};
use crate::worker::clock::Moment;
use crate::worker::spell::warn_in_spells;
use crate::worker::wake::Wake;

/// What was logged of them: of one process, whichever of its parts has found the need.
static UNWRITTEN: Mutex<Unwritten> = Mutex::new(Unwritten::new());

/// Opens an alert, or has the open one say this.
pub async fn open(pool: &Pool, account: &AccountName, alert: &Alert) -> Result<(), DbError> {
    let (kind, severity) = (alert.kind, alert.severity);
    if kind == alerting::STUCK {
        return stuck(pool, account, severity, &alert.text, false).await;
    }
    let about = About::account(account, kind, severity);
    if matches!(kind, alerting::HELD | alerting::DUPLICATE) {
        let told = alerts::tell_held(pool, account, kind, severity, &alert.text).await;
        return heard(pool, &about, &alert.text, told).await;
    }
    if alert.renews {
        return say(pool, &about, &alert.text).await;
    }
    once(pool, &about, &alert.text).await
}

/// Opens an alert unless one of its kind is open about the same.
pub async fn once(pool: &Pool, about: &About<'_>, text: &AlertText) -> Result<(), DbError> {
    heard(pool, about, text, alerts::open(pool, about, text).await).await
}

/// Opens this very alert, or has it say this from now on.
pub async fn say(pool: &Pool, about: &About<'_>, text: &AlertText) -> Result<(), DbError> {
    heard(pool, about, text, alerts::say(pool, about, text).await).await
}

/// Has the alert of a parked account say this from now on, unless the account is parked no more.
pub async fn say_of_park(
    pool: &Pool,
    account: &AccountName,
    text: &AlertText,
) -> Result<(), DbError> {
    let about = About::account(account, "account_parked", "critical");
    let told = alerts::say_of_park(pool, account, text).await;
    heard(pool, &about, text, told).await
}

/// Opens the alert of a job that is stuck, unless one tells of it or of its cause; with `renew` that one says this.
pub async fn stuck(
    pool: &Pool,
    account: &AccountName,
    severity: &str,
    text: &AlertText,
    renew: bool,
) -> Result<(), DbError> {
    let told = alerts::tell_stuck(pool, account, severity, text, renew).await;
    let about = About::account(account, alerting::STUCK, severity);
    heard(pool, &about, text, told).await
}

/// Logs what an alert says that is not written.
async fn heard(
    pool: &Pool,
    about: &About<'_>,
    text: &AlertText,
    told: Result<bool, DbError>,
) -> Result<(), DbError> {
    match &told {
        Ok(true) => written(&key(about, text)),
        // Without a cause somebody else has resolved it at the same moment.
        Ok(false) => {
            if let Err(error) = alerts::why_not_written(pool).await {
                not_written(&key(about, text), text, &error);
            }
        }
        Err(error) => not_written(&key(about, text), text, error),
    }
    told.map(|_| ())
}

fn key(about: &About<'_>, text: &AlertText) -> Key {
    let account = about.account.map(ToString::to_string);
    // Of these each job has its own; what others name may change while they last.
    let is_of_job = matches!(
        about.kind,
        alerting::STUCK | alerting::HELD | alerting::DUPLICATE
    );
    let job = text.details.get("job").filter(|_| is_of_job);
    let subject = match (about.subject, job) {
        ("", Some(job)) => job.to_string(),
        (subject, _) => subject.to_owned(),
    };
    (account, about.kind.to_owned(), subject)
}

/// The database has taken it.
pub fn written(key: &Key) {
    let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
    unwritten.is_written(key);
}

/// Logs what an alert says that the database has refused, if that is news. What fails with everything else, or for a moment,
/// is told otherwise.
pub fn not_written(key: &Key, text: &AlertText, error: &DbError) {
    if !matches!(error.fault(), AtFault::Rows | AtFault::Words) {
        return;
    }
    let AlertText {
        summary, action, ..
    } = text;
    let is_news = {
        let mut unwritten = UNWRITTEN.lock().unwrap_or_else(PoisonError::into_inner);
        unwritten.is_news(key, summary, Moment::now().since_boot())
    };
    if is_news {
        let (account, kind, _) = key;
        let said = without_controls(&format!("{summary} To do: {action}"));
        error!(
            account,
            kind,
            cause = error.cause().message,
            "an alert cannot be written, so it is only told here: ALERT {kind}: {said}"
        );
    }
}

/// A terminal obeys no gateway.
fn without_controls(text: &str) -> String {
    without_phones(text).replace(|letter: char| letter.is_control(), " ")
}

/// Opens an alert if that is possible now; whoever calls comes again.
pub async fn try_to_open(pool: &Pool, wake: &Wake, account: &AccountName, alert: &Alert) {
    match open(pool, account, alert).await {
        Ok(()) => wake.deliver.notify_one(),
        Err(error) => {
            warn_in_spells!(account; account = %account, kind = alert.kind, error = %Chain(&error), "an alert could not be opened now");
        }
    }
}

/// Has the open alert about a stuck job say this from now on, if that is possible now.
pub async fn try_to_change(pool: &Pool, wake: &Wake, account: &AccountName, alert: &Alert) {
    match stuck(pool, account, alert.severity, &alert.text, true).await {
        Ok(()) => wake.deliver.notify_one(),
        Err(error) => {
            warn_in_spells!(account; account = %account, kind = alert.kind, error = %Chain(&error), "an alert could not be changed now");
        }
    }
}
