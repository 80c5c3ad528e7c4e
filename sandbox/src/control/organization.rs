//! Switches of organizations: one, or all present and future ones.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Outcome, read, refuse};
use crate::clock::Moment;
use crate::life::CancelOutcome;
use crate::world::{
    CatalogItem, Kyc, Mode, RefundOutcome, RefundPages, Search, Session, Switches, Tariff, World,
};

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Change {
    organization: Option<String>,
    name: Option<String>,
    add_key: Option<String>,
    revoke_key: Option<String>,
    mode: Option<Mode>,
    tariff: Option<Tariff>,
    kyc: Option<Kyc>,
    archived: Option<bool>,
    revoked: Option<bool>,
    invoices_disabled: Option<bool>,
    accumulating: Option<bool>,
    requests_per_minute: Option<u32>,
    honour_idempotency_key: Option<bool>,
    idempotency_key_released: Option<bool>,
    list_lag_ms: Option<u64>,
    search: Option<Search>,
    list_shift: Option<bool>,
    refund_pages: Option<RefundPages>,
    catalog: Option<Vec<CatalogItem>>,
    cached_terminal_ms: Option<u64>,
    refund_outcome: Option<String>,
    cancel_outcome: Option<CancelOutcome>,
    processing_ms: Option<u64>,
    description_limit: Option<usize>,
    sandbox_invoice_limit: Option<usize>,
    wrong_amount: Option<bool>,
    flip_is_sandbox: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SessionChange {
    organization: Option<String>,
    state: Session,
    #[serde(default)]
    answer: SessionAnswer,
}

/// The status of refused creations.
#[derive(Clone, Copy, Default, Deserialize)]
enum SessionAnswer {
    #[default]
    #[serde(rename = "503")]
    Invalid,
    #[serde(rename = "409")]
    Expired,
}

pub(super) fn change(world: &mut World, body: &[u8], now: Moment) -> Outcome {
    let change: Change = read(body)?;
    let refund_outcome = match change.refund_outcome.as_deref() {
        Some(text) => Some(RefundOutcome::parse(text).ok_or_else(|| {
            refuse(
                "refund_outcome",
                "expected completed, stuck or an error code such as refund_window_expired",
            )
        })?),
        None => None,
    };
    let personal = [
        ("name", &change.name),
        ("add_key", &change.add_key),
        ("revoke_key", &change.revoke_key),
    ];
    if let Some((field, _)) = personal
        .iter()
        .find(|(_, value)| value.is_some() && change.organization.is_none())
    {
        return Err(refuse(field, "needs an organization"));
    }
    let touched = touched(world, change.organization.as_deref());
    if touched.is_everyone {
        change.apply_to(&mut world.defaults, refund_outcome.as_ref());
        world.defaults.accumulating = change.accumulating.unwrap_or(world.defaults.accumulating);
    }
    for index in touched.organizations.iter().copied() {
        change.apply_to(
            &mut world.organizations[index].switches,
            refund_outcome.as_ref(),
        );
        if let Some(accumulating) = change.accumulating {
            world.set_accumulating(index, accumulating, now);
        }
        change.rename(world, index);
    }
    Ok(names(world, &touched.organizations))
}

pub(super) fn session(world: &mut World, body: &[u8], now: Moment) -> Outcome {
    let change: SessionChange = read(body)?;
    let answer = match change.answer {
        SessionAnswer::Invalid => 503,
        SessionAnswer::Expired => 409,
    };
    let touched = touched(world, change.organization.as_deref());
    if touched.is_everyone {
        (world.defaults.session, world.defaults.session_answer) = (change.state, answer);
    }
    for index in touched.organizations.iter().copied() {
        let organization = &mut world.organizations[index];
        (
            organization.switches.session,
            organization.switches.session_answer,
        ) = (change.state, answer);
        organization.session_error_at = (change.state != Session::Active).then_some(now.life);
    }
    Ok(names(world, &touched.organizations))
}

pub(super) fn list(world: &World) -> Value {
    let organizations = world.organizations.iter().map(|organization| {
        json!({
            "name": organization.name,
            "mode": organization.switches.mode,
            "session": organization.switches.session,
            "tariff": organization.switches.tariff,
            "invoices": organization.invoices.len(),
            "refunds": organization.refunds.len(),
        })
    });
    json!({"organizations": organizations.collect::<Vec<_>>()})
}

struct Touched {
    organizations: Vec<usize>,
    /// Those to come as well.
    is_everyone: bool,
}

fn touched(world: &mut World, organization: Option<&str>) -> Touched {
    match organization {
        Some(key_or_name) => Touched {
            organizations: vec![world.find_or_found(key_or_name)],
            is_everyone: false,
        },
        None => Touched {
            organizations: (0..world.organizations.len()).collect(),
            is_everyone: true,
        },
    }
}

fn names(world: &World, organizations: &[usize]) -> Value {
    let names = organizations
        .iter()
        .map(|index| world.organizations[*index].name.as_str());
    json!({"organizations": names.collect::<Vec<_>>()})
}

impl Change {
    fn apply_to(&self, switches: &mut Switches, refund_outcome: Option<&RefundOutcome>) {
        set(&mut switches.mode, self.mode.as_ref());
        set(&mut switches.tariff, self.tariff.as_ref());
        set(&mut switches.kyc, self.kyc.as_ref());
        set(&mut switches.archived, self.archived.as_ref());
        set(&mut switches.revoked, self.revoked.as_ref());
        set(
            &mut switches.invoices_disabled,
            self.invoices_disabled.as_ref(),
        );
        set(
            &mut switches.requests_per_minute,
            self.requests_per_minute.as_ref(),
        );
        set(
            &mut switches.honour_idempotency_key,
            self.honour_idempotency_key.as_ref(),
        );
        set(
            &mut switches.idempotency_key_released,
            self.idempotency_key_released.as_ref(),
        );
        set(&mut switches.list_lag_ms, self.list_lag_ms.as_ref());
        set(&mut switches.search, self.search.as_ref());
        set(&mut switches.list_shift, self.list_shift.as_ref());
        set(&mut switches.refund_pages, self.refund_pages.as_ref());
        set(&mut switches.catalog, self.catalog.as_ref());
        set(
            &mut switches.cached_terminal_ms,
            self.cached_terminal_ms.as_ref(),
        );
        set(&mut switches.refund_outcome, refund_outcome);
        switches.cancel_outcome = self.cancel_outcome.or(switches.cancel_outcome);
        set(&mut switches.processing_ms, self.processing_ms.as_ref());
        set(
            &mut switches.description_limit,
            self.description_limit.as_ref(),
        );
        set(
            &mut switches.sandbox_invoice_limit,
            self.sandbox_invoice_limit.as_ref(),
        );
        set(&mut switches.wrong_amount, self.wrong_amount.as_ref());
        set(&mut switches.flip_is_sandbox, self.flip_is_sandbox.as_ref());
    }

    fn rename(&self, world: &mut World, index: usize) {
        set(&mut world.organizations[index].name, self.name.as_ref());
        if let Some(key) = &self.add_key {
            world.add_key(index, key.clone());
        }
        if let Some(key) = &self.revoke_key {
            world.revoke_key(key.clone());
        }
    }
}

fn set<T: Clone>(field: &mut T, value: Option<&T>) {
    if let Some(value) = value {
        field.clone_from(value);
    }
}
