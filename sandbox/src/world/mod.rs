//! The gateway's world as a plain state machine: organizations, invoices, refunds, and timers.
//!
//! It knows neither HTTP nor a clock; every call is told what time it is.

mod effects;
mod fate;
mod hand;
mod invoice;
mod organization;
mod refund;

use std::collections::{BinaryHeap, HashMap, HashSet};

pub(crate) use effects::{CancelTaken, Origin};
pub(crate) use invoice::{Discount, Draft, Invoice, Line, Status};
pub use organization::Mode;
pub(crate) use organization::{
    CatalogItem, Kyc, Organization, RefundPages, Search, Session, Switches, Tariff,
    amount as read_amount,
};
pub(crate) use refund::{Refund, RefundDraft, RefundOutcome, RefundStatus, ReturnedItem};

use crate::ledger::Ledger;
use crate::life::Timer;

const FIRST_INVOICE: u64 = 100_001;
const FIRST_REFUND: u64 = 500_001;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) organizations: Vec<Organization>,
    pub(crate) ledger: Ledger,
    pub(crate) defaults: Switches,
    strict_keys: bool,
    keys: HashMap<String, usize>,
    revoked_keys: HashSet<String>,
    invoices: Vec<Invoice>,
    refunds: Vec<Refund>,
    timers: BinaryHeap<Timer>,
    timers_set: u64,
}

impl World {
    pub(crate) fn new(defaults: Switches, strict_keys: bool) -> Self {
        Self {
            organizations: Vec::new(),
            ledger: Ledger::default(),
            defaults,
            strict_keys,
            keys: HashMap::new(),
            revoked_keys: HashSet::new(),
            invoices: Vec::new(),
            refunds: Vec::new(),
            timers: BinaryHeap::new(),
            timers_set: 0,
        }
    }

    /// The organization a request's key belongs to; an unknown key founds one unless keys are strict.
    pub(crate) fn admit(&mut self, key: &str) -> Option<usize> {
        if self.revoked_keys.contains(key) {
            return None;
        }
        let known = self.keys.get(key).copied();
        let organization = match known {
            Some(organization) => organization,
            None if self.strict_keys => return None,
            None => self.found(key),
        };
        (!self.organizations[organization].switches.revoked).then_some(organization)
    }

    /// The organization with this key or name.
    pub(crate) fn find_organization(&self, key_or_name: &str) -> Option<usize> {
        let by_key = self.keys.get(key_or_name).copied();
        by_key.or_else(|| {
            self.organizations
                .iter()
                .position(|organization| organization.name == key_or_name)
        })
    }

    /// As [`Self::find_organization`], but an unknown text is taken for a new key.
    pub(crate) fn find_or_found(&mut self, key_or_name: &str) -> usize {
        self.find_organization(key_or_name)
            .unwrap_or_else(|| self.found(key_or_name))
    }

    pub(crate) fn add_key(&mut self, organization: usize, key: String) {
        self.revoked_keys.remove(&key);
        self.keys.insert(key, organization);
    }

    pub(crate) fn revoke_key(&mut self, key: String) {
        self.revoked_keys.insert(key);
    }

    /// What logs call the owner of a key.
    pub(crate) fn label(&self, key: &str) -> String {
        let known = self
            .keys
            .get(key)
            .map(|organization| self.organizations[*organization].name.clone());
        known.unwrap_or_else(|| masked(key))
    }

    pub(crate) fn invoice(&self, id: u64) -> Option<&Invoice> {
        self.invoices.get(index(id, FIRST_INVOICE)?)
    }

    pub(crate) fn invoice_mut(&mut self, id: u64) -> Option<&mut Invoice> {
        self.invoices.get_mut(index(id, FIRST_INVOICE)?)
    }

    pub(crate) fn refund(&self, id: u64) -> Option<&Refund> {
        self.refunds.get(index(id, FIRST_REFUND)?)
    }

    pub(crate) fn invoices(&self) -> &[Invoice] {
        &self.invoices
    }

    pub(crate) fn refunds(&self) -> &[Refund] {
        &self.refunds
    }

    /// The alive or paid invoice that holds an idempotency key.
    pub(crate) fn key_holder(&self, organization: usize, key: &str) -> Option<&Invoice> {
        let organization = &self.organizations[organization];
        if !organization.switches.honour_idempotency_key {
            return None;
        }
        let newest = self.invoice(*organization.newest_by_key.get(key)?)?;
        let released =
            organization.switches.idempotency_key_released && newest.status.releases_key();
        (!released).then_some(newest)
    }

    fn found(&mut self, key: &str) -> usize {
        let organization = self.organizations.len();
        self.organizations
            .push(Organization::new(masked(key), self.defaults.clone()));
        self.keys.insert(key.to_owned(), organization);
        organization
    }
}

fn index(id: u64, first: u64) -> Option<usize> {
    usize::try_from(id.checked_sub(first)?).ok()
}

/// A stable name for a key that does not give the key away.
pub(crate) fn masked(key: &str) -> String {
    let shown = key.chars().count().min(8) / 2;
    let start: String = key.chars().take(shown).collect();
    let hash = key.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{start}…{:08x}", (hash >> 32) ^ (hash & 0xffff_ffff))
}
