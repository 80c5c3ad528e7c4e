//! A job that is refused again and again for a reason of its own is named, by one alert of its account, until it moves on.

use serde_json::json;

use super::open;
use crate::world::{Wish, World, phone};

const KIND: &str = "job_refused";

#[tokio::test]
async fn bills_of_a_customer_with_too_many_unpaid_ones_are_told_with_what_to_do_until_they_move_on()
{
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let refusal = json!({"route": "POST /invoices", "match": "unpaid-", "share": 1.0,
        "answer": {"status": 429, "json": {"error": "outstanding_recipient_limit", "retry_after_seconds": 1,
            "error_code": "outstanding_recipient_limit", "message": "Too many unpaid invoices"}}});
    world.sandbox.fault(refusal).await;
    let bill = async |order: &str| {
        let bill = json!({"phone_number": phone::PAID, "amount": 700, "external_order_id": order});
        world.enqueue("invoice.create", bill).await
    };
    let first = bill("unpaid-1").await;
    let alert = open(&world, KIND, &format!("details -> 'job' = '{first}'")).await;
    let text = alert.to_string();
    for part in [
        &format!(
            "ApiPay refuses job {first} (invoice.create) of account default again and again since "
        ),
        "HTTP 429, outstanding_recipient_limit; ApiPay said: Too many unpaid invoices",
        "its customer has too many unpaid bills",
        "select apipay.cancel_invoice(INVOICE_ID, account => 'default');",
        &format!("select apipay.cancel({first}, 'why');"),
        "The account's other payments are tried as usual.",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    // Others go on, and one more is told by the same alert.
    let other = bill("order-2").await;
    world.until(other, "succeeded").await;
    let second = bill("unpaid-2").await;
    open(
        &world,
        KIND,
        &format!("summary like '%It refuses job {second}, too.%'"),
    )
    .await;
    // Of the two the one that stays is named.
    world
        .until_true(&format!("select cancelled from apipay.cancel_jobs(array[{first}]::bigint[], 'not wanted any more')"))
        .await;
    open(&world, KIND, &format!("details -> 'jobs' = '[{second}]'")).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = '{KIND}' and resolution = 'job {second} is succeeded now')"
        ))
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.end([daemon]).await;
}
