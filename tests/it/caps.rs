//! A cap of the gateway's: what it is about waits, everything else goes on.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Job, Wish, World, phone};

/// Every cap that is documented (API, section 4.3).
const CAPS: [&str; 6] = [
    "tariff_limit_reached",
    "trial_daily_limit",
    "kyc_daily_limit_reached",
    "kyc_limit_reached",
    "outstanding_org_limit",
    "recipient_fanout_exceeded",
];

/// The bill whose answer is lost, before the cap is reached.
const LOST: &str = "87015550001";

/// The bill that meets the cap.
const CAPPED: &str = "87015550002";

/// What ApiPay says of it, for an hour.
fn refusal(code: &str) -> Value {
    json!({"status": 429, "headers": {"Retry-After": "3600"}, "json": {
        "error": code, "error_code": code, "message": "The counter stands at 100 of 100", "retry_after_seconds": 3600,
    }})
}

async fn bill(world: &World, account: &str, phone: &str) -> Job {
    let params = json!({"phone_number": phone, "amount": 700});
    let columns = json!({"account": account});
    world.enqueue_with("invoice.create", params, columns).await
}

async fn about(world: &World, account: &str, operation: &str, status: &str) -> Job {
    let key = world.key(account);
    let id = world.sandbox.invoice(&key, json!({"status": status})).await;
    let params = json!({"invoice_id": id});
    let columns = json!({"account": account});
    world.enqueue_with(operation, params, columns).await
}

async fn until_capped(world: &World, account: &str, operations: &str) {
    world
        .until_true(&format!(
            "select capped_until > now() + interval '50 minutes' and capped_operations = '{{{operations}}}'
               from apipay.accounts where name = '{account}'"
        ))
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn behind_every_cap_bills_wait_and_everything_else_goes_on() {
    let wish = Wish::default()
        .accounts(&CAPS)
        .tune("reconcile.quiet_after_timeout", "8s");
    let (world, daemon) = World::running_as(wish).await;
    let mut walks = Vec::new();
    for code in CAPS {
        let open = bill(&world, code, phone::UNPAID).await;
        for fault in [
            json!({"cut": "after_effect", "match": LOST, "times": 1}),
            json!({"answer": refusal(code), "match": CAPPED}),
        ] {
            let mut fault = fault;
            fault["route"] = "POST /invoices".into();
            fault["organization"] = code.into();
            world.sandbox.fault(fault).await;
        }
        let lost = bill(&world, code, LOST).await;
        walks.push((code, open, lost));
    }
    let mut waiting = Vec::new();
    for (code, open, lost) in &walks {
        world.until(*open, "succeeded").await;
        world.until(*lost, "uncertain").await;
        waiting.push(bill(&world, code, CAPPED).await);
    }
    for (code, capped) in CAPS.iter().zip(&waiting) {
        until_capped(&world, code, "invoice.create").await;
        let row = world.until(*capped, "queued").await;
        assert_eq!(row["reason"], "cap_reached", "{code}");
        assert_eq!(row["attempts"], 0, "{code}");
    }
    // Whatever comes after it waits untouched, and what is no bill goes on.
    for (code, open, lost) in &walks {
        let later = bill(&world, code, phone::PAID).await;
        let cancel = about(&world, code, "invoice.cancel", "pending").await;
        let refund = about(&world, code, "invoice.refund", "paid").await;
        let invoice = world.job(*open).await["invoice_id"].as_i64().unwrap();
        let paid = json!({"status": "paid"});
        world.sandbox.set_invoice(invoice, paid).await;
        for job in [cancel, refund, *lost] {
            world.until(job, "succeeded").await;
        }
        world
            .until_true(&format!(
                "select status = 'paid' from apipay.invoices where account = '{code}' and id = {invoice}"
            ))
            .await;
        let waits = |row: &Value| row["reason"] == "waits_for_cap";
        let row = world.until_job(later, "it stands back", waits).await;
        assert_eq!(row["state"], "queued");
        assert!(world.attempts(later).await.is_empty(), "{code}");
        let said = "ApiPay said: The counter stands at 100 of 100";
        for job in [
            later,
            waiting[CAPS.iter().position(|cap| cap == code).unwrap()],
        ] {
            let text = world.explain(job).await;
            for part in ["ApiPay takes no new bills of account", code, said] {
                assert!(text.contains(part), "{text}");
            }
        }
        let status = world
            .value(&format!(
                "select to_jsonb(s) from apipay.account_status s where account = '{code}'"
            ))
            .await;
        let text = status["explain"].as_str().unwrap();
        assert!(text.starts_with("Sending: "), "{text}");
        assert!(
            text.contains(said)
                && text.contains("everything else goes on")
                && text.contains(&format!(
                    "none is tried before that, unless its cause is mended and somebody says so: select apipay.resume('{code}', 'why')"
                )),
            "{text}"
        );
        assert_eq!(status["capped_reason"], *code);
        assert_eq!(status["blocked_until"], Value::Null);
        let cause = format!("select to_jsonb(cause) from apipay.waiting where id = {later}");
        assert_eq!(world.value(&cause).await, "account_capped");
        let alert = world
            .value(&format!(
                "select to_jsonb(a) from apipay.alerts a where account = '{code}' and kind = 'cap_reached' and resolved_at is null"
            ))
            .await;
        let summary = alert["summary"].as_str().unwrap();
        for part in [
            *code,
            said,
            "What waits for it: new bills; cancellations and refunds go on, and payments are still seen, as long as an apipayd serves the account.",
        ] {
            assert!(summary.contains(part), "{summary}");
        }
        let action = alert["action"].as_str().unwrap();
        let mended = format!("once the cause is mended: select apipay.resume('{code}', 'why');");
        assert!(action.contains(&mended), "{action}");
        waiting.push(later);
    }
    daemon
        .until_told("CAPPED tariff_limit_reached until ")
        .await;
    let mut check = world.spawn(&["check"], &[]);
    check.ended(Duration::from_secs(30)).await;
    let checked = check.log_text();
    for code in CAPS {
        let waits = format!("sending waits: ApiPay takes no new bills of account {code} until ");
        assert!(checked.contains(&waits), "{checked}");
    }
    assert!(!checked.contains("neither parked"), "{checked}");
    let sent = world.sandbox.requests_to("POST /invoices").await;
    assert_eq!(sent.len(), 3 * CAPS.len(), "one bill meets each cap");
    world.sandbox.mend().await;
    for code in CAPS {
        world
            .sql(&format!("select apipay.resume('{code}', 'raised')"))
            .await;
    }
    for job in waiting {
        world.until(job, "succeeded").await;
    }
    assert_eq!(
        world.count("apipay.alerts where resolved_at is null").await,
        0
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_is_no_bill_and_is_answered_with_a_cap_waits_as_well() {
    let names = ["cancels", "refunds", "checks"];
    let (world, daemon) = World::running_as(Wish::default().accounts(&names)).await;
    for (account, route) in [
        ("cancels", "POST /invoices/{id}/cancel"),
        ("refunds", "POST /invoices/{id}/refund"),
        ("checks", "POST /invoices/status/check"),
    ] {
        let answer = refusal("tariff_limit_reached");
        world
            .sandbox
            .fault(json!({"route": route, "organization": account, "answer": answer}))
            .await;
    }
    let cancel = about(&world, "cancels", "invoice.cancel", "pending").await;
    let refund = about(&world, "refunds", "invoice.refund", "paid").await;
    bill(&world, "checks", phone::UNPAID).await;
    until_capped(&world, "cancels", "invoice.cancel,invoice.create").await;
    until_capped(&world, "refunds", "invoice.create,invoice.refund").await;
    for job in [cancel, refund] {
        let row = world.until(job, "queued").await;
        assert_eq!(row["reason"], "cap_reached");
    }
    // The other kind of each goes on.
    let others = [
        about(&world, "cancels", "invoice.refund", "paid").await,
        about(&world, "refunds", "invoice.cancel", "pending").await,
    ];
    for job in others {
        world.until(job, "succeeded").await;
    }
    // Whatever is asked is answered so: then nothing is asked, and the alert says that payments are not seen.
    world
        .until_true(
            "select blocked_until > now() + interval '50 minutes' and capped_until is null
               from apipay.accounts where name = 'checks'",
        )
        .await;
    for (account, words) in [
        (
            "cancels",
            "What waits for it: cancellations and new bills; refunds go on, and payments are still seen, as long as an apipayd serves the account.",
        ),
        (
            "refunds",
            "What waits for it: new bills and refunds; cancellations go on, and payments are still seen, as long as an apipayd serves the account.",
        ),
        ("checks", "they are not seen."),
    ] {
        world
            .until_true(&format!(
                "select count(*) = 1 from apipay.alerts
                  where account = '{account}' and kind = 'cap_reached' and resolved_at is null and summary like '%{words}'"
            ))
            .await;
    }
    world.sandbox.mend().await;
    for account in names {
        world
            .sql(&format!("select apipay.resume('{account}', 'raised')"))
            .await;
    }
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn refunds_pass_thousands_of_capped_bills_which_go_on_by_themselves() {
    let world = World::made(Wish::default()).await;
    world
        .sql(&format!(
            "update apipay.accounts
                set capped_until = now() + interval '1 hour', capped_operations = '{{invoice.create}}',
                    capped_reason = 'tariff_limit_reached';
             insert into apipay.jobs (operation, params, priority)
             select 'invoice.create', jsonb_build_object('phone_number', '{}', 'amount', n), n % 3
               from generate_series(1, 700) n",
            phone::PAID
        ))
        .await;
    let daemon = world.daemon().await;
    let refund = about(&world, "default", "invoice.refund", "paid").await;
    world.until(refund, "succeeded").await;
    world
        .until_true("select count(*) = 700 from apipay.jobs where state = 'queued' and reason = 'waits_for_cap'")
        .await;
    assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 0);
    // One that is reached again at once moves no more than the first of them.
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 1, "answer": refusal("tariff_limit_reached")}))
        .await;
    world
        .sql("update apipay.accounts set capped_until = now()")
        .await;
    until_capped(&world, "default", "invoice.create").await;
    world
        .until_true(
            "select count(*) filter (where j.reason = 'waits_for_cap') >= 690 - count(*) filter (where state <> 'queued')
               from apipay.jobs j where operation = 'invoice.create'",
        )
        .await;
    world
        .sql("update apipay.accounts set capped_until = now() + interval '1 second'")
        .await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    world
        .sql("update apipay.jobs set run_at = now() where reason = 'cap_reached'")
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cap_keeps_no_account_parked() {
    let (world, daemon) = World::running().await;
    let answer = refusal("tariff_limit_reached");
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "answer": answer}))
        .await;
    let capped = bill(&world, "default", CAPPED).await;
    until_capped(&world, "default", "invoice.create").await;
    world.sandbox.session("expired").await;
    world
        .sandbox
        .fault(json!({"route": "POST /invoices/{id}/cancel", "times": 1, "answer": {"preset": "503_kaspi_session_invalid"}}))
        .await;
    let cancel = about(&world, "default", "invoice.cancel", "pending").await;
    world.until(cancel, "parked").await;
    let later = bill(&world, "default", phone::PAID).await;
    world.sandbox.session("active").await;
    world.until(cancel, "succeeded").await;
    until_capped(&world, "default", "invoice.create").await;
    let sent = world.sandbox.requests_to("POST /invoices").await;
    assert_eq!(sent.len(), 1, "no probe sends what a cap refuses");
    world
        .until_true(
            "select array_agg(kind) = '{cap_reached}' from apipay.alerts where resolved_at is null",
        )
        .await;
    world.sandbox.mend().await;
    world.sql("select apipay.resume('default', 'raised')").await;
    for job in [capped, later] {
        world.until(job, "succeeded").await;
    }
    world.end([daemon]).await;
}

/// What waits for weeks is what that cap is about, and not what another one was about before.
#[tokio::test]
async fn a_long_cap_of_bills_keeps_no_refund_beyond_the_short_cap_of_its_own() {
    let (world, daemon) = World::running().await;
    let mut short = refusal("outstanding_org_limit");
    short["headers"]["Retry-After"] = "4".into();
    short["json"]["retry_after_seconds"] = 4.into();
    for (route, more) in [
        (
            "POST /invoices",
            json!({"delay_ms": 1200, "answer": refusal("tariff_limit_reached")}),
        ),
        (
            "POST /invoices/{id}/refund",
            json!({"times": 1, "answer": short}),
        ),
    ] {
        let mut fault = more;
        fault["route"] = route.into();
        world.sandbox.fault(fault).await;
    }
    // It is under way when the refund meets its cap.
    let capped = bill(&world, "default", CAPPED).await;
    world.until(capped, "sending").await;
    let refund = about(&world, "default", "invoice.refund", "paid").await;
    world
        .until_true(
            "select capped_operations = '{invoice.create,invoice.refund}' from apipay.accounts",
        )
        .await;
    until_capped(&world, "default", "invoice.create").await;
    world.until(refund, "succeeded").await;
    world
        .until_true(
            "select count(*) = 1 from apipay.alerts where kind = 'cap_reached' and resolved_at is null
                and summary like '%What waits for it: new bills; cancellations and refunds go on, and payments are still seen, as long as an apipayd serves the account.'",
        )
        .await;
    world.sandbox.mend().await;
    world.sql("select apipay.resume('default', 'raised')").await;
    world.until(capped, "succeeded").await;
    world.end([daemon]).await;
}
