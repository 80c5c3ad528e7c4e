//! Every kind of alert, each in an account of its own where it has one.

use serde_json::{Value, json};

use super::{action, as_operator, obey, open, statements, until_ended};
use crate::world::{Wish, World, phone};

/// Kinds that [`every_alert_ends_when_its_cause_is_gone_and_what_it_says_was_done`] goes through.
const WALKED: [&str; 6] = [
    "account_parked",
    "cap_reached",
    "gateway_failing",
    "job_held",
    "duplicate_detected",
    "job_stuck",
];

/// Kinds with tests of their own: here and in `refused.rs`, in `clocks.rs`, `database/history.rs`, `following.rs`, `given_back.rs`, `isolation.rs`, `organizations.rs` and `progress`.
const ELSEWHERE: [&str; 11] = [
    "clock_jumped",
    "history_lost",
    "invoice_missing",
    "invoice_revived",
    "job_overdue",
    "job_refused",
    "mode_mismatch",
    "no_progress",
    "other_organization",
    "refund_revived",
    "task_panicked",
];

async fn bill(world: &World, account: &str, phone: &str) -> i64 {
    let params = json!({"phone_number": phone, "amount": 900});
    world
        .enqueue_with("invoice.create", params, json!({"account": account}))
        .await
}

async fn fault(world: &World, account: &str, mut rule: Value) {
    rule["organization"] = account.into();
    world.sandbox.fault(rule).await;
}

#[tokio::test]
async fn every_alert_ends_when_its_cause_is_gone_and_what_it_says_was_done() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h");
    let (world, daemon) = World::running_as(wish.accounts(&WALKED)).await;
    let kinds = world
        .value("select to_jsonb(col_description('apipay.alerts'::regclass, attnum)) from pg_attribute where attrelid = 'apipay.alerts'::regclass and attname = 'kind'")
        .await;
    let mut known: Vec<&str> = WALKED.into_iter().chain(ELSEWHERE).collect();
    known.sort_unstable();
    let kinds = kinds.as_str().unwrap().to_owned();
    let (_, kinds) = kinds.trim_end_matches('.').split_once(": ").unwrap();
    let mut kinds: Vec<&str> = kinds.split(", ").collect();
    kinds.sort_unstable();
    assert_eq!(kinds, known, "a kind of alert that no test follows");

    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as
               $$ begin raise exception 'the books are closed'; end $$;
             create trigger a_refuse before update on apipay.jobs
               for each row when (new.account = 'job_stuck' and new.state = 'sending') execute function public.refuse()",
        )
        .await;
    let always = |answer: Value| json!({"route": "POST /invoices", "skip": 0, "times": 100_000, "answer": answer});
    fault(
        &world,
        "account_parked",
        always(json!({"preset": "503_kaspi_session_invalid"})),
    )
    .await;
    fault(
        &world,
        "cap_reached",
        always(json!({"preset": "429_tariff_limit"})),
    )
    .await;
    fault(
        &world,
        "gateway_failing",
        always(json!({"preset": "502_html"})),
    )
    .await;
    for _ in 0..4 {
        bill(&world, "gateway_failing", phone::PAID).await;
    }
    for account in ["account_parked", "cap_reached", "job_stuck"] {
        bill(&world, account, phone::PAID).await;
    }
    // Two jobs whose requests had an effect that no answer told of: of one there are two invoices.
    let later = |account: &str| json!({"account": account, "run_at": "2100-01-01T00:00:00Z"});
    let params = json!({"phone_number": phone::PAID, "amount": 900});
    let mut named = Vec::new();
    for (account, invoices) in [("job_held", 1), ("duplicate_detected", 2)] {
        let job = world
            .enqueue_with("invoice.create", params.clone(), later(account))
            .await;
        let token = world.job(job).await["token"].as_str().unwrap().to_owned();
        let (mut made, mut other) = (0, 0);
        for _ in 0..invoices {
            let fields = json!({"phone": phone::PAID, "amount": "900.00", "status": "pending",
                                "internal_comment": format!("[apipayd {token}]")});
            other = made;
            made = world.sandbox.invoice(&world.key(account), fields).await;
        }
        named.push((account, made, other));
        let (state, reason) = match invoices {
            1 => ("held", "unknown_outcome"),
            _ => ("uncertain", "timeout"),
        };
        world
            .sql(&format!(
                "update apipay.jobs set state = '{state}', reason = '{reason}', epoch = 1, unproven_since = now(), run_at = now() where id = {job}"
            ))
            .await;
    }

    let mut alerts = Vec::new();
    for kind in WALKED {
        alerts.push(open(&world, kind, &format!("account = '{kind}'")).await);
    }
    world.sandbox.mend().await;
    world.sql("drop trigger a_refuse on apipay.jobs").await;
    for alert in &alerts {
        let kind = alert["kind"].as_str().unwrap();
        match named.iter().find(|(account, ..)| *account == kind) {
            // A person looks the invoice up, and names it.
            Some((_, invoice, other)) => {
                let said = statements(action(alert));
                let name_it = said
                    .iter()
                    .find(|s| s.contains("true, INVOICE_ID"))
                    .unwrap();
                let name_it = name_it.replace("INVOICE_ID", &invoice.to_string());
                as_operator(&world, &name_it).await.unwrap();
                // The other one of two could still be paid.
                if *other != 0 {
                    let cancel_it = said
                        .iter()
                        .find(|s| s.contains("cancel_invoice(INVOICE_ID"))
                        .unwrap();
                    let cancel_it = cancel_it.replace("INVOICE_ID", &other.to_string());
                    as_operator(&world, &cancel_it).await.unwrap();
                }
            }
            None => obey(&world, alert).await,
        }
    }
    for kind in WALKED {
        until_ended(&world, kind, "true").await;
    }
    world.until_all_final().await;
    drop(daemon);
    // An invoice that nobody asked for is at the gateway.
    world.end_unchecked().await;
}
