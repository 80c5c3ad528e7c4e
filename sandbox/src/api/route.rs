//! The routes. A new one is a line in the table and a function.

use super::{
    Answer, Call, account, cancel, check, create, list, refund_list, refunds, show, simulate,
};
use crate::clock::Moment;
use crate::envelope::Reply;
use crate::limits::Bucket;

pub(crate) const PREFIX: &str = "/api/v1";

#[derive(Clone, Copy)]
pub(super) enum Handler {
    /// Needs no key.
    Open(fn(Moment) -> Reply),
    Keyed(fn(&mut Call<'_>) -> Answer),
}

pub(crate) struct Route {
    /// Method and path, as fault rules and logs name it.
    pub(crate) template: &'static str,
    pub(crate) buckets: &'static [Bucket],
    pub(super) handler: Handler,
}

pub(crate) static ROUTES: &[Route] = &[
    open("GET /status", account::status),
    keyed("GET /account/health", account::health),
    keyed("POST /invoices", create::create),
    keyed("GET /invoices", list::list),
    keyed("POST /invoices/status/check", check::check),
    limited("GET /invoices/{id}", &[Bucket::InvoiceReads], show::show),
    keyed("PATCH /invoices/{id}", show::patch),
    keyed("POST /invoices/{id}/cancel", cancel::cancel),
    keyed("POST /invoices/{id}/refund", refunds::create),
    keyed("GET /invoices/{id}/refunds", refund_list::of_invoice),
    keyed("GET /refunds", refund_list::list),
    limited(
        "POST /invoices/{id}/simulate-status",
        &[Bucket::General, Bucket::Simulations],
        simulate::simulate,
    ),
];

const fn open(template: &'static str, run: fn(Moment) -> Reply) -> Route {
    Route {
        template,
        buckets: &[Bucket::StatusByAddress],
        handler: Handler::Open(run),
    }
}

const fn keyed(template: &'static str, run: fn(&mut Call<'_>) -> Answer) -> Route {
    limited(template, &[Bucket::General], run)
}

const fn limited(
    template: &'static str,
    buckets: &'static [Bucket],
    run: fn(&mut Call<'_>) -> Answer,
) -> Route {
    Route {
        template,
        buckets,
        handler: Handler::Keyed(run),
    }
}

pub(crate) struct Found {
    pub(crate) route: &'static Route,
    /// The `{id}`, when it is a number.
    pub(super) id: Option<u64>,
}

/// The route of a request, or the reply that there is none.
pub(crate) fn find(method: &str, path: &str) -> Result<Found, Reply> {
    let no_such_path = || Reply::message_only(404, "The requested route could not be found.");
    let path = path.strip_prefix(PREFIX).ok_or_else(no_such_path)?;
    let mut allowed = Vec::new();
    for route in ROUTES {
        let Some((route_method, pattern)) = route.template.split_once(' ') else {
            continue;
        };
        let Some(id) = matches(pattern, path) else {
            continue;
        };
        if route_method == method {
            return Ok(Found {
                route,
                id: id.parse().ok(),
            });
        }
        allowed.push(route_method);
    }
    if allowed.is_empty() {
        return Err(no_such_path());
    }
    let message = format!("The {method} method is not supported for this route.");
    Err(Reply::message_only(405, &message).header("Allow", allowed.join(", ")))
}

/// The text standing for `{id}` when the path has the pattern; empty when the pattern has no `{id}`.
fn matches<'a>(pattern: &str, path: &'a str) -> Option<&'a str> {
    let Some((before, after)) = pattern.split_once("{id}") else {
        return (pattern == path).then_some("");
    };
    let id = path.strip_prefix(before)?.strip_suffix(after)?;
    (!id.is_empty() && !id.contains('/')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_find_their_routes() {
        for (method, path, expected) in [
            ("POST", "/api/v1/invoices", Ok("POST /invoices")),
            ("GET", "/api/v1/invoices/7", Ok("GET /invoices/{id}")),
            ("GET", "/api/v1/invoices/x", Ok("GET /invoices/{id}")),
            (
                "GET",
                "/api/v1/invoices/7/refunds",
                Ok("GET /invoices/{id}/refunds"),
            ),
            (
                "POST",
                "/api/v1/invoices/status/check",
                Ok("POST /invoices/status/check"),
            ),
            ("GET", "/api/v1/invoices/7/8/refunds", Err(404)),
            ("GET", "/invoices", Err(404)),
            ("DELETE", "/api/v1/invoices/7", Err(405)),
        ] {
            let found = find(method, path)
                .map(|found| found.route.template)
                .map_err(|reply| reply.status);
            assert_eq!(found, expected, "{method} {path}");
        }
    }
}
