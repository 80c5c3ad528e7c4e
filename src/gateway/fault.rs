//! Which kind of failure an error of the HTTP client is: did a byte of the request leave?

use std::error::Error;
use std::io;

use crate::beside::NotBegun;
use crate::domain::answer::{Answer, Lost, NotSent};
use crate::names::NameError;

/// The failure as an answer.
///
/// Only a failure to connect proves that nothing was sent. Everything else counts as lost.
pub(super) fn answer_of(error: &reqwest::Error) -> Answer {
    if error.is_connect() {
        Answer::NotSent(not_connected(error))
    } else if error.is_timeout() {
        Answer::Lost(Lost::Timeout)
    } else {
        Answer::Lost(Lost::Cut)
    }
}

fn not_connected(error: &reqwest::Error) -> NotSent {
    let mut cause: Option<&(dyn Error + 'static)> = error.source();
    while let Some(current) = cause {
        match current.downcast_ref::<NameError>() {
            Some(NameError::NotBegun(NotBegun::AllHang(_))) => return NotSent::LookUpsHang,
            Some(NameError::Failed(_) | NameError::NotBegun(NotBegun::NoThread(_))) => {
                return NotSent::Dns;
            }
            Some(NameError::Forbidden) => return NotSent::ForbiddenAddress,
            None => {}
        }
        if let Some(error) = tls(current) {
            return no_tls(error);
        }
        cause = current.source();
    }
    NotSent::Connect
}

/// rustls comes wrapped into I/O errors, one in the other, whose `source` skips what is in them.
fn tls<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a rustls::Error> {
    match error.downcast_ref::<io::Error>() {
        Some(wrapper) => tls(wrapper.get_ref()?),
        None => error.downcast_ref::<rustls::Error>(),
    }
}

fn no_tls(error: &rustls::Error) -> NotSent {
    use rustls::CertificateError::*;
    let rustls::Error::InvalidCertificate(problem) = error else {
        return NotSent::Tls;
    };
    match problem {
        Expired | ExpiredContext { .. } | NotValidYet | NotValidYetContext { .. } => {
            NotSent::CertificateExpired
        }
        NotValidForName | NotValidForNameContext { .. } => NotSent::CertificateName,
        // The signature: somebody uses the name of a trusted authority.
        UnknownIssuer | BadSignature => NotSent::CertificateIssuer,
        _ => NotSent::Tls,
    }
}
