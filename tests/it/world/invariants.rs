//! What must hold after every run, whatever was done to it.

use std::collections::BTreeMap;

use serde_json::Value;

use super::World;
use super::database::PASSWORD_CANARY;

/// Everything that is violated, as sentences.
pub(super) async fn check(world: &World) -> Vec<String> {
    let facts = Facts::collect(world).await;
    let mut violations = Vec::new();
    for job in &facts.jobs {
        check_effects(&facts, job, &mut violations);
        check_state(&facts, job, &mut violations);
        // Their moments are the database's, and the gateway's are this machine's.
        if !world.wish.own_clock {
            check_sends(&facts, job, &mut violations);
        }
        check_row(&facts, job, &mut violations);
    }
    check_parks(world, &facts, &mut violations);
    check_strangers(&facts, &mut violations);
    check_told(&facts, &mut violations);
    check_canaries(world, &facts, &mut violations).await;
    violations
}

struct Facts {
    jobs: Vec<Value>,
    attempts: BTreeMap<i64, Vec<Value>>,
    alerts: Vec<Value>,
    accounts: BTreeMap<String, Value>,
    events: Vec<Value>,
    /// Our copies of invoices and refunds.
    mirrors: Vec<Value>,
    effects: Vec<Value>,
    invoices: BTreeMap<i64, Value>,
    refunds: BTreeMap<i64, Value>,
    requests: Vec<Value>,
}

/// A moment in the database as the sandbox writes its own: microseconds since 1970.
const MICROSECONDS: &str = "(extract(epoch from";

impl Facts {
    async fn collect(world: &World) -> Facts {
        let mut attempts: BTreeMap<i64, Vec<Value>> = BTreeMap::new();
        for attempt in world
            .rows(&format!(
                "select *, {MICROSECONDS} started_at) * 1e6)::bigint as started_us \
                 from apipay.attempts order by job_id, epoch"
            ))
            .await
        {
            attempts
                .entry(number(&attempt, "job_id"))
                .or_default()
                .push(attempt);
        }
        let ledger = world.sandbox.ledger().await;
        let by_id = |list: &Value| {
            let items = list.as_array().unwrap().iter();
            items
                .map(|item| (number(item, "id"), item.clone()))
                .collect()
        };
        Facts {
            jobs: world.rows("select * from apipay.jobs order by id").await,
            attempts,
            alerts: world.rows("select * from apipay.alerts order by id").await,
            accounts: world
                .rows("select * from apipay.accounts")
                .await
                .into_iter()
                .map(|account| (text(&account, "name").to_owned(), account))
                .collect(),
            events: world
                .rows(&format!(
                    "select *, {MICROSECONDS} at) * 1e6)::bigint as at_us from apipay.events order by id"
                ))
                .await,
            mirrors: world
                .rows(
                    "select account, 'invoice' as subject, id, status, total_refunded from apipay.invoices
                     union all
                     select account, 'refund', id, status, null from apipay.refunds",
                )
                .await,
            effects: ledger["effects"].as_array().unwrap().clone(),
            invoices: by_id(&ledger["invoices"]),
            refunds: by_id(&ledger["refunds"]),
            requests: world.sandbox.all_requests().await,
        }
    }

    fn attempts_of(&self, job: &Value) -> &[Value] {
        self.attempts
            .get(&number(job, "id"))
            .map_or(&[], Vec::as_slice)
    }

    fn effects_of<'a>(&'a self, job: &'a Value) -> impl Iterator<Item = &'a Value> {
        self.effects
            .iter()
            .filter(move |effect| is_effect_of(effect, job))
    }

    /// Whether a held job has an alert of its own, or is counted by that of those beyond ten.
    fn tells_of_held(&self, account: &str, job: &Value) -> bool {
        self.alerts.iter().any(|alert| {
            alert["resolved_at"].is_null()
                && alert["account"] == account
                && ["job_held", "duplicate_detected"].contains(&text(alert, "kind"))
                && (alert["details"]["job"] == *job || alert["subject"] == "others")
        })
    }

    fn has_open_alert(&self, account: &str, kinds: &[&str]) -> bool {
        self.alerts.iter().any(|alert| {
            alert["resolved_at"].is_null()
                && alert["account"] == account
                && kinds.contains(&text(alert, "kind"))
        })
    }
}

/// Whether an effect in the sandbox's ledger is one of this job: by its key, its mark, or, for a
/// cancel, the invoice that it names.
pub(super) fn is_effect_of(effect: &Value, job: &Value) -> bool {
    if effect["kind"] != job["operation"] {
        return false;
    }
    if effect["kind"] == "invoice.cancel" {
        return effect["invoice_id"] == job["params"]["invoice_id"];
    }
    name_in(effect, job).is_some()
}

/// The job's name at the gateway as it stands in an effect: the token, with its generation.
fn name_in(effect: &Value, job: &Value) -> Option<String> {
    let token = text(job, "token");
    let fields = [
        "idempotency_key",
        "external_order_id",
        "internal_comment",
        "reason",
    ];
    // A program may choose another job's name as its order id: the mark says whose it is.
    let is_marked = effect["internal_comment"]
        .as_str()
        .is_some_and(|comment| comment.contains("[apipayd "));
    let speaks = |field: &&&str| **field != "external_order_id" || !is_marked;
    fields.iter().filter(speaks).find_map(|field| {
        let written = effect[field].as_str()?;
        let start = written.find(token)?;
        let name = written[start..].split([']', ' ']).next()?;
        Some(name.to_owned())
    })
}

/// Never twice: one effect for each name, and a new name only once the earlier object is dead.
fn check_effects(facts: &Facts, job: &Value, violations: &mut Vec<String>) {
    let id = number(job, "id");
    let mut by_name: BTreeMap<String, Vec<&Value>> = BTreeMap::new();
    for effect in facts.effects_of(job) {
        let name = name_in(effect, job).unwrap_or_default();
        by_name.entry(name).or_default().push(effect);
    }
    // A cancel that the gateway dropped without a word is asked for again; nothing happens twice.
    let dropped = facts.events.iter().filter(|event| {
        event["job_id"] == job["id"]
            && event["from_state"] == "accepted"
            && event["reason"] == "not_applied"
    });
    let allowed = match text(job, "operation") {
        "invoice.cancel" => 1 + dropped.count(),
        _ => 1,
    };
    for (name, effects) in &by_name {
        if effects.len() > allowed {
            violations.push(format!(
                "job {id} had {} effects as {name:?}: {effects:?}",
                effects.len()
            ));
        }
    }
    let alive = facts
        .effects_of(job)
        .filter(|effect| !is_dead(facts, effect))
        .count();
    if alive > allowed {
        violations.push(format!(
            "job {id} has {alive} living objects at the gateway"
        ));
    }
}

/// Whether what the effect made failed: no money can move through it.
fn is_dead(facts: &Facts, effect: &Value) -> bool {
    match text(effect, "kind") {
        "invoice.refund" => facts
            .refunds
            .get(&number(effect, "refund_id"))
            .is_some_and(|refund| refund["status"] == "failed"),
        _ => facts
            .invoices
            .get(&number(effect, "invoice_id"))
            .is_some_and(|invoice| invoice["status"] == "error"),
    }
}

/// Never lost, never silent: final and true, or moving, or waiting with an open alert.
fn check_state(facts: &Facts, job: &Value, violations: &mut Vec<String>) {
    let (id, account) = (number(job, "id"), text(job, "account"));
    let parked = facts.accounts[account]["state"] == "parked";
    let mut effects = facts.effects_of(job);
    match text(job, "state") {
        "succeeded" if job["operation"] == "invoice.cancel" => {
            let invoice = facts.invoices.get(&number(&job["params"], "invoice_id"));
            let gone = invoice.is_some_and(|invoice| {
                ["cancelled", "expired"].contains(&text(invoice, "status"))
                    || invoice["error_code"] == "invoice_already_cancelled"
            });
            if !gone {
                violations.push(format!(
                    "job {id} succeeded, but the invoice is {invoice:?}"
                ));
            }
        }
        "succeeded" => {
            if effects.next().is_none() {
                violations.push(format!("job {id} succeeded without an effect"));
            }
        }
        "failed" if job["operation"] == "invoice.cancel" => {
            let invoice = facts.invoices.get(&number(&job["params"], "invoice_id"));
            if invoice.is_some_and(|invoice| invoice["status"] == "cancelled") {
                violations.push(format!("job {id} failed, but its invoice is cancelled"));
            }
        }
        "failed" | "cancelled" | "expired" => {
            if let Some(alive) = effects.find(|effect| !is_dead(facts, effect)) {
                violations.push(format!(
                    "job {id} is {}, but had an effect: {alive}",
                    job["state"]
                ));
            }
        }
        "parked" if !parked => violations.push(format!("job {id} is parked, its account is not")),
        "held" if !facts.tells_of_held(account, &job["id"]) => {
            violations.push(format!("job {id} is held without an open alert"));
        }
        "parked" | "held" | "queued" | "sending" | "uncertain" | "accepted" => {}
        other => violations.push(format!("job {id} is {other}")),
    }
    if parked && !facts.has_open_alert(account, &["account_parked"]) {
        violations.push(format!("account {account} is parked without an open alert"));
    }
    if !parked && facts.has_open_alert(account, &["account_parked"]) {
        violations.push(format!(
            "account {account} is active with an open alert of its park"
        ));
    }
}

/// No send without an attempt that was written earlier.
fn check_sends(facts: &Facts, job: &Value, violations: &mut Vec<String>) {
    let id = number(job, "id");
    let starts: Vec<i64> = facts
        .attempts_of(job)
        .iter()
        .filter(|attempt| attempt["kind"] == "send")
        .map(|attempt| number(attempt, "started_us"))
        .collect();
    let sends = facts
        .requests
        .iter()
        .filter(|request| is_send_of(request, job));
    for (place, request) in sends.enumerate() {
        let at = number(request, "at_unix_us");
        let promised = starts.iter().filter(|start| **start <= at).count();
        if promised <= place {
            violations.push(format!(
                "request {} of job {id} left before its attempt was written ({promised} attempts, request number {})",
                request["seq"], place + 1
            ));
        }
    }
}

/// Whether a request in the log is a send of this job.
fn is_send_of(request: &Value, job: &Value) -> bool {
    let path = text(request, "path");
    match text(job, "operation") {
        "invoice.cancel" => {
            path.ends_with(&format!("/invoices/{}/cancel", job["params"]["invoice_id"]))
        }
        // Each carries its mark; an order id may be one that a program chose.
        _ => {
            let mark = format!("[apipayd {}", text(job, "token"));
            is_send(request) && text(request, "body").contains(&mark)
        }
    }
}

/// Whether it reads the refunds of the job's invoice.
fn is_read_before(request: &Value, job: &Value) -> bool {
    let list = format!("/invoices/{}/refunds", job["params"]["invoice_id"]);
    job["operation"] == "invoice.refund" && text(request, "path").ends_with(&list)
}

/// Whether a request in the log may have an effect: a status check is a POST that only reads.
pub(crate) fn is_send(request: &Value) -> bool {
    request["method"] == "POST" && request["route"] != "POST /invoices/status/check"
}

/// The rows themselves.
fn check_row(facts: &Facts, job: &Value, violations: &mut Vec<String>) {
    let (id, state) = (number(job, "id"), text(job, "state"));
    let attempts = facts.attempts_of(job);
    let is_final = ["succeeded", "failed", "cancelled", "expired"].contains(&state);
    if is_final == job["finished_at"].is_null() {
        violations.push(format!(
            "job {id} is {state} with finished_at {}",
            job["finished_at"]
        ));
    }
    if state == "sending" {
        violations.push(format!(
            "job {id} is sending although every daemon ended cleanly"
        ));
    }
    let newest = attempts
        .iter()
        .map(|attempt| number(attempt, "epoch"))
        .max();
    if newest.is_some_and(|newest| newest > number(job, "epoch")) {
        violations.push(format!(
            "job {id} has an attempt above its epoch {}",
            job["epoch"]
        ));
    }
    for attempt in attempts {
        let open = attempt["finished_at"].is_null();
        if open && is_final {
            violations.push(format!(
                "job {id} is {state} with an open attempt {}",
                attempt["epoch"]
            ));
        }
        if open != attempt["effect"].is_null() {
            violations.push(format!(
                "attempt {} of job {id} is half closed",
                attempt["epoch"]
            ));
        }
    }
    let left = facts.events.iter().filter(|event| {
        event["job_id"] == job["id"]
            && event["subject"] == "job"
            && ["succeeded", "failed", "cancelled", "expired"]
                .contains(&event["from_state"].as_str().unwrap_or_default())
    });
    if left.count() > 0 {
        violations.push(format!("job {id} left a final state"));
    }
}

/// How long after the park a request may arrive that had left before.
const ON_ITS_WAY_US: i64 = 150_000;

/// While an account is parked, nothing of it reaches the gateway but probes: its health, and one
/// job at a time that the daemon marked as such; and whether a new key is the account's. Where invoices fail at Kaspi, what was accepted is asked about.
fn check_parks(world: &World, facts: &Facts, violations: &mut Vec<String>) {
    for account in &world.wish.accounts {
        for (from, until) in parks(facts, account) {
            let asks = facts.events.iter().any(|event| {
                let at = number(event, "at_us");
                event["subject"] == "account"
                    && event["subject_id"] == account.as_str()
                    && event["evidence"]["delivery_error"].is_string()
                    && (from..until).contains(&at)
            });
            for request in &facts.requests {
                let at = number(request, "at_unix_us");
                let inside =
                    at > from + ON_ITS_WAY_US && at < until && request["key"] == account.as_str();
                // By its path: where base_url leads to nothing, it is no route.
                let path = request["path"].as_str().unwrap_or_default();
                let is_asked = asks
                    && (text(request, "route").starts_with("GET ")
                        || request["route"] == "POST /invoices/status/check");
                let is_allowed = is_asked
                    || makes_key_known(facts, request)
                    || path.ends_with("/account/health");
                if inside && !is_allowed && !is_probe(facts, request) {
                    violations.push(format!(
                        "request {} ({}) of the parked account {account} left {} ms after the park",
                        request["seq"],
                        request["route"],
                        (at - from) / 1000
                    ));
                }
            }
        }
    }
}

/// Whether it is the one question that a new key is used for before it is known.
fn makes_key_known(facts: &Facts, request: &Value) -> bool {
    let mut of_key = facts.requests.iter();
    let first = of_key.find(|other| other["masked_key"] == request["masked_key"]);
    request["route"] == "POST /invoices/status/check"
        && first.is_some_and(|first| first["seq"] == request["seq"])
}

/// When the account was parked: from and until, in microseconds.
fn parks(facts: &Facts, account: &str) -> Vec<(i64, i64)> {
    let mut parks = Vec::new();
    let mut since = None;
    for event in &facts.events {
        if event["subject"] != "account" || event["subject_id"] != account {
            continue;
        }
        let at = number(event, "at_us");
        match (text(event, "to_state"), since) {
            ("parked", None) => since = Some(at),
            ("active", Some(from)) => {
                parks.push((from, at));
                since = None;
            }
            _ => {}
        }
    }
    parks.extend(since.map(|from| (from, i64::MAX)));
    parks
}

/// Whether the request belongs to the job that a probe let through: its last claim before the
/// request was one for a probe. Reading the refunds of an invoice first is part of a refund.
fn is_probe(facts: &Facts, request: &Value) -> bool {
    let at = number(request, "at_unix_us");
    facts
        .jobs
        .iter()
        .filter(|job| is_send_of(request, job) || is_read_before(request, job))
        .any(|job| {
            let claim = facts.events.iter().rev().find(|event| {
                event["job_id"] == job["id"]
                    && event["to_state"] == "sending"
                    && number(event, "at_us") <= at
            });
            claim.is_some_and(|claim| claim["reason"] == "probe")
        })
}

/// Nothing at the gateway that no job explains.
fn check_strangers(facts: &Facts, violations: &mut Vec<String>) {
    for effect in &facts.effects {
        if !facts.jobs.iter().any(|job| is_effect_of(effect, job)) {
            violations.push(format!("an effect of no job: {effect}"));
        }
    }
}

/// Whatever a mirror shows was told: its newest event says the same.
fn check_told(facts: &Facts, violations: &mut Vec<String>) {
    for mirror in &facts.mirrors {
        let id = mirror["id"].to_string();
        let told = facts.events.iter().rev().find(|event| {
            event["subject"] == mirror["subject"]
                && event["account"] == mirror["account"]
                && event["subject_id"] == id.as_str()
        });
        if told.is_none_or(|event| event["to_state"] != mirror["status"]) {
            violations.push(format!(
                "{mirror} was never told; its newest event is {told:?}"
            ));
        }
    }
}

/// Secrets and phone numbers show up nowhere outside `params` and what is sent to the gateway.
async fn check_canaries(world: &World, facts: &Facts, violations: &mut Vec<String>) {
    let mut secrets: Vec<(String, String)> = vec![
        ("an API key".to_owned(), world.canary.clone()),
        (
            "the database's password".to_owned(),
            PASSWORD_CANARY.to_owned(),
        ),
    ];
    for job in &facts.jobs {
        if let Some(phone) = job["params"]["phone_number"].as_str() {
            let digits: String = phone.chars().filter(char::is_ascii_digit).collect();
            if digits.len() >= 10 {
                let national = digits[digits.len() - 10..].to_owned();
                secrets.push(("a phone number".to_owned(), national));
            }
        }
    }
    secrets.sort();
    secrets.dedup();
    let mut places = vec![
        ("the log".to_owned(), world.said()),
        ("a posted alert".to_owned(), world.alerts.raw()),
    ];
    for table in [
        "alerts",
        "alert_deliveries",
        "events",
        "accounts",
        "overview",
        "waiting",
        "uncertain",
        "parked",
        "daily",
        "account_status",
    ] {
        let rows = world.rows(&format!("select * from apipay.{table}")).await;
        places.push((format!("apipay.{table}"), Value::from(rows).to_string()));
    }
    for (what, secret) in &secrets {
        for (place, text) in &places {
            if let Some(found) = text.find(secret.as_str()) {
                let start = text.floor_char_boundary(found.saturating_sub(80));
                let end = text.floor_char_boundary(found + 20);
                violations.push(format!("{what} stands in {place}: …{}…", &text[start..end]));
            }
        }
    }
    let silent = world
        .rows("select id from apipay.overview where coalesce(explain, '') = ''")
        .await;
    if !silent.is_empty() {
        violations.push(format!("apipay.overview explains nothing of {silent:?}"));
    }
}

fn number(row: &Value, column: &str) -> i64 {
    row[column]
        .as_i64()
        .unwrap_or_else(|| panic!("{column} is no number in {row}"))
}

fn text<'a>(row: &'a Value, column: &str) -> &'a str {
    row[column].as_str().unwrap_or_default()
}
