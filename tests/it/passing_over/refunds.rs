//! Refunds of one invoice go one after another, past those that cannot be moved.

use serde_json::{Value, json};

use super::{keep_locked, mend, refuse, told, until_nothing_is_stuck};
use crate::world::{Daemon, Job, World};

/// A refund that a human has to decide about, and three that wait for it, the first of them marked.
struct Queue {
    world: World,
    daemon: Daemon,
    open: Job,
    first: Job,
    others: [Job; 2],
}

async fn refund(world: &World, invoice: i64, columns: Value) -> Job {
    let params = json!({"invoice_id": invoice, "amount": 10});
    world.enqueue_with("invoice.refund", params, columns).await
}

async fn queue() -> Queue {
    let (world, daemon) = World::running().await;
    let paid = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
    let held = json!({"state": "held", "reason": "unknown_outcome", "unproven_since": "2026-01-01T00:00:00Z"});
    let open = refund(&world, invoice, held).await;
    let marked = json!({"state": "queued", "priority": 5, "metadata": {"marked": true}});
    let first = refund(&world, invoice, marked).await;
    let others = [
        refund(&world, invoice, json!({"state": "queued"})).await,
        refund(&world, invoice, json!({"state": "queued"})).await,
    ];
    world
        .until_true(
            "select count(*) = 3 from apipay.jobs where state = 'queued' and reason = 'waits_for_refund'",
        )
        .await;
    Queue {
        world,
        daemon,
        open,
        first,
        others,
    }
}

impl Queue {
    /// The one that all wait for ends.
    async fn open_ends(&self) {
        let ended = format!(
            "select apipay.resolve({}, false, null, 'it was not made', and_cancel => true)",
            self.open
        );
        self.world.sql(&ended).await;
    }

    /// The others go on, in their order, and the first of them waits.
    async fn others_succeed(&self) {
        for job in self.others {
            self.world.until(job, "succeeded").await;
        }
        assert_eq!(self.world.job(self.first).await["state"], "queued");
        let order = self
            .world
            .rows("select job_id from apipay.events where subject = 'job' and to_state = 'sending' order by id")
            .await;
        let order: Vec<Job> = order
            .iter()
            .map(|row| row["job_id"].as_i64().unwrap())
            .collect();
        assert_eq!(order, self.others);
    }

    async fn end(self) {
        let world = self.world;
        world.until(self.first, "succeeded").await;
        until_nothing_is_stuck(&world).await;
        world.end([self.daemon]).await;
    }
}

#[tokio::test]
async fn a_refund_that_a_trigger_does_not_let_be_claimed_holds_up_no_other() {
    let queue = queue().await;
    let claimed = "new.state = 'sending' and old.metadata ? 'marked'";
    refuse(&queue.world, "jobs", claimed).await;
    queue.open_ends().await;
    queue.others_succeed().await;
    told(&queue.world, queue.first).await;
    mend(&queue.world, "jobs").await;
    queue.end().await;
}

#[tokio::test]
async fn a_refund_that_a_trigger_does_not_let_have_its_turn_holds_up_no_other() {
    let queue = queue().await;
    let turn = "old.reason = 'waits_for_refund' and old.metadata ? 'marked'";
    refuse(&queue.world, "jobs", turn).await;
    queue.open_ends().await;
    queue.others_succeed().await;
    told(&queue.world, queue.first).await;
    mend(&queue.world, "jobs").await;
    queue.end().await;
}

#[tokio::test]
async fn a_waiting_refund_that_somebody_keeps_locked_holds_up_no_other_and_is_told() {
    let queue = queue().await;
    let psql = keep_locked(&queue.world, queue.first).await;
    queue.open_ends().await;
    queue.others_succeed().await;
    let alert = told(&queue.world, queue.first).await;
    let action = alert["action"].as_str().unwrap();
    assert!(
        action.contains("a forgotten psql") && action.contains("pg_terminate_backend"),
        "{action}"
    );
    let explain = queue.world.explain(queue.first).await;
    assert!(
        explain.contains("another session keeps it locked"),
        "{explain}"
    );
    drop(psql);
    queue.end().await;
}

#[tokio::test]
async fn a_refund_in_turn_that_somebody_keeps_locked_holds_up_no_other() {
    let queue = queue().await;
    let world = &queue.world;
    // It comes while nothing is claimed, so that it does not wait itself.
    let block = "update apipay.accounts set blocked_until = now() + interval '1 hour', blocked_reason = 'daily_cap_reached'";
    world.sql(block).await;
    let first = world.job(queue.first).await;
    let invoice = first["invoice_id"].as_i64().unwrap();
    let locked = refund(world, invoice, json!({"state": "queued", "priority": 9})).await;
    let psql = keep_locked(world, locked).await;
    world
        .sql("update apipay.accounts set blocked_until = null, blocked_reason = null")
        .await;
    queue.open_ends().await;
    world.until(queue.first, "succeeded").await;
    for job in queue.others {
        world.until(job, "succeeded").await;
    }
    assert_eq!(world.job(locked).await["state"], "queued");
    drop(psql);
    world.until(locked, "succeeded").await;
    queue.end().await;
}

#[tokio::test]
async fn a_waiting_refund_that_is_put_off_by_hand_holds_up_no_other() {
    let queue = queue().await;
    let (world, first) = (&queue.world, queue.first);
    let at = |moment: &str| format!("update apipay.jobs set run_at = {moment} where id = {first}");
    world.sql(&at("now() + interval '1 hour'")).await;
    queue.open_ends().await;
    queue.others_succeed().await;
    let turns = "apipay.events where subject = 'job' and from_state = 'queued' and to_state = 'queued' and reason = 'waits_for_refund' and job_id = ";
    for job in queue.others {
        // Once when it came, and once more at the most: while the one before it was open.
        let turns = world.count(&format!("{turns}{job}")).await;
        assert!(turns <= 2, "{turns}");
    }
    world.sql(&at("now()")).await;
    queue.end().await;
}
