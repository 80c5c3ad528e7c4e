//! Which kind of failure an error of the HTTP client is: did a byte of the request leave?

use std::error::Error;
use std::io;

use crate::domain::answer::{Answer, Lost, NotSent};
use crate::gateway::resolve::ResolveError;

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
        match current.downcast_ref::<ResolveError>() {
            Some(ResolveError::Failed(_)) => return NotSent::Dns,
            Some(ResolveError::Forbidden) => return NotSent::ForbiddenAddress,
            None => {}
        }
        if is_tls(current) {
            return NotSent::Tls;
        }
        cause = current.source();
    }
    NotSent::Connect
}

/// rustls comes wrapped into an I/O error, whose `source` skips it.
fn is_tls(error: &(dyn Error + 'static)) -> bool {
    error.is::<rustls::Error>()
        || error
            .downcast_ref::<io::Error>()
            .and_then(io::Error::get_ref)
            .is_some_and(|inner| inner.is::<rustls::Error>())
}
