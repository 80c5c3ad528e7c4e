//! Gateways of single accounts hang: the others must not notice.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

#[cfg(feature = "crash-points")]
use apipayd::crash::PANIC_VARIABLE;
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep};

use crate::watchdog::black_hole;
use crate::world::{Daemon, Wish, World, phone};

/// Accounts side by side, and for how long they are watched.
#[derive(Clone, Copy, Debug)]
struct Scene {
    /// Accounts in all. Beside the healthy ones and those that hang one is refused for its rate, one is parked and
    /// one has a long queue.
    accounts: usize,
    /// Those of which no request is answered.
    hanging: usize,
    /// Jobs of the one with a long queue.
    queue: usize,
    /// How often each account is given a bill.
    every: Duration,
    /// How long bills are enqueued.
    time: Duration,
}

/// What the healthy accounts saw of it.
#[derive(Debug)]
struct Figures {
    scene: Scene,
    bills: usize,
    /// From the commit of a bill to its request, in seconds, ascending; those unsent are endless.
    sent_after: Vec<f64>,
    /// From the commit of a bill until it has succeeded, likewise.
    done_after: Vec<f64>,
    /// How long the stop took that came with all this going on.
    stop_s: f64,
}

/// A request that had not come so long after the last bill is unsent.
const SEND: Duration = Duration::from_secs(15);

impl Scene {
    async fn watch(self) -> Figures {
        let (world, mut daemon) = World::running_as(self.wish()).await;
        self.warm_up(&world).await;
        self.hurt(&world).await;
        let bills = self.bill(&world).await;
        sleep(SEND).await;
        let figures = self.figures(&world, &mut daemon, bills).await;
        world.sandbox.mend().await;
        world.end_unchecked().await;
        figures
    }

    fn account(index: usize) -> String {
        format!("shop-{index}")
    }

    /// What the daemon is shipped with.
    fn wish(&self) -> Wish {
        let names: Vec<String> = (0..self.accounts).map(Scene::account).collect();
        let mut wish = Wish::default()
            .accounts(&names)
            .tune("worker.poll_interval", "1s")
            .tune("worker.lease", "90s")
            .tune("worker.grace", "40s")
            .tune("http.timeout", "30s")
            .tune("http.connect_timeout", "5s")
            .tune("follow.first", "5s")
            .tune("follow.max", "10m")
            .tune("retry.server_error.initial", "5s")
            .tune("retry.server_error.max", "5m")
            .tune("retry.network.initial", "5s")
            .tune("retry.network.max", "5m");
        wish.sandbox.speed = 1.0;
        wish
    }

    /// Each has an open invoice, so that there is something to be asked about.
    async fn warm_up(&self, world: &World) {
        for index in 0..self.accounts {
            world.bill_of(&Scene::account(index)).await;
        }
        let done = format!(
            "select count(*) = {} from apipay.jobs where state = 'succeeded'",
            self.accounts
        );
        world.until_true(&done).await;
    }

    /// The first accounts hang, the next three are refused, parked and full.
    async fn hurt(&self, world: &World) {
        for index in 0..self.hanging {
            let key = world.key(&Scene::account(index));
            let hang = json!({"route": "*", "organization": key, "effect": "none", "hang": true, "share": 1.0});
            world.sandbox.fault(hang).await;
        }
        let [refused, parked, full] = [0, 1, 2].map(|n| Scene::account(self.hanging + n));
        let key = world.key(&refused);
        let busy = json!({"route": "*", "organization": key, "effect": "none", "share": 1.0,
            "answer": {"status": 429, "json": {"message": "Too Many Attempts."}}});
        world.sandbox.fault(busy).await;
        world.sql(&format!("select apipay.park('{parked}')")).await;
        world
            .sql(&format!(
                r#"insert into apipay.jobs (account, operation, params)
                   select '{full}', 'invoice.create', '{{"phone_number": "{}", "amount": 100}}' from generate_series(1, {})"#,
                phone::UNPAID,
                self.queue
            ))
            .await;
    }

    /// Gives each account its bills, at moments spread evenly. Returns how many the healthy ones got.
    async fn bill(&self, world: &World) -> usize {
        let start = Instant::now();
        let step = self.every / u32::try_from(self.accounts).unwrap();
        let (mut healthy, mut number) = (0, 0_u32);
        while start.elapsed() < self.time {
            let index = number as usize % self.accounts;
            let columns = json!({"account": Scene::account(index), "metadata": {"watched": true}});
            let params = json!({"phone_number": phone::UNPAID, "amount": 100, "external_order_id": format!("order-{number}")});
            world.enqueue_with("invoice.create", params, columns).await;
            healthy += usize::from(index >= self.hanging + 3);
            number += 1;
            tokio::time::sleep_until(start + step * number).await;
        }
        healthy
    }

    async fn figures(self, world: &World, daemon: &mut Daemon, bills: usize) -> Figures {
        let mut first: HashMap<String, f64> = HashMap::new();
        for request in world.sandbox.requests_to("POST /invoices").await {
            let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
            if let Some(order) = body["external_order_id"].as_str() {
                let at = request["at_unix_us"].as_f64().unwrap() / 1e6;
                first.entry(order.to_owned()).or_insert(at);
            }
        }
        let rows = world
            .rows(&format!(
                "select params ->> 'external_order_id' as bill, extract(epoch from created_at) as at,
                        case when state = 'succeeded' then extract(epoch from finished_at) end as done_at
                   from apipay.jobs
                  where metadata ? 'watched' and substr(account, 6)::int >= {}",
                self.hanging + 3
            ))
            .await;
        let after = |at: Option<f64>, row: &Value| {
            at.map_or(f64::INFINITY, |at| at - row["at"].as_f64().unwrap())
        };
        let sent = |row: &Value| first.get(row["bill"].as_str().unwrap()).copied();
        let mut sent_after: Vec<f64> = rows.iter().map(|row| after(sent(row), row)).collect();
        let mut done_after: Vec<f64> = rows
            .iter()
            .map(|row| after(row["done_at"].as_f64(), row))
            .collect();
        sent_after.sort_by(f64::total_cmp);
        done_after.sort_by(f64::total_cmp);
        let began = Instant::now();
        daemon.signal(Signal::TERM);
        let status = daemon.ended(Duration::from_secs(45)).await;
        assert_eq!(status.code(), Some(0), "{}", daemon.log_text());
        Figures {
            scene: self,
            bills,
            sent_after,
            done_after,
            stop_s: began.elapsed().as_secs_f64(),
        }
    }
}

/// The least value that so large a share is not above.
fn at(ascending: &[f64], quantile: f64) -> f64 {
    let place = (ascending.len() as f64 * quantile).ceil() as usize;
    ascending.get(place.max(1) - 1).copied().unwrap_or(f64::NAN)
}

impl Figures {
    const HEADINGS: &str = "| accounts | hanging | bills | unsent | commit → request p50 | p99 | commit → succeeded p50 | p99 | stop |\n\
        |---|---|---|---|---|---|---|---|---|";
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unsent = self.sent_after.iter().filter(|at| at.is_infinite()).count();
        write!(
            f,
            "| {} | {} | {} | {unsent} | {:.3} s | {:.3} s | {:.1} s | {:.1} s | {:.1} s |",
            self.scene.accounts,
            self.scene.hanging,
            self.bills,
            at(&self.sent_after, 0.5),
            at(&self.sent_after, 0.99),
            at(&self.done_after, 0.5),
            at(&self.done_after, 0.99),
            self.stop_s,
        )
    }
}

/// With the settings as shipped, one after the other: none hangs, and so many do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "scripts/bench-isolation runs it"]
async fn healthy_accounts_beside_those_that_hang() {
    let number = |name: &str, default: u64| {
        std::env::var(name).map_or(default, |text| text.parse().unwrap())
    };
    let time = Duration::from_secs(number("APIPAYD_BENCH_SECONDS", 120));
    let hanging = number("APIPAYD_BENCH_HANGING", 12);
    println!("\n{}", Figures::HEADINGS);
    let mut all = Vec::new();
    for hanging in [0, usize::try_from(hanging).unwrap()] {
        let scene = Scene {
            accounts: 100,
            hanging,
            queue: 20_000,
            every: Duration::from_secs(5),
            time,
        };
        let figures = scene.watch().await;
        println!("{figures}");
        all.push(figures);
    }
    let [usual, beside] = all.try_into().unwrap();
    for quantile in [0.5, 0.99] {
        let (usual, beside) = (
            at(&usual.sent_after, quantile),
            at(&beside.sent_after, quantile),
        );
        assert!(
            beside <= usual * 1.5,
            "at {quantile}: {beside} s, without them {usual} s"
        );
    }
}

/// The gateway of most accounts answers nothing, and their requests are more than there are slots.
#[tokio::test(flavor = "multi_thread")]
async fn accounts_whose_gateway_hangs_make_no_other_wait() {
    let names: Vec<String> = (0..10).map(Scene::account).collect();
    let wish = Wish::default()
        .accounts(&names)
        .tune("worker.concurrency", "16")
        .tune("worker.lease", "40s")
        .tune("worker.grace", "30s")
        .tune("http.timeout", "20s");
    let (world, mut daemon) = World::running_as(wish).await;
    let (hanging, healthy) = names.split_at(7);
    for account in &names {
        world.bill_of(account).await;
    }
    world
        .until_true("select count(*) = 10 from apipay.jobs where state = 'succeeded'")
        .await;
    for account in hanging {
        let hang = json!({"route": "*", "organization": world.key(account), "effect": "none", "hang": true, "share": 1.0});
        world.sandbox.fault(hang).await;
        for _ in 0..3 {
            world.bill_of(account).await;
        }
    }
    // Something to be followed, looked up and probed, of each.
    world
        .sql("update apipay.invoices set next_check_at = now()")
        .await;
    world
        .sql(&format!(
            "insert into apipay.jobs (account, operation, params)
               select account, operation, params from apipay.jobs where account = '{0}' limit 1;
             update apipay.jobs set state = 'uncertain', reason = 'timeout', epoch = 1, unproven_since = now(), run_at = now()
              where account = '{0}' and state = 'queued';
             select apipay.park('{1}')",
            hanging[0], hanging[1]
        ))
        .await;
    sleep(Duration::from_secs(4)).await;
    let began = Instant::now();
    let mut jobs = Vec::new();
    for account in healthy {
        for _ in 0..5 {
            jobs.push(world.bill_of(account).await);
        }
    }
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    let took = began.elapsed();
    assert!(took < Duration::from_secs(8), "{took:?}");
    // What hangs would hang on until its time limit.
    daemon.kill().await;
    world.end_unchecked().await;
}

#[cfg(feature = "crash-points")]
#[tokio::test]
async fn a_task_that_panics_is_told_and_what_it_had_in_hand_goes_on() {
    for task in ["send", "follow", "lookup", "probe"] {
        let wish = Wish::default().accounts(&["default", "clinic"]);
        let world = World::made(wish).await;
        let panics = (PANIC_VARIABLE.to_owned(), task.to_owned());
        let daemon = world.spawn_in(&["run"], vec![panics]);
        daemon.until_told(" in flight").await;
        match task {
            "lookup" => {
                let lost = json!({"route": "POST /invoices", "effect": "apply", "hang": true});
                world.sandbox.fault(lost).await;
            }
            "probe" => {
                world
                    .sql("update apipay.accounts set state = 'parked', parked_reason = 'session_expired', parked_at = now(), parked_by = 'apipayd', probe_at = now() where name = 'default'")
                    .await;
            }
            _ => {}
        }
        let job = world.bill(phone::UNPAID, 100).await;
        world
            .until_true(&format!(
                "select exists (select from apipay.alerts where kind = 'task_panicked' and account = 'default'
                                 and summary like '%in {task}%')"
            ))
            .await;
        let other = world.bill_of("clinic").await;
        world.until(other, "succeeded").await;
        // Its claim runs out.
        world
            .sql(
                "update apipay.jobs set leased_until = now() - interval '1 s' where state = 'sending';
                 update apipay.jobs set run_at = now() where state = 'uncertain';
                 update apipay.invoices set next_check_at = now();
                 update apipay.accounts set probe_at = now() where state = 'parked'",
            )
            .await;
        world.until(job, "succeeded").await;
        assert_eq!(world.effects_of(job).await.len(), 1, "{task}");
        world
            .sql("update apipay.alerts set opened_at = now() - interval '61 minutes'")
            .await;
        world
            .until_true("select bool_and(resolution like 'an hour has passed%') from apipay.alerts where kind = 'task_panicked'")
            .await;
        world.end([daemon]).await;
    }
}

#[tokio::test]
async fn a_receiver_of_alerts_that_hangs_keeps_none_from_the_log() {
    let world = World::made(Wish::default()).await;
    let hole = black_hole().await;
    let daemon = world
        .tuned_daemon(&[
            ("alerts.webhook.url", hole),
            ("worker.grace", "40s".to_owned()),
        ])
        .await;
    for n in 0..25 {
        world
            .sql(&format!(
                "insert into apipay.alerts (kind, subject, summary, action) values ('test', '{n}', 's', 'a')"
            ))
            .await;
    }
    let began = Instant::now();
    world
        .until_true("select count(*) = 25 from apipay.alert_deliveries where channel = 'log' and delivered_at is not null")
        .await;
    let took = began.elapsed();
    assert!(took < Duration::from_secs(5), "{took:?}");
    world.end([daemon]).await;
}
