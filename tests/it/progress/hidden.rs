//! A schema in which nothing fails loudly, or everything does.

use super::{check, ordinary_daemon, ordinary_url, told, until_told, wish};
use crate::world::{World, phone};

#[tokio::test]
async fn rows_that_row_level_security_hides_are_told_with_the_sql_that_shows_them() {
    let world = World::made(wish()).await;
    let daemon = ordinary_daemon(&world).await;
    world
        .sql("alter table apipay.jobs enable row level security")
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    let sql = "alter table apipay.jobs disable row level security;";
    let delivery = until_told(&world, "firing", &["may hide its rows", sql]).await;
    assert_eq!(delivery["commonLabels"]["severity"], "critical");
    assert_eq!(world.job(job).await["state"], "queued");
    world.sql(sql).await;
    world.until(job, "succeeded").await;
    until_told(&world, "resolved", &["row level security"]).await;
    assert_eq!(told(&world, "firing").len(), 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn check_names_the_sql_for_each_way_in_which_a_schema_moves() {
    let world = World::made(wish()).await;
    let url = ordinary_url(&world).await;
    let (code, said) = check(&world, &url).await;
    assert_eq!(code, Some(0), "{said}");
    // The machine of a test may be warned of, its schema not.
    assert!(
        said.contains("nothing of it is missing, hidden or behind"),
        "{said}"
    );

    for (breaks, mends, words, fails) in [
        (
            "alter table apipay.alerts enable row level security; create policy p on apipay.alerts using (true)",
            "drop policy p on apipay.alerts; alter table apipay.alerts disable row level security",
            "alter table apipay.alerts disable row level security;",
            true,
        ),
        (
            "create function public.rls() returns event_trigger language plpgsql as
               $$ begin execute 'alter table x enable row level security'; end $$;
             create event trigger rls on ddl_command_end when tag in ('CREATE TABLE') execute function public.rls()",
            "drop event trigger rls",
            "alter event trigger \"rls\" disable;",
            false,
        ),
        (
            "insert into apipay.events (id, subject) overriding system value values (41, 'daemon')",
            "select setval('apipay.events_id_seq', 41)",
            "select setval('apipay.events_id_seq', 41);",
            true,
        ),
        (
            "alter table apipay.jobs disable trigger refuse_illegal_move",
            "alter table apipay.jobs enable trigger refuse_illegal_move",
            "alter table apipay.jobs enable trigger refuse_illegal_move;",
            false,
        ),
        (
            "alter table apipay.jobs rename column lookups to looked_up",
            "alter table apipay.jobs rename column looked_up to lookups",
            "the schema lacks: column apipay.jobs.lookups integer not null",
            true,
        ),
        (
            "alter table apipay.refunds rename to returns",
            "alter table apipay.returns rename to refunds",
            "the schema lacks: table apipay.refunds",
            true,
        ),
        (
            "alter index apipay.jobs_one_open_refund rename to gone",
            "alter index apipay.gone rename to jobs_one_open_refund",
            "the schema lacks: unique index apipay.jobs_one_open_refund on apipay.jobs",
            false,
        ),
        (
            "revoke insert on apipay.attempts from apipay_worker",
            "select apipay._grant_roles()",
            "lacks insert on apipay.attempts",
            true,
        ),
    ] {
        world.sql(breaks).await;
        let (code, said) = check(&world, &url).await;
        assert!(said.contains(words), "{breaks}: {said}");
        assert_eq!(code, Some(i32::from(fails)), "{breaks}: {said}");
        world.sql(mends).await;
    }
    let (code, said) = check(&world, &url).await;
    assert_eq!(code, Some(0), "{said}");
    world.end([]).await;
}

#[tokio::test]
async fn numbers_that_are_taken_already_are_told_with_the_sql_that_skips_them() {
    let world = World::made(wish()).await;
    let daemon = ordinary_daemon(&world).await;
    for _ in 0..2 {
        let job = world.bill(phone::PAID, 1500).await;
        world.until(job, "succeeded").await;
    }
    world
        .sql("truncate apipay.jobs restart identity cascade")
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    // It goes the slow way, above the attempts of the job that had its number.
    world.until(job, "succeeded").await;
    let skip = "select setval('apipay.jobs_id_seq', 2);";
    let words = ["refused or go a slow way", "apipay.jobs_id_seq", skip];
    let delivery = until_told(&world, "firing", &words).await;
    assert_eq!(delivery["commonLabels"]["account"], serde_json::Value::Null);
    let action = delivery["commonAnnotations"]["action"].as_str().unwrap();
    let sql = action.strip_prefix("as the schema's owner: ").unwrap();
    let (sql, _) = sql.split_once(" then ").unwrap();
    assert_eq!(sql, skip);
    world.sql(sql).await;
    let next = world.bill(phone::PAID, 1500).await;
    assert_eq!(next, 3);
    world.until(next, "succeeded").await;
    until_told(&world, "resolved", &[]).await;
    assert_eq!(told(&world, "firing").len(), 1);
    drop(daemon);
    // The gateway has what no job explains any more.
    world.end_unchecked().await;
}
