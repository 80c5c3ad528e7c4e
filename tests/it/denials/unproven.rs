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
