//! What is told of a held job follows its invoices: what helped before one was paid or cancelled is refused afterwards.

use serde_json::{Value, json};

use super::held::{mismatched, not_done, only, say_not_done, until_told, ways_out};
use super::{action, as_operator, until_ended};
use crate::world::{Job, World, phone};

/// Has the gateway show it so, and waits until the alert and `explain` of its job both say this.
async fn shown(world: &World, job: Job, invoice: i64, status: &str, says: &str) -> (Value, String) {
    world
        .sandbox
        .set_invoice(invoice, json!({"status": status}))
        .await;
    both_say(world, job, says).await
}

async fn both_say(world: &World, job: Job, says: &str) -> (Value, String) {
    world
        .until_holds(&format!("alert and explain say {says:?}"), async || {
            let alert = only(world, job).await;
            alert["summary"].as_str().unwrap().contains(says)
                && world.explain(job).await.contains(says)
        })
        .await;
    (only(world, job).await, world.explain(job).await)
}

/// Both name the same calls.
fn agree(alert: &Value, explain: &str) {
    assert_eq!(
        ways_out(action(alert)),
        ways_out(explain),
        "{alert}\n{explain}"
    );
}

#[tokio::test]
async fn a_wrong_invoice_that_is_paid_is_told_once_more_and_not_to_be_cancelled() {
    let (world, daemon, job, own) = mismatched().await;
    let pending = only(&world, job).await;
    agree(&pending, &world.explain(job).await);
    let says = format!("invoice {own} is paid by now");
    let (alert, explain) = shown(&world, job, own, "paid", &says).await;
    assert_eq!(alert["id"], pending["id"]);
    until_told(&world, &says, 1).await;
    agree(&alert, &explain);
    let keep = format!("select apipay.resolve({job}, true, {own}, 'why', anyway => true)");
    for text in [action(&alert), &explain] {
        assert!(text.contains(&keep), "{text}");
        assert!(!text.contains("cancel_invoice("), "{text}");
        assert!(!text.contains("false, null"), "{text}");
        assert!(text.contains("have it refunded"), "{text}");
    }
    // Who says all the same that it was not done is told the same, of what ApiPay shows now.
    not_done(&world, job).await;
    let again = only(&world, job).await;
    assert!(
        again["summary"].as_str().unwrap().contains("(status paid)"),
        "{again}"
    );
    let explain = world.explain(job).await;
    agree(&again, &explain);
    for text in [action(&again), &explain] {
        assert!(
            text.contains(&keep) && !text.contains("cancel_invoice("),
            "{text}"
        );
    }
    // Nor does it end as not done.
    let end = format!("select apipay.resolve({job}, false, null, 'why', and_cancel => true)");
    as_operator(&world, &end).await.unwrap();
    let is_held = |row: &Value| row["state"] == "held" && row["reason"] == "not_as_stated";
    world.until_job(job, "held again", is_held).await;
    let (alert, explain) = both_say(&world, job, "(status paid)").await;
    agree(&alert, &explain);
    for text in [action(&alert), &explain] {
        assert!(
            text.contains(&keep) && !text.contains("cancel_invoice("),
            "{text}"
        );
    }
    as_operator(&world, &keep).await.unwrap();
    world.until(job, "succeeded").await;
    until_ended(&world, "job_held", "true").await;
    drop(daemon);
    // An invoice that nobody asked for is at the gateway.
    world.end_unchecked().await;
}

#[tokio::test]
async fn a_wrong_invoice_that_is_being_cancelled_is_to_be_waited_for_and_then_said_not_to_be_done()
{
    let (world, daemon, job, own) = mismatched().await;
    let says = format!("invoice {own} is being cancelled by now");
    let (alert, explain) = shown(&world, job, own, "cancelling", &says).await;
    agree(&alert, &explain);
    for text in [action(&alert), &explain] {
        assert!(
            text.contains(&format!("invoice {own} is being cancelled")),
            "{text}"
        );
        assert!(!text.contains("cancel_invoice("), "{text}");
    }
    let says = format!("invoice {own} is cancelled by now");
    let (alert, explain) = shown(&world, job, own, "cancelled", &says).await;
    until_told(&world, &says, 1).await;
    agree(&alert, &explain);
    let due = format!("select apipay.resolve({job}, false, null, 'why')");
    for text in [action(&alert), &explain] {
        assert!(!text.contains("cancel_invoice("), "{text}");
        assert!(!text.contains("is being cancelled"), "{text}");
        assert!(
            text.contains(&due) && text.contains("and_cancel => true"),
            "{text}"
        );
        assert!(
            text.contains(&format!("invoice {own} holds the job no more")),
            "{text}"
        );
    }
    say_not_done(&world, job).await;
    world.until(job, "succeeded").await;
    until_ended(&world, "job_held", "true").await;
    drop(daemon);
    world.end_unchecked().await;
}

/// Which of two the customer has paid is what the person on duty has to know.
#[tokio::test]
async fn of_two_invoices_the_one_that_is_paid_meanwhile_is_named() {
    let (world, daemon, job, own) = mismatched().await;
    let token = world.job(job).await["token"].as_str().unwrap().to_owned();
    let fields = json!({"phone": phone::UNPAID, "amount": "900.00", "status": "pending",
                        "internal_comment": format!("[apipayd {token}]")});
    world.sandbox.invoice(&world.key("default"), fields).await;
    let row = not_done(&world, job).await;
    assert_eq!(row["reason"], "duplicate_detected");
    let says = format!("; invoice {own} is paid by now");
    let (alert, _) = shown(&world, job, own, "paid", &says).await;
    assert_eq!(alert["kind"], "duplicate_detected");
    until_told(&world, &says, 1).await;
    drop(daemon);
    world.end_unchecked().await;
}

/// A check finds the amount wrong: what is to be cancelled is known by its number, in the alert as in `explain`.
#[tokio::test]
async fn an_invoice_of_another_amount_is_named_by_its_number_wherever_it_is_to_be_cancelled() {
    let (world, daemon) = World::running().await;
    world
        .sandbox
        .organization(json!({"wrong_amount": true}))
        .await;
    let job = world.bill(phone::UNPAID, 900).await;
    world.until(job, "held").await;
    let invoice = world.effects_of(job).await[0]["invoice_id"]
        .as_i64()
        .unwrap();
    let cancel = format!("cancel_invoice({invoice}, account => 'default')");
    until_told(&world, &cancel, 1).await;
    let (alert, explain) = (only(&world, job).await, world.explain(job).await);
    agree(&alert, &explain);
    assert!(explain.contains(&cancel), "{explain}");
    // It stands as it was told: that is no news.
    assert_eq!(alert["incidents"], 0, "{alert}");
    assert!(alert["details"].get("since").is_none(), "{alert}");
    drop(daemon);
    world.end_unchecked().await;
}
