//! A trigger of the shop's that returns null has a statement succeed and change nothing, and one that returns the old row
//! has it count a change that was not made: they are told like one that raises, with their names, and whatever is not
//! their row's goes on.

use serde_json::{Value, json};

use crate::world::{Job, World, phone};

/// A trigger of the shop's that returns null for such rows.
async fn hush(world: &World, timing: &str, rows: &str) {
    spoil(world, "null", timing, rows).await;
}

/// A trigger of the shop's that returns this for such rows: null, or the row as it was.
async fn spoil(world: &World, given: &str, timing: &str, rows: &str) {
    world
        .sql(&format!(
            "create function public.hush() returns trigger language plpgsql as $$
             begin
               return case when {rows} then {given} else new end;
             end $$;
             create trigger hush before {timing} for each row execute function public.hush()"
        ))
        .await;
}

async fn mend(world: &World) {
    world.sql("drop function public.hush cascade").await;
    world
        .until_holds("it has ended", async || open(world).await.is_empty())
        .await;
}

/// A bill of this amount, by which the triggers know its rows.
async fn bill_of(world: &World, payer: &str, amount: u32) -> Job {
    let params = json!({"phone_number": payer, "amount": amount});
    let metadata = json!({"metadata": {"amount": amount}});
    world.enqueue_with("invoice.create", params, metadata).await
}

async fn open(world: &World) -> Vec<Value> {
    world
        .rows("select * from apipay.alerts where kind = 'job_stuck' and resolved_at is null")
        .await
}

/// The one alert, once it is open; it names the trigger.
async fn told(world: &World) -> Value {
    told_as(world, SWALLOWED).await
}

const SWALLOWED: &str = "swallowed without an error: the trigger hush returns null";
const CHANGED_BACK: &str = "made without an error and changed back by the trigger hush";

async fn told_as(world: &World, words: &str) -> Value {
    world
        .until_holds("it is told", async || open(world).await.len() == 1)
        .await;
    let told = open(world).await.remove(0);
    let summary = told["summary"].as_str().unwrap();
    assert!(summary.contains(words), "{summary}");
    told
}

/// What is not the row's of the trigger goes on.
async fn others_go_on(world: &World) {
    let other = bill_of(world, phone::PAID, 100).await;
    world.until(other, "succeeded").await;
    world
        .until_true(&format!(
            "select exists (select from apipay.invoices where job_id = {other} and status = 'paid')"
        ))
        .await;
}

const OUR_JOB: &str = "new.metadata ->> 'amount' = '488'";

#[tokio::test]
async fn an_outcome_that_a_trigger_swallows_is_told_with_its_name_and_waits() {
    let (world, daemon) = World::running().await;
    let swallows = format!("old.state = 'sending' and {OUR_JOB}");
    hush(&world, "update on apipay.jobs", &swallows).await;
    let job = bill_of(&world, phone::UNPAID, 488).await;
    others_go_on(&world).await;
    assert_eq!(told(&world).await["details"]["job"], job);
    assert_eq!(world.job(job).await["state"], "sending");
    let mut check = world.spawn(&["check"], &[]);
    check.ended(std::time::Duration::from_secs(20)).await;
    let said = check.log_text();
    assert!(said.contains("the trigger hush on apipay.jobs"), "{said}");
    mend(&world).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_whose_claim_or_attempt_is_swallowed_is_not_sent_and_is_told() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        (
            "update on apipay.jobs",
            format!("new.state = 'sending' and {OUR_JOB}"),
        ),
        (
            "insert on apipay.attempts",
            "(select metadata ->> 'amount' from apipay.jobs where id = new.job_id) = '488'"
                .to_owned(),
        ),
    ] {
        hush(&world, timing, &when).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        others_go_on(&world).await;
        assert_eq!(told(&world).await["details"]["job"], job, "{timing}");
        assert_eq!(world.job(job).await["state"], "queued", "{timing}");
        assert!(world.effects_of(job).await.is_empty(), "{timing}");
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_lease_that_cannot_run_out_and_a_lookup_that_cannot_be_claimed_are_told() {
    let (world, mut daemon) = World::running().await;
    let lost = json!({"route": "POST /invoices", "effect": "apply", "times": 1, "hang": true});
    for when in ["new.reason = 'lease_expired'", "new.lookups > old.lookups"] {
        hush(
            &world,
            "update on apipay.jobs",
            &format!("{when} and {OUR_JOB}"),
        )
        .await;
        world.sandbox.fault(lost.clone()).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        world.until(job, "sending").await;
        daemon.kill().await;
        world.expire_lease(job).await;
        daemon = world.daemon().await;
        assert_eq!(told(&world).await["details"]["job"], job, "{when}");
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{when}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_that_cannot_be_stored_or_claimed_is_told_and_followed_later() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        ("insert on apipay.invoices", "new.amount = 488"),
        (
            "insert or update on apipay.invoices",
            "new.amount = 488 and new.status = 'paid'",
        ),
        ("update on apipay.invoices", "old.amount = 488"),
    ] {
        let is_first = !timing.contains("update");
        if is_first {
            hush(&world, timing, when).await;
        }
        let job = bill_of(&world, phone::UNPAID, 488).await;
        if !is_first {
            world.until(job, "succeeded").await;
            hush(&world, timing, when).await;
            let invoice = world.job(job).await["invoice_id"].as_i64().unwrap();
            let paid = json!({"status": "paid"});
            world.sandbox.set_invoice(invoice, paid).await;
        }
        told(&world).await;
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        let expected = if is_first { "pending" } else { "paid" };
        world
            .until_true(&format!(
                "select status = '{expected}' from apipay.invoices where job_id = {job}"
            ))
            .await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
        world.sql("update apipay.invoices set settled = true").await;
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_cannot_be_stored_or_claimed_is_told_and_followed_later() {
    let (world, daemon) = World::running().await;
    for (timing, when) in [
        ("insert on apipay.refunds", "new.amount = 488"),
        ("update on apipay.refunds", "old.amount = 488"),
    ] {
        let bill = bill_of(&world, phone::PAID, 600).await;
        let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
        world
            .until_true(&format!(
                "select status = 'paid' from apipay.invoices where id = {invoice}"
            ))
            .await;
        hush(&world, timing, when).await;
        let params = json!({"invoice_id": invoice, "amount": 488});
        let job = world.enqueue("invoice.refund", params).await;
        told(&world).await;
        others_go_on(&world).await;
        mend(&world).await;
        world.until(job, "succeeded").await;
        world
            .until_true(&format!(
                "select status = 'completed' from apipay.refunds where job_id = {job}"
            ))
            .await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{timing}");
    }
    world.end([daemon]).await;
}

/// The requests of a job that stand open.
async fn open_attempts(world: &World, job: Job) -> usize {
    let open =
        format!("select epoch from apipay.attempts where job_id = {job} and finished_at is null");
    world.rows(&open).await.len()
}

#[tokio::test]
async fn a_job_whose_attempt_cannot_be_closed_stays_as_it_is_and_goes_on_by_itself() {
    let (world, daemon) = World::running().await;
    for (given, words) in [("null", SWALLOWED), ("old", CHANGED_BACK)] {
        let ours = "(select metadata ->> 'amount' from apipay.jobs where id = old.job_id) = '488'";
        spoil(&world, given, "update on apipay.attempts", ours).await;
        // It needs a second send.
        let unclear = json!({"route": "POST /invoices", "effect": "none", "times": 1, "answer": {"preset": "502_html"}});
        world.sandbox.fault(unclear).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        assert_eq!(told_as(&world, words).await["details"]["job"], job);
        others_go_on(&world).await;
        assert_eq!(world.job(job).await["state"], "sending", "{given}");
        assert_eq!(open_attempts(&world, job).await, 1, "{given}");
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(open_attempts(&world, job).await, 0, "{given}");
        assert_eq!(world.effects_of(job).await.len(), 1, "{given}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_send_that_was_left_open_is_looked_up_and_stops_its_job_for_no_longer() {
    let (world, mut daemon) = World::running().await;
    let hangs = |effect: &str| json!({"route": "POST /invoices", "effect": effect, "times": 1, "hang": true});
    for effect in ["apply", "none"] {
        let before = world.sandbox.requests_to("POST /invoices").await.len();
        world.sandbox.fault(hangs(effect)).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        world
            .until_holds("it has arrived", async || {
                world.sandbox.requests_to("POST /invoices").await.len() > before
            })
            .await;
        daemon.kill().await;
        world
            .sql(&format!(
                "update apipay.jobs set state = 'queued', leased_by = null, leased_until = null where id = {job}"
            ))
            .await;
        daemon = world.daemon().await;
        world
            .until_true(&format!(
                "select exists (select from apipay.events where job_id = {job} and to_state = 'uncertain')"
            ))
            .await;
        world.until(job, "succeeded").await;
        assert_eq!(open_attempts(&world, job).await, 0, "{effect}");
        assert_eq!(world.effects_of(job).await.len(), 1, "{effect}");
    }
    assert!(open(&world).await.is_empty());
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_claim_that_is_changed_back_opens_no_attempt_and_is_told() {
    let (world, daemon) = World::running().await;
    for changed in ["new.state = 'sending'", "new.epoch > old.epoch"] {
        let when = format!("{changed} and {OUR_JOB}");
        spoil(&world, "old", "update on apipay.jobs", &when).await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        others_go_on(&world).await;
        assert_eq!(told_as(&world, CHANGED_BACK).await["details"]["job"], job);
        assert_eq!(world.job(job).await["state"], "queued", "{changed}");
        assert_eq!(open_attempts(&world, job).await, 0, "{changed}");
        assert!(world.effects_of(job).await.is_empty(), "{changed}");
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{changed}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_outcome_that_is_changed_back_is_told_and_the_gateway_is_not_blamed() {
    let (world, mut daemon) = World::running().await;
    let lost = json!({"route": "POST /invoices", "effect": "apply", "times": 1, "hang": true});
    for (is_looked_up, when) in [
        (false, "new.state in ('accepted', 'succeeded')"),
        (true, "new.state in ('accepted', 'succeeded')"),
        (true, "new.reason = 'lease_expired'"),
        (true, "new.lookups > old.lookups"),
    ] {
        let when = format!("{when} and {OUR_JOB}");
        spoil(&world, "old", "update on apipay.jobs", &when).await;
        if is_looked_up {
            world.sandbox.fault(lost.clone()).await;
        }
        let job = bill_of(&world, phone::UNPAID, 488).await;
        if is_looked_up {
            world.until(job, "sending").await;
            daemon.kill().await;
            world.expire_lease(job).await;
            daemon = world.daemon().await;
        }
        assert_eq!(
            told_as(&world, CHANGED_BACK).await["details"]["job"],
            job,
            "{when}"
        );
        others_go_on(&world).await;
        let blamed = "select kind from apipay.alerts where kind = 'gateway_failing'";
        assert!(world.rows(blamed).await.is_empty(), "{when}");
        mend(&world).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{when}");
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_invoice_whose_status_is_changed_back_is_told_and_shown_later() {
    let (world, daemon) = World::running().await;
    let job = bill_of(&world, phone::UNPAID, 488).await;
    let invoice = world.until(job, "succeeded").await["invoice_id"].as_i64();
    let when = "old.amount = 488 and new.status = 'paid'";
    spoil(&world, "old", "update on apipay.invoices", when).await;
    let paid = json!({"status": "paid"});
    world.sandbox.set_invoice(invoice.unwrap(), paid).await;
    told_as(&world, CHANGED_BACK).await;
    others_go_on(&world).await;
    mend(&world).await;
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where job_id = {job}"
        ))
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_park_that_is_not_stored_is_told_and_the_account_is_held_until_it_is() {
    let (world, daemon) = World::running().await;
    for given in ["null", "old"] {
        let when = "new.state is distinct from old.state";
        spoil(&world, given, "update on apipay.accounts", when).await;
        world.sandbox.session("expired").await;
        let before = world.sandbox.requests_to("POST /invoices").await.len();
        let jobs = [
            bill_of(&world, phone::UNPAID, 488).await,
            bill_of(&world, phone::UNPAID, 489).await,
        ];
        let told = "select summary, details from apipay.alerts where kind = 'no_progress' and resolved_at is null";
        world
            .until_holds("it is told", async || !world.rows(told).await.is_empty())
            .await;
        let summary = world.rows(told).await.remove(0)["summary"].to_string();
        assert!(summary.contains("the trigger hush"), "{given}: {summary}");
        let parked =
            "select kind from apipay.alerts where kind = 'account_parked' and resolved_at is null";
        assert!(world.rows(parked).await.is_empty(), "{given}");
        let sent = world.sandbox.requests_to("POST /invoices").await.len() - before;
        assert!(
            sent <= jobs.len(),
            "{given}: {sent} were sent to a gateway that is unwell"
        );
        world.sql("drop function public.hush cascade").await;
        world
            .until_holds("it is parked", async || world.rows(parked).await.len() == 1)
            .await;
        world.sandbox.session("active").await;
        world
            .sql("update apipay.accounts set probe_at = now()")
            .await;
        for job in jobs {
            world.until(job, "succeeded").await;
            assert_eq!(world.effects_of(job).await.len(), 1, "{given}");
        }
        world
            .until_holds("both have ended", async || {
                world.rows(told).await.is_empty() && world.rows(parked).await.is_empty()
            })
            .await;
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_alert_of_a_park_that_is_none_ends_by_itself() {
    let (world, daemon) = World::running().await;
    world
        .sql("select apipay._open_alert('default', 'account_parked', 'critical', 'parked', 'resume it', '{}')")
        .await;
    world
        .sql("update apipay.alerts set opened_at = now() - interval '1 hour' where kind = 'account_parked'")
        .await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'account_parked' and resolved_at is not null)")
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_trigger_that_is_only_slow_has_nobody_end_a_session_of_the_daemons() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.hush() returns trigger language plpgsql as $$
             begin
               perform pg_sleep(3);
               return new;
             end $$;
             create trigger hush before update on apipay.jobs for each row execute function public.hush()",
        )
        .await;
    let mut jobs = Vec::new();
    for amount in 1..=6 {
        jobs.push(bill_of(&world, phone::UNPAID, amount).await);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    }
    tokio::time::sleep(std::time::Duration::from_secs(40)).await;
    let told = world
        .rows("select summary, action, resolved_at from apipay.alerts where kind = 'job_stuck'")
        .await;
    for told in &told {
        let action = told["action"].as_str().unwrap();
        assert!(!action.contains("keeps it locked"), "{told:?}");
    }
    world.sql("drop function public.hush cascade").await;
    for job in jobs {
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1);
    }
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_probe_whose_claim_is_not_stored_is_not_made_again_and_again() {
    let (world, daemon) = World::running().await;
    for given in ["null", "old"] {
        world.sandbox.session("expired").await;
        let job = bill_of(&world, phone::UNPAID, 488).await;
        world.until(job, "parked").await;
        let health = "GET /account/health";
        world
            .sql(&format!(
                "update apipay.accounts set probe_at = now();
                 create function public.hush() returns trigger language plpgsql as $$ begin return {given}; end $$;
                 create trigger hush before update on apipay.accounts
                   for each row when (new.probes > old.probes) execute function public.hush()"
            ))
            .await;
        let before = world.sandbox.requests_to(health).await.len();
        daemon
            .until_logged(if given == "null" {
                SWALLOWED
            } else {
                CHANGED_BACK
            })
            .await;
        tokio::time::sleep(std::time::Duration::from_secs(3)).await;
        let probes = world.sandbox.requests_to(health).await.len() - before;
        assert!(probes <= 1, "{given}: {probes}");
        world.sandbox.session("active").await;
        world.sql("drop function public.hush cascade").await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{given}");
    }
    // The second park followed the first one soon, so their alert outlasts it for a while.
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_whose_baseline_is_not_stored_is_not_sent() {
    let (world, daemon) = World::running().await;
    let bill = bill_of(&world, phone::PAID, 600).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where id = {invoice}"
        ))
        .await;
    for given in ["null", "old"] {
        let when = "new.baseline is distinct from old.baseline";
        spoil(&world, given, "update on apipay.jobs", when).await;
        let params = json!({"invoice_id": invoice, "amount": 100});
        let job = world.enqueue("invoice.refund", params).await;
        world
            .until_true(&format!(
                "select exists (select from apipay.attempts where job_id = {job} and error_code = 'database_failed')"
            ))
            .await;
        assert!(world.effects_of(job).await.is_empty(), "{given}");
        world.sql("drop function public.hush cascade").await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{given}");
    }
    world.end([daemon]).await;
}
