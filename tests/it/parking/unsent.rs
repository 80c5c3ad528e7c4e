//! Jobs of which nothing is sent keep no account parked that is well again, and one job of it is tried at a time.

use std::time::Duration;

use apipayd::db::probes::{self, NextProbe};
use apipayd::domain::account::AccountName;
use serde_json::json;
use tokio::time::sleep;

use super::{until_parked, without_probes};
use crate::world::{Daemon, Job, Wish, World, phone};

/// The account is parked until somebody has it probed, and is well again; no parked job is left that a probe could let
/// through.
async fn parked_without_a_parked_job(wish: Wish) -> (World, Daemon) {
    // A probe tries no further job once a request might have taken all of its time.
    let wish = wish
        .tune("http.timeout", "20s")
        .tune("worker.grace", "25s")
        .tune("worker.lease", "50s");
    let (world, daemon) = World::running_as(wish).await;
    world.sandbox.session("expired").await;
    let first = world.bill(phone::PAID, 1500).await;
    world.until(first, "parked").await;
    until_parked(&world).await;
    world
        .sql(&format!("select apipay.cancel({first}, 'a mistake')"))
        .await;
    world.sandbox.session("active").await;
    (world, daemon)
}

/// Bills that go before any other, and that no daemon can send.
async fn wrong_bills(world: &World, number: usize) -> Vec<Job> {
    let mut wrong = Vec::new();
    for _ in 0..number {
        let params = json!({"phone_number": phone::PAID, "amount": "a lot"});
        let first = json!({"priority": 9});
        wrong.push(world.enqueue_with("invoice.create", params, first).await);
    }
    wrong
}

#[tokio::test]
async fn a_job_that_ends_unsent_leaves_the_probe_to_the_next() {
    let (world, daemon) = parked_without_a_parked_job(without_probes()).await;
    let wrong = wrong_bills(&world, 6).await;
    let good = world.bill(phone::PAID, 1600).await;
    // The only one that is made.
    world
        .sql("update apipay.accounts set probe_at = now()")
        .await;
    world.until(good, "succeeded").await;
    for job in wrong {
        assert_eq!(world.job(job).await["error_code"], "invalid_params");
    }
    world
        .until_true("select exists (select from apipay.alerts where kind = 'account_parked' and resolution = 'a probe succeeded')")
        .await;
    world
        .until_holds(
            "the quota counts what was sent, and nothing else",
            async || {
                let used = "select to_jsonb(quota_used) from apipay.account_status";
                let left = world.sandbox.all_requests().await.len();
                world.value(used).await == json!(left)
            },
        )
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn many_jobs_that_end_unsent_do_not_have_an_account_probed_ever_later() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "2s")
        .tune("breaker.probe_max", "1h");
    let (world, daemon) = parked_without_a_parked_job(wish).await;
    let wrong = wrong_bills(&world, 45).await;
    let good = world.bill(phone::PAID, 1600).await;
    world.until(good, "succeeded").await;
    for job in wrong {
        assert_eq!(world.job(job).await["error_code"], "invalid_params");
    }
    world
        .until_true("select state = 'active' from apipay.accounts")
        .await;
    world.end([daemon]).await;
}

/// Inserts bills that go before any other, and that no daemon can send.
async fn insert_wrong_bills(world: &World, number: usize) {
    world
        .sql(&format!(
            "insert into apipay.jobs (account, operation, params, priority)
             select 'default', 'invoice.create', '{{\"phone_number\": \"{}\", \"amount\": \"a lot\"}}', 9 from generate_series(1, {number})",
            phone::PAID
        ))
        .await;
}

/// However many there are, they use up nothing of the probe: health is asked once.
#[tokio::test]
async fn dozens_of_jobs_with_wrong_params_do_not_keep_an_account_parked() {
    let (world, daemon) = parked_without_a_parked_job(without_probes()).await;
    insert_wrong_bills(&world, 50).await;
    let good = world.bill(phone::PAID, 1600).await;
    // The only one that is made.
    world
        .sql("update apipay.accounts set probe_at = now()")
        .await;
    world.until(good, "succeeded").await;
    let wrong = "apipay.jobs where state = 'failed' and error_code = 'invalid_params'";
    assert_eq!(world.count(wrong).await, 50);
    world.end([daemon]).await;
}

/// The job that was refused last is tried in each probe, at the end.
#[tokio::test]
async fn a_flow_of_jobs_with_wrong_params_does_not_keep_an_account_parked() {
    let (world, daemon) = World::running().await;
    world.sandbox.session("expired").await;
    let parked = world.bill(phone::PAID, 1500).await;
    world.until(parked, "parked").await;
    until_parked(&world).await;
    insert_wrong_bills(&world, 400).await;
    let asked = async || world.sandbox.requests_to("GET /account/health").await.len();
    world.sandbox.session("active").await;
    let before = asked().await;
    let flow = async {
        loop {
            insert_wrong_bills(&world, 40).await;
            sleep(Duration::from_millis(100)).await;
        }
    };
    let active = "select state = 'active' from apipay.accounts";
    tokio::select! {
        () = world.until_true(active) => {}
        () = flow => {}
    }
    // One may have been under way when the account was well again.
    let probes = asked().await - before;
    assert!(probes <= 2, "{probes} probes");
    world.until(parked, "succeeded").await;
    world.until_all_final().await;
    let others =
        "apipay.jobs where state <> 'failed' or error_code is distinct from 'invalid_params'";
    assert_eq!(world.count(others).await, 1);
    world.end([daemon]).await;
}

/// A trial may last longer than its probe is claimed for: what is read before it is sent takes its time.
#[tokio::test]
async fn nobody_probes_an_account_while_a_job_of_it_is_tried() {
    let (world, mut daemon) = World::running_as(without_probes()).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    until_parked(&world).await;
    daemon.stop().await;
    let pool = world.daemon_pool();
    let lease = Duration::from_secs(60);
    let claim = async || {
        world
            .sql("update apipay.accounts set probe_at = now()")
            .await;
        let due = probes::claim(&pool, &["default".to_owned()], lease).await;
        due.unwrap()
    };
    let tried = |leased_until: &str| {
        format!(
            "update apipay.jobs set state = 'sending', reason = 'probe', epoch = epoch + 1, leased_by = gen_random_uuid(),
                    leased_until = now() + interval '{leased_until}' where id = {job}"
        )
    };
    world.sql(&tried("1 minute")).await;
    assert_eq!(
        claim().await.len(),
        0,
        "another job of it would be tried as well"
    );
    world
        .sql("update apipay.jobs set leased_until = now()")
        .await;
    let first = claim().await;
    assert_eq!(first.len(), 1, "its worker is gone");

    // Whoever has made the first one tries nothing more once somebody else makes another.
    let account = AccountName::parse("default").unwrap();
    let holds = async |probe| {
        let held = NextProbe::Held(lease);
        let held = probes::schedule(&pool, &account, held, Some(probe)).await;
        held.unwrap()
    };
    assert!(holds(&first[0]).await);
    let second = claim().await;
    assert!(!holds(&first[0]).await);
    assert!(holds(&second[0]).await);
    world.end_unchecked().await;
}
