//! A person names an object in place of the one that carries the job's own name.

use serde_json::{Value, json};

use crate::world::{Daemon, Job, Wish, World};

const PHONE: &str = "87015550045";

/// A bill whose answer was lost, and whose invoice no search shows yet.
async fn unseen_bill(wish: Wish) -> (World, Daemon, Job, i64) {
    // Held before it is looked up.
    let wish = wish.tune("reconcile.quiet_after_timeout", "3s");
    let (world, daemon) = World::running_as(wish).await;
    search(&world, "lost").await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    world.until(job, "uncertain").await;
    hold(&world, job).await;
    let own = world.effects_of(job).await[0]["invoice_id"]
        .as_i64()
        .unwrap();
    (world, daemon, job, own)
}

async fn hold(world: &World, job: Job) {
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1 where id = {job}"
        ))
        .await;
}

async fn search(world: &World, how: &str) {
    let key = world.key("default");
    world
        .sandbox
        .organization(json!({"organization": key, "search": how}))
        .await;
}

async fn by_hand(world: &World, amount: &str, status: &str) -> i64 {
    world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"phone": PHONE, "amount": amount, "status": status}),
        )
        .await
}

async fn resolve(world: &World, job: Job, how: &str) {
    world
        .sql(&format!("select apipay.resolve({job}, true, {how})"))
        .await;
}

async fn fail_at_kaspi(world: &World, invoice: i64) {
    let failed = json!({"status": "error", "error_code": "network_unavailable"});
    world.sandbox.set_invoice(invoice, failed).await;
}

async fn until_held_again(world: &World, job: Job, own: i64) -> Value {
    let row = world
        .until_job(job, "held again for its own", |row| {
            row["state"] == "held"
                && row["error_message"]
                    .as_str()
                    .is_some_and(|said| said.contains(&format!("; invoice {own} carries ")))
        })
        .await;
    assert_eq!(row["reason"], "not_as_stated", "{row}");
    row
}

/// Our own invoice would stay payable beside the one that was named.
#[tokio::test]
async fn no_other_invoice_is_taken_while_the_jobs_own_lives() {
    let (world, daemon, job, own) = unseen_bill(Wish::default()).await;
    search(&world, "ok").await;
    let same = by_hand(&world, "900.00", "pending").await;
    let other = by_hand(&world, "950.00", "pending").await;
    for (named, how) in [(same, "'that one'"), (other, "'that one', anyway => true")] {
        resolve(&world, job, &format!("{named}, {how}")).await;
        let row = until_held_again(&world, job, own).await;
        let both = format!(
            "invoice {named} was named; invoice {own} carries this job's name, and ApiPay has it as 900 tenge to \
             8701***0045 (status pending): name that one, or cancel it with apipay.cancel_invoice and name \
             invoice {named} again once ApiPay shows the other one as cancelled"
        );
        assert_eq!(row["error_message"], json!(both));
        for told in [
            "select to_jsonb(summary) from apipay.alerts where kind = 'job_held' and resolved_at is null".to_owned(),
            format!("select to_jsonb(explain) from apipay.overview where id = {job}"),
        ] {
            let told = world.value(&told).await;
            assert!(told.as_str().unwrap().contains(&both), "{told}");
        }
        world
            .sql(&format!(
                "update apipay.jobs set error_message = null where id = {job}"
            ))
            .await;
    }
    // As it was told to.
    let cancel = world
        .enqueue("invoice.cancel", json!({"invoice_id": own}))
        .await;
    world.until(cancel, "succeeded").await;
    resolve(&world, job, &format!("{same}, 'the other is cancelled'")).await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["invoice_id"], same);
    world.until_no_alert().await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([daemon]).await;
}

/// What the list does not show at once it shows within the time that proves that there is none.
#[tokio::test]
async fn the_jobs_own_is_looked_for_until_it_must_be_in_the_list() {
    let (world, daemon, job, own) = unseen_bill(Wish::default()).await;
    let named = by_hand(&world, "900.00", "pending").await;
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {job}"
        ))
        .await;
    resolve(&world, job, &format!("{named}, 'that one'")).await;
    world
        .until_job(job, "looked for once in vain", |row| {
            row["reason"] == "lookup_absent"
        })
        .await;
    let explain = world.explain(job).await;
    assert!(
        explain.contains(&format!("invoice {named}"))
            && explain.contains("Nothing with the job's own name was found beside it"),
        "{explain}"
    );
    search(&world, "ok").await;
    until_held_again(&world, job, own).await;
    resolve(&world, job, &format!("{own}, 'now I see'")).await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["invoice_id"], own);
    world.end([daemon]).await;
}

/// The one that was named dies at Kaspi: before another one is made, the job's own is looked for.
#[tokio::test]
async fn nothing_is_resubmitted_in_place_of_a_named_invoice_while_the_jobs_own_lives() {
    for attempts in ["1", "3"] {
        let wish = Wish::default().tune("retry.async_error.attempts", attempts);
        let (world, daemon, job, own) = unseen_bill(wish).await;
        let named = by_hand(&world, "900.00", "processing").await;
        resolve(&world, job, &format!("{named}, 'that one'")).await;
        world.until(job, "accepted").await;
        search(&world, "ok").await;
        fail_at_kaspi(&world, named).await;
        let row = world.until(job, "succeeded").await;
        assert_eq!(row["invoice_id"], own, "with {attempts} attempts");
        assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
        world.end([daemon]).await;
    }
}

/// Nor while that cannot be asked.
#[tokio::test]
async fn nothing_is_resubmitted_while_the_jobs_own_cannot_be_looked_for() {
    let (world, daemon, job, own) = unseen_bill(Wish::default()).await;
    let named = by_hand(&world, "900.00", "processing").await;
    resolve(&world, job, &format!("{named}, 'that one'")).await;
    let before = world.until(job, "accepted").await["attempts"].clone();
    search(&world, "ok").await;
    let broken = json!({"route": "GET /invoices", "share": 1.0, "answer": {"preset": "502_html"}});
    world.sandbox.fault(broken).await;
    fail_at_kaspi(&world, named).await;
    let row = world
        .until_job(job, "tried in vain", |row| {
            row["generation"] == 2
                && row["reason"] == "earlier_unseen"
                && row["lookups"].as_i64() >= Some(3)
        })
        .await;
    assert_eq!(row["attempts"], before, "nothing was sent: {row}");
    world.sandbox.mend().await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["invoice_id"], own);
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
    world.end([daemon]).await;
}
