//! A gateway that refuses all for the account's limit, again and again.

use serde_json::{Value, json};

use super::{told, until_told, wish};
use crate::world::{World, phone};

#[tokio::test]
async fn a_limit_that_lets_nothing_through_is_told_once_and_a_cap_only_as_such() {
    let names = ["default", "asking", "capped", "slow"];
    let (world, daemon) = World::running_as(wish().accounts(&names)).await;
    let refuse = async |account: &str, route: &str, answer: Value, skip: usize| {
        world
            .sandbox
            .fault(json!({"route": route, "organization": account, "skip": skip, "times": 100_000, "answer": answer}))
            .await;
    };
    let plain = json!({"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "Too Many Attempts."}});
    refuse("default", "POST /invoices", plain.clone(), 0).await;
    refuse("asking", "POST /invoices/status/check", plain, 0).await;
    refuse(
        "capped",
        "POST /invoices",
        json!({"preset": "429_tariff_limit"}),
        0,
    )
    .await;
    for account in names {
        // The last one's are let through, if slowly.
        let params = json!({"phone_number": phone::PAID, "amount": 700});
        world
            .enqueue_with("invoice.create", params, json!({"account": account}))
            .await;
    }
    let firing = until_told(
        &world,
        "firing",
        &[
            "every payment of account default, again and again, because the limit of its key is reached",
            "HTTP 429",
        ],
    )
    .await;
    assert_eq!(firing["commonAnnotations"]["jobs_waiting"], "1");
    assert_eq!(firing["commonAnnotations"]["amount_waiting_kzt"], "700");
    let text = firing["commonAnnotations"].to_string();
    for part in [
        "another program uses the same API key",
        "accounts.default.requests_per_minute",
        "support",
    ] {
        assert!(text.contains(part), "{text}");
    }
    daemon.until_told("refused for its limit since").await;
    until_told(
        &world,
        "firing",
        &["whatever is asked about payments of account asking"],
    )
    .await;
    let others = "apipay.alerts where account in ('capped', 'slow') and kind <> 'cap_reached'";
    assert_eq!(world.count(others).await, 0);
    let cap =
        "apipay.alerts where account = 'capped' and kind = 'cap_reached' and resolved_at is null";
    assert_eq!(world.count(cap).await, 1);
    assert_eq!(told(&world, "firing").len(), 2);
    world.sandbox.mend().await;
    until_told(&world, "resolved", &["account default"]).await;
    until_told(&world, "resolved", &["account asking"]).await;
    world.sql("select apipay.resume('capped', 'raised')").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_cap_hides_no_payment_that_is_not_seen() {
    let (world, daemon) = World::running_as(wish()).await;
    let open = world.bill(phone::UNPAID, 700).await;
    world.until(open, "succeeded").await;
    let cap = json!({"route": "POST /invoices", "answer": {"preset": "429_tariff_limit"}});
    world.sandbox.fault(cap).await;
    let capped = world.bill(phone::PAID, 700).await;
    world
        .until_true("select count(*) = 1 from apipay.alerts where kind = 'cap_reached'")
        .await;
    let plain = json!({"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "Too Many Attempts."}});
    let check = json!({"route": "POST /invoices/status/check", "times": 100_000, "answer": plain});
    world.sandbox.fault(check).await;
    until_told(
        &world,
        "firing",
        &["whatever is asked about payments of account default"],
    )
    .await;
    assert_eq!(
        told(&world, "firing").len(),
        1,
        "the bill is told by the cap"
    );
    world.sandbox.mend().await;
    until_told(&world, "resolved", &["account default"]).await;
    world.sql("select apipay.resume('default', 'raised')").await;
    world.until(capped, "succeeded").await;
    world.end([daemon]).await;
}

/// A proxy's page proves nothing of a payment: it is looked up each time before it is sent again, and what is told must not
/// start over with each of its steps.
#[tokio::test]
async fn a_page_that_refuses_for_a_limit_is_told_with_its_words_whatever_it_answers() {
    let names = ["default", "asking"];
    let (world, daemon) = World::running_as(wish().accounts(&names)).await;
    for (account, route) in [
        ("default", "POST /invoices"),
        ("asking", "POST /invoices/status/check"),
    ] {
        world
            .sandbox
            .fault(json!({"route": route, "organization": account, "times": 100_000, "answer": {"preset": "429_html"}}))
            .await;
        let params = json!({"phone_number": phone::PAID, "amount": 700});
        world
            .enqueue_with("invoice.create", params, json!({"account": account}))
            .await;
    }
    for (account, what) in [
        ("default", "refuses every payment of account default"),
        (
            "asking",
            "whatever is asked about payments of account asking",
        ),
    ] {
        let firing = until_told(&world, "firing", &[what, "429 Too Many Requests"]).await;
        assert_eq!(firing["commonLabels"]["account"], account);
        let text = firing["commonAnnotations"].to_string();
        for part in [
            "HTTP 429",
            "not in ApiPay's words",
            "since 20",
            "proxy",
            "firewall",
        ] {
            assert!(text.contains(part), "{text}");
        }
        assert!(!text.contains("<h1>"), "{text}");
    }
    assert_eq!(told(&world, "firing").len(), 2);
    world.sandbox.mend().await;
    until_told(&world, "resolved", &["account default"]).await;
    until_told(&world, "resolved", &["account asking"]).await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// What is told of the park is not the whole truth any more: whoever does what it says sees nothing come of it.
#[tokio::test]
async fn probes_that_get_no_clear_answer_are_told_beside_the_park() {
    let (world, daemon) = World::running_as(wish()).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 700).await;
    world
        .until_true("select state = 'parked' from apipay.accounts where name = 'default'")
        .await;
    let page =
        json!({"route": "GET /account/health", "times": 100_000, "answer": {"preset": "429_html"}});
    world.sandbox.fault(page).await;
    world.sandbox.session("active").await;
    let words = [
        "when asked for its health",
        "HTTP 429",
        "Too Many Requests",
        "since 20",
    ];
    let firing = until_told(&world, "firing", &words).await;
    assert_eq!(firing["commonLabels"]["account"], "default");
    world.sandbox.mend().await;
    until_told(&world, "resolved", &[]).await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}
