//! Lengths of time that the daemon and the database must agree on.

use std::fs;
use std::path::Path;
use std::time::Duration;

use apipayd::domain::times::{ALIVE_FOR, KEY_KNOWN, SEND_WINDOW, SILENT_CANCEL};

use crate::world::{Cluster, Database, ROOT};

/// The intervals that follow `before` in all the SQL of the daemon and of the migrations, as written.
fn intervals_after(before: &str) -> Vec<String> {
    let mut found = Vec::new();
    for folder in ["migrations", "src/db"] {
        for entry in fs::read_dir(Path::new(ROOT).join(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                continue;
            }
            let text = fs::read_to_string(path).unwrap();
            let parts = text.split(before).skip(1);
            found.extend(parts.map(|part| part.split('\'').next().unwrap().to_owned()));
        }
    }
    found
}

#[tokio::test]
async fn the_window_of_the_quota_is_longer_than_a_minute_by_the_send_window() {
    let database = Database::migrated(Cluster::shared().await).await;
    let seconds: i32 = sqlx::query_scalar("select apipay._quota_seconds()")
        .fetch_one(&database.pool)
        .await
        .unwrap();
    // The clocks of one second's counts add one.
    let least = Duration::from_secs(60) + SEND_WINDOW + Duration::from_secs(1);
    assert_eq!(Duration::from_secs(seconds as u64), least);
}

#[tokio::test]
async fn whether_a_daemon_runs_is_measured_by_the_same_length_everywhere() {
    let mut written = intervals_after("not d.has_left and d.seen_at > now() - interval '");
    written.extend(intervals_after(
        "not d.has_left and d.seen_at >= now() - interval '",
    ));
    // For who serves an account a shorter one counts, which has to be longer than a key counts as known.
    let serving = "30 s";
    assert_eq!(written.iter().filter(|it| *it == serving).count(), 1);
    assert!(written.len() >= 5, "{written:?}");
    assert!(KEY_KNOWN + Duration::from_secs(5) < Duration::from_secs(30));
    assert_eq!(ALIVE_FOR, Duration::from_secs(60));
    written.retain(|it| it != serving);
    assert!(written.iter().all(|it| it == "1 minute"), "{written:?}");
}

#[test]
fn explain_says_when_a_cancellation_without_a_trace_is_sent_again() {
    let written = intervals_after("apipay._when(job.updated_at + interval '");
    assert_eq!(written, ["10 minutes"]);
    assert_eq!(SILENT_CANCEL, Duration::from_mins(10));
}
