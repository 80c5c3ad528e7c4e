//! The tables: what a status and an error code mean (API, sections 4.1, 4.2 and 4.4).
//!
//! They are allow-lists: what is not in them is unknown, and unknown is looked up.

use crate::domain::reason::Reason;

/// What a reply means, before the history of the job is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// 200, 201, 202: done or taken on, if the body has the expected shape.
    Success,
    /// The gateway already has an invoice with this job's key.
    DuplicateKey,
    /// Refused for good; nothing was done.
    Refused,
    /// Refused because of the object's state; the state decides whether that is our success.
    StateRefused,
    /// Too many requests; nothing was done.
    Throttled,
    /// Too many requests for one recipient; nothing was done, others may go on.
    RecipientThrottled,
    /// A quota of the tariff or the law is used up; nothing was done.
    Capped,
    /// The object is busy; nothing was done.
    Busy,
    /// The account is unwell; nothing was done.
    AccountFault(Reason),
    /// The request may have had its effect.
    Unknown(Reason),
}

/// Who says what in the body of an answer that is no success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said<'a> {
    /// The gateway itself (API, section 1, "Error envelopes").
    Error {
        /// Its code, or the sentence in place of one.
        code: Option<&'a str>,
        /// Its text for people.
        message: Option<&'a str>,
    },
    /// Somebody for whom the path leads nowhere: nothing of the gateway's was called.
    NoRoute,
    /// Nothing in the gateway's words: a proxy's page, or nothing at all.
    Nothing,
}

/// What an answer with this status means that says this.
pub fn classify(status: u16, said: Said<'_>) -> Class {
    match (status, said) {
        (200..=202, _) => Class::Success,
        (_, Said::NoRoute) => Class::AccountFault(Reason::RouteNotFound),
        (400..=499 | 503, Said::Error { code, message }) => {
            let listed = match code {
                Some(code) => listed(status, |known| known == code),
                // Some errors are a sentence and nothing else (API, section 2.12a).
                None => message.and_then(|said| {
                    let said = said.trim().to_lowercase();
                    listed(status, |known| known.to_lowercase() == said)
                }),
            };
            listed.unwrap_or_else(|| by_status(status))
        }
        (500..=599, _) => Class::Unknown(Reason::ServerError),
        _ if by_status(status) == Class::Unknown(Reason::UnlistedAnswer) => {
            Class::Unknown(Reason::UnlistedAnswer)
        }
        // A proxy's page, not the gateway's word: it proves nothing.
        _ => Class::Unknown(Reason::UnreadableAnswer),
    }
}

/// For codes without a line of their own.
fn by_status(status: u16) -> Class {
    match status {
        400 | 404 | 410 | 422 => Class::Refused,
        401 => Class::AccountFault(Reason::KeyRejected),
        403 => Class::AccountFault(Reason::AccessDenied),
        429 => Class::Throttled,
        503 => Class::AccountFault(Reason::ServiceUnavailable),
        _ => Class::Unknown(Reason::UnlistedAnswer),
    }
}

fn listed(status: u16, is_it: impl Fn(&str) -> bool) -> Option<Class> {
    CODES
        .iter()
        .find(|(s, known, _)| *s == status && is_it(known))
        .map(|(_, _, class)| *class)
}

/// Codes, and the sentences that stand in their place, each with its own status.
const CODES: &[(u16, &str, Class)] = &[
    (
        400,
        "organization_required",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        400,
        "organization_not_verified",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        400,
        "Organization not found or not verified",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        400,
        "kaspi_session_not_configured",
        Class::AccountFault(Reason::SessionExpired),
    ),
    (400, "Invoice cannot be cancelled", Class::StateRefused),
    (
        401,
        "Invalid API key",
        Class::AccountFault(Reason::KeyRejected),
    ),
    (
        403,
        "Organization not verified",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        403,
        "kyc_required",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        403,
        "tariff_inactive",
        Class::AccountFault(Reason::TariffInactive),
    ),
    (
        403,
        "kyc_rejected",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        403,
        "organization_archived",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        403,
        "channel_required",
        Class::AccountFault(Reason::OrganizationNotReady),
    ),
    (
        403,
        "grant_snapshot_unreadable",
        Class::AccountFault(Reason::AccessDenied),
    ),
    // About this one call, not about the account.
    (403, "grant_not_granted", Class::Refused),
    (403, "not_sandbox", Class::Refused),
    (403, "static_qr_disabled", Class::Refused),
    (409, "duplicate_idempotency_key", Class::DuplicateKey),
    (
        409,
        "kaspi_session_expired",
        Class::AccountFault(Reason::SessionExpired),
    ),
    (409, "kaspi_session_unavailable", Class::Busy),
    (409, "subscription_busy", Class::Busy),
    (409, "catalog_busy", Class::Busy),
    (409, "qr_cancel_unsupported", Class::Refused),
    (409, "test_organization", Class::Refused),
    (429, "kyc_daily_limit_reached", Class::Capped),
    (429, "kyc_limit_reached", Class::Capped),
    (429, "tariff_limit_reached", Class::Capped),
    (429, "trial_daily_limit", Class::Capped),
    (429, "outstanding_org_limit", Class::Capped),
    (429, "recipient_fanout_exceeded", Class::Capped),
    (
        429,
        "outstanding_recipient_limit",
        Class::RecipientThrottled,
    ),
    (
        503,
        "kaspi_session_invalid",
        Class::AccountFault(Reason::SessionExpired),
    ),
    (
        503,
        "Kaspi session expired",
        Class::AccountFault(Reason::SessionExpired),
    ),
    (
        503,
        "Kaspi session unavailable",
        Class::AccountFault(Reason::SessionExpired),
    ),
    (
        503,
        "invoices_disabled",
        Class::AccountFault(Reason::InvoicesDisabled),
    ),
];

/// The codes of a 429 that is a cap: it may last for weeks.
pub fn caps() -> Vec<String> {
    let caps = CODES.iter().filter(|(_, _, class)| *class == Class::Capped);
    caps.map(|(_, code, _)| (*code).to_owned()).collect()
}

#[cfg(test)]
mod tests;
