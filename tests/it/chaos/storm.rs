//! Carries a storm out, and counts what it did.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;
use tokio::time::sleep;

use super::plan::{LEASE, Order, Protection, Step, Storm};
use crate::world::{Daemon, Wish, World, phone};

/// How long nothing may get done at the end before that counts as lost. Longer than a promise that
/// nobody keeps.
const PATIENCE: Duration = Duration::from_secs(4 * LEASE.as_secs());

/// What a storm has done so far.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Tally {
    pub(super) kills: usize,
    /// Kills that found sends under way.
    in_sends: usize,
    /// Kills that found look-ups under way.
    pub(super) in_lookups: usize,
    jobs: i64,
    done: i64,
    /// Of those that are done.
    failed: i64,
    held: i64,
    lookups: i64,
    effects: usize,
}

impl Storm {
    /// Begins, rages and ends, and checks what must hold then.
    pub(super) async fn rage(&self) -> Tally {
        let world = self.world().await;
        let mut raging = Raging {
            daemons: (0..self.daemons)
                .map(|_| world.spawn(&["run"], &[]))
                .collect(),
            world: &world,
            storm: self,
            tally: Tally::default(),
            began: Instant::now(),
            spoke: Instant::now(),
        };
        for step in self.steps() {
            raging.take(step).await;
        }
        raging.blow().await;
        raging.settle().await;
        let tally = raging.tally;
        let daemons = std::mem::take(&mut raging.daemons);
        for mut daemon in daemons {
            daemon.stop().await;
        }
        world.end([]).await;
        println!("  well      {tally}");
        tally
    }

    async fn world(&self) -> World {
        let mut wish = Wish {
            own_cluster: self.talks || self.outages > 0,
            ..Wish::default().accounts(&ACCOUNTS)
        };
        if self.protection == Protection::Lookup {
            wish = wish.without_keys().late_lists(Duration::from_secs(3));
        }
        let world = World::made(wish).await;
        for rule in self.rules() {
            world.sandbox.fault(rule).await;
        }
        world
    }
}

impl Tally {
    /// A storm that harms nobody proves nothing, and neither does one that holds up all jobs.
    pub(super) fn expect_harm(&self) {
        assert!(self.in_sends * 4 > self.kills, "few kills hit: {self}");
        assert!(self.lookups > 0, "nothing was ever unknown: {self}");
        let in_vain = self.held + self.failed;
        assert!(in_vain * 20 <= self.jobs, "many jobs were in vain: {self}");
    }
}

struct Raging<'a> {
    world: &'a World,
    storm: &'a Storm,
    daemons: Vec<Daemon>,
    tally: Tally,
    began: Instant,
    spoke: Instant,
}

impl Raging<'_> {
    async fn take(&mut self, step: Step) {
        match step {
            Step::Enqueue(orders) => {
                for (n, order) in orders.into_iter().enumerate() {
                    enqueue(self.world, order, ACCOUNTS[n % ACCOUNTS.len()]).await;
                }
            }
            Step::Wait(time) => sleep(time).await,
            Step::Kill(number, ready_for) => {
                if let Some(time) = ready_for {
                    self.daemons[number].until_told(" in flight").await;
                    sleep(time).await;
                }
                self.kill(number).await;
                self.daemons[number] = self.world.spawn(&["run"], &[]);
            }
            Step::Pause(number, time) => {
                self.daemons[number].signal(Signal::STOP);
                sleep(time).await;
                self.daemons[number].signal(Signal::CONT);
            }
            Step::Outage(time) => {
                self.world.database.cluster.kill();
                sleep(time).await;
                self.world.database.cluster.revive().await;
            }
        }
        self.speak().await;
    }

    async fn kill(&mut self, number: usize) {
        let daemon = &mut self.daemons[number];
        daemon.kill().await;
        self.tally.kills += 1;
        // Killed before it said who it is, it has claimed nothing.
        let Some(worker) = daemon.worker() else {
            return;
        };
        let (sends, lookups) = self.world.expire_promises_of(&worker).await;
        self.tally.in_sends += usize::from(sends > 0);
        self.tally.in_lookups += usize::from(lookups > 0);
    }

    /// Kills all daemons, and leaves the world to new ones in fair weather.
    async fn blow(&mut self) {
        for number in 0..self.daemons.len() {
            self.kill(number).await;
        }
        self.world.sandbox.mend().await;
        self.world.expire_promises().await;
        for daemon in &mut self.daemons {
            *daemon = self.world.daemon().await;
        }
    }

    /// Waits until all is done, for as long as anything gets done.
    async fn settle(&mut self) {
        let mut moved = Instant::now();
        loop {
            let before = self.tally;
            self.count().await;
            let settled = self.tally.done + self.tally.held;
            if settled == self.tally.jobs {
                break;
            }
            if settled > before.done + before.held {
                moved = Instant::now();
            }
            assert!(
                moved.elapsed() < PATIENCE,
                "nothing moves any more: {:?}\n{}",
                self.tally,
                self.world.report(None).await
            );
            self.speak().await;
            sleep(Duration::from_millis(100)).await;
        }
        self.tally.effects = self.world.sandbox.effects().await.len();
        let refused = "select id, operation, reason, error_code, error_message from apipay.jobs \
                       where state = 'failed' and reason <> 'gave_up'";
        let refused = self.world.rows(refused).await;
        assert!(
            refused.is_empty(),
            "failed, and not for want of attempts: {refused:?}"
        );
    }

    async fn count(&mut self) {
        let jobs = "select count(*) as jobs, count(finished_at) as done, \
                    count(*) filter (where state = 'failed') as failed, \
                    count(*) filter (where state = 'held') as held, \
                    (select count(*) from apipay.attempts where kind = 'lookup') as lookups from apipay.jobs";
        let row = &self.world.rows(jobs).await[0];
        let number = |column: &str| row[column].as_i64().unwrap();
        self.tally.jobs = number("jobs");
        self.tally.done = number("done");
        self.tally.failed = number("failed");
        self.tally.held = number("held");
        self.tally.lookups = number("lookups");
    }

    /// A line every few seconds, if anybody listens.
    async fn speak(&mut self) {
        if !self.storm.talks || self.spoke.elapsed() < Duration::from_secs(3) {
            return;
        }
        self.spoke = Instant::now();
        self.count().await;
        self.tally.effects = self.world.sandbox.effects().await.len();
        println!("  {:>4} s  {}", self.began.elapsed().as_secs(), self.tally);
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "{} kills ({} in sends, {} in look-ups), {} of {} jobs done, {} of them failed, {} held, {} effects, {} look-ups",
            self.kills,
            self.in_sends,
            self.in_lookups,
            self.done,
            self.jobs,
            self.failed,
            self.held,
            self.effects,
            self.lookups
        )
    }
}

/// Several, for one that gets no clear answer sends one job at a time, and a kill would find little under way.
const ACCOUNTS: [&str; 4] = ["default", "till", "shop", "clinic"];

async fn enqueue(world: &World, order: Order, account: &str) {
    let key = world.key(account);
    let invoice = async |status| world.sandbox.invoice(&key, json!({"status": status})).await;
    let bill = |phone: &str| json!({"phone_number": phone, "amount": 100});
    let (operation, params, times) = match order {
        Order::UnpaidBill => ("invoice.create", bill(phone::UNPAID), 1),
        Order::PaidBill => ("invoice.create", bill(phone::PAID), 1),
        Order::Cancel => (
            "invoice.cancel",
            json!({"invoice_id": invoice("pending").await}),
            1,
        ),
        Order::Refunds => {
            let paid = invoice("paid").await;
            (
                "invoice.refund",
                json!({"invoice_id": paid, "amount": 100}),
                2,
            )
        }
    };
    for _ in 0..times {
        world
            .enqueue_with(operation, params.clone(), json!({"account": account}))
            .await;
    }
}
