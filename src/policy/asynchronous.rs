//! What it means that an accepted object fails at Kaspi (API, sections 2.8 and 4.4).

use crate::domain::operation::Resend;
use crate::domain::reason::Reason;

/// What the error code of an accepted object that failed at Kaspi means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AsyncClass {
    /// Send a new one after a while.
    Again,
    /// The account is unwell; a new one once it is well.
    AccountFault(Reason),
    /// It will not work.
    Fatal,
}

/// What the error code means (API, sections 2.8 and 4.4). Unlisted codes are final: no money moved,
/// and a human sees the code.
///
/// Where money goes out, only what is documented for that is done again by itself.
pub fn classify_async(code: &str, resend: Resend) -> AsyncClass {
    match code {
        "network_unavailable" => AsyncClass::Again,
        "kaspi_throttled" | "session_transient" | "kaspi_error" | "qr_render_failed"
        | "unknown_error"
            if resend != Resend::ByBaseline =>
        {
            AsyncClass::Again
        }
        _ => {
            let known = ACCOUNT_FAULTS.iter().find(|(known, _)| *known == code);
            known.map_or(AsyncClass::Fatal, |(_, reason)| {
                AsyncClass::AccountFault(*reason)
            })
        }
    }
}

/// The codes that mean that the account is unwell, whatever has failed.
pub const ACCOUNT_FAULTS: [(&str, Reason); 3] = [
    ("kaspi_session_invalid", Reason::SessionExpired),
    ("kaspi_session_expired", Reason::SessionExpired),
    ("organization_not_configured", Reason::OrganizationNotReady),
];

#[cfg(test)]
mod tests {
    use super::*;
    use AsyncClass::{AccountFault, Again, Fatal};

    /// API, sections 2.8 and 4.4: first for an invoice, then for a refund.
    #[test]
    fn every_code_of_an_object_that_failed() {
        let session = AccountFault(Reason::SessionExpired);
        let setup = AccountFault(Reason::OrganizationNotReady);
        for (code, invoice, refund) in [
            ("network_unavailable", Again, Again),
            ("kaspi_throttled", Again, Fatal),
            ("session_transient", Again, Fatal),
            ("kaspi_error", Again, Fatal),
            ("qr_render_failed", Again, Fatal),
            ("unknown_error", Again, Fatal),
            ("kaspi_session_invalid", session, session),
            ("kaspi_session_expired", session, session),
            ("organization_not_configured", setup, setup),
            ("client_not_found", Fatal, Fatal),
            ("amount_must_be_whole_tenge", Fatal, Fatal),
            ("invoice_already_paid", Fatal, Fatal),
            ("invoice_already_cancelled", Fatal, Fatal),
            ("invoice_not_found_in_kaspi", Fatal, Fatal),
            ("sandbox_simulated_error", Fatal, Fatal),
            ("refund_window_expired", Fatal, Fatal),
            ("refund_requires_buyer_confirmation", Fatal, Fatal),
            ("refund_insufficient_funds", Fatal, Fatal),
            ("refund_rejected_by_kaspi", Fatal, Fatal),
            ("brand_new", Fatal, Fatal),
            ("", Fatal, Fatal),
        ] {
            for resend in [Resend::ByProtection, Resend::Harmless] {
                assert_eq!(classify_async(code, resend), invoice, "{code}");
            }
            assert_eq!(classify_async(code, Resend::ByBaseline), refund, "{code}");
        }
    }
}
