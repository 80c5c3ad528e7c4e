//! The database itself is away: told from memory, and written down when it is back.

use tokio::task::block_in_place;

use super::{told, until_told, wish};
use crate::world::{Wish, World, phone};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_database_that_is_away_is_told_from_memory_and_the_history_has_it() {
    let world = World::made(Wish {
        own_cluster: true,
        ..wish().tune("alerts.repeat", "8s")
    })
    .await;
    let daemon = world.daemon().await;
    // It has counted what waits: nothing does by then.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    block_in_place(|| world.database.cluster.stop("immediate"));
    // This one never saw it.
    let second = world.spawn(&["run"], &[]);
    world
        .until_holds("both tell, and again", async || {
            told(&world, "firing").len() >= 4
        })
        .await;
    let deliveries = told(&world, "firing");
    for delivery in &deliveries {
        let alert = &delivery["alerts"][0];
        assert_eq!(
            alert["fingerprint"],
            deliveries[0]["alerts"][0]["fingerprint"]
        );
        let text = delivery["commonAnnotations"]["summary"].as_str().unwrap();
        assert!(text.starts_with("The database cannot be used"), "{text}");
        // What waits cannot be counted: that is not that nothing does.
        let waiting = delivery["commonAnnotations"].get("jobs_waiting");
        assert_eq!(waiting, None, "{delivery}");
    }
    for daemon in [&daemon, &second] {
        daemon
            .until_logged("ALERT no_progress: The database cannot be used")
            .await;
    }

    block_in_place(|| world.database.cluster.restart());
    until_told(&world, "resolved", &[]).await;
    world
        .until_true(
            "select count(*) = 1 and bool_and(resolved_at - opened_at > interval '20 seconds')
               from apipay.alerts where kind = 'no_progress'",
        )
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "succeeded").await;
    let resolved = told(&world, "resolved").len();
    assert_eq!(resolved, 1, "it is over once");
    // None is told by its row what was told without it.
    assert!(told(&world, "firing").len() <= deliveries.len() + 2);
    world.end([daemon, second]).await;
}
