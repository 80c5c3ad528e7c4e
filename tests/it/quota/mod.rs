//! The quota of an account goes to its bills first, and what is left to asking what became of them.

mod locked;
mod shop;

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;
use shop::{Figures, Shop};

use crate::world::{Wish, World, phone};

/// What is promised of a shop whose bills the limit has room for.
fn assert_promises(figures: &Figures, limit: u32) {
    assert_eq!(figures.unsent, 0, "{figures}");
    assert!(figures.latency(0.5) <= 0.1, "{figures}");
    assert!(figures.latency(0.99) <= 5.0, "{figures}");
    assert!(figures.seen_after(0.95) <= 30.0, "{figures}");
    assert!(figures.busiest <= limit as usize, "{figures}");
    assert_eq!(figures.refused, 0, "{figures}");
}

/// Less than a minute of the benchmark, with customers who pay sooner, so that there is something to see.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bills_leave_at_once_while_thousands_of_invoices_are_open() {
    let shop = Shop {
        limit: 60,
        bills: 30,
        open: 5_000,
        time: Duration::from_secs(50),
        pay_after: Duration::from_secs(10),
    };
    let figures = shop.watch().await;
    // A busy machine is late by itself: the half of them is the long form's to measure.
    assert_eq!(figures.unsent, 0, "{figures}");
    assert!(figures.latency(0.99) <= 5.0, "{figures}");
    assert!(figures.seen_after(0.95) <= 30.0, "{figures}");
    assert!(figures.busiest <= 60 && figures.refused == 0, "{figures}");
}

#[tokio::test]
async fn a_refusal_that_asks_for_two_seconds_costs_two_seconds() {
    let wish = Wish::default().tune("accounts.default.requests_per_minute", "60");
    let (world, daemon) = World::running_as(wish).await;
    let refusal = json!({
        "status": 429,
        "headers": {"Retry-After": "2", "X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0"},
        "json": {"message": "Too Many Attempts.", "error_code": "request_rate_limited", "retry_after_seconds": 2},
    });
    let rule = json!({"route": "POST /invoices", "times": 1, "answer": refusal});
    world.sandbox.fault(rule).await;
    let refused = world.bill(phone::UNPAID, 100).await;
    world
        .until_job(refused, "it waits", |row| row["reason"] == "retry_after")
        .await;
    let next = world.bill(phone::UNPAID, 100).await;
    world.until(next, "succeeded").await;
    // Counted as used, what remains would be waited for longer than a test waits.
    world.until(refused, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_check_that_is_refused_for_the_rate_is_made_again_after_the_wait() {
    // Far longer than a test waits: what was claimed for the check is not to wait for it.
    let wish = Wish::default().tune("worker.lease", "5m");
    let (world, daemon) = World::running_as(wish).await;
    let refusal = json!({"status": 429, "headers": {"Retry-After": "1"}, "json": {"message": "Too Many Attempts."}});
    let rule = json!({"route": "POST /invoices/status/check", "times": 1, "answer": refusal});
    world.sandbox.fault(rule).await;
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    world
        .until_true("select status = 'paid' from apipay.invoices")
        .await;
    world.end([daemon]).await;
}

/// The whole table: shops side by side, each with a gateway and a daemon of its own.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "scripts/bench-quota runs it"]
async fn shops_at_their_limits() {
    let minutes: u64 =
        std::env::var("APIPAYD_BENCH_MINUTES").map_or(10, |text| text.parse().unwrap());
    let shop = |limit, bills, open| Shop {
        limit,
        bills,
        open,
        time: Duration::from_secs(60 * minutes),
        pay_after: Duration::from_secs(120),
    };
    let shops = [
        shop(60, 5, 500),
        shop(60, 10, 500),
        shop(60, 30, 500),
        shop(200, 60, 500),
        shop(200, 100, 500),
        shop(60, 30, 5_000),
        shop(200, 150, 5_000),
    ];
    println!("\n{}", Figures::HEADINGS);
    let all = join_all(shops.map(async |shop| {
        let figures = shop.watch().await;
        println!("{figures}");
        figures
    }))
    .await;
    for (figures, shop) in all.iter().zip(shops) {
        assert_promises(figures, shop.limit);
    }
}
