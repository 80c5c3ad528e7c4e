//! The clock is set while rows hold moments that no clock of ours has shown.

use super::{HOUR, set_clock, with_clock};
use crate::world::{World, phone};

/// Programs may give any moment that a timestamp can hold, and an operator has such a job go out again.
#[tokio::test(flavor = "multi_thread")]
async fn no_moment_of_a_program_keeps_the_clock_from_being_carried_along() {
    let (world, daemon) = World::running_as(with_clock()).await;
    world.sql("select apipay.park('default', 'drill')").await;
    for run_at in [
        "4714-11-24 00:00:00+00 BC",
        "-infinity",
        "infinity",
        "294276-12-31",
    ] {
        world
            .sql(&format!(
                "insert into apipay.jobs (operation, params, run_at)
                 values ('invoice.create', '{{\"phone_number\": \"{}\", \"amount\": 100}}', '{run_at}')",
                phone::UNPAID
            ))
            .await;
    }
    world
        .sql("select apipay.retry(id, 'again') from apipay.jobs where run_at < now()")
        .await;
    for ahead in [-HOUR, 5 * HOUR, 0] {
        set_clock(&world, ahead).await;
    }
    world.sql("select apipay.resume('default', 'done')").await;
    world
        .until_true("select count(*) = 2 from apipay.jobs where state = 'succeeded'")
        .await;
    world.end([daemon]).await;
}

/// What was told and had ended before the clock was set back lies ahead of it then, and is not what begins now.
#[tokio::test(flavor = "multi_thread")]
async fn what_ended_before_the_clock_was_set_back_keeps_nothing_from_being_told() {
    let (world, daemon) = World::running_as(with_clock()).await;
    let hide = "alter table apipay._reads rename to _hidden";
    let show = "alter table apipay._hidden rename to _reads";
    let open =
        "select count(*) = 1 from apipay.alerts where kind = 'no_progress' and resolved_at is null";
    let over =
        "select count(*) = 0 from apipay.alerts where kind = 'no_progress' and resolved_at is null";
    world.sql(hide).await;
    world.until_true(open).await;
    world.sql(show).await;
    world.until_true(over).await;
    set_clock(&world, -2 * HOUR).await;
    world.sql(hide).await;
    world.until_true(open).await;
    world.sql(show).await;
    world.until_true(over).await;
    world.end([daemon]).await;
}
