//! Refunds: the gateway knows no key for them, so the mark in the reason and the stored baseline
//! are all there is.

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::world::{Job, Wish, World};

async fn paid_invoice(world: &World) -> i64 {
    world
        .sandbox
        .invoice(
            &world.key("default"),
            json!({"status": "paid", "amount": "1000.00"}),
        )
        .await
}

async fn refund(world: &World, invoice: i64, amount: i64) -> Job {
    world
        .enqueue(
            "invoice.refund",
            json!({"invoice_id": invoice, "amount": amount, "reason": "a torn sleeve"}),
        )
        .await
}

#[tokio::test]
async fn a_refund_is_followed_until_the_money_is_back() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    let job = world
        .enqueue("invoice.refund", json!({"invoice_id": invoice}))
        .await;
    let row = world.until(job, "succeeded").await;
    world
        .until_true(&format!(
            "select status = 'completed' and amount = 1000 and settled from apipay.refunds where job_id = {job} and id = {}",
            row["refund_id"]
        ))
        .await;
    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    let token = row["token"].as_str().unwrap();
    assert_eq!(effects[0]["reason"], format!("[apipayd {token}]"));
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_does_not_end_is_told_to_a_human() {
    let wish = Wish::default()
        .tune("reconcile.settle", "500ms")
        .tune("reconcile.give_up", "1500ms");
    let (world, daemon) = World::running_as(wish).await;
    let stuck = json!({"refund_outcome": "stuck"});
    world.sandbox.organization(stuck).await;
    let invoice = paid_invoice(&world).await;
    let job = refund(&world, invoice, 100).await;
    let id = world.until(job, "accepted").await["refund_id"].clone();
    let behind = refund(&world, invoice, 200).await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'job_overdue'
                and details = '{{\"job\": {job}, \"invoice\": {invoice}, \"refund\": {id}}}'
                and action like 'look refund {id} of invoice {invoice} up in the ApiPay dashboard,%'
                and action like '%Other refunds of that invoice wait for it: select id, explain from apipay.waiting where account = ''default'' and cause = ''other_refund'';%')"
        ))
        .await;
    world
        .until_true(&format!(
            "select array_agg(id) = array[{behind}]::bigint[] from apipay.waiting where account = 'default' and cause = 'other_refund'"
        ))
        .await;
    assert_eq!(world.job(job).await["state"], "accepted");
    world.end([daemon]).await;
}

#[tokio::test]
async fn equal_partial_refunds_of_one_invoice_go_out_one_after_another() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(refund(&world, invoice, 100).await);
    }
    world.until_all_final().await;
    for job in jobs {
        let row = world.job(job).await;
        assert_eq!(row["state"], "succeeded");
        let effects = world.effects_of(job).await;
        assert_eq!(effects.len(), 1, "{effects:?}");
        let reason = effects[0]["reason"].as_str().unwrap();
        assert!(reason.starts_with("a torn sleeve [apipayd "), "{reason}");
    }
    // By the order of what happened: the clock of a claim is read before it sees what was recorded.
    let overlaps = world
        .count(
            "apipay.events begun join (
               select job_id, min(id) as first, max(id) as last from apipay.events
                where to_state in ('sending', 'succeeded') group by job_id) open
               on begun.to_state = 'sending' and begun.job_id <> open.job_id
              and begun.id between open.first and open.last",
        )
        .await;
    assert_eq!(overlaps, 0, "a refund began while another one was open");
    let begun = "apipay.events where to_state = 'sending'";
    assert!(
        world.count(begun).await >= 3,
        "what is asked proves nothing"
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn equal_partial_refunds_with_lost_replies_are_told_apart() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    for cut in ["after_effect", "before_effect", "mid_body"] {
        world
            .sandbox
            .fault(json!({"route": "POST /invoices/{id}/refund", "cut": cut}))
            .await;
    }
    let first = refund(&world, invoice, 100).await;
    let second = refund(&world, invoice, 100).await;
    world.until(first, "succeeded").await;
    world.until(second, "succeeded").await;
    let refunds = world.sandbox.ledger().await["refunds"].clone();
    assert_eq!(refunds.as_array().unwrap().len(), 2, "{refunds}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_worker_that_wakes_up_after_its_lease_does_not_send_its_refund() {
    let (world, sleeper) = World::running().await;
    let invoice = paid_invoice(&world).await;
    // It is stopped before its refund, while it reads those that exist.
    let route = "GET /invoices/{id}/refunds";
    world
        .sandbox
        .fault(json!({"route": route, "delay_ms": 700}))
        .await;
    let job = refund(&world, invoice, 100).await;
    world
        .until_holds("the refunds are being read", async || {
            !world.sandbox.requests_to(route).await.is_empty()
        })
        .await;
    sleeper.signal(Signal::STOP);
    world.expire_lease(job).await;
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;

    sleeper.signal(Signal::CONT);
    let next = refund(&world, invoice, 100).await;
    world.until(next, "succeeded").await;
    let refunds = world
        .sandbox
        .requests_to("POST /invoices/{id}/refund")
        .await;
    assert_eq!(refunds.len(), 2, "{refunds:?}");
    world.end([sleeper, heir]).await;
}

#[tokio::test]
async fn a_cashiers_own_refund_at_the_wrong_moment_is_a_humans_to_tell_apart() {
    let (world, daemon) = World::running().await;
    let invoice = paid_invoice(&world).await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/{id}/refund", "effect": "none", "hang": true}))
        .await;
    let job = refund(&world, invoice, 100).await;
    world
        .until_holds("the refund is on its way", async || {
            !world
                .sandbox
                .requests_to("POST /invoices/{id}/refund")
                .await
                .is_empty()
        })
        .await;
    world
        .sandbox
        .control(
            "POST /refunds",
            json!({"invoice_id": invoice, "amount": 100, "status": "completed"}),
        )
        .await;
    let row = world.until(job, "held").await;
    assert_eq!(row["reason"], "unknown_outcome");
    let said = row["error_message"].as_str().unwrap();
    assert!(
        said.starts_with("100 tenge was asked for, and the gateway shows refund ")
            && said.contains("100 tenge (status completed), of which it cannot be told"),
        "{said}"
    );
    assert_eq!(world.effects_of(job).await.len(), 0);

    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'the cashier''s own')"
        ))
        .await;
    world.until(job, "succeeded").await;
    assert_eq!(world.effects_of(job).await.len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_fails_at_kaspi_fails_with_its_code() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"refund_outcome": "refund_window_expired"}))
        .await;
    let invoice = paid_invoice(&world).await;
    let job = refund(&world, invoice, 100).await;
    let row = world.until(job, "failed").await;
    assert_eq!(row["error_code"], "refund_window_expired");
    assert_eq!(row["reason"], "async_error");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_refund_that_failed_for_the_moment_is_resubmitted_under_a_new_name() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"refund_outcome": "network_unavailable"}))
        .await;
    let invoice = paid_invoice(&world).await;
    let job = refund(&world, invoice, 100).await;
    world
        .until_job(job, "the first refund failed", |row| {
            row["reason"] == "async_retry"
        })
        .await;
    world
        .sandbox
        .organization(json!({"refund_outcome": "completed"}))
        .await;
    let row = world.until(job, "succeeded").await;
    assert_eq!(row["generation"], 2);
    let reasons: Vec<Value> = world
        .effects_of(job)
        .await
        .iter()
        .map(|effect| effect["reason"].clone())
        .collect();
    let token = row["token"].as_str().unwrap();
    assert_eq!(
        reasons,
        [
            format!("a torn sleeve [apipayd {token}]"),
            format!("a torn sleeve [apipayd {token}-2]")
        ]
    );
    world.end([daemon]).await;
}
