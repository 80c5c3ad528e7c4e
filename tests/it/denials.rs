//! What a person says was not done is looked up before it is believed.

mod unproven;

use serde_json::{Value, json};

use crate::world::{Job, Wish, World};

const PHONE: &str = "87015550023";

fn not_made_and_unwanted(job: Job) -> String {
    format!("select apipay.resolve({job}, false, null, 'not made, not wanted', and_cancel => true)")
}

/// Whoever says of a bill that it was not made, and is to end, may be wrong as well: the customer could pay what lives.
#[tokio::test]
async fn a_held_bill_is_looked_up_before_it_is_cancelled() {
    let (world, daemon) = World::running_as(
        // Time to hold it before it is looked up.
        Wish::default().tune("reconcile.quiet_after_timeout", "2s"),
    )
    .await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    world.hold_unknown(job).await;
    let invoice = world.effects_of(job).await[0]["invoice_id"]
        .as_i64()
        .unwrap();
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world
        .until_job(job, "held again with both facts", |row| {
            row["reason"] == "not_as_stated"
        })
        .await;
    assert_eq!(row["state"], "held", "{row}");
    let said = row["error_message"].as_str().unwrap();
    assert!(
        said.starts_with("it was said that nothing was made")
            && said.contains(&format!("ApiPay has invoice {invoice}: ")),
        "{said}"
    );
    let explained = world.explain(job).await;
    assert!(explained.contains(said), "{explained}");
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null
                and summary like '%ApiPay has invoice {invoice}: %')"
        ))
        .await;
    // It is dead, but such a one may rise again: so it ends, and that one is watched.
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "error"}))
        .await;
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world.until(job, "cancelled").await;
    assert_eq!(row["reason"], "called_off", "{row}");
    assert_eq!(
        world
            .count(&format!(
                "apipay.invoices where id = {invoice} and job_id = {job} and status = 'error'"
            ))
            .await,
        1
    );
    world
        .until_true("select bool_and(resolved_at is not null) from apipay.alerts")
        .await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

/// Where nothing is found it ends, and nothing is sent.
#[tokio::test]
async fn a_held_bill_of_which_nothing_is_found_ends_cancelled() {
    let (world, daemon) = World::running_as(
        Wish::default()
            .tune("reconcile.quiet_after_timeout", "2s")
            // Somebody speaks of it before what was sent must be shown, however slow the machine is.
            .tune("reconcile.settle", "6s"),
    )
    .await;
    let cut = json!({"route": "POST /invoices", "cut": "before_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    world.hold_unknown(job).await;
    world.sql(&not_made_and_unwanted(job)).await;
    world.until(job, "cancelled").await;
    let kinds: Vec<Value> = world
        .attempts(job)
        .await
        .iter()
        .map(|a| a["kind"].clone())
        .collect();
    // Once at once, and once when what was sent would be shown.
    assert_eq!(kinds, ["send", "lookup", "lookup"]);
    let explained = world.explain(job).await;
    assert!(
        explained.contains(
            "somebody said that no request of it had an effect, and no look-up since has shown anything alive"
        ),
        "{explained}"
    );
    assert!(world.effects_of(job).await.is_empty());
    world.end([daemon]).await;
}

/// A refund that was made is money given back, whatever somebody says of it.
#[tokio::test]
async fn a_held_refund_is_looked_up_before_it_is_cancelled() {
    let (world, daemon) =
        World::running_as(Wish::default().tune("reconcile.quiet_after_timeout", "2s")).await;
    let paid = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
    let cut = json!({"route": "POST /invoices/{id}/refund", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world
        .enqueue(
            "invoice.refund",
            json!({"invoice_id": invoice, "amount": 400}),
        )
        .await;
    world.hold_unknown(job).await;
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world
        .until_job(job, "held again with both facts", |row| {
            row["reason"] == "not_as_stated"
        })
        .await;
    let refund = world.effects_of(job).await[0]["refund_id"]
        .as_i64()
        .unwrap();
    let said = row["error_message"].as_str().unwrap();
    assert!(
        said.contains(&format!("ApiPay has refund {refund}: ")),
        "{said}"
    );
    world
        .sql(&format!(
            "select apipay.resolve({job}, true, {refund}, 'so it was')"
        ))
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// No look-up gets a clear answer for as long as these jobs are looked up.
fn unanswered() -> Wish {
    Wish::default()
        .without_keys()
        .tune("reconcile.settle", "500ms")
        .tune("reconcile.give_up", "1500ms")
}

async fn no_look_up_is_answered(world: &World) {
    let fails = json!({"route": "GET /invoices", "share": 1.0, "answer": {"preset": "502_html"}});
    world.sandbox.fault(fails).await;
}

async fn until_held_for(world: &World, job: Job, reason: &str) {
    world
        .until_job(job, reason, |row| {
            row["state"] == "held" && row["reason"] == reason
        })
        .await;
}

/// A bill was made, and neither its answer nor any look-up tells of it. Whoever says that it was not made is wrong, and
/// another one sent on that word would be a second bill.
#[tokio::test]
async fn a_bill_is_never_sent_again_on_a_word_alone() {
    let (world, daemon) = World::running_as(unanswered()).await;
    no_look_up_is_answered(&world).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(&world, job, "unknown_outcome").await;
    let not_made = format!("select apipay.resolve({job}, false, null, 'not in the dashboard')");
    world.sql(&not_made).await;
    // Until it is decided there is nothing to do, and whoever looks is told so.
    let alert = "from apipay.alerts where resolved_at is null and kind = 'job_held'";
    let (said, todo) = (
        "Somebody said at %Z that it was not done, and ApiPay is being asked",
        "nothing is to do now.",
    );
    world
        .until_true(&format!(
            "select exists (select {alert} and summary like '%{said}%' and action like '{todo}%')"
        ))
        .await;
    until_held_for(&world, job, "unconfirmed").await;
    let explained = world.explain(job).await;
    let words = "was not done, and ApiPay has given no clear answer about it since ";
    assert!(
        explained.contains(words)
            && explained.contains("so nothing was sent. To have ApiPay asked again: "),
        "{explained}"
    );
    world
        .until_true(&format!(
            "select exists (select {alert} and summary like '%no clear answer about it since %so nothing was sent%'
                and action like '%and_cancel => true%enqueue a new payment%' and not details ? 'answered_at')"
        ))
        .await;
    let attempts = world.attempts(job).await;
    let is_unknown = |attempt: &Value| attempt["effect"] == "unknown";
    assert!(attempts.iter().all(is_unknown), "{attempts:?}");
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.sandbox.mend().await;
    world.sql(&not_made).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

/// To end a job sends nothing, so that word is enough after so long; but nobody says that ApiPay has shown anything.
#[tokio::test]
async fn what_is_to_end_does_so_unseen_when_no_look_up_is_answered() {
    let (world, daemon) = World::running_as(unanswered()).await;
    no_look_up_is_answered(&world).await;
    let cut = json!({"route": "POST /invoices", "cut": "before_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(&world, job, "unknown_outcome").await;
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world.until(job, "cancelled").await;
    assert_eq!(row["reason"], "called_off_unseen", "{row}");
    let explained = world.explain(job).await;
    assert!(
        explained.contains("ApiPay has given no clear answer about it since ")
            && explained.ends_with(
                "Whether it has something of it is not known: look there before you insert a new job for it. Nothing more is sent."
            ),
        "{explained}"
    );
    // A copy has a name of its own, and finds nothing of this one.
    let again = format!("select apipay.retry({job}, 'send it after all')");
    let refused = sqlx::query(sqlx::AssertSqlSafe(again))
        .execute(world.pool())
        .await
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains(
            "ApiPay has not answered whether it has anything of it and a copy could do it twice"
        ),
        "{refused}"
    );
    let attempts = world.attempts(job).await;
    let is_unknown = |attempt: &Value| attempt["effect"] == "unknown";
    assert!(attempts.iter().all(is_unknown), "{attempts:?}");
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    is_told_until_acknowledged(&world, job).await;
    world.end([daemon]).await;
}

/// What ApiPay has not answered about may be there. Whoever called it off is told so, until they have looked.
async fn is_told_until_acknowledged(world: &World, job: Job) {
    let alert = format!(
        "from apipay.alerts where resolved_at is null and kind = 'job_held' and subject = '{job}'"
    );
    let told = format!(
        "select exists (select {alert} and summary like '%ended as somebody said%has given no clear answer%'
            and action like '%ApiPay dashboard%apipay.acknowledge%' and details ->> 'reason' = 'called_off_unseen')"
    );
    world.until_true(&told).await;
    // For as long as some rounds of alerts.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    world.until_true(&told).await;
    world
        .sql(&format!(
            "select apipay.acknowledge(id, 'nothing is there') {alert}"
        ))
        .await;
    world
        .until_true(&format!("select not exists (select {alert})"))
        .await;
}

/// It was never held, so that no alert was open about it.
#[tokio::test]
async fn what_is_called_off_before_it_is_held_and_ends_unseen_is_told() {
    let wish = unanswered()
        .tune("reconcile.give_up", "4s")
        .tune("reconcile.quiet_after_timeout", "100ms");
    let (world, daemon) = World::running_as(wish).await;
    no_look_up_is_answered(&world).await;
    for ending in ["a person", "ApiPay"] {
        let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
        world.sandbox.fault(cut).await;
        let job = world.bill(PHONE, 900).await;
        world
            .until_job(job, "looked up", |row| {
                row["state"] == "uncertain" && row["reason"] == "lookup_unclear"
            })
            .await;
        world.sql(&not_made_and_unwanted(job)).await;
        let row = world.until(job, "cancelled").await;
        assert_eq!(row["reason"], "called_off_unseen", "{row}");
        let alerts = world
            .rows(&format!(
                "select incidents from apipay.alerts where kind = 'job_held' and details -> 'job' = '{job}'"
            ))
            .await;
        assert_eq!(alerts, [json!({"incidents": 0})], "{ending}");
        if ending == "a person" {
            is_told_until_acknowledged(&world, job).await;
            continue;
        }
        world
            .sql(&format!(
                "insert into apipay.invoices (account, id, job_id, job_token, status, settled)
                 select 'default', 4711, id, token, 'pending', true from apipay.jobs where id = {job}"
            ))
            .await;
        world
            .until_true(&format!(
                "select resolution like 'ApiPay shows%' from apipay.alerts where kind = 'job_held' and subject = '{job}'"
            ))
            .await;
    }
    drop(daemon);
    world.end_unchecked().await;
}

/// A bill that was made and ended unseen, of which nobody knows: its job and its invoice.
async fn ended_unseen(world: &World) -> (Job, i64) {
    no_look_up_is_answered(world).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(world, job, "unknown_outcome").await;
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world.until(job, "cancelled").await;
    assert_eq!(row["reason"], "called_off_unseen", "{row}");
    world.sandbox.mend().await;
    let invoice = world.effects_of(job).await[0]["invoice_id"].as_i64();
    (job, invoice.unwrap())
}

async fn cancel(world: &World, invoice: i64) {
    world
        .sql(&format!("select apipay.cancel_invoice({invoice})"))
        .await;
}

/// Whoever cancels it, as the alert says, has it read: that it is paid is told, and what to do about that.
#[tokio::test]
async fn a_bill_that_ended_unseen_and_turns_out_to_be_paid_is_told() {
    let (world, daemon) = World::running_as(unanswered()).await;
    let (job, invoice) = ended_unseen(&world).await;
    world
        .sandbox
        .set_invoice(invoice, json!({"status": "paid"}))
        .await;
    cancel(&world, invoice).await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and resolved_at is null
                and summary like '%job {job}, for which it was made, is cancelled: the customer has paid%'
                and action like '%deliver what was ordered, or have it refunded%')"
        ))
        .await;
    world
        .until_true(&format!(
            "select resolution = 'ApiPay shows what it has of it: invoice {invoice} is paid' from apipay.alerts
              where kind = 'job_held' and subject = '{job}'"
        ))
        .await;
    let explained = world.explain(job).await;
    assert!(
        explained.contains(&format!(
            "its invoice {invoice} was paid by the customer after all"
        )) && !explained.contains("is not known"),
        "{explained}"
    );
    assert_eq!(
        world
            .count(&format!(
                "apipay.invoices where id = {invoice} and job_id = {job} and status = 'paid'"
            ))
            .await,
        1
    );
    drop(daemon);
    // It lives although its job was called off.
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_bill_that_ended_unseen_and_is_cancelled_is_known_to_be_over() {
    let (world, daemon) = World::running_as(unanswered()).await;
    let (job, invoice) = ended_unseen(&world).await;
    cancel(&world, invoice).await;
    world
        .until_true(&format!(
            "select resolution = 'ApiPay shows what it has of it: invoice {invoice} is cancelled' from apipay.alerts
              where kind = 'job_held' and subject = '{job}'"
        ))
        .await;
    let explained = world.explain(job).await;
    assert!(
        explained.ends_with(&format!(
            "Since then ApiPay has shown its invoice {invoice}, which is cancelled. Nothing more is sent."
        )),
        "{explained}"
    );
    let revived = "apipay.alerts where kind = 'invoice_revived'";
    assert_eq!(world.count(revived).await, 0);
    drop(daemon);
    world.end_unchecked().await;
}

/// Of two requests the evidence is of the one that decided, with its own answer.
#[tokio::test]
async fn a_search_that_fails_is_not_told_with_the_answer_to_another_request() {
    let (world, daemon) =
        World::running_as(Wish::default().tune("reconcile.quiet_after_timeout", "2s")).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    world.hold_unknown(job).await;
    let dead = json!({"status": "cancelled", "amount": "900.00", "phone": PHONE});
    let invoice = world.sandbox.invoice(&world.key("default"), dead).await;
    world
        .sql(&format!(
            "update apipay.jobs set invoice_id = {invoice} where id = {job}"
        ))
        .await;
    no_look_up_is_answered(&world).await;
    world.sql(&not_made_and_unwanted(job)).await;
    let row = world
        .until_job(job, "looked up", |row| row["reason"] == "lookup_unclear")
        .await;
    assert_eq!(row["http_status"], 502, "{row}");
    let attempts = world.attempts(job).await;
    let asked = attempts
        .iter()
        .find(|a| a["kind"] == "lookup" && !a["http_status"].is_null());
    let asked = asked.expect("a look-up");
    assert_eq!(asked["http_status"], 502, "{asked}");
    assert_eq!(asked["request"]["path"], "/invoices", "{asked}");
    world.sandbox.mend().await;
    until_held_for(&world, job, "not_as_stated").await;
    world.end([daemon]).await;
}

/// That is no matter of time: the first daemon on a machine knows nothing of how the database's clock went before.
#[tokio::test]
async fn what_somebody_said_outlives_the_start_of_the_machine() {
    let wish = Wish::default()
        .without_keys()
        .tune("reconcile.settle", "10m");
    let world = World::made(wish).await;
    let denied = json!({"state": "uncertain", "reason": "resolved_not_applied", "unproven_since": "2026-01-01T00:00:00Z",
                        "absent_since": "2000-01-01T00:00:00Z"});
    let params = json!({"phone_number": PHONE, "amount": 900});
    let job = world.enqueue_with("invoice.create", params, denied).await;
    let daemon = world.daemon().await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// What a copy would do twice is seen only by whoever sees what has happened since.
#[tokio::test]
async fn a_transaction_that_sees_an_old_state_repeats_no_job() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 1, "answer": {"preset": "422"}}))
        .await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "failed").await;
    for level in ["repeatable read", "serializable"] {
        let mut old = world.pool().begin().await.unwrap();
        let begun = format!("set transaction isolation level {level}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(begun))
            .execute(&mut *old)
            .await
            .unwrap();
        let again = format!("select apipay.retry({job}, 'again')");
        let refused = sqlx::raw_sql(sqlx::AssertSqlSafe(again))
            .execute(&mut *old)
            .await
            .unwrap_err()
            .to_string();
        assert!(refused.contains(level), "{refused}");
        old.rollback().await.unwrap();
    }
    world
        .sql(&format!("select apipay.retry({job}, 'again')"))
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// Whoever has said that nothing was done reads that this was so, and is told of no failure that was before.
#[tokio::test]
async fn the_alert_of_a_job_that_is_sent_again_ends_with_that() {
    let (world, daemon) = World::running_as(unanswered()).await;
    no_look_up_is_answered(&world).await;
    let cut = json!({"route": "POST /invoices", "cut": "before_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(&world, job, "unknown_outcome").await;
    let failing = format!("apipay.jobs where id = {job} and failing_since is not null");
    assert_eq!(world.count(&failing).await, 1);
    let mut person = world.pool().begin().await.unwrap();
    let said = format!("select apipay.resolve({job}, false, null, 'not there')");
    sqlx::raw_sql(sqlx::AssertSqlSafe(said))
        .execute(&mut *person)
        .await
        .unwrap();
    let unfailing = format!("select failing_since is null from apipay.jobs where id = {job}");
    let is_over: bool = sqlx::query_scalar(sqlx::AssertSqlSafe(unfailing))
        .fetch_one(&mut *person)
        .await
        .unwrap();
    assert!(is_over);
    world.sandbox.mend().await;
    person.commit().await.unwrap();
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world
        .until_true(
            "select exists (select from apipay.alerts where kind = 'job_held'
               and (resolution like 'ApiPay showed nothing alive with its name, so it was sent again, and the job is % now'
                    or resolution = 'ApiPay showed nothing alive with its name, and it is sent again in its turn'))",
        )
        .await;
    world.end([daemon]).await;
}
