//! What a daemon knew from memory, when it comes to be written down.

use std::time::Duration;

use apipayd::db::accounts::AlertText;
use apipayd::db::progress::{Incident, keep};
use serde_json::json;

use crate::world::{Wish, World};

const KIND: &str = "no_progress";

/// An alert that began and ended so many seconds ago.
async fn ended(world: &World, began: u32, ended: u32) {
    world
        .sql(&format!(
            "insert into apipay.alerts (account, kind, severity, summary, action, opened_at, resolved_at)
             values ('default', '{KIND}', 'critical', 'it stood still', 'look',
                     now() - interval '{began} s', now() - interval '{ended} s')"
        ))
        .await;
}

/// Writes down what a daemon has known for so many seconds.
async fn known_for(world: &World, seconds: u64) {
    let text = AlertText {
        summary: "it stands still".to_owned(),
        action: "look".to_owned(),
        details: json!({}),
    };
    let incident = Incident {
        account: Some("default"),
        subject: "",
        age: Duration::from_secs(seconds),
        severity: "critical",
        text: &text,
        told: &[],
        repeats: 0,
    };
    keep(&world.daemon_pool(), KIND, &incident).await.unwrap();
}

async fn open(world: &World) -> i64 {
    world.count("apipay.alerts where resolved_at is null").await
}

#[tokio::test]
async fn what_another_daemon_has_told_and_ended_is_not_told_again_and_what_begins_then_is() {
    let world = World::made(Wish::default()).await;
    // Both saw the same, and this one writes it down only now.
    ended(&world, 300, 100).await;
    known_for(&world, 304).await;
    assert_eq!(open(&world).await, 0);
    // This began when that ended, and is another one.
    known_for(&world, 101).await;
    assert_eq!(open(&world).await, 1);
    known_for(&world, 102).await;
    assert_eq!(open(&world).await, 1);
    world.end_unchecked().await;
}
