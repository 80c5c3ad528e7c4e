//! What a person denies stays unproven until ApiPay has shown it, and could have.

use std::time::Duration;

use serde_json::json;

use super::{PHONE, unanswered, until_held_for};
use crate::world::{Wish, World};

/// A refund was made, and neither its answer nor any list tells of it. Whoever says that it was not made is wrong: it stays
/// unproven, so that it neither is sent again nor ends as if nothing of it had an effect.
#[tokio::test]
async fn a_refund_that_a_person_has_denied_stays_unproven_until_its_list_is_read() {
    let (world, daemon) = World::running_as(unanswered()).await;
    let paid = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
    let fails = json!({"route": "GET /invoices/{id}/refunds", "share": 1.0, "answer": {"preset": "502_html"}});
    let mut jobs = Vec::new();
    for cut in ["after_effect", "before_effect"] {
        let cut = json!({"route": "POST /invoices/{id}/refund", "cut": cut});
        world.sandbox.fault(cut).await;
        let job = world
            .enqueue(
                "invoice.refund",
                json!({"invoice_id": invoice, "amount": 400}),
            )
            .await;
        world.until(job, "uncertain").await;
        world.sandbox.fault(fails.clone()).await;
        until_held_for(&world, job, "unknown_outcome").await;
        let not_made = format!("select apipay.resolve({job}, false, null, 'not in the dashboard')");
        world.sql(&not_made).await;
        let called_off = sqlx::query(sqlx::AssertSqlSafe(format!("select apipay.cancel({job})")))
            .execute(world.pool())
            .await;
        assert!(called_off.is_err(), "it may have been done");
        until_held_for(&world, job, "unconfirmed").await;
        let explained = world.explain(job).await;
        assert!(
            explained.contains("Before you enqueue a new refund, see in ApiPay's dashboard that nothing of this job is there"),
            "{explained}"
        );
        world.sandbox.mend().await;
        world.sql(&not_made).await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1);
        jobs.push(job);
    }
    world.end([daemon]).await;
}

/// ApiPay's lists show late what was made. A person who says within that time that nothing was done cannot have seen it.
#[tokio::test]
async fn a_word_that_comes_before_the_list_can_show_it_is_no_proof() {
    let wish = Wish::default()
        .without_keys()
        .late_lists(Duration::from_secs(4))
        .tune("http.timeout", "1s")
        .tune("reconcile.quiet_after_timeout", "100ms");
    let (world, daemon) = World::running_as(wish).await;
    let mut denied = Vec::new();
    for (route, and_cancel) in [
        ("POST /invoices", false),
        ("POST /invoices", true),
        ("POST /invoices/{id}/refund", false),
        ("POST /invoices/{id}/refund", true),
    ] {
        let cut = json!({"route": route, "cut": "after_effect"});
        world.sandbox.fault(cut).await;
        let job = match route {
            "POST /invoices" => world.bill(PHONE, 900).await,
            _ => {
                let paid = json!({"status": "paid", "amount": "1000.00"});
                let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
                let params = json!({"invoice_id": invoice, "amount": 100});
                world.enqueue("invoice.refund", params).await
            }
        };
        world
            .until_job(job, "looked up", |row| row["reason"] == "lookup_absent")
            .await;
        world
            .sql(&format!(
                "select apipay.resolve({job}, false, null, 'not in the dashboard', and_cancel => {and_cancel})"
            ))
            .await;
        denied.push((job, and_cancel));
    }
    for (job, and_cancel) in denied {
        if and_cancel {
            let row = world
                .until_job(job, "held again", |row| row["state"] == "held")
                .await;
            assert_eq!(row["reason"], "not_as_stated", "{row}");
        } else {
            world.until(job, "succeeded").await;
        }
        assert_eq!(world.effects_of(job).await.len(), 1);
    }
    drop(daemon);
    // Two are held still, as they have to be.
    world.end_unchecked().await;
}

/// The number of the wrong invoice came from ApiPay's answer to the job's key, so that it is read by that number: once it is
/// dead it is in nobody's way.
#[tokio::test]
async fn a_bill_goes_out_once_the_wrong_invoice_that_its_key_named_is_dead() {
    let wish = Wish::default()
        .late_lists(Duration::from_secs(4))
        .tune("http.timeout", "1s")
        .tune("reconcile.quiet_after_timeout", "100ms");
    let (world, daemon) = World::running_as(wish).await;
    let wrong_amount = json!({"wrong_amount": true});
    world.sandbox.organization(wrong_amount).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(&world, job, "mismatch").await;
    let statuses = world.attempts(job).await;
    let is_conflict = |attempt: &serde_json::Value| attempt["http_status"] == 409;
    assert!(statuses.iter().any(is_conflict), "{statuses:?}");
    let wrong_amount = json!({"wrong_amount": false});
    world.sandbox.organization(wrong_amount).await;
    let wrong = world.effects_of(job).await[0]["invoice_id"].as_i64();
    let dead = json!({"status": "cancelled"});
    world.sandbox.set_invoice(wrong.unwrap(), dead).await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'I have cancelled that one')"
        ))
        .await;
    let row = world.until(job, "succeeded").await;
    assert_ne!(row["invoice_id"].as_i64(), wrong, "{row}");
    assert_eq!(world.effects_of(job).await.len(), 2);
    drop(daemon);
    // Both bear the job's name, and the first is dead.
    world.end_unchecked().await;
}

/// What a look-up has shown is followed, whatever becomes of its job: the customer may pay it.
#[tokio::test]
async fn a_wrong_invoice_that_was_seen_is_told_when_it_is_paid_although_its_job_was_called_off() {
    let (world, daemon) = World::running().await;
    let wrong_amount = json!({"wrong_amount": true});
    world.sandbox.organization(wrong_amount).await;
    let cut = json!({"route": "POST /invoices", "cut": "after_effect"});
    world.sandbox.fault(cut).await;
    let job = world.bill(PHONE, 900).await;
    until_held_for(&world, job, "mismatch").await;
    let wrong = world.effects_of(job).await[0]["invoice_id"]
        .as_i64()
        .unwrap();
    // From now on no search finds it.
    let lost = json!({"search": "lost"});
    world.sandbox.organization(lost).await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'not wanted', and_cancel => true)"
        ))
        .await;
    world.until(job, "cancelled").await;
    world
        .sandbox
        .set_invoice(wrong, json!({"status": "paid"}))
        .await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and resolved_at is null
                and subject = 'invoice {wrong}' and summary like '%the customer has paid%')"
        ))
        .await;
    drop(daemon);
    world.end_unchecked().await;
}
