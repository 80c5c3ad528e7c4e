//! The one shared state, and the way of one request through it: log, limits, faults, gateway.

use std::net::IpAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tracing::debug;

use crate::api::{self, Request};
use crate::clock::{Clock, Moment};
use crate::envelope::Reply;
use crate::faults::{Effect, Faults, Hit, Target};
use crate::journal::{Entry, Journal, excerpt};
use crate::limits::{Allowance, Bucket, Limits};
use crate::world::{Switches, World, masked};
use crate::{Settings, control};

pub(crate) struct State {
    pub(crate) settings: Settings,
    pub(crate) world: World,
    pub(crate) clock: Clock,
    pub(crate) faults: Faults,
    pub(crate) limits: Limits,
    pub(crate) journal: Journal,
    /// Counts the resets; what was to be applied late before one is dropped.
    age: u64,
}

/// What becomes of one request.
pub(crate) struct Plan {
    /// The number in the request log; `None` for control requests, which are not logged.
    pub(crate) seq: Option<u64>,
    /// `None` when the real answer comes with a late effect.
    pub(crate) reply: Option<Reply>,
    pub(crate) late: Option<Late>,
    pub(crate) hit: Option<Hit>,
}

/// An effect that is still to come.
pub(crate) struct Late {
    pub(crate) after: Duration,
    request: Request,
    seq: u64,
    age: u64,
}

pub(crate) struct Hub {
    state: Mutex<State>,
}

impl Hub {
    pub(crate) fn new(settings: Settings) -> Self {
        Self {
            state: Mutex::new(State::new(settings)),
        }
    }

    /// Takes a request in, applies what is to be applied now and says how to answer.
    pub(crate) fn begin(&self, request: Request, peer: IpAddr) -> Plan {
        let mut state = self.lock();
        let now = state.clock.now();
        if request.path.starts_with(control::PREFIX) {
            let reply = control::answer(&mut state, &request, now);
            return Plan {
                seq: None,
                reply: Some(reply),
                late: None,
                hit: None,
            };
        }
        state.begin(request, peer, now)
    }

    /// Applies a late effect; `None` when a reset came in between.
    pub(crate) fn apply_late(&self, late: &Late) -> Option<Reply> {
        let mut state = self.lock();
        if state.age != late.age {
            return None;
        }
        let now = state.clock.now();
        Some(state.apply(&late.request, now, late.seq))
    }

    /// Notes how a request ended; no status when no whole answer was sent.
    pub(crate) fn end(&self, seq: u64, status: Option<u16>) {
        let mut state = self.lock();
        let now = state.clock.now();
        state.journal.close(seq, status, now.real);
        if let Some(entry) = state.journal.entry(seq) {
            let (status, took_us) = (
                entry.status.unwrap_or_default(),
                entry.duration_us.unwrap_or_default(),
            );
            debug!(
                request.seq = seq,
                request.route = entry.route,
                request.key = entry.key,
                request.fault = entry.fault,
                response.status = status,
                took_us,
                "request {seq} to {} answered with {status}",
                entry.route,
            );
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic elsewhere must not take the whole stand-in down.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    pub(crate) fn new(settings: Settings) -> Self {
        let switches = Switches::new(settings.mode, settings.requests_per_minute);
        Self {
            world: World::new(switches, settings.strict_keys),
            clock: Clock::new(settings.speed),
            faults: Faults::default(),
            limits: Limits::default(),
            journal: Journal::new(settings.request_log),
            settings,
            age: 0,
        }
    }

    /// Back to the start, but for the numbering of requests.
    pub(crate) fn reset(&mut self) {
        let fresh = Self::new(self.settings.clone());
        let Self {
            world,
            clock,
            faults,
            limits,
            ..
        } = fresh;
        (self.world, self.clock, self.faults, self.limits) = (world, clock, faults, limits);
        self.journal.clear();
        self.age += 1;
    }

    fn begin(&mut self, request: Request, peer: IpAddr, now: Moment) -> Plan {
        let route = api::find(&request.method, &request.path)
            .ok()
            .map(|found| found.route);
        let owner = self.owner_of(&request);
        let template = route.map_or("unknown", |route| route.template);
        let body = excerpt(&request.body);
        let masked_key = request
            .key
            .as_deref()
            .map_or_else(|| "none".to_owned(), masked);
        let seq = self.journal.open(Entry {
            at: now.real,
            key: owner.clone(),
            masked_key,
            method: request.method.clone(),
            path: request.path.clone(),
            query: request.query.clone(),
            body: body.clone(),
            route: template,
            status: None,
            fault: None,
            applied: false,
            limited: false,
            duration_us: None,
        });
        let buckets = route.map_or(&[Bucket::General][..], |route| route.buckets);
        let allowance = match self.take_allowance(&request, buckets, peer, now) {
            Ok(allowance) => allowance,
            Err(refusal) => {
                if let Some(entry) = self.journal.entry(seq) {
                    entry.limited = true;
                }
                return Plan {
                    seq: Some(seq),
                    reply: Some(refusal),
                    late: None,
                    hit: None,
                };
            }
        };
        let full_body = if self.faults.is_empty() {
            body.into()
        } else {
            String::from_utf8_lossy(&request.body)
        };
        let target = Target {
            route: template,
            owner: &owner,
            key: request.key.as_deref(),
            body: &full_body,
            query: &request.query,
        };
        let hit = self.faults.pick(&target);
        match hit {
            Some(hit) => self.strike(request, now, seq, hit, allowance),
            None => {
                let reply = shown(self.apply(&request, now, seq), allowance);
                Plan {
                    seq: Some(seq),
                    reply: Some(reply),
                    late: None,
                    hit: None,
                }
            }
        }
    }

    fn strike(
        &mut self,
        request: Request,
        now: Moment,
        seq: u64,
        hit: Hit,
        allowance: Option<Allowance>,
    ) -> Plan {
        if let Some(entry) = self.journal.entry(seq) {
            entry.fault = Some(hit.name.clone());
        }
        let own = hit.rule.own_answer(now.real);
        let (reply, late) = match hit.rule.effect() {
            Effect::None => (own, None),
            Effect::Apply => {
                let real = shown(self.apply(&request, now, seq), allowance);
                (Some(own.unwrap_or(real)), None)
            }
            Effect::Late => (
                own,
                Some(Late {
                    after: hit.rule.late_after(),
                    request,
                    seq,
                    age: self.age,
                }),
            ),
        };
        Plan {
            seq: Some(seq),
            reply,
            late,
            hit: Some(hit),
        }
    }

    fn apply(&mut self, request: &Request, now: Moment, seq: u64) -> Reply {
        let before = self.world.ledger.len();
        let reply = api::answer(&mut self.world, request, now, seq);
        let applied = self.world.ledger.len() > before;
        if let Some(entry) = self.journal.entry(seq).filter(|_| applied) {
            entry.applied = true;
        }
        reply
    }

    fn owner_of(&self, request: &Request) -> String {
        request
            .key
            .as_deref()
            .map_or_else(|| "none".to_owned(), |key| self.world.label(key))
    }

    fn take_allowance(
        &mut self,
        request: &Request,
        buckets: &[Bucket],
        peer: IpAddr,
        now: Moment,
    ) -> Result<Option<Allowance>, Reply> {
        let by_address = buckets.contains(&Bucket::StatusByAddress);
        let owner = match &request.key {
            _ if by_address => format!("address {peer}"),
            Some(key) => key.clone(),
            None => return Ok(None),
        };
        let organization = self.world.find_organization(&owner);
        let switches = organization.map_or(&self.world.defaults, |index| {
            &self.world.organizations[index].switches
        });
        self.limits
            .take(&owner, buckets, switches.requests_per_minute, now.real)
    }
}

fn shown(mut reply: Reply, allowance: Option<Allowance>) -> Reply {
    if let Some(allowance) = allowance {
        allowance.show_on(&mut reply);
    }
    reply
}
