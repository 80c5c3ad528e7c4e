//! The database forgets what it had committed: a data directory is put back from before.

use std::time::Duration;

use serde_json::json;
use tokio::task::block_in_place;
use tokio::time::sleep;

use crate::world::{Job, Wish, World, phone};

async fn put_back(world: &World) {
    block_in_place(|| {
        world.database.cluster.stop("immediate");
        world.database.cluster.put_data_back();
        world.database.cluster.restart();
    });
}

async fn keep(world: &World) {
    block_in_place(|| {
        world.database.cluster.stop("fast");
        world.database.cluster.keep_data();
        world.database.cluster.restart();
    });
    world
        .until_holds("the database answers", async || {
            sqlx::query("select 1").execute(world.pool()).await.is_ok()
        })
        .await;
}

/// Also a refund whose baseline stands already, because its first request was put off.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refund_that_the_database_forgot_is_found_before_it_is_sent_again() {
    let world = World::made(Wish {
        own_cluster: true,
        ..Wish::default()
    })
    .await;
    let refund_of_half = async || -> Job {
        let paid = json!({"status": "paid", "amount": "1000.00"});
        let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
        let params = json!({"invoice_id": invoice, "amount": 500, "reason": "a torn sleeve"});
        world.enqueue("invoice.refund", params).await
    };
    let put_off = refund_of_half().await;
    let too_many = json!({"route": "POST /invoices/{id}/refund", "effect": "none", "answer": {"preset": "429_minute"}});
    world.sandbox.fault(too_many).await;
    let mut daemon = world.daemon().await;
    world
        .until_job(put_off, "it is put off with its baseline", |row| {
            row["state"] == "queued" && !row["baseline"].is_null()
        })
        .await;
    daemon.stop().await;
    world.sandbox.mend().await;
    let fresh = refund_of_half().await;
    world
        .sql("update apipay.accounts set blocked_until = null")
        .await;
    world
        .sql(&format!(
            "update apipay.jobs set run_at = now() where id = {put_off}"
        ))
        .await;
    keep(&world).await;

    let mut daemon = world.daemon().await;
    for job in [put_off, fresh] {
        world.until(job, "succeeded").await;
    }
    daemon.stop().await;
    put_back(&world).await;
    world
        .until_holds("the database answers", async || {
            sqlx::query("select 1").execute(world.pool()).await.is_ok()
        })
        .await;
    for job in [put_off, fresh] {
        assert_eq!(
            world.job(job).await["state"],
            "queued",
            "nothing was forgotten"
        );
    }
    let daemon = world.daemon().await;
    for job in [put_off, fresh] {
        world.until(job, "succeeded").await;
        let effects = world.effects_of(job).await;
        assert_eq!(effects.len(), 1, "{effects:?}");
    }
    drop(daemon);
    // The first request's attempt is forgotten, which is told as a send without one.
    world.end_unchecked().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_in_the_lost_time_reaches_no_other_order() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default()
    };
    let wish = wish
        .accounts(&["default", "clinic"])
        .tune("http.timeout", "20s")
        .tune("worker.lease", "40s")
        .tune("worker.grace", "25s");
    let world = World::made(wish).await;
    // One whose row is known, at the epoch before its claim; the others' rows are gone.
    let known = world.bill(phone::PAID, 100).await;
    let due = |when: &str| format!("update apipay.jobs set run_at = {when} where id = {known}");
    world.sql(&due("now() + interval '1 hour'")).await;
    keep(&world).await;
    world.sql(&due("now()")).await;
    world.slow_gateway(10_000).await;
    let bills = "insert into apipay.jobs (account, operation, params)
                 select (array['default', 'clinic'])[1 + n % 2], 'invoice.create',
                        jsonb_build_object('phone_number', '87000000001', 'amount', 100 + n)
                   from generate_series(1, 12) n";
    world.sql(bills).await;
    let mut daemon = world.daemon().await;
    world.until_in_flight(13).await;
    put_back(&world).await;
    world.sandbox.mend().await;
    world.slow_gateway(14_000).await;
    // The same numbers, other orders; and the accounts change places.
    world
        .until_holds("the other orders are in", async || {
            let swapped = bills.replace("'default', 'clinic'", "'clinic', 'default'");
            sqlx::raw_sql(sqlx::AssertSqlSafe(swapped))
                .execute(world.pool())
                .await
                .is_ok()
        })
        .await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'history_lost' and account is null and resolved_at is null)")
        .await;
    let alert = world
        .rows("select * from apipay.alerts where kind = 'history_lost'")
        .await;
    let summary = alert[0]["summary"].as_str().unwrap();
    let host = alert[0]["subject"].as_str().unwrap();
    let named = format!("The apipayd on {host} sends nothing any more.");
    assert!(!host.is_empty() && summary.ends_with(&named), "{summary}");
    daemon.until_told("the database has lost commits").await;
    for found in ["found=Another", "found=Behind(Epoch(0))"] {
        daemon.until_logged(found).await;
    }
    world.sandbox.mend().await;
    let late = world.bill(phone::PAID, 999).await;
    world
        .until_true("select not exists (select from apipay.jobs where state = 'sending')")
        .await;
    sleep(Duration::from_secs(1)).await;
    assert_eq!(
        world.job(late).await["state"],
        "queued",
        "nothing is sent any more"
    );
    expect_own_invoices(&world).await;

    daemon.stop().await;
    let heir = world.daemon().await;
    world.until(late, "succeeded").await;
    world
        .until_true("select not exists (select from apipay.alerts where kind = 'history_lost' and resolved_at is null)")
        .await;
    world.sql(&due("now()")).await;
    world.until_all_final().await;
    expect_own_invoices(&world).await;
    drop(heir);
    // What was sent in the lost time is at the gateway, and no job explains it.
    world.end_unchecked().await;
}

/// The daemon that has the request under way is given the job once more by a database that forgot it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_request_under_way_is_not_sent_once_more_when_its_claim_is_forgotten() {
    let wish = Wish {
        own_cluster: true,
        ..Wish::default().without_keys()
    };
    let wish = wish
        .tune("http.timeout", "20s")
        .tune("worker.lease", "40s")
        .tune("worker.grace", "25s");
    let world = World::made(wish).await;
    let job = world.bill(phone::PAID, 100).await;
    let due = |when: &str| format!("update apipay.jobs set run_at = {when} where id = {job}");
    world.sql(&due("now() + interval '6 s'")).await;
    keep(&world).await;
    world.sql(&due("now()")).await;
    world.slow_gateway(12_000).await;
    let daemon = world.daemon().await;
    world.until_in_flight(1).await;
    put_back(&world).await;
    daemon.until_logged("found=Repeated").await;
    world
        .until_true("select exists (select from apipay.alerts where kind = 'history_lost' and resolved_at is null)")
        .await;
    // The answer belongs to the claim that was given twice.
    world.until(job, "succeeded").await;
    let effects = world.effects_of(job).await;
    assert_eq!(effects.len(), 1, "{effects:?}");
    drop(daemon);
    world.end_unchecked().await;
}

/// No row has an invoice that bears another order's name, and no mirror is another order's.
async fn expect_own_invoices(world: &World) {
    let effects = world.sandbox.effects().await;
    let rows = world
        .rows(
            "select j.id, j.token, j.account, j.invoice_id from apipay.jobs j where j.invoice_id is not null
             union all
             select j.id, j.token, m.account, m.id from apipay.invoices m join apipay.jobs j on j.id = m.job_id",
        )
        .await;
    for row in &rows {
        let effect = effects
            .iter()
            .find(|effect| {
                effect["invoice_id"] == row["invoice_id"] && effect["kind"] == "invoice.create"
            })
            .unwrap();
        let token = row["token"].as_str().unwrap();
        assert!(effect.to_string().contains(token), "{row} has {effect}");
    }
    let mixed = world
        .count(
            "apipay.invoices m join apipay.jobs j on j.id = m.job_id where j.account <> m.account",
        )
        .await;
    assert_eq!(mixed, 0);
    assert!(!rows.is_empty(), "it proves nothing");
}
