//! Something of an account gets no clear answer for ever while its bills get through: what fails keeps its age, is told once,
//! by its name, and until it is over.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Wish, World, phone};

/// So long each account is watched: much longer than what fails alone has to fail before it is told.
const WATCHED: Duration = Duration::from_secs(14);

/// The delays are 0.2, 0.4 and then 0.8 seconds, so a person is told after three.
fn quick() -> Wish {
    Wish::default()
        .tune("retry.server_error.initial", "200ms")
        .tune("retry.server_error.max", "800ms")
}

/// A bill now and then, this far apart.
async fn bills(world: &World, account: &str, apart: Duration) {
    loop {
        let bill = json!({"phone_number": phone::PAID, "amount": 300});
        let job = json!({"account": account});
        world.enqueue_with("invoice.create", bill, job).await;
        tokio::time::sleep(apart).await;
    }
}

/// A job on a paid invoice of this account.
async fn on_paid(world: &World, account: &str, operation: &str, params: Value) -> i64 {
    let paid = json!({"status": "paid"});
    let invoice = world.sandbox.invoice(&world.key(account), paid).await;
    let mut params = params;
    params["invoice_id"] = json!(invoice);
    let job = json!({"account": account});
    world.enqueue_with(operation, params, job).await
}

#[tokio::test(flavor = "multi_thread")]
async fn refunds_whose_list_fails_are_told_once_and_since_when_however_often_bills_get_through() {
    let every = [("seldom", 5_000), ("often", 2_200), ("always", 700)];
    let wish = quick().accounts(&every.map(|(account, _)| account));
    let (world, daemon) = World::running_as(wish).await;
    for (account, _) in every {
        let rule = json!({"organization": account, "route": "GET /invoices/{id}/refunds", "times": 100_000,
                          "answer": {"preset": "500_json"}});
        world.sandbox.fault(rule).await;
        for _ in 0..2 {
            on_paid(&world, account, "invoice.refund", json!({"amount": 100})).await;
        }
    }
    let [seldom, often, always] =
        every.map(|(account, apart)| bills(&world, account, Duration::from_millis(apart)));
    tokio::select! {
        () = async { tokio::join!(seldom, often, always); } => {}
        () = tokio::time::sleep(WATCHED) => {}
    }
    for (account, _) in every {
        let alerts = world
            .rows(&format!(
                "select summary, action, details ->> 'fails' as fails, resolved_at,
                        opened_at < now() - interval '4 seconds' as is_held,
                        (select bool_and(j.failing_since < now() - interval '11 seconds')
                           from apipay.jobs j where j.account = l.account and j.operation = 'invoice.refund') as has_its_age,
                        (select a.explain from apipay.account_status a where a.account = l.account) as status
                   from apipay.alerts l where account = '{account}' and kind = 'gateway_failing'"
            ))
            .await;
        assert_eq!(alerts.len(), 1, "{account}: {alerts:?}");
        let alert = &alerts[0];
        let told = [
            &alert["fails"],
            &alert["resolved_at"],
            &alert["is_held"],
            &alert["has_its_age"],
        ];
        assert_eq!(
            told,
            [&json!("reads"), &json!(null), &json!(true), &json!(true)],
            "{account}: {alert}"
        );
        let summary = alert["summary"].as_str().unwrap();
        assert!(
            summary.starts_with(&format!(
                "ApiPay fails when asked about payments of account {account} since "
            )) && summary.ends_with(
                "it is not seen whether refunds were made, and no further one is made before it is. 2 refunds are not sent before \
                 ApiPay lists those of their invoices. Other payments are tried as usual."
            ),
            "{summary}"
        );
        // Unless it is being asked for at this moment.
        let explained = format!(
            "select exists (select from apipay.overview where account = '{account}' and operation = 'invoice.refund'
                and explain like '% ApiPay shows no refunds since %): it goes out once ApiPay shows those of its invoice.')"
        );
        world.until_true(&explained).await;
        let status = alert["status"].as_str().unwrap();
        assert!(
            status.starts_with("Sending: ")
                && status.contains(
                    "; but 2 refunds are not sent before ApiPay lists those of their invoices. "
                ),
            "{status}"
        );
        // All bills but one that is under way got through at once.
        let left = format!(
            "apipay.jobs where account = '{account}' and operation = 'invoice.create' and state in ('queued', 'uncertain')
                and created_at < now() - interval '1 second'"
        );
        assert_eq!(world.count(&left).await, 0, "{account}");
    }
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn cancels_that_fail_keep_their_age_and_are_told_until_they_are_answered() {
    let (world, daemon) = World::running_as(quick()).await;
    let rule = json!({"route": "POST /invoices/{id}/cancel", "times": 100_000, "effect": "none", "answer": {"preset": "502_html"}});
    world.sandbox.fault(rule).await;
    let mut cancels = Vec::new();
    for _ in 0..4 {
        let unpaid = json!({"status": "pending"});
        let invoice = world.sandbox.invoice(&world.key("default"), unpaid).await;
        let cancel = json!({"invoice_id": invoice});
        cancels.push(world.enqueue("invoice.cancel", cancel).await);
    }
    tokio::select! {
        () = bills(&world, "default", Duration::from_millis(4_000)) => {}
        () = tokio::time::sleep(WATCHED) => {}
    }
    let alerts = world
        .rows("select * from apipay.alerts where kind = 'gateway_failing'")
        .await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["resolved_at"], json!(null), "{alerts:?}");
    for job in cancels {
        let age = format!(
            "select to_jsonb(failing_since < now() - interval '11 seconds') from apipay.jobs where id = {job}"
        );
        assert_eq!(world.value(&age).await, json!(true));
    }
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn one_refund_whose_list_fails_is_named_with_the_question_that_it_waits_for() {
    let (world, daemon) = World::running_as(quick()).await;
    let rule = json!({"route": "GET /invoices/{id}/refunds", "share": 1.0, "answer": {"preset": "500_json"}});
    world.sandbox.fault(rule).await;
    let job = on_paid(&world, "default", "invoice.refund", json!({"amount": 100})).await;
    let told = format!(
        "select exists (select from apipay.alerts l, apipay.jobs j
           where l.kind = 'gateway_failing' and l.resolved_at is null and j.id = {job} and l.summary like
             'Job {job} (invoice.refund) of account default has got no clear answer since % (HTTP 500: Server Error). '
             || 'It is not sent before ApiPay answers GET /invoices/' || j.invoice_id || '/refunds. The account''s other payments are tried as usual.')"
    );
    world.until_true(&told).await;
    world.sandbox.mend().await;
    world.until_all_final().await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}
