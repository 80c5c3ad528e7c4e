//! Jobs that the database does not let go on are told one by one, as long as they are few.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Job, World, phone};

/// Each claim of a job is refused with the code that the job has in its metadata.
async fn refuse_each(world: &World) {
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as $$
             begin
               raise exception 'frozen by %', new.metadata ->> 'by' using errcode = new.metadata ->> 'code';
             end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (new.state = 'sending' and new.metadata ? 'code') execute function public.refuse()",
        )
        .await;
}

async fn refused(world: &World, by: &str, code: &str) -> Job {
    let params = json!({"phone_number": phone::UNPAID, "amount": 100});
    let metadata = json!({"metadata": {"by": by, "code": code}});
    world.enqueue_with("invoice.create", params, metadata).await
}

async fn open(world: &World) -> Vec<Value> {
    world
        .rows("select * from apipay.alerts where kind = 'job_stuck' and resolved_at is null order by subject")
        .await
}

async fn let_go(world: &World, job: Job) {
    world
        .sql(&format!(
            "update apipay.jobs set metadata = '{{}}' where id = {job}"
        ))
        .await;
    world.until(job, "succeeded").await;
}

#[tokio::test]
async fn two_jobs_that_are_stuck_for_different_causes_are_told_both() {
    let (world, daemon) = World::running().await;
    refuse_each(&world).await;
    let first = refused(&world, "accounting", "QA001").await;
    let second = refused(&world, "the storehouse", "QA002").await;
    world
        .until_holds("both are told", async || open(&world).await.len() == 2)
        .await;
    for (job, by) in [(first, "accounting"), (second, "the storehouse")] {
        let told = open(&world).await;
        let told = told
            .iter()
            .find(|alert| alert["subject"].as_str() == Some(&job.to_string()));
        let summary = told.unwrap()["summary"].as_str().unwrap();
        assert!(summary.contains(&format!("frozen by {by} (")), "{summary}");
        let explain = world.explain(job).await;
        assert!(explain.contains(by), "{explain}");
    }
    let_go(&world, first).await;
    world
        .until_holds("the first has ended", async || {
            open(&world).await.len() == 1
        })
        .await;
    assert_eq!(open(&world).await[0]["details"]["job"], second);
    let_go(&world, second).await;
    world
        .until_holds("both have ended", async || open(&world).await.is_empty())
        .await;
    assert_eq!(
        world.count("apipay.alerts where kind = 'job_stuck'").await,
        2
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn two_causes_in_one_function_are_two_alerts_and_one_cause_of_many_orders_is_one() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as $$
             begin
               if new.metadata ->> 'by' = 'accounting' then
                 raise exception 'order % is frozen by accounting', new.id;
               end if;
               raise exception 'order % is not in the storehouse', new.id;
             end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (new.state = 'sending' and new.metadata ? 'code') execute function public.refuse()",
        )
        .await;
    let mut jobs = Vec::new();
    for by in ["accounting", "the storehouse"].repeat(3) {
        jobs.push(refused(&world, by, "-").await);
    }
    world
        .until_holds("both causes are told", async || {
            open(&world).await.len() == 2
        })
        .await;
    // Long enough for each of them to be tried again.
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let told = open(&world).await;
    assert_eq!(told.len(), 2, "{told:?}");
    for words in ["is frozen by accounting", "is not in the storehouse"] {
        let tells = |alert: &&Value| alert["summary"].as_str().unwrap().contains(words);
        assert_eq!(told.iter().filter(tells).count(), 1, "{words}: {told:?}");
    }
    world.sql("drop function public.refuse cascade").await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("both have ended", async || open(&world).await.is_empty())
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn beyond_ten_they_are_counted() {
    let (world, daemon) = World::running().await;
    refuse_each(&world).await;
    let mut jobs = Vec::new();
    for nth in 1..=13 {
        jobs.push(refused(&world, "accounting", &format!("QA0{nth:02}")).await);
    }
    world
        .until_true(
            "select summary = 'The database lets 3 jobs more of account default not go on, besides those that are told one by one.'
               from apipay.alerts where kind = 'job_stuck' and subject = 'others'",
        )
        .await;
    assert_eq!(open(&world).await.len(), 11);
    let list = "select to_jsonb(replace(action, 'All of them: ', '~')) from apipay.alerts where subject = 'others'";
    let list = world.value(list).await;
    let (_, list) = list.as_str().unwrap().split_once('~').unwrap();
    assert_eq!(
        world.rows(list.trim_end_matches(';')).await.len(),
        3,
        "{list}"
    );
    world.sql("drop function public.refuse cascade").await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("all have ended", async || open(&world).await.is_empty())
        .await;
    world.end([daemon]).await;
}

/// What a look-up found is not stored. As long as that is so the job is uncertain, and the claim of its look-up runs out.
#[tokio::test]
async fn what_a_look_up_found_and_cannot_be_stored_is_one_alert_with_one_daemon_and_with_two() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as $$
             begin raise exception 'the books are closed'; end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (old.state = 'uncertain' and new.state in ('accepted', 'succeeded')) execute function public.refuse()",
        )
        .await;
    let fault = json!({"route": "POST /invoices", "times": 1, "effect": "apply", "answer": {"preset": "502_html"}});
    world.sandbox.fault(fault).await;
    let job = world.bill(phone::PAID, 700).await;
    world
        .until_holds("it is told", async || open(&world).await.len() == 1)
        .await;
    let told = open(&world).await;
    assert_eq!(told[0]["details"]["state"], "uncertain", "{told:?}");
    world
        .sql(&format!(
            "select apipay.acknowledge({}, 'seen')",
            told[0]["id"]
        ))
        .await;
    let look_ups = format!("apipay.attempts where job_id = {job} and kind = 'lookup'");
    let end_of_lease = format!("update apipay.jobs set run_at = now() where id = {job}");
    for _ in 0..3 {
        world.sql(&end_of_lease).await;
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(world.count(&look_ups).await, 1, "nothing more can be known");
    let second = world.daemon().await;
    for seen in 2..=4 {
        world.sql(&end_of_lease).await;
        world
            .until_holds("the other one looks as well", async || {
                world.count(&look_ups).await >= seen
            })
            .await;
        // For as long as two rounds of alerts.
        tokio::time::sleep(Duration::from_secs(4)).await;
    }
    assert_eq!(
        world.count("apipay.alerts where kind = 'job_stuck'").await,
        1
    );
    assert_eq!(open(&world).await[0]["id"], told[0]["id"]);
    world.sql("drop trigger refuse on apipay.jobs").await;
    world.until(job, "succeeded").await;
    world
        .until_holds("it has ended", async || open(&world).await.is_empty())
        .await;
    assert_eq!(world.sandbox.effects().await.len(), 1);
    world.end([daemon, second]).await;
}

/// Of those that are refused for one cause the alert names one. Each of the others is explained as that one is, and their
/// number follows what becomes of them.
#[tokio::test]
async fn outcomes_that_the_alert_does_not_name_are_explained_by_it_and_counted_as_they_come_and_go()
{
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create table public.mended (job bigint primary key);
             grant select on public.mended to public;
             create function public.refuse() returns trigger language plpgsql as $$
             begin
               if not exists (select from public.mended where job = new.id) then
                 raise exception 'the books are closed';
               end if;
               return new;
             end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (old.state = 'sending' and old.metadata ? 'code') execute function public.refuse()",
        )
        .await;
    let mut jobs = Vec::new();
    for _ in 0..3 {
        jobs.push(refused(&world, "accounting", "-").await);
    }
    are_told_with(&world, &jobs).await;
    let told_at =
        "select jsonb_build_array(changed_at) from apipay.alerts where kind = 'job_stuck'";
    let told_before = world.value(told_at).await;
    for _ in 0..2 {
        jobs.push(refused(&world, "accounting", "-").await);
    }
    are_told_with(&world, &jobs).await;
    assert_eq!(
        world.value(told_at).await,
        told_before,
        "a number is no news"
    );
    // Two get well, of which the alert may name one.
    for well in jobs.split_off(3) {
        world
            .sql(&format!("insert into public.mended values ({well})"))
            .await;
        world.until(well, "succeeded").await;
        let explain = world.explain(well).await;
        assert!(!explain.contains("the books are closed"), "{explain}");
    }
    are_told_with(&world, &jobs).await;
    world.sql("drop function public.refuse cascade").await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("it has ended", async || open(&world).await.is_empty())
        .await;
    world.end([daemon]).await;
}

/// A job whose look-up found what cannot be written is not looked up meanwhile, and does not say that it is.
#[tokio::test]
async fn what_look_ups_found_and_the_alert_does_not_name_is_explained_by_it() {
    let (world, daemon) = World::running().await;
    world
        .sql(
            "create function public.refuse() returns trigger language plpgsql as $$
             begin raise exception 'the books are closed'; end $$;
             create trigger refuse before update on apipay.jobs
               for each row when (old.state = 'uncertain' and new.state in ('accepted', 'succeeded')) execute function public.refuse()",
        )
        .await;
    let fault = json!({"route": "POST /invoices", "times": 3, "effect": "apply", "answer": {"preset": "502_html"}});
    world.sandbox.fault(fault).await;
    let mut jobs = Vec::new();
    for amount in [700, 800, 900] {
        jobs.push(world.bill(phone::PAID, amount).await);
    }
    are_told_with(&world, &jobs).await;
    world.sql("drop trigger refuse on apipay.jobs").await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("it has ended", async || open(&world).await.is_empty())
        .await;
    world.end([daemon]).await;
}

/// One alert names one of these jobs and counts the others, and each is explained by it.
async fn are_told_with(world: &World, jobs: &[Job]) {
    world
        .until_true(&format!(
            "select count(*) = 1 and bool_and(action like '%those of {} more of this account%')
               from apipay.alerts where kind = 'job_stuck' and resolved_at is null",
            jobs.len() - 1
        ))
        .await;
    for job in jobs {
        let explained = format!(
            "select explain like '%the books are closed%alert job_stuck%' from apipay.overview where id = {job}"
        );
        world.until_true(&explained).await;
    }
}
