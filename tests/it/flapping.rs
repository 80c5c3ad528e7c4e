//! Parks that end and begin again: one alert, one since, and probes whose distance grows.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Wish, World, phone, write_private};

async fn refuse(world: &World, route: &str, times: usize, status: u16, code: &str) {
    let body = json!({"error": code, "error_code": code, "message": "No."});
    let answer = json!({"status": status, "json": body});
    world
        .sandbox
        .fault(json!({"route": route, "times": times, "answer": answer}))
        .await;
}

async fn sender(world: &World) -> Value {
    world
        .value("select to_jsonb(a) from apipay.accounts a where name = 'default'")
        .await
}

/// Parks the account for a bill that expires before anything is well: then there is none to try, and health alone ends
/// the park.
async fn park_and_believe_its_health(world: &World) -> Value {
    world.sandbox.session("expired").await;
    let bill = json!({"phone_number": phone::PAID, "amount": 700});
    let soon = world.value("select to_jsonb(now() + interval '2 s')").await;
    let columns = json!({"expires_at": soon});
    let job = world.enqueue_with("invoice.create", bill, columns).await;
    world
        .until_true("select state = 'parked' from apipay.accounts")
        .await;
    let parked_at = sender(world).await["parked_at"].clone();
    world
        .until_true(&format!(
            "select expires_at <= now() from apipay.jobs where id = {job}"
        ))
        .await;
    world.sandbox.session("active").await;
    world
        .until_true("select state = 'active' from apipay.accounts")
        .await;
    world.until(job, "expired").await;
    parked_at
}

#[tokio::test]
async fn a_park_that_health_alone_has_ended_goes_on_until_something_gets_through() {
    let wish = Wish::default()
        .tune("breaker.probe_max", "2s")
        .tune("breaker.slow_start", "4s");
    let (world, daemon) = World::running_as(wish).await;
    let first = park_and_believe_its_health(&world).await;
    for _ in 2..=4 {
        assert_eq!(park_and_believe_its_health(&world).await, first);
    }
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 700).await;
    world.until(job, "parked").await;
    let parks = "apipay.events where subject = 'account' and to_state = 'parked'";
    assert_eq!(world.count(parks).await, 5);
    let row = sender(&world).await;
    assert_eq!(row["parked_at"], first, "{row}");
    assert!(row["probes"].as_i64().unwrap() >= 3, "{row}");
    // However often it was said to be well meanwhile.
    world
        .until_true("select exists (select from apipay.alerts l, apipay.accounts a where a.state = 'parked' and l.summary like 'Account default is parked: %')")
        .await;
    // Its probes are a second apart by then, and not as far as at first.
    world
        .until_true("select probe_at - updated_at > interval '1 second' from apipay.accounts")
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.sandbox.session("active").await;
    world.until(job, "succeeded").await;
    world
        .until_true(
            "select state = 'active' and doubted_since is null and probes = 0 from apipay.accounts",
        )
        .await;
    let told = "select not exists (select from apipay.alerts where resolved_at is null)";
    world.until_true(told).await;
    // The next one is another.
    refuse(&world, "POST /invoices", 1, 403, "kyc_required").await;
    let job = world.bill(phone::PAID, 700).await;
    world.until(job, "succeeded").await;
    world.until_true(told).await;
    let parked = world
        .rows("select opened_at, resolution from apipay.alerts order by id")
        .await;
    assert_eq!(parked.len(), 2, "{parked:?}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn the_first_bill_after_a_park_that_health_ended_ends_its_alert_and_the_next_park_is_another()
{
    // Nothing else ends the alert while the test lasts.
    let wish = Wish::default().tune("retry.server_error.max", "1h");
    let (world, daemon) = World::running_as(wish).await;
    let mut parks = Vec::new();
    for number in 1..=2 {
        parks.push(park_and_believe_its_health(&world).await);
        let row = sender(&world).await;
        assert_eq!(row["doubted_since"], parks[number - 1], "{row}");
        let open = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
        assert_eq!(world.count(open).await, 1, "health may be mistaken");
        // Whoever is told of it meanwhile is told that, and until when.
        world
            .until_true(&format!(
                "select exists (select from {open} and summary like 'Account default was parked (session_expired) and is well again since %Z, as %'
                                   and summary like '% until one has got through, or, if it stays so, until 20%Z.' and action not like '%log the cashier in%')"
            ))
            .await;
        // Its sends have not failed: nothing else of the account is news.
        let job = world.bill(phone::PAID, 700).await;
        world.until(job, "succeeded").await;
        world
            .until_true(
                "select state = 'active' and doubted_since is null and probes = 0 from apipay.accounts",
            )
            .await;
        world
            .until_holds("the alert ends", async || world.count(open).await == 0)
            .await;
        assert_eq!(world.count("apipay.alerts").await, number as i64);
        // The next park is no part of this one.
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    assert_ne!(parks[0], parks[1], "each has its own moment");
    world
        .until_holds("both are told, and both ends", async || {
            world.alerts.deliveries("firing").len() == 2
                && world.alerts.deliveries("resolved").len() == 2
        })
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn parks_that_alternate_with_what_gets_through_share_one_alert_which_ends() {
    let wish = Wish::default().tune("breaker.slow_start", "6s");
    let (world, daemon) = World::running_as(wish).await;
    for _ in 0..6 {
        refuse(&world, "POST /invoices", 1, 503, "kaspi_session_invalid").await;
        let job = world.bill(phone::PAID, 700).await;
        world.until(job, "succeeded").await;
    }
    let parks = "apipay.events where subject = 'account' and to_state = 'parked'";
    assert_eq!(world.count(parks).await, 6);
    // The first one had ended before the second told that they follow each other.
    assert_eq!(world.count("apipay.alerts").await, 2);
    let open = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    assert_eq!(world.count(open).await, 1, "it is well only for a moment");
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(world.count(open).await, 1);
    let well = "summary like 'Account default was parked again and again (session_expired) and is well again since %'";
    assert_eq!(world.count(&format!("{open} and {well}")).await, 1);
    world
        .until_holds("the alert ends", async || world.count(open).await == 0)
        .await;
    world
        .until_holds("both ends are posted", async || {
            world.alerts.deliveries("resolved").len() == 2
        })
        .await;
    assert_eq!(world.alerts.deliveries("firing").len(), 2);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_key_that_is_corrected_lets_the_account_go_on_with_the_start() {
    // Parked until a human says otherwise, as far as a test can wait.
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h");
    let (world, mut daemon) = World::running_as(wish).await;
    let (old, new) = (world.key("default"), world.key("renewed"));
    world
        .sandbox
        .organization(json!({"organization": "default", "add_key": new, "revoke_key": old}))
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    let row = world.until(job, "parked").await;
    assert_eq!(row["reason"], "key_rejected");
    let action = world
        .value("select to_jsonb(action) from apipay.alerts where kind = 'account_parked'")
        .await;
    let action = action.as_str().unwrap();
    assert!(
        action.contains("which probes at once")
            && action.contains("reload apipayd where it is in an api_key_file"),
        "{action}"
    );
    daemon.stop().await;

    // Still the old one: it is asked about, once, and stays parked.
    let mut still = world.daemon().await;
    world
        .until_true(
            "select probes = 1 and probe_at > now() + interval '50 minutes' from apipay.accounts",
        )
        .await;
    still.stop().await;

    write_private(&world.key_file("default"), &new);
    let heir = world.daemon().await;
    world.until(job, "succeeded").await;
    world
        .until_true("select resolution = 'a probe succeeded' from apipay.alerts where kind = 'account_parked'")
        .await;
    world.end([heir]).await;
}
