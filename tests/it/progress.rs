//! What stands still is told, whatever the cause: also when no statement fails, when no row is seen, and
//! when the database is what fails.

mod alike;
mod away;
mod ended;
mod hidden;
mod kept;
mod limit;
mod locked;
mod prepared;
mod served;
mod still;

use std::time::Duration;

use serde_json::Value;

use crate::world::{Daemon, Wish, World};

/// With the shortest lease that its cross-check allows: two of them are what is waited for.
fn wish() -> Wish {
    Wish::default()
        .tune("http.timeout", "1s")
        .tune("worker.lease", "11100ms")
}

/// The deliveries about what does not move, in order.
fn told(world: &World, status: &str) -> Vec<Value> {
    let mut deliveries = world.alerts.deliveries(status);
    deliveries.retain(|delivery| delivery["commonLabels"]["kind"] == "no_progress");
    deliveries
}

/// Waits for such a delivery whose text holds these words.
async fn until_told(world: &World, status: &str, words: &[&str]) -> Value {
    let find = || {
        told(world, status).into_iter().find(|delivery| {
            let text = delivery["commonAnnotations"].to_string();
            words.iter().all(|word| text.contains(word))
        })
    };
    world
        .until_holds(&format!("{status} with {words:?} is told"), async || {
            find().is_some()
        })
        .await;
    find().unwrap()
}

/// A daemon with a role of its own, whose rights a test may change.
async fn ordinary_daemon(world: &World) -> Daemon {
    world
        .tuned_daemon(&[("database.url", ordinary_url(world).await)])
        .await
}

async fn ordinary_url(world: &World) -> String {
    let role = format!("worker_of_{}", world.database.name);
    world
        .sql(&format!(
            "create role {role} login; grant apipay_worker to {role}"
        ))
        .await;
    world.database.url_of(&role)
}

/// What `check` says, and its exit code.
async fn check(world: &World, url: &str) -> (Option<i32>, String) {
    let mut check = world.spawn(&["check"], &[("database.url", url.to_owned())]);
    let status = check.ended(Duration::from_secs(20)).await;
    (status.code(), check.log_text())
}
