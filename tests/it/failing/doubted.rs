//! Answers as of an unwell account that are about one object, one operation or one job only.

use serde_json::{Value, json};

use crate::world::{Job, Wish, World, phone};

const PARKS: &str = "apipay.events where subject = 'account' and to_state = 'parked'";

/// An account that has nothing to send, so that nothing but its health ends the park.
#[tokio::test]
async fn an_invoice_that_is_answered_so_parks_an_account_once_that_sends_nothing() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("follow.max", "1s")
        .tune("breaker.probe_initial", "500ms")
        .tune("breaker.probe_max", "1s")
        .tune("breaker.slow_start", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let mut invoices = Vec::new();
    for amount in 600..606 {
        let job = world.bill(phone::UNPAID, amount).await;
        world.until(job, "succeeded").await;
        invoices.push(world.job(job).await["invoice_id"].as_i64().unwrap());
    }
    let odd = invoices.remove(2);
    let fault = json!({"route": "POST /invoices/status/check", "match": odd.to_string(), "share": 1.0,
                       "answer": {"preset": "503_html"}});
    world.sandbox.fault(fault).await;
    world
        .until_holds("the first such answer parks", async || {
            world.count(PARKS).await == 1
        })
        .await;
    world
        .until_true("select state = 'active' from apipay.accounts")
        .await;
    for invoice in invoices {
        world
            .sandbox
            .set_invoice(invoice, json!({"status": "paid"}))
            .await;
        world
            .until_true(&format!(
                "select status = 'paid' from apipay.invoices where id = {invoice}"
            ))
            .await;
    }
    let parked = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    world
        .until_holds("its park ends for good", async || {
            world.count(parked).await == 0
        })
        .await;
    // The invoice is asked about by itself, and what that is answered parks nothing.
    let asked = async || {
        let checks = world
            .sandbox
            .requests_to("POST /invoices/status/check")
            .await;
        let about_it = |check: &&Value| check["body"].to_string().contains(&odd.to_string());
        checks.iter().filter(about_it).count()
    };
    let before = asked().await;
    world
        .until_holds("it is asked about again", async || asked().await > before)
        .await;
    assert_eq!(world.count(PARKS).await, 1);
    world.sandbox.mend().await;
    world
        .sandbox
        .set_invoice(odd, json!({"status": "paid"}))
        .await;
    world
        .until_true(&format!(
            "select status = 'paid' from apipay.invoices where id = {odd}"
        ))
        .await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// As behind a proxy that answers 503 because of one invoice: an account is parked for it once, as for each 503. It turns
/// out to be well, and from then on it is the invoice that is passed over.
#[tokio::test]
async fn an_invoice_that_is_answered_like_an_unwell_account_parks_it_once_and_the_others_go_on() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("follow.max", "1s")
        .tune("breaker.probe_initial", "500ms")
        .tune("breaker.probe_max", "1s")
        .tune("breaker.slow_start", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let odd = world.bill(phone::UNPAID, 666).await;
    let row = world
        .until_job(odd, "it is accepted", |row| !row["invoice_id"].is_null())
        .await;
    let invoice = row["invoice_id"].to_string();
    let fault = json!({"route": "POST /invoices/status/check", "match": invoice, "share": 1.0,
                       "answer": {"preset": "503_html"}});
    world.sandbox.fault(fault).await;
    world
        .until_holds("the first such answer parks", async || {
            world.count(PARKS).await == 1
        })
        .await;
    for amount in 100..130 {
        let job = world.bill(phone::PAID, amount).await;
        world.until(job, "succeeded").await;
    }
    assert_eq!(world.count(PARKS).await, 1);
    let look_up = json!({"route": "GET /invoices", "share": 1.0, "answer": {"preset": "503_html"}});
    world.sandbox.fault(look_up).await;
    // Nor do look-ups park it while its sends are well.
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 1, "cut": "after_effect"}))
        .await;
    let unproven = world.bill(phone::PAID, 300).await;
    world.until(unproven, "uncertain").await;
    let looked_up = format!(
        "apipay.attempts where job_id = {unproven} and kind = 'lookup' and http_status = 503"
    );
    world
        .until_holds("it is looked up in vain", async || {
            world.count(&looked_up).await >= 2
        })
        .await;
    let late = world.bill(phone::PAID, 301).await;
    world.until(late, "succeeded").await;
    assert_eq!(world.count(PARKS).await, 1);
    // What a send is answered counts as ever.
    world.sandbox.session("expired").await;
    let parked = world.bill(phone::PAID, 302).await;
    world.until(parked, "parked").await;
    assert_eq!(world.count(PARKS).await, 2);
    world.sandbox.session("active").await;
    world.sandbox.mend().await;
    let paid = json!({"status": "paid"});
    let control = format!("POST /invoices/{invoice}");
    world.sandbox.control(&control, paid).await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

fn brisk() -> Wish {
    Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "200ms")
        .tune("breaker.probe_initial", "500ms")
        .tune("breaker.probe_max", "1s")
        .tune("breaker.slow_start", "1s")
}

/// Has this route refuse everything, as the gateway refuses what a key may not do.
async fn deny(world: &World, route: &str) {
    let answer = json!({"status": 403, "json": {"message": "This action is unauthorized."}});
    world
        .sandbox
        .fault(json!({"route": route, "share": 1, "answer": answer}))
        .await;
}

async fn sends(world: &World, job: Job) -> i64 {
    let sends = "apipay.attempts where kind = 'send' and http_status = 403 and job_id = ";
    world.count(&format!("{sends}{job}")).await
}

/// Until the account is told to be well and the job is told of by itself.
async fn until_told_alone(world: &World, job: Job, operation: &str) {
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null
                and summary like 'Job {job} ({operation}) of account default has got no clear answer since % (HTTP 403: This action is unauthorized.).% The account''s other payments are tried as usual.'
                and action like 'ask ApiPay''s support why. %')"
        ))
        .await;
    let parked = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    world
        .until_holds("the alert of the park ends", async || {
            world.count(parked).await == 0
        })
        .await;
}

/// Whoever cancels the one job that was refused, as they are told, does not wait for the next probe.
#[tokio::test]
async fn to_cancel_the_job_that_parked_the_account_has_it_probed_at_once() {
    let patient = Wish::default()
        .tune("breaker.probe_initial", "5m")
        .tune("breaker.probe_max", "10m");
    let (world, daemon) = World::running_as(patient).await;
    let job = world.bill(phone::UNPAID, 600).await;
    world.until(job, "succeeded").await;
    let invoice = world.job(job).await["invoice_id"].clone();
    deny(&world, "POST /invoices/{id}/cancel").await;
    let params = json!({"invoice_id": invoice});
    let refused = world.enqueue("invoice.cancel", params).await;
    world.until(refused, "parked").await;
    let waits = world.bill(phone::PAID, 700).await;
    world
        .sql(&format!("select apipay.cancel({refused}, 'as I was told')"))
        .await;
    world.until(waits, "succeeded").await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// Only cancels are refused: the account is parked for the first, and the next probe finds that bills are taken.
#[tokio::test]
async fn a_cancel_that_is_refused_parks_the_account_once_and_bills_go_on() {
    let (world, daemon) = World::running_as(brisk()).await;
    let mut invoices = Vec::new();
    for amount in 600..603 {
        let job = world.bill(phone::UNPAID, amount).await;
        world.until(job, "succeeded").await;
        invoices.push(world.job(job).await["invoice_id"].as_i64().unwrap());
    }
    deny(&world, "POST /invoices/{id}/cancel").await;
    let cancel = async |invoice: i64| {
        world
            .enqueue("invoice.cancel", json!({"invoice_id": invoice}))
            .await
    };
    let first = cancel(invoices[0]).await;
    world.until(first, "parked").await;
    // People are told what was refused, and what ends it if it is that alone.
    let named = format!("job {first} (invoice.cancel)");
    let takes_back = format!("select apipay.cancel({first}, 'why'), ");
    let alert = &world
        .rows("select * from apipay.alerts where kind = 'account_parked'")
        .await[0];
    let summary = alert["summary"].as_str().unwrap();
    assert!(
        summary.contains(&format!("ApiPay refused {named} so.")),
        "{summary}"
    );
    let action = alert["action"].as_str().unwrap();
    assert!(action.contains(&takes_back), "{action}");
    let explain = world
        .value("select to_jsonb(explain) from apipay.account_status")
        .await;
    let explain = explain.as_str().unwrap();
    assert!(
        explain.contains(&named) && explain.contains(&takes_back),
        "{explain}"
    );
    // There is nothing else to try.
    world
        .until_holds("it is tried by probes", async || {
            sends(&world, first).await >= 3
        })
        .await;
    for amount in 700..703 {
        let bill = world.bill(phone::PAID, amount).await;
        world.until(bill, "succeeded").await;
    }
    until_told_alone(&world, first, "invoice.cancel").await;
    // Nor do others of the operation park it, or have the account slow down.
    let others = [cancel(invoices[1]).await, cancel(invoices[2]).await];
    for other in others {
        world
            .until_holds("it is tried on by itself", async || {
                sends(&world, other).await >= 3
            })
            .await;
        let row = world.job(other).await;
        assert_ne!(row["state"], "parked", "{row}");
        let late = world.bill(phone::PAID, 800).await;
        world.until(late, "succeeded").await;
    }
    world
        .until_true("select failing_trial_at is null from apipay.accounts")
        .await;
    assert_eq!(world.count(PARKS).await, 1);
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// With steady bills, which the probes reach, so that the account goes on again and again.
#[tokio::test]
async fn a_refund_that_is_refused_among_steady_bills_parks_the_account_once() {
    let (world, daemon) = World::running_as(brisk()).await;
    let key = world.key("default");
    let invoice = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
    deny(&world, "POST /invoices/{id}/refund").await;
    let params = json!({"invoice_id": invoice, "amount": 100});
    let refund = world.enqueue("invoice.refund", params).await;
    world.until(refund, "parked").await;
    for amount in 100..115 {
        let bill = world.bill(phone::PAID, amount).await;
        world.until(bill, "succeeded").await;
    }
    until_told_alone(&world, refund, "invoice.refund").await;
    assert!(sends(&world, refund).await >= 3);
    assert_eq!(world.count(PARKS).await, 1);
    // What another operation is answered counts as ever.
    world.sandbox.session("expired").await;
    let bill = world.bill(phone::PAID, 300).await;
    world.until(bill, "parked").await;
    assert_eq!(world.count(PARKS).await, 2);
    world.sandbox.session("active").await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// One bill is refused, and the others are taken: after the first time it is that bill's own trouble.
#[tokio::test]
async fn a_bill_that_is_refused_by_itself_parks_the_account_once() {
    let (world, daemon) = World::running_as(brisk()).await;
    let answer = json!({"status": 503, "json": {"message": "Service Unavailable"}});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "match": "66613", "share": 1, "answer": answer}))
        .await;
    let odd = world.bill(phone::PAID, 66613).await;
    world.until(odd, "parked").await;
    let mut last = odd;
    for amount in 100..110 {
        last = world.bill(phone::PAID, amount).await;
        world.until(last, "succeeded").await;
    }
    world
        .until_job(odd, "it backs off by itself", |row| {
            row["state"] == "queued" && row["reason"] == "service_unavailable"
        })
        .await;
    assert_eq!(world.count(PARKS).await, 1);
    let refused = format!("apipay.attempts where job_id = {odd} and http_status = 503");
    world
        .until_holds("it is tried on", async || world.count(&refused).await >= 4)
        .await;
    assert_eq!(world.job(last).await["state"], "succeeded");
    assert_eq!(world.count(PARKS).await, 1);
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// Bills are refused and cancels are taken. There may be very many bills, so one at a time is tried in the end.
#[tokio::test]
async fn bills_that_are_refused_while_cancels_are_taken_slow_their_account_down() {
    let (world, daemon) = World::running_as(brisk()).await;
    let open = world.bill(phone::UNPAID, 600).await;
    world.until(open, "succeeded").await;
    let invoice = world.job(open).await["invoice_id"].clone();
    deny(&world, "POST /invoices").await;
    let first = world.bill(phone::PAID, 100).await;
    world.until(first, "parked").await;
    // The trial that is taken shows that it is not about all of the account.
    let params = json!({"invoice_id": invoice});
    let cancel = world.enqueue("invoice.cancel", params).await;
    world.until(cancel, "succeeded").await;
    let mut bills = vec![first];
    for amount in 101..110 {
        bills.push(world.bill(phone::PAID, amount).await);
    }
    world
        .until_true("select failing_trial_at is not null from apipay.accounts")
        .await;
    assert_eq!(world.count(PARKS).await, 1);
    world
        .until_true("select exists (select from apipay.alerts where kind = 'gateway_failing' and details ->> 'fails' = 'sends' and resolved_at is null)")
        .await;
    world.sandbox.mend().await;
    for bill in bills {
        world.until(bill, "succeeded").await;
    }
    world.until_no_alert().await;
    world.end([daemon]).await;
}
