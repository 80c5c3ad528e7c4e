//! A shop that bills at a pace, with customers who pay when they like, and what came of it.
//!
//! The daemon runs with the settings as shipped, the gateway in real time and with its limit enforced.

use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, MissedTickBehavior, interval};

use crate::chaos::Dice;
use crate::world::{Wish, World, phone};

/// A shop, and for how long it is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shop {
    /// Requests a minute that the gateway allows.
    pub(super) limit: u32,
    /// Bills a minute, at random moments.
    pub(super) bills: u32,
    /// Invoices that are open before it begins, of ages spread evenly over the last day.
    pub(super) open: usize,
    /// How long bills are enqueued.
    pub(super) time: Duration,
    /// Four of five customers pay, on the average so long after the bill was delivered (exponentially
    /// spread). Beside them, one payment in fifty is for an invoice that was open before.
    pub(super) pay_after: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Figures {
    shop: Shop,
    /// Bills that were enqueued.
    pub(super) bills: usize,
    /// Bills whose request had not come five seconds after the last one was enqueued.
    pub(super) unsent: usize,
    /// From the commit of a bill to its request, in seconds, ascending; those unsent are endless.
    latencies: Vec<f64>,
    checks: usize,
    /// From a payment until it stands in `apipay.invoices`, in seconds, ascending.
    seen_after: Vec<f64>,
    /// The most requests in any sixty seconds.
    pub(super) busiest: usize,
    /// Requests that the gateway refused for the rate.
    pub(super) refused: usize,
}

/// A payment counts only if there was this long to see it.
const SIGHT: Duration = Duration::from_secs(30);

/// How soon after the last bill all must have been sent.
const SEND: Duration = Duration::from_secs(5);

impl Shop {
    pub(super) async fn watch(self) -> Figures {
        let wish = self.wish();
        let world = World::made(wish).await;
        let open = self.plant(&world).await;
        let daemon = world.daemon().await;
        let (paid, bills) = self.trade(&world, open).await;
        tokio::time::sleep(SEND).await;
        let figures = self.figures(&world, bills, paid).await;
        world.end([daemon]).await;
        figures
    }

    /// What the daemon is shipped with, and the limit.
    fn wish(&self) -> Wish {
        let mut wish = Wish::default()
            .tune(
                "accounts.default.requests_per_minute",
                &self.limit.to_string(),
            )
            .tune("worker.poll_interval", "1s")
            .tune("worker.lease", "90s")
            .tune("worker.grace", "40s")
            .tune("http.timeout", "30s")
            .tune("follow.first", "5s")
            .tune("follow.max", "10m");
        wish.sandbox.speed = 1.0;
        wish.sandbox.requests_per_minute = self.limit;
        wish
    }

    /// The invoices that are open already, as a daemon would have left them.
    async fn plant(&self, world: &World) -> Vec<i64> {
        let key = world.key("default");
        let mut open = Vec::with_capacity(self.open);
        while open.len() < self.open {
            let made = (0..50.min(self.open - open.len()))
                .map(|_| world.sandbox.invoice(&key, json!({"status": "pending"})));
            open.extend(futures_util::future::join_all(made).await);
        }
        sqlx::query(
            "insert into apipay.invoices (account, id, status, amount, changed_at, next_check_at)
             select 'default', id, 'pending', 1000, now() - age, now() + random() * least(age / 16, interval '10 min')
             from (select id, random() * interval '24 h' as age from unnest($1::bigint[]) as id) as i",
        )
        .bind(&open)
        .execute(world.pool())
        .await
        .unwrap();
        open
    }

    /// Enqueues bills and pays them. Returns when what was paid, by the clock of the database's machine,
    /// and how many bills there were.
    async fn trade(&self, world: &World, mut open: Vec<i64>) -> (BTreeMap<i64, f64>, usize) {
        let mut dice = Dice::of(u64::from(self.limit * 1000 + self.bills));
        let seconds = self.time.as_secs_f64();
        let count = (f64::from(self.bills) * seconds / 60.0).round() as usize;
        let mut arrivals: Vec<f64> = (0..count).map(|_| share(&mut dice) * seconds).collect();
        arrivals.sort_by(f64::total_cmp);
        let old_payments = count * 4 / 5 / 50;
        let mut to_pay: Vec<(f64, Payer)> = (0..old_payments.min(open.len()))
            .map(|n| {
                let at = seconds * (n as f64 + share(&mut dice)) / old_payments as f64;
                let chosen = (share(&mut dice) * open.len() as f64) as usize;
                (at, Payer::Of(open.swap_remove(chosen)))
            })
            .collect();
        for (number, arrival) in arrivals.iter().enumerate() {
            // The gateway delivers after a second; the request before it takes its time.
            let after = 1.5 - self.pay_after.as_secs_f64() * (1.0 - share(&mut dice)).ln();
            if share(&mut dice) < 0.8 {
                to_pay.push((arrival + after, Payer::OfBill(number)));
            }
        }
        to_pay.sort_by(|one, other| one.0.total_cmp(&other.0));
        let (mut paid, mut enqueued) = (BTreeMap::new(), 0);
        let mut late: Vec<(f64, Payer)> = Vec::new();
        let mut to_pay = to_pay.into_iter().peekable();
        let start = Instant::now();
        let mut ticks = interval(Duration::from_millis(100));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = start.elapsed().as_secs_f64();
            while enqueued < count && arrivals[enqueued] <= now {
                let params = json!({"phone_number": phone::UNPAID, "amount": 1000, "external_order_id": order(enqueued)});
                world.enqueue("invoice.create", params).await;
                enqueued += 1;
            }
            if now >= seconds {
                return (paid, enqueued);
            }
            while to_pay.peek().is_some_and(|(at, _)| *at <= now) {
                late.extend(to_pay.next());
            }
            let mut unpaid = Vec::new();
            for (at, payer) in late.drain(..) {
                match payer.invoice(world).await {
                    Some(id) => {
                        paid.insert(id, unix_now());
                        world
                            .sandbox
                            .set_invoice(id, json!({"status": "paid"}))
                            .await;
                    }
                    // Not delivered yet: its customer comes again.
                    None => unpaid.push((at, payer)),
                }
            }
            late = unpaid;
        }
    }

    async fn figures(self, world: &World, bills: usize, mut paid: BTreeMap<i64, f64>) -> Figures {
        let asked = unix_now();
        let requests = world.sandbox.requests().await;
        let mut first: HashMap<String, f64> = HashMap::new();
        let mut times: Vec<f64> = Vec::new();
        for request in &requests {
            let at = request["at_unix_us"].as_f64().unwrap() / 1e6;
            times.push(at);
            if request["route"] == "POST /invoices" {
                let body: Value = serde_json::from_str(request["body"].as_str().unwrap()).unwrap();
                let order = body["external_order_id"].as_str().unwrap().to_owned();
                first.entry(order).or_insert(at);
            }
        }
        let enqueued = world
            .rows("select params ->> 'external_order_id' as bill, extract(epoch from created_at) as at from apipay.jobs")
            .await;
        let mut latencies: Vec<f64> = enqueued
            .iter()
            .map(|row| {
                let sent = first.get(row["bill"].as_str().unwrap());
                sent.map_or(f64::INFINITY, |sent| sent - row["at"].as_f64().unwrap())
            })
            .collect();
        latencies.sort_by(f64::total_cmp);
        let seen = world
            .rows("select id, extract(epoch from changed_at) as at from apipay.invoices where status = 'paid'")
            .await;
        let seen: HashMap<i64, f64> = seen
            .iter()
            .map(|row| (row["id"].as_i64().unwrap(), row["at"].as_f64().unwrap()))
            .collect();
        paid.retain(|_, at| *at < asked - SIGHT.as_secs_f64());
        let mut seen_after: Vec<f64> = paid
            .iter()
            .map(|(id, at)| seen.get(id).map_or(f64::INFINITY, |seen| seen - at))
            .collect();
        seen_after.sort_by(f64::total_cmp);
        let count = |field, value: Value| requests.iter().filter(|r| r[field] == value).count();
        Figures {
            shop: self,
            bills,
            unsent: latencies
                .iter()
                .filter(|latency| latency.is_infinite())
                .count(),
            latencies,
            checks: count("route", json!("POST /invoices/status/check")),
            seen_after,
            busiest: busiest_minute(&times),
            refused: count("limited", json!(true)),
        }
    }
}

/// Who pays which invoice.
enum Payer {
    Of(i64),
    OfBill(usize),
}

impl Payer {
    async fn invoice(&self, world: &World) -> Option<i64> {
        match self {
            Payer::Of(id) => Some(*id),
            Payer::OfBill(number) => sqlx::query_scalar(
                "select invoice_id from apipay.jobs where params ->> 'external_order_id' = $1 and invoice_id is not null",
            )
            .bind(order(*number))
            .fetch_optional(world.pool())
            .await
            .unwrap(),
        }
    }
}

fn order(number: usize) -> String {
    format!("order-{number}")
}

fn share(dice: &mut Dice) -> f64 {
    (dice.roll() >> 11) as f64 / (1_u64 << 53) as f64
}

fn unix_now() -> f64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    now.unwrap().as_secs_f64()
}

fn busiest_minute(times: &[f64]) -> usize {
    let mut times = times.to_vec();
    times.sort_by(f64::total_cmp);
    (0..times.len())
        .map(|from| times.partition_point(|at| *at < times[from] + 60.0) - from)
        .max()
        .unwrap_or(0)
}

impl Figures {
    pub(super) fn latency(&self, quantile: f64) -> f64 {
        at(&self.latencies, quantile)
    }

    pub(super) fn seen_after(&self, quantile: f64) -> f64 {
        at(&self.seen_after, quantile)
    }

    pub(super) const HEADINGS: &str = "| limit | bills enqueued a minute | open before | sent a minute | checks a minute | commit → request p50 | p99 | unsent | payments | payment seen after p50 | p95 | most requests in 60 s | refused |\n\
        |---|---|---|---|---|---|---|---|---|---|---|---|---|";
}

/// The least value that so large a share is not above.
fn at(ascending: &[f64], quantile: f64) -> f64 {
    let place = (ascending.len() as f64 * quantile).ceil() as usize;
    ascending.get(place.max(1) - 1).copied().unwrap_or(f64::NAN)
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = self.shop.time.as_secs_f64() / 60.0;
        let sent = self.bills - self.unsent;
        write!(
            f,
            "| {} | {} | {} | {:.1} | {:.1} | {:.2} s | {:.2} s | {} of {} | {} | {:.1} s | {:.1} s | {} | {} |",
            self.shop.limit,
            self.shop.bills,
            self.shop.open,
            sent as f64 / minutes,
            self.checks as f64 / minutes,
            self.latency(0.5),
            self.latency(0.99),
            self.unsent,
            self.bills,
            self.seen_after.len(),
            self.seen_after(0.5),
            self.seen_after(0.95),
            self.busiest,
            self.refused,
        )
    }
}
