//! What people are told of an account whose requests get no clear answer: one thing at a time, the worst.

use time::OffsetDateTime;

use crate::domain::answer::NotSent;
use crate::domain::outage::{Awaited, Course, FailingJob, Fault, Outage, Read, Row};
use crate::policy::remedy::unwell;
use crate::policy::verdict::Reason;

/// What fails, as it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Telling<'a> {
    /// The account's sends: its payments wait. And what its requests get now: a read's, where the next trial of a send
    /// has been due for longer and no payment can be sent before it is looked up.
    Sends(&'a Row, &'a Fault),
    /// Reads of some kinds, the row of those that have failed for longest: what became of payments is not seen. And a job
    /// that gets no clear answer either, and waits for none of these reads.
    Reads(Vec<Read>, &'a Row, Option<&'a FailingJob>),
    /// One job, and perhaps some others: the account's other payments are tried as usual.
    Job(&'a FailingJob),
}

/// The words for what fails of the account as a whole.
const SENDS: &str = "sends";
const READS: &str = "reads";

impl Telling<'_> {
    /// The word for it in the alert's details.
    pub fn fails(&self) -> &'static str {
        match self {
            Telling::Sends(..) => SENDS,
            Telling::Reads(..) => READS,
            Telling::Job(_) => "job",
        }
    }
}

/// What is to be told of an account; `None` when all goes well, when nothing waits for what fails, or when another
/// alert tells: of one that is parked nothing is asked but by probes. `job` is the one that has got no clear answer for
/// longest, if that is long; `told` is the word for what is told now; `now` is the database's time.
///
/// Where nothing is told yet, that sends fail is no news while their next trial is due and nothing has failed since: the
/// trial, which is made within moments, shows whether they still do.
pub fn telling<'a>(
    outage: &'a Outage,
    is_parked: bool,
    awaited: &Awaited,
    job: Option<&'a FailingJob>,
    told: Option<&str>,
    now: OffsetDateTime,
) -> Option<Telling<'a>> {
    if is_parked {
        return None;
    }
    let sends = outage.sends.failing.as_ref().filter(|_| awaited.sends);
    // A job that has waited for long in a slow account waits because of the account, and so do others when it has ended; but
    // not one that waits to be shown what it asks for first, which says nothing of sends.
    let waits_to_be_sent = job.is_some_and(|job| !job.waits_to_be_shown());
    let tells_slow = outage.is_slow() && (waits_to_be_sent || told == Some(SENDS));
    let sends = sends.filter(|_| outage.sends.tells() || tells_slow);
    let reads = || {
        let reads = outage.reads.iter();
        reads.filter(|(read, course)| awaited.reads.contains(read) && course.tells())
    };
    let rows = || reads().filter_map(|(_, course)| course.failing.as_ref());
    let failed_since_due = |sends: &Row| {
        let since_due = |read: &&Row| sends.trial_at.is_some_and(|due| due < read.failed_at);
        rows().filter(since_due).max_by_key(|read| read.failed_at)
    };
    let is_known = |sends: &&Row| {
        let is_due = sends.trial_at.is_some_and(|due| due < now);
        told.is_some() || !is_due || failed_since_due(sends).is_some()
    };
    match (sends.filter(is_known), rows().min_by_key(|row| row.since)) {
        (Some(row), _) => {
            let newest = failed_since_due(row).unwrap_or(row);
            Some(Telling::Sends(row, &newest.fault))
        }
        (None, Some(row)) => {
            let reads: Vec<Read> = reads().map(|(read, _)| *read).collect();
            let waits = |job: &&FailingJob| job.waits_for.is_some_and(|read| reads.contains(&read));
            let job = job.filter(|job| !waits(job));
            Some(Telling::Reads(reads, row, job))
        }
        // It waits with all of the account for the trial.
        (None, None) if sends.is_some() => None,
        (None, None) => job.map(Telling::Job),
    }
}

/// Whether what is told of sends, or of a job, stays for the moment although this is to be told now: where the jobs that fail
/// go on with their account, their next answers show whether it is over for them as well.
pub fn stays(telling: Option<&Telling<'_>>, told: Option<&str>) -> bool {
    told != Some(READS) && matches!(telling, None | Some(Telling::Job(_)))
}

/// How it ended that something was told of an account.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The account was parked, which another alert tells.
    Parked,
    /// Nothing waits for an answer any more; whether there would be one is not known.
    NothingWaits,
    /// A clear answer came.
    Answered,
}

/// How it ended, given what was told.
pub fn ending(outage: &Outage, is_parked: bool, told: Option<&str>) -> Ending {
    let still = match told {
        Some(SENDS) => outage.is_slow(),
        Some(READS) => outage.reads.values().any(Course::tells),
        _ => false,
    };
    match (is_parked, still) {
        (true, _) => Ending::Parked,
        (false, true) => Ending::NothingWaits,
        (false, false) => Ending::Answered,
    }
}

/// What an attempt kept of a fault: of an answer `code` is only the reason for which its job waits.
pub fn named(kept: Fault) -> Fault {
    let code = match kept.status {
        None => return kept,
        Some(_) if kept.code == Reason::Busy.code() => Reason::Busy,
        Some(_) if unwell(&kept.code).is_some() => return kept,
        Some(500..) => Reason::ServerError,
        Some(200..=299) => Reason::UnreadableAnswer,
        Some(_) => Reason::UnlistedAnswer,
    };
    Fault {
        code: code.code().to_owned(),
        ..kept
    }
}

/// Codes of attempts that say nothing of the gateway: what was not sent for a cause of ours, and what a
/// worker left open.
pub fn not_theirs() -> Vec<String> {
    let ours = NotSent::ALL
        .into_iter()
        .filter(|cause| !cause.is_of_the_network());
    let ours = ours.map(|cause| cause.code().to_owned());
    ours.chain([LEASE_EXPIRED.to_owned()]).collect()
}

/// The code of an attempt whose worker did not finish it.
const LEASE_EXPIRED: &str = "lease_expired";

#[cfg(test)]
mod tests;
