//! An account is one organization: what another one's key does not find proves nothing.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::AssertSqlSafe;
use tokio::time::sleep;

use crate::world::{Daemon, Job, Wish, World, phone, write_private};

mod giving;
mod unshown;

const OPEN: &str = "from apipay.alerts where kind = 'other_organization' and resolved_at is null";

/// A request that is done and gets no clear answer.
fn unclear() -> Value {
    json!({"route": "POST /invoices", "effect": "apply", "answer": {"status": 502, "json": {"message": "bad gateway"}}})
}

/// A daemon of the same account with another key.
async fn with_key(world: &World, key: &str) -> Daemon {
    let file = world.key_file(key);
    write_private(&file, &world.key(key));
    let setting = (
        "accounts.default.api_key_file",
        file.to_str().unwrap().to_owned(),
    );
    world.tuned_daemon(&[setting]).await
}

async fn until_refused(world: &World) -> Value {
    world
        .until_true(&format!("select exists (select {OPEN})"))
        .await;
    let row = world.rows(&format!("select * {OPEN}")).await.remove(0);
    assert_eq!(row["severity"], "critical", "{row}");
    row
}

async fn until_accepted(world: &World) {
    world
        .until_true(&format!("select not exists (select {OPEN})"))
        .await;
}

/// Invoices are as many as these jobs, each once, whoever has them.
async fn expect_one_effect_each(world: &World, jobs: &[Job]) {
    for job in jobs {
        let effects = world.effects_of(*job).await;
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
    let mut made = world.sandbox.effects().await;
    made.retain(|effect| effect["kind"] == "invoice.create");
    assert_eq!(made.len(), jobs.len(), "{made:?}");
}

/// Routes of requests with another key than the one that the first request had.
async fn foreign_routes(world: &World) -> Vec<String> {
    let requests = world.sandbox.all_requests().await;
    let own = &requests[0]["key"];
    let foreign = requests.iter().filter(|request| request["key"] != *own);
    foreign
        .map(|request| request["route"].as_str().unwrap().to_owned())
        .collect()
}

async fn acknowledge(world: &World) -> Result<(), sqlx::Error> {
    let statement = format!("select apipay.acknowledge(id, 'it is right') {OPEN}");
    let mut transaction = world.pool().begin().await?;
    sqlx::raw_sql("set local role apipay_operator")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[tokio::test]
async fn a_second_daemon_with_the_key_of_another_organization_serves_nothing() {
    let (world, own) = World::running().await;
    let mut jobs = vec![world.bill(phone::PAID, 500).await];
    world.until(jobs[0], "succeeded").await;
    let mut other = with_key(&world, "other").await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("shows it none of the 1 newest invoices"),
        "{alert}"
    );
    let mut fault = unclear();
    fault["times"] = 8.into();
    world.sandbox.fault(fault).await;
    for _ in 0..12 {
        jobs.push(world.bill(phone::PAID, 500).await);
    }
    world.until_all_final().await;
    expect_one_effect_each(&world, &jobs).await;
    let foreign = foreign_routes(&world).await;
    assert!(
        !foreign.is_empty()
            && foreign
                .iter()
                .all(|route| route == "POST /invoices/status/check"),
        "{foreign:?}"
    );
    let refusal = acknowledge(&world).await.unwrap_err().to_string();
    assert!(refusal.contains("serves it with another key"), "{refusal}");
    other.stop().await;
    until_accepted(&world).await;
    world.end([own, other]).await;
}

#[tokio::test]
async fn a_bill_without_a_clear_answer_is_not_looked_up_with_the_key_of_another_organization() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, mut own) = World::running_as(wish).await;
    world.sandbox.fault(unclear()).await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "uncertain").await;
    own.stop().await;
    let mut other = with_key(&world, "other").await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"]
            .as_str()
            .unwrap()
            .contains("there is no invoice yet"),
        "{alert}"
    );
    sleep(Duration::from_secs(4)).await;
    assert_eq!(world.job(job).await["state"], "uncertain");
    let file = world.key_file("other").to_str().unwrap().to_owned();
    let mut check = world.spawn(&["check"], &[("accounts.default.api_key_file", file)]);
    check.ended(Duration::from_secs(15)).await;
    let said = check.log_text();
    assert!(said.contains("does not know this key"), "{said}");
    let mut foreign = foreign_routes(&world).await;
    // As `check` does.
    foreign.retain(|route| route != "GET /account/health");
    assert_eq!(foreign, [""; 0]);
    other.stop().await;
    let own = world.daemon().await;
    world.until(job, "succeeded").await;
    until_accepted(&world).await;
    expect_one_effect_each(&world, &[job]).await;
    world.end([own]).await;
}

#[tokio::test]
async fn another_key_of_the_same_organization_goes_on_after_one_question() {
    let (world, mut earlier) = World::running().await;
    let first = world.bill(phone::PAID, 500).await;
    world.until(first, "succeeded").await;
    world
        .sandbox
        .organization(
            json!({"organization": world.key("default"), "add_key": world.key("renewed")}),
        )
        .await;
    earlier.stop().await;
    let renewed = with_key(&world, "renewed").await;
    let second = world.bill(phone::PAID, 500).await;
    world.until(second, "succeeded").await;
    // Both are known from now on, and neither takes the place of the other.
    let earlier = world.daemon().await;
    let third = world.bill(phone::PAID, 500).await;
    world.until(third, "succeeded").await;
    sleep(Duration::from_secs(3)).await;
    world
        .until_true("select cardinality(key_fingerprints) = 2 from apipay.accounts")
        .await;
    assert_eq!(world.count("apipay.alerts").await, 0);
    expect_one_effect_each(&world, &[first, second, third]).await;
    world.end([renewed, earlier]).await;
}

#[tokio::test]
async fn an_account_for_which_nothing_was_sent_takes_another_key_at_once() {
    let (world, mut mistaken) = World::running().await;
    world
        .until_true("select cardinality(key_fingerprints) = 1 from apipay.accounts")
        .await;
    mistaken.stop().await;
    let right = with_key(&world, "other").await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
    assert_eq!(world.count("apipay.alerts").await, 0);
    expect_one_effect_each(&world, &[job]).await;
    world.end([right]).await;
}

#[tokio::test]
async fn an_account_is_for_another_organization_once_a_person_has_said_so() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, mut earlier) = World::running_as(wish).await;
    let paid = world.bill(phone::PAID, 500).await;
    world.until(paid, "succeeded").await;
    world.sandbox.fault(unclear()).await;
    let open = world.bill(phone::PAID, 500).await;
    world.until(open, "uncertain").await;
    earlier.stop().await;
    let now = with_key(&world, "other").await;
    until_refused(&world).await;
    acknowledge(&world).await.unwrap();
    // It may have been sent to the other organization, where nobody looks any more.
    world.until(open, "held").await;
    let next = world.bill(phone::PAID, 500).await;
    world.until(next, "succeeded").await;
    expect_one_effect_each(&world, &[paid, open, next]).await;
    assert_eq!(
        world
            .count("apipay.events where subject = 'account' and reason = 'it is right'")
            .await,
        1
    );
    // The earlier key is not believed any more, although its organization has invoices of the account.
    let mut earlier = world.daemon().await;
    let alert = until_refused(&world).await;
    assert!(
        alert["summary"].as_str().unwrap().contains("1 newest"),
        "{alert}"
    );
    earlier.stop().await;
    until_accepted(&world).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null)")
        .await;
    world.end([now, earlier]).await;
}

/// Opened alerts, whether or not they have ended.
async fn told(world: &World) -> Vec<Value> {
    world
        .rows("select * from apipay.alerts where kind = 'other_organization' order by id")
        .await
}

#[tokio::test]
async fn the_alert_stays_open_while_any_daemon_has_the_key_and_while_one_is_restarted() {
    let (world, own) = World::running().await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
    let mut one = with_key(&world, "other").await;
    let mut another = with_key(&world, "other").await;
    until_refused(&world).await;
    world
        .until_true("select count(*) = 2 from apipay.daemons where cardinality(accounts) = 0")
        .await;
    // The one that the alert names goes, whichever that is.
    sleep(Duration::from_secs(2)).await;
    let alert = until_refused(&world).await;
    let names_one = alert["details"]["worker"] == one.worker().unwrap();
    let (gone, left) = if names_one {
        (&mut one, &mut another)
    } else {
        (&mut another, &mut one)
    };
    gone.stop().await;
    sleep(Duration::from_secs(5)).await;
    assert_eq!(told(&world).await[0]["resolved_at"], Value::Null);
    // A restart ends nothing.
    left.stop().await;
    let mut again = with_key(&world, "other").await;
    sleep(Duration::from_secs(5)).await;
    let alerts = told(&world).await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["resolved_at"], Value::Null, "{alerts:?}");
    again.stop().await;
    until_accepted(&world).await;
    let alerts = told(&world).await;
    assert_eq!(
        alerts[0]["resolution"], "no apipayd has this key for the account any more",
        "{alerts:?}"
    );
    world.end([own, one, another, again]).await;
}

async fn revoke(world: &World, key: &str) {
    world
        .sandbox
        .organization(json!({"organization": world.key(key), "revoked": true}))
        .await;
}

#[tokio::test]
async fn a_key_that_is_refused_parks_the_account_and_stays_in_doubt() {
    let (world, mut own) = World::running().await;
    let paid = world.bill(phone::PAID, 500).await;
    world.until(paid, "succeeded").await;
    own.stop().await;
    revoke(&world, "other").await;
    let mut other = with_key(&world, "other").await;
    let next = world.bill(phone::PAID, 500).await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'account_parked' and resolved_at is null)")
        .await;
    let park = world
        .rows("select * from apipay.alerts where kind = 'account_parked'")
        .await
        .remove(0);
    let action = park["action"].as_str().unwrap();
    assert!(
        action.contains("check the key in the ApiPay dashboard"),
        "{park}"
    );
    let account = world
        .value("select to_jsonb(a) from apipay.accounts a")
        .await;
    assert_eq!(account["parked_reason"], "key_rejected", "{account}");
    assert_eq!(account["key_fingerprints"].as_array().unwrap().len(), 1);
    sleep(Duration::from_secs(5)).await;
    assert_eq!(told(&world).await.len(), 0);
    let foreign = foreign_routes(&world).await;
    assert!(
        !foreign.is_empty()
            && foreign
                .iter()
                .all(|route| route == "POST /invoices/status/check"),
        "{foreign:?}"
    );
    other.stop().await;
    let own = world.daemon().await;
    world.until(next, "succeeded").await;
    expect_one_effect_each(&world, &[paid, next]).await;
    world.end([own, other]).await;
}

#[tokio::test]
async fn a_second_daemon_whose_key_is_refused_parks_nobody_elses_account() {
    let (world, own) = World::running().await;
    let paid = world.bill(phone::PAID, 500).await;
    world.until(paid, "succeeded").await;
    revoke(&world, "other").await;
    let mut other = with_key(&world, "other").await;
    let alert = until_refused(&world).await;
    let summary = alert["summary"].as_str().unwrap();
    assert!(summary.contains("the API key is not accepted"), "{alert}");
    let action = alert["action"].as_str().unwrap();
    assert!(
        action.contains("check the key in the ApiPay dashboard"),
        "{alert}"
    );
    let next = world.bill(phone::PAID, 500).await;
    world.until(next, "succeeded").await;
    assert_eq!(
        world
            .count("apipay.alerts where kind = 'account_parked'")
            .await,
        0
    );
    expect_one_effect_each(&world, &[paid, next]).await;
    other.stop().await;
    until_accepted(&world).await;
    world.end([own, other]).await;
}

/// What a person does, as an operator.
async fn as_operator(world: &World, statement: &str) -> Result<(), sqlx::Error> {
    let mut transaction = world.pool().begin().await?;
    sqlx::raw_sql("set local role apipay_operator")
        .execute(&mut *transaction)
        .await?;
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await
}

#[tokio::test]
async fn what_the_earlier_organization_accepted_ends_by_a_persons_word() {
    let (world, mut earlier) = World::running().await;
    let unpaid = world.bill(phone::UNPAID, 500).await;
    world.until(unpaid, "succeeded").await;
    let mut accepted = Vec::new();
    for amount in [601, 602, 603] {
        let job = world.bill(phone::HELD, amount).await;
        world.until(job, "accepted").await;
        accepted.push(job);
    }
    let invoice = world.job(accepted[0]).await["invoice_id"].clone();
    let theirs = world.job(unpaid).await["invoice_id"].clone();
    earlier.stop().await;
    // Never sent to the earlier organization, and about what only that one has.
    let mut about_theirs = Vec::new();
    for (operation, params) in [
        ("invoice.cancel", json!({"invoice_id": theirs})),
        ("invoice.refund", json!({"invoice_id": theirs, "amount": 1})),
    ] {
        about_theirs.push(world.enqueue(operation, params).await);
    }
    let mut now = with_key(&world, "other").await;
    until_refused(&world).await;
    acknowledge(&world).await.unwrap();
    for job in &accepted {
        let row = world.until(*job, "held").await;
        assert_eq!(row["reason"], "other_organization", "{row}");
    }
    // Nothing of the earlier organization is asked about any more, and people can read why.
    assert_eq!(world.count("apipay.invoices where not settled").await, 0);
    for (job, said) in [
        (unpaid, "not asked about any more"),
        (accepted[0], "the account is for another organization"),
    ] {
        let explain = world.explain(job).await;
        assert!(explain.contains(said), "{explain}");
    }
    world
        .until_true("select exists (select from apipay.alerts where kind = 'job_held' and resolved_at is null)")
        .await;
    let alert = world
        .rows("select * from apipay.alerts where kind = 'job_held' and resolved_at is null")
        .await
        .remove(0);
    let action = alert["action"].as_str().unwrap();
    assert!(action.contains("anyway => true"), "{alert}");
    sleep(Duration::from_secs(2)).await;
    for job in &accepted {
        assert_eq!(world.job(*job).await["state"], "held");
    }
    for job in about_theirs {
        world.until(job, "failed").await;
    }
    let [done, resubmitted, given_up] = accepted[..] else {
        unreachable!()
    };
    // Done there: the present key cannot show it, and a person's word is all there is.
    as_operator(
        &world,
        &format!("select apipay.resolve({done}, true, {invoice}, 'seen there', anyway => true)"),
    )
    .await
    .unwrap();
    let row = world.job(done).await;
    assert_eq!(
        (&row["state"], &row["reason"], &row["invoice_id"]),
        (&json!("succeeded"), &json!("resolved_applied"), &invoice),
        "{row}"
    );
    as_operator(
        &world,
        &format!(
            "select apipay.resolve({given_up}, false, null, 'not needed', and_cancel => true)"
        ),
    )
    .await
    .unwrap();
    // The present organization is looked through first, and has nothing of the job's name.
    world.until(given_up, "cancelled").await;
    // Cancelled there: it is billed by the present organization, once.
    as_operator(
        &world,
        &format!("select apipay.resolve({resubmitted}, false, null, 'cancelled there')"),
    )
    .await
    .unwrap();
    world
        .until_holds("it is resubmitted", async || {
            world.effects_of(resubmitted).await.len() == 2
        })
        .await;
    let row = world.until(resubmitted, "accepted").await;
    assert_ne!(row["invoice_id"], Value::Null, "{row}");
    let made = world.effects_of(resubmitted).await;
    assert_ne!(made[0]["organization"], made[1]["organization"], "{made:?}");
    // A person had it done a second time, so the ledger has what no job may have by itself.
    now.stop().await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn nothing_leaves_with_a_key_in_doubt_but_the_look_for_an_invoice() {
    let wish = Wish::default()
        .tune("reconcile.quiet_after_answer", "1s")
        .tune("follow.first", "1s")
        .tune("follow.max", "1s");
    let (world, mut own) = World::running_as(wish).await;
    let paid = world.bill(phone::PAID, 500).await;
    world.until(paid, "succeeded").await;
    world
        .until_true("select exists (select from apipay.invoices where status = 'paid')")
        .await;
    // One of each kind: to be looked up, to be followed, to be cancelled, refunded, sent and probed.
    let followed = world.bill(phone::HELD, 601).await;
    world.until(followed, "accepted").await;
    let invoice = world.job(paid).await["invoice_id"].clone();
    world.sandbox.fault(unclear()).await;
    let uncertain = world.bill(phone::PAID, 602).await;
    world.until(uncertain, "uncertain").await;
    // What the gateway shows would be proof: it is not reached.
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/status/check", "times": 1000, "answer": {"status": 502, "json": {"message": "bad gateway"}}}))
        .await;
    // It serves when another key takes the place of its own.
    world
        .sql(
            "update apipay.accounts set key_fingerprints = array['0123456789abcdef'];
             update apipay.invoices set shown_to = '0123456789abcdef'",
        )
        .await;
    world
        .until_true("select exists (select from apipay.daemons where cardinality(accounts) = 0)")
        .await;
    let refund = json!({"invoice_id": invoice, "amount": 100});
    let cancel = json!({"invoice_id": world.job(followed).await["invoice_id"]});
    let waiting = [
        world.bill(phone::PAID, 603).await,
        world.enqueue("invoice.refund", refund).await,
        world.enqueue("invoice.cancel", cancel).await,
    ];
    world
        .sql(
            "update apipay.jobs set run_at = now() where state = 'uncertain';
             update apipay.invoices set next_check_at = now() where not settled",
        )
        .await;
    let before = world.sandbox.all_requests().await.len();
    sleep(Duration::from_secs(4)).await;
    world
        .sql("select apipay._park('default', 'service_unavailable', 'apipayd', interval '0', 'It is unwell.', 'wait', '{}')")
        .await;
    sleep(Duration::from_secs(4)).await;
    let requests = world.sandbox.all_requests().await;
    let asked: Vec<&Value> = requests[before..]
        .iter()
        .map(|request| &request["route"])
        .collect();
    assert!(
        asked
            .iter()
            .all(|route| **route == "POST /invoices/status/check"),
        "{asked:?}"
    );
    // Four looks, and the first of them asks for either of the two invoices as well.
    assert!(asked.len() <= 4 + 2, "{asked:?}");
    for job in waiting {
        assert_eq!(world.job(job).await["state"], "queued");
    }
    // It was right all the while.
    own.stop().await;
    world.sandbox.mend().await;
    let mut own = world.daemon().await;
    for job in waiting {
        world
            .until_true(&format!(
                "select state in ('succeeded', 'accepted', 'failed') from apipay.jobs where id = {job}"
            ))
            .await;
    }
    world.until(uncertain, "succeeded").await;
    expect_one_effect_each(&world, &[paid, followed, uncertain, waiting[0]]).await;
    // The park was this test's own, and the key was to be known meanwhile.
    own.stop().await;
    world.end_unchecked().await;
}
