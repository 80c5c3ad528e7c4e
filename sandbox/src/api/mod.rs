//! The gateway's API: one request and one moment in, one reply out, the world changed in between.
//!
//! Rate limits and faults are not known here; they stand before it.

mod account;
mod cancel;
mod cart;
mod check;
mod create;
mod input;
mod list;
mod page;
mod refund_list;
mod refunds;
mod route;
mod show;
mod simulate;
#[cfg(test)]
mod tests;

pub(crate) use create::is_phone;
pub(crate) use input::parse_query;
pub(crate) use list::full as show_invoice_in_full;
pub(crate) use refund_list::full as show_refund_in_full;
pub(crate) use route::{PREFIX, ROUTES, find};

use serde_json::{Map, Value};

use crate::clock::Moment;
use crate::envelope::Reply;
use crate::world::{Invoice, Organization, Origin, Switches, World};

/// A request as the gateway's code sees it: the network is already gone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) key: Option<String>,
    pub(crate) body: Vec<u8>,
}

/// One call on behalf of an organization.
struct Call<'a> {
    world: &'a mut World,
    origin: Origin,
    /// The `{id}` of the path; 0, which nothing has, when it is not a number.
    id: u64,
    query: Vec<(String, String)>,
    body: &'a [u8],
}

type Answer = Result<Reply, Reply>;

/// Answers one request; `seq` is its number in the request log.
pub(crate) fn answer(world: &mut World, request: &Request, now: Moment, seq: u64) -> Reply {
    world.settle(now.life);
    let found = match route::find(&request.method, &request.path) {
        Ok(found) => found,
        Err(refusal) => return refusal,
    };
    if let route::Handler::Open(run) = found.route.handler {
        return run(now);
    }
    let organization = match admit(world, request, now) {
        Ok(organization) => organization,
        Err(refusal) => return refusal,
    };
    let mut call = Call {
        world,
        origin: Origin {
            organization,
            now,
            request: seq,
        },
        id: found.id.unwrap_or_default(),
        query: input::parse_query(&request.query),
        body: &request.body,
    };
    match found.route.handler {
        route::Handler::Open(run) => run(now),
        route::Handler::Keyed(run) => run(&mut call).unwrap_or_else(|refusal| refusal),
    }
}

fn admit(world: &mut World, request: &Request, now: Moment) -> Result<usize, Reply> {
    let Some(key) = request.key.as_deref().filter(|key| !key.is_empty()) else {
        return Err(Reply::message_only(401, "API key is required"));
    };
    let Some(organization) = world.admit(key) else {
        return Err(Reply::error_only(
            401,
            "Invalid API key",
            Some("The API key is unknown, expired or deactivated"),
        ));
    };
    let owner = &mut world.organizations[organization];
    owner.last_used_at = Some(now.life);
    if owner.switches.archived {
        return Err(Reply::business(
            403,
            "organization_archived",
            "Организация в архиве",
        ));
    }
    Ok(organization)
}

impl Call<'_> {
    fn organization(&self) -> &Organization {
        &self.world.organizations[self.origin.organization]
    }

    fn switches(&self) -> &Switches {
        &self.organization().switches
    }

    /// The invoice of the path; a foreign one does not exist.
    fn invoice(&self) -> Result<&Invoice, Reply> {
        let own = self
            .world
            .invoice(self.id)
            .filter(|invoice| invoice.organization == self.origin.organization);
        own.ok_or_else(|| Reply::error_only(404, "Invoice not found", None))
    }

    /// Paid operations need an active tariff.
    fn require_tariff(&self) -> Result<(), Reply> {
        match self.switches().tariff.refusal_reason() {
            Some(reason) => Err(Reply::tariff_inactive(reason, None)),
            None => Ok(()),
        }
    }

    /// The JSON object of the body; an empty body is an empty object.
    fn json(&self) -> Result<Map<String, Value>, Reply> {
        if self.body.iter().all(u8::is_ascii_whitespace) {
            return Ok(Map::new());
        }
        match serde_json::from_slice(self.body) {
            Ok(Value::Object(map)) => Ok(map),
            Ok(_) => Err(Reply::message_only(
                422,
                "The request body must be a JSON object",
            )),
            Err(_) => Err(Reply::message_only(
                400,
                "The request body is not valid JSON",
            )),
        }
    }
}
