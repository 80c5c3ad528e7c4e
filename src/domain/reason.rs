//! Why a job or an account is as it is: the stable codes that programs and people read.

macro_rules! reasons {
    ($($(#[$doc:meta])* $name:ident = $code:literal,)*) => {
        /// Why a job or an account is in its state: stable codes, part of the public interface.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason { $($(#[$doc])* $name,)* }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Reason] = &[$(Reason::$name,)*];

            /// The code in `apipay.jobs.reason`, `apipay.accounts.parked_reason` and events.
            pub fn code(self) -> &'static str {
                match self { $(Reason::$name => $code,)* }
            }
        }
    };
}

reasons! {
    /// The gateway has taken it on; it is followed.
    UnderWay = "under_way",
    /// 429: the account waits.
    RetryAfter = "retry_after",
    /// 429 of a cap: the wait may be long.
    CapReached = "cap_reached",
    /// 5xx: the request may have had its effect.
    ServerError = "server_error",
    /// No answer in time.
    Timeout = "timeout",
    /// The connection ended before the answer.
    ConnectionCut = "connection_cut",
    /// An answer that could not be read.
    UnreadableAnswer = "unreadable_answer",
    /// An answer that is in no document.
    UnlistedAnswer = "unlisted_answer",
    /// A refusal that may be our own earlier success.
    RefusedAfterUnknown = "refused_after_unknown",
    /// A refusal about the object's state: what the state is decides.
    StateRefused = "state_refused",
    /// The gateway already has an invoice with this job's key.
    DuplicateKey = "duplicate_key",
    /// No byte of the request left.
    Network = "network",
    /// The lease was too old when the send was due.
    WindowClosed = "window_closed",
    /// The gateway is busy with the object.
    Busy = "busy",
    /// A look-up proved that nothing was done.
    NotApplied = "not_applied",
    /// A look-up could not be completed.
    LookupUnclear = "lookup_unclear",
    /// A look-up found nothing, or nothing alive; it counts once it is seen again.
    LookupAbsent = "lookup_absent",
    /// The gateway refused it.
    Refused = "refused",
    /// The invoice is paid, so it cannot be cancelled.
    AlreadyPaid = "already_paid",
    /// This version does not know the operation.
    UnknownOperation = "unknown_operation",
    /// The params are not what the operation takes; nothing was sent.
    InvalidParams = "invalid_params",
    /// The attempts are used up; nothing was done.
    GaveUp = "gave_up",
    /// It failed at Kaspi after it was accepted.
    AsyncError = "async_error",
    /// It failed at Kaspi for the moment; a new one follows.
    AsyncRetry = "async_retry",
    /// Cannot be told from here whether the request had its effect.
    UnknownOutcome = "unknown_outcome",
    /// Two objects carry this job's name.
    DuplicateDetected = "duplicate_detected",
    /// The object with this job's name or key has another amount, payer or order.
    Mismatch = "mismatch",
    /// The Kaspi session behind the account is gone.
    SessionExpired = "session_expired",
    /// The API key is not accepted.
    KeyRejected = "key_rejected",
    /// The organization is not set up or not allowed.
    OrganizationNotReady = "organization_not_ready",
    /// The tariff is not paid.
    TariffInactive = "tariff_inactive",
    /// The gateway takes no invoices now.
    InvoicesDisabled = "invoices_disabled",
    /// 503 of another kind.
    ServiceUnavailable = "service_unavailable",
    /// 403 of another kind.
    AccessDenied = "access_denied",
    /// The daemon was told to stop before the request left.
    Stopping = "stopping",
    /// The account was parked before the request left.
    AccountParked = "account_parked",
    /// The account's limit of requests left none for what had to be read first.
    QuotaSpent = "quota_spent",
    /// The database did not take what had to be written first.
    DatabaseFailed = "database_failed",
    /// The database has forgotten commits.
    HistoryLost = "history_lost",
    /// There is no such call where the account's `base_url` leads.
    RouteNotFound = "route_not_found",
    /// What somebody said in `apipay.resolve` is not what the gateway has.
    NotAsStated = "not_as_stated",
    /// The account's key is not known to be of its organization.
    KeyDoubted = "key_doubted",
    /// The account is for another organization than the one that it was sent to.
    OtherOrganization = "other_organization",
    /// Somebody said that nothing was done and that it is to end, and nothing alive was found.
    CalledOff = "called_off",
    /// The account was taken out of the daemon's configuration, or changed there, before the request left.
    AccountClosed = "account_closed",
    /// Somebody said that nothing was done, and no look-up since got a clear answer; nothing was sent.
    Unconfirmed = "unconfirmed",
    /// Somebody said that nothing was done and that it is to end, and no look-up since got a clear answer.
    CalledOffUnseen = "called_off_unseen",
    /// The answer showed an object that is another job's.
    AnothersObject = "anothers_object",
    /// What the job repeats (`apipay.retry`) was done after all, or may still be; nothing was sent.
    OriginalLives = "original_lives",
    /// Whether an earlier invoice of the bill, or of what it repeats, lives could not be seen; nothing was sent.
    EarlierUnseen = "earlier_unseen",
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Programs of users read these words: none is changed, new ones are added at the end.
    const CODES: &str = "under_way retry_after cap_reached server_error timeout connection_cut \
        unreadable_answer unlisted_answer refused_after_unknown state_refused duplicate_key network \
        window_closed busy not_applied lookup_unclear lookup_absent refused already_paid \
        unknown_operation invalid_params gave_up async_error async_retry unknown_outcome \
        duplicate_detected mismatch session_expired key_rejected organization_not_ready \
        tariff_inactive invoices_disabled service_unavailable access_denied stopping \
        account_parked quota_spent database_failed history_lost route_not_found not_as_stated key_doubted \
        other_organization called_off account_closed unconfirmed called_off_unseen \
        anothers_object original_lives earlier_unseen";

    #[test]
    fn the_codes_of_reasons_are_stable() {
        let codes: Vec<&str> = Reason::ALL.iter().map(|reason| reason.code()).collect();
        let expected: Vec<&str> = CODES.split_whitespace().collect();
        assert_eq!(codes, expected);
    }
}
