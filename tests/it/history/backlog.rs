//! What is looked at all the time beside the claims costs the same however many jobs are due.

use super::{run, statements, touched};
use crate::world::World;

/// A piece of each statement; most rows that it reads with one account, and with a thousand.
const LOOKS: [(&str, i64, i64); 2] = [
    // Which due jobs may be locked: every five seconds, while a transaction of somebody's lasts.
    ("select distinct d.id as", 400, 12_000),
    // Of the status line: each second.
    ("as s(state)", 1_200, 16_000),
];

/// So many bills that are due, of each of these accounts.
fn due(accounts: &str, each: i64) -> String {
    format!(
        "insert into apipay.jobs (token, account, operation, params, priority, run_at)
         select gen_random_uuid(), a.name, 'invoice.create', '{{}}', n % 3, now() - make_interval(mins => 1, secs => n / 1000.0)
           from unnest({accounts}) as a(name), generate_series(1, {each}) n"
    )
}

#[tokio::test]
async fn looking_at_a_backlog_costs_the_same_however_long_it_is() {
    let world = World::made(super::undisturbed()).await;
    let pool = world.daemon_pool();
    let mut daemon = pool.connections().acquire().await.unwrap();
    let names = "array(select 'branch-' || n from generate_series(1, 1000) n)";
    let accounts = format!(
        "insert into apipay.accounts (name, requests_per_minute) select unnest({names}), 60"
    );
    // Without the time limit of a daemon's statements.
    let mut person = world.pool().acquire().await.unwrap();
    run(&mut person, &accounts).await;
    run(&mut person, "set session_replication_role = replica").await;
    let mut faults = Vec::new();
    for (backlog, fill) in [
        ("100,000 of a thousand accounts", due(names, 100)),
        ("100,000 more of one", due("array['branch-1']", 100_000)),
        ("a million in all", due("array['branch-1']", 800_000)),
        ("the same, analyzed", "analyze apipay.jobs".to_owned()),
    ] {
        run(&mut person, &fill).await;
        for (piece, of_one, of_all) in LOOKS {
            for (accounts, most) in [("one", of_one), ("all", of_all)] {
                let mut cases = statements::cases();
                cases.retain(|case| case.name == piece || case.name.contains(piece));
                let [mut case] = <[_; 1]>::try_from(cases).ok().unwrap();
                if accounts == "one" {
                    let rest = case.arguments.split_once("}'").unwrap().1.to_owned();
                    // As many as there are of one account.
                    let rest = rest.replace(", 10", ", 1000").replace(", 5", ", 100");
                    case.arguments = format!("'{{branch-1}}'{rest}");
                }
                let touched = touched(&mut daemon, &case, 0).await;
                println!("{backlog}, {accounts}: {piece}: {}", touched.told());
                if touched.rows > most {
                    faults.push(format!(
                        "{backlog}, {accounts}: {piece}: {}\n{}",
                        touched.told(),
                        touched.plan
                    ));
                }
            }
        }
    }
    drop((person, daemon));
    assert!(faults.is_empty(), "\n{}", faults.join("\n"));
    world.end_unchecked().await;
}

/// Plans are made while hardly any job is accepted: a night's bills are, before the statistics say so.
#[tokio::test]
async fn a_check_of_many_invoices_reads_their_jobs_only_whatever_the_statistics_say() {
    let world = World::made(super::undisturbed()).await;
    let pool = world.daemon_pool();
    let mut daemon = pool.connections().acquire().await.unwrap();
    let mut person = world.pool().acquire().await.unwrap();
    run(&mut person, "set session_replication_role = replica").await;
    run(
        &mut person,
        "insert into apipay.accounts (name, requests_per_minute) values ('branch-1', 60)",
    )
    .await;
    run(&mut person, &due("array['branch-1']", 20_000)).await;
    run(&mut person, "analyze apipay.jobs, apipay.invoices").await;
    run(
        &mut person,
        "update apipay.jobs set state = 'accepted', invoice_id = id;
         insert into apipay.invoices (account, id, job_id, job_token, status, amount, next_check_at)
         select account, invoice_id, id, token, 'pending', 100, now() - make_interval(secs => id) from apipay.jobs",
    )
    .await;
    let mut cases = statements::cases();
    cases.retain(|case| case.sql.starts_with("-- Claims the next check"));
    let [mut case] = <[_; 1]>::try_from(cases).ok().unwrap();
    case.arguments = "'{branch-1}', 100, 100, 60, 1800000000, '{}', null, '1s'".to_owned();
    let touched = touched(&mut daemon, &case, 0).await;
    assert!(
        touched.rows <= 1_000,
        "{}\n{}",
        touched.told(),
        touched.plan
    );
    drop((person, daemon));
    world.end_unchecked().await;
}
