//! One job under one fault: what became of it, and whether that is right.

use std::time::Duration;

use serde_json::Value;

use super::Operation;
use super::cases::Case;
use super::cases::Then::{AtOnce, Fails, ParksFor, Succeeds, ThrottledFor, Waits, WaitsAlone};
use crate::world::{Job, World};

pub(super) struct Trial<'a> {
    pub(super) world: &'a World,
    pub(super) operation: Operation,
    pub(super) case: &'a Case,
    pub(super) account: &'a str,
    pub(super) job: Job,
}

/// What the gateway has seen and done.
pub(super) struct Books {
    requests: Vec<Value>,
    effects: Vec<Value>,
}

impl Books {
    pub(super) async fn read(world: &World) -> Books {
        Books {
            requests: world.sandbox.requests().await,
            effects: world.sandbox.effects().await,
        }
    }
}

impl Trial<'_> {
    /// Whether the job is to be found waiting.
    pub(super) fn waits(&self) -> bool {
        matches!(self.case.then, Waits { .. } | WaitsAlone { .. })
    }

    /// Waits until the job is in the state that the case wants, and returns its row.
    pub(super) async fn settle(&self) -> Result<Value, String> {
        let state = match self.case.then {
            AtOnce | Succeeds { .. } | ThrottledFor { .. } | ParksFor(_) => "succeeded",
            Fails { .. } => "failed",
            Waits { .. } | WaitsAlone { .. } => "queued",
        };
        for _ in 0..1500 {
            let attempts = self.world.attempts(self.job).await;
            let row = self.world.job(self.job).await;
            let answered = attempts
                .first()
                .is_some_and(|attempt| !attempt["finished_at"].is_null());
            if row["state"] == state && answered {
                return Ok(row);
            }
            if !row["finished_at"].is_null() {
                return Err(format!("it ended otherwise than {state}"));
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        Err(format!("it is never {state}"))
    }

    /// What is wrong, if anything is.
    pub(super) async fn check(&self, row: &Value, books: &Books) -> Result<(), String> {
        match &self.case.then {
            AtOnce => {
                let attempts = self.world.attempts(self.job).await.len();
                expect(attempts == 1, &format!("{attempts} attempts, not 1"))?;
                self.expect_sends(books, 1, 1)
            }
            ThrottledFor { refusals } => {
                expect(row["attempts"] == 1, "a refusal costs an attempt")?;
                self.expect_pauses(*refusals).await?;
                expect(self.was_blocked().await, "the account was not slowed")?;
                self.expect_sends(books, refusals + 1, 1)
            }
            Succeeds { sends } => self.expect_sends(books, *sends, 1),
            Fails { status } => {
                expect(
                    row["http_status"] == *status,
                    &format!("http_status is not {status}"),
                )?;
                expect(row["reason"] == "refused", "reason is not refused")?;
                let why = ["error_code", "error_message", "errors"];
                let is_told = why.iter().any(|column| !row[column].is_null());
                expect(is_told, "it does not say why")?;
                self.expect_sends(books, 1, 0)
            }
            ParksFor(reason) => {
                self.expect_sends(books, 2, 1)?;
                self.expect_park(reason).await
            }
            Waits {
                reason,
                at_least_s,
                at_most_s,
            } => {
                expect(row["reason"] == *reason, &format!("reason is not {reason}"))?;
                expect(row["attempts"] == 0, "it costs an attempt")?;
                self.expect_block(*at_least_s, *at_most_s).await?;
                self.expect_cap_alert(*reason == "cap_reached").await?;
                self.expect_sends(books, 1, 0)
            }
            WaitsAlone { reason } => {
                expect(row["reason"] == *reason, &format!("reason is not {reason}"))?;
                expect(!self.was_blocked().await, "the account is blocked")?;
                self.expect_sends(books, 1, 0)
            }
        }
    }

    /// The wait was the gateway's, so a human may end it; then everything is as before: that no request
    /// remained was true for as long as the wait.
    pub(super) async fn expect_return(&self) {
        let (account, job) = (self.account, self.job);
        self.world
            .sql(&format!(
                "select apipay.resume('{account}', 'enough');
                 update apipay.jobs set run_at = now() where id = {job} and state = 'queued'"
            ))
            .await;
        let row = self.world.until(job, "succeeded").await;
        assert_eq!(row["attempts"], 1);
        let books = Books::read(self.world).await;
        self.expect_sends(&books, 2, 1).unwrap();
    }

    fn expect_sends(&self, books: &Books, sends: usize, effects: usize) -> Result<(), String> {
        let route = self.operation.route();
        let requests = books.requests.iter();
        let sent = requests
            .filter(|request| request["route"] == route && request["key"] == self.account)
            .count();
        expect(sent == sends, &format!("{sent} requests, not {sends}"))?;
        let done = books.effects.iter();
        let done = done
            .filter(|effect| effect["organization"] == self.account)
            .count();
        expect(done == effects, &format!("{done} effects, not {effects}"))
    }

    /// Each refusal is followed by a second without a request, and by no look-up.
    async fn expect_pauses(&self, refusals: usize) -> Result<(), String> {
        let job = self.job;
        let attempts = self
            .world
            .rows(&format!(
                "select http_status, lead(started_at) over (order by epoch) - finished_at >= interval '1 second' as kept
                   from apipay.attempts where job_id = {job} order by epoch"
            ))
            .await;
        let kept = attempts
            .iter()
            .filter(|attempt| attempt["http_status"] == 429 && attempt["kept"] == true)
            .count();
        let is_right = kept == refusals && attempts.len() == refusals + 1;
        expect(is_right, &format!("{kept} pauses: {attempts:?}"))
    }

    async fn was_blocked(&self) -> bool {
        let account = self.account;
        let blocks = format!(
            "apipay.accounts where name = '{account}' and coalesce(blocked_until, capped_until) is not null"
        );
        self.world.count(&blocks).await == 1
    }

    /// From the claim on, which a busy machine may make long ago.
    async fn expect_block(&self, at_least_s: i64, at_most_s: i64) -> Result<(), String> {
        const BUSY_S: i64 = 20;
        let (account, job) = (self.account, self.job);
        let wait = self
            .world
            .value(&format!(
                "select to_jsonb(extract(epoch from coalesce(a.blocked_until, a.capped_until) - t.started_at)::bigint)
                   from apipay.accounts a, apipay.attempts t where a.name = '{account}' and t.job_id = {job}"
            ))
            .await;
        let is_right = wait
            .as_i64()
            .is_some_and(|s| (at_least_s..=at_most_s + BUSY_S).contains(&s));
        expect(is_right, &format!("the account waits for {wait} s"))
    }

    async fn expect_park(&self, reason: &str) -> Result<(), String> {
        let account = self.account;
        let parked = self
            .world
            .count(&format!(
                "apipay.events where subject = 'account' and subject_id = '{account}' and to_state = 'parked' and reason = '{reason}'"
            ))
            .await;
        expect(parked == 1, &format!("parked {parked} times for {reason}"))?;
        let told = self
            .world
            .count(&format!("apipay.alerts where account = '{account}' and kind = 'account_parked' and resolved_at is not null"))
            .await;
        expect(
            told == 1,
            &format!("{told} alerts were opened and resolved"),
        )
    }

    async fn expect_cap_alert(&self, wanted: bool) -> Result<(), String> {
        let account = self.account;
        let open = self
            .world
            .count(&format!(
                "apipay.alerts where account = '{account}' and kind = 'cap_reached' and resolved_at is null"
            ))
            .await;
        expect(
            open == i64::from(wanted),
            &format!("{open} open alerts of a cap"),
        )
    }
}

fn expect(holds: bool, otherwise: &str) -> Result<(), String> {
    holds.then_some(()).ok_or_else(|| otherwise.to_owned())
}
