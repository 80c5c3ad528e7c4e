//! What happened: the ledger, the request log, the list of presets.

use serde::Serialize;
use serde_json::{Value, json};

use super::refuse;
use crate::api::{parse_query, show_invoice_in_full, show_refund_in_full};
use crate::envelope::Reply;
use crate::hub::State;
use crate::life::STORIES;
use crate::presets::PRESETS;
use crate::{journal, ledger};

/// The parameters of a report; anything unknown is refused.
struct Parameters {
    pairs: Vec<(String, String)>,
}

impl Parameters {
    fn read(query: &str, allowed: &[&str]) -> Result<Self, Reply> {
        let pairs = parse_query(query);
        match pairs
            .iter()
            .find(|(name, _)| !allowed.contains(&name.as_str()))
        {
            Some((name, _)) => Err(refuse(
                name,
                &format!("unknown parameter, expected one of: {}", allowed.join(", ")),
            )),
            None => Ok(Self { pairs }),
        }
    }

    fn get(&self, name: &str) -> Option<&str> {
        self.pairs
            .iter()
            .find(|(present, _)| present == name)
            .map(|(_, value)| value.as_str())
    }

    fn since(&self) -> Result<u64, Reply> {
        let since = self.get("since").unwrap_or("0");
        since
            .parse()
            .map_err(|_| refuse("since", "expected a sequence number"))
    }
}

#[derive(Serialize)]
struct LedgerReport<'a> {
    effects: Vec<ledger::Row<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    invoices: Option<Vec<Value>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    refunds: Option<Vec<Value>>,
}

#[derive(Serialize)]
struct RequestReport<'a> {
    requests: Vec<journal::Row<'a>>,
}

pub(super) fn show_ledger(state: &State, query: &str) -> Result<Reply, Reply> {
    let parameters = Parameters::read(query, &["kind", "external_order_id", "since", "only"])?;
    let kind = parameters.get("kind");
    let kinds = ["invoice.create", "invoice.cancel", "invoice.refund"];
    if kind.is_some_and(|kind| !kinds.contains(&kind)) {
        return Err(refuse(
            "kind",
            &format!("expected one of: {}", kinds.join(", ")),
        ));
    }
    let order = parameters.get("external_order_id");
    let since = usize::try_from(parameters.since()?).unwrap_or(usize::MAX);
    let effects = state.world.ledger.show(since, |effect| {
        kind.is_none_or(|kind| kind == effect.kind.as_str())
            && order.is_none_or(|order| Some(order) == effect.external_order_id.as_deref())
    });
    let (invoices, refunds) = match parameters.get("only") {
        Some("effects") => (None, None),
        Some(_) => return Err(refuse("only", "expected effects")),
        None => {
            let (invoices, refunds) = objects(state, order);
            (Some(invoices), Some(refunds))
        }
    };
    Ok(Reply::json(
        200,
        &LedgerReport {
            effects,
            invoices,
            refunds,
        },
    ))
}

fn objects(state: &State, order: Option<&str>) -> (Vec<Value>, Vec<Value>) {
    let world = &state.world;
    let wanted = |id: u64| {
        let of_invoice = world
            .invoice(id)
            .and_then(|invoice| invoice.draft.external_order_id.as_deref());
        order.is_none_or(|order| Some(order) == of_invoice)
    };
    let invoices = world.invoices().iter().filter(|invoice| wanted(invoice.id));
    let invoices = invoices.map(|invoice| {
        show_invoice_in_full(invoice, &world.organizations[invoice.organization].name)
    });
    let refunds = world
        .refunds()
        .iter()
        .filter(|refund| wanted(refund.invoice));
    (
        invoices.collect(),
        refunds
            .map(|refund| show_refund_in_full(world, refund))
            .collect(),
    )
}

pub(super) fn show_requests(state: &State, query: &str) -> Result<Reply, Reply> {
    let parameters = Parameters::read(query, &["since", "route"])?;
    let requests = state
        .journal
        .show(parameters.since()?, parameters.get("route"));
    Ok(Reply::json(200, &RequestReport { requests }))
}

pub(super) fn presets() -> Value {
    let now = time::OffsetDateTime::now_utc();
    let presets = PRESETS.iter().map(|(name, build)| {
        let reply = build(now);
        json!({
            "name": name,
            "status": reply.status,
            "headers": reply.headers.into_iter().collect::<std::collections::BTreeMap<_, _>>(),
            "body": String::from_utf8_lossy(&reply.body),
        })
    });
    let stories = STORIES.iter().map(|story| {
        json!({"phone": format!("8700000{}", story.digits), "story": story.name, "does": story.summary})
    });
    json!({"presets": presets.collect::<Vec<_>>(), "stories": stories.collect::<Vec<_>>()})
}
