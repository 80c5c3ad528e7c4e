//! The way to the gateway is barred: no name, no connection, no TLS that can be trusted. Nothing is
//! sent, the operator sees why, and the job goes on once the way is free.

use std::time::Duration;

use serde_json::{Value, json};

use crate::world::{Bait, Certificates, Door, Fault, Job, Wish, World, is_send};

const OPERATIONS: [&str; 3] = ["invoice.create", "invoice.cancel", "invoice.refund"];

/// What is wrong, and what the attempts say of it.
const FAULTS: [(Fault, &str); 11] = [
    (Fault::Refused, "connect_failed"),
    (Fault::Unanswered, "connect_failed"),
    (Fault::Silent, "connect_failed"),
    (Fault::Cut, "connect_failed"),
    (Fault::Plain, "tls_failed"),
    (Fault::Noise, "tls_failed"),
    (Fault::Expired, "certificate_expired"),
    (Fault::OfTomorrow, "certificate_expired"),
    (Fault::WrongName, "certificate_name"),
    (Fault::Unknown, "certificate_issuer"),
    (Fault::Forged, "certificate_issuer"),
];

/// One account for each fault and operation, so that the faults do not meet.
struct Trial {
    account: String,
    operation: &'static str,
    fault: Fault,
    code: &'static str,
}

fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (fault, code) in FAULTS {
        for operation in OPERATIONS {
            trials.push(Trial {
                account: format!("account{}", trials.len()),
                operation,
                fault,
                code,
            });
        }
    }
    trials
}

fn wish<T: ToString>(accounts: &[T]) -> Wish {
    // A handshake of a debug build takes its time on a busy machine.
    Wish::default()
        .accounts(accounts)
        .tune("http.connect_timeout", "1s")
        .tune("http.timeout", "5s")
        .tune("worker.lease", "20s")
        .tune("worker.grace", "10s")
}

async fn enqueue(world: &World, account: &str, operation: &str) -> Job {
    let key = world.key(account);
    let sandbox = &world.sandbox;
    let params = match operation {
        "invoice.create" => json!({"phone_number": "87015550033", "amount": 700}),
        "invoice.cancel" => {
            json!({"invoice_id": sandbox.invoice(&key, json!({"status": "pending"})).await})
        }
        _ => {
            let id = sandbox.invoice(&key, json!({"status": "paid"})).await;
            json!({"invoice_id": id, "amount": 100})
        }
    };
    world
        .enqueue_with(operation, params, json!({"account": account}))
        .await
}

/// Waits for two attempts that say why nothing was sent.
async fn expect_barred(world: &World, job: Job, code: &str) {
    world
        .until_true(&format!(
            "select count(*) >= 2 from apipay.attempts where job_id = {job} and finished_at is not null"
        ))
        .await;
    for attempt in world.attempts(job).await {
        if !attempt["finished_at"].is_null() {
            assert_eq!(
                (&attempt["effect"], &attempt["error_code"]),
                (&json!("not_applied"), &json!(code)),
                "{attempt}"
            );
            let message = attempt["message"].as_str().unwrap();
            assert!(message.ends_with("; nothing was sent"), "{message}");
        }
    }
    let row = world.job(job).await;
    assert!(
        ["queued", "sending"].contains(&row["state"].as_str().unwrap()),
        "{row}"
    );
    assert!(row["unproven_since"].is_null(), "{row}");
}

/// Waits until people were told that an account's gateway cannot be reached, and later that this is over.
async fn expect_unreachable(world: &World, account: &str, code: &str) {
    let start = format!("ApiPay cannot be reached for account {account} since ");
    expect_told_once(world, account, &start, &format!("({code}): payments wait.")).await;
    let action = world
        .value(&format!(
            "select to_jsonb(l.action like 'on ' || d.host || ': see what apipayd check says, %')
               from apipay.alerts l, apipay.daemons d where l.kind = 'gateway_failing' and l.account = '{account}' limit 1"
        ))
        .await;
    assert_eq!(action, true, "where to look is named");
}

async fn expect_told_once(world: &World, account: &str, start: &str, end: &str) {
    for status in ["firing", "resolved"] {
        world
            .until_holds(&format!("{account} is {status}"), async || {
                let deliveries = world.alerts.deliveries(status);
                let text = json!(deliveries).to_string();
                text.contains(start) && text.contains(end)
            })
            .await;
    }
    let alerts = world
        .count(&format!(
            "apipay.alerts where kind = 'gateway_failing' and account = '{account}'"
        ))
        .await;
    assert_eq!(alerts, 1, "told once");
}

/// `apipayd check` gives the same reasons.
async fn expect_told(world: &World, trials: &[Trial], tuning: &[(&str, String)]) {
    let mut check = world.spawn(&["check"], tuning);
    let status = check.ended(Duration::from_secs(120)).await;
    assert_eq!(status.code(), Some(1));
    let said = check.log_text();
    for trial in trials {
        let (account, code) = (&trial.account, trial.code);
        let reason = format!("account {account}: not reached, {code};");
        assert!(said.contains(&reason), "{reason}\n{said}");
    }
}

async fn requests_of(world: &World, account: &str) -> Vec<Value> {
    let mut requests = world.sandbox.requests().await;
    requests.retain(|request| request["key"] == account);
    requests
}

/// Done once, by one send.
async fn expect_done(world: &World, job: Job, account: &str) {
    world.until(job, "succeeded").await;
    let mut sends = requests_of(world, account).await;
    sends.retain(is_send);
    assert_eq!(sends.len(), 1, "{sends:?}");
    let effects = world.sandbox.effects().await;
    let effects = effects
        .iter()
        .filter(|effect| effect["organization"] == account);
    assert_eq!(effects.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_is_barred_is_tried_again_until_it_is_free() {
    let certificates = Certificates::made();
    let trials = trials();
    let accounts: Vec<&str> = trials.iter().map(|trial| trial.account.as_str()).collect();
    let world = World::made(Wish {
        roots: Some(certificates.authority.clone()),
        ..wish(&accounts)
    })
    .await;
    let gateway = world.sandbox.running.addr;
    let (mut doors, mut jobs, mut tuning) = (Vec::new(), Vec::new(), Vec::new());
    for trial in &trials {
        let door = Door::faulty(trial.fault, gateway, &certificates).await;
        tuning.push((format!("accounts.{}.base_url", trial.account), door.url()));
        doors.push(door);
        jobs.push(enqueue(&world, &trial.account, trial.operation).await);
    }
    let tuning: Vec<(&str, String)> = tuning
        .iter()
        .map(|(key, url)| (key.as_str(), url.clone()))
        .collect();
    let daemon = world.tuned_daemon(&tuning).await;
    for (trial, job) in trials.iter().zip(&jobs) {
        expect_barred(&world, *job, trial.code).await;
    }
    assert_eq!(world.sandbox.requests().await, [] as [Value; 0]);
    expect_told(&world, &trials, &tuning).await;
    doors.iter().for_each(Door::mend);
    for (trial, job) in trials.iter().zip(&jobs) {
        expect_done(&world, *job, &trial.account).await;
    }
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_with_a_certificate_of_a_trusted_authority_is_spoken_to_at_once() {
    let certificates = Certificates::made();
    let mut world_accounts = Vec::new();
    for protocol in ["new", "old"] {
        world_accounts.extend(OPERATIONS.map(|operation| (protocol, operation)));
    }
    let accounts: Vec<String> = (0..world_accounts.len())
        .map(|n| format!("account{n}"))
        .collect();
    let world = World::made(Wish {
        roots: Some(certificates.authority.clone()),
        ..wish(&accounts)
    })
    .await;
    let gateway = world.sandbox.running.addr;
    let new = Door::good(gateway, certificates.good.clone(), &certificates).await;
    let old = Door::good(gateway, certificates.old_protocol.clone(), &certificates).await;
    let (mut jobs, mut tuning) = (Vec::new(), Vec::new());
    for ((protocol, operation), account) in world_accounts.iter().zip(&accounts) {
        let door = if *protocol == "new" { &new } else { &old };
        tuning.push((format!("accounts.{account}.base_url"), door.url()));
        jobs.push(enqueue(&world, account, operation).await);
    }
    let tuning: Vec<(&str, String)> = tuning
        .iter()
        .map(|(key, url)| (key.as_str(), url.clone()))
        .collect();
    let daemon = world.tuned_daemon(&tuning).await;
    for (job, account) in jobs.iter().zip(&accounts) {
        expect_done(&world, *job, account).await;
        assert_eq!(world.attempts(*job).await.len(), 1);
    }
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_later_is_waited_for_and_a_private_address_is_never_used() {
    let bait = Bait::lay().await;
    let accounts = [OPERATIONS.as_slice(), &["nowhere", "private"]].concat();
    let names: Vec<String> = accounts.iter().map(|name| name.replace('.', "_")).collect();
    let world = World::made(Wish {
        own_hosts: true,
        ..wish(&names)
    })
    .await;
    let port = world.sandbox.running.addr.port();
    world.name_host("private.example");
    let url = |name: &str| match name {
        "nowhere" => format!("http://nowhere.invalid:{port}/api/v1"),
        "private" => format!("https://private.example:{}/api/v1", bait.addr.port()),
        _ => format!("http://gateway.invalid:{port}/api/v1"),
    };
    let mut tuning = vec![(
        "accounts.private.allow_insecure".to_owned(),
        "false".to_owned(),
    )];
    let mut jobs = Vec::new();
    for name in &names {
        tuning.push((format!("accounts.{name}.base_url"), url(name)));
        let operation = name.replace('_', ".");
        let operation = if operation.contains('.') {
            operation.as_str()
        } else {
            "invoice.create"
        };
        jobs.push(enqueue(&world, name, operation).await);
    }
    let tuning: Vec<(&str, String)> = tuning
        .iter()
        .map(|(key, value)| (key.as_str(), value.clone()))
        .collect();
    let daemon = world.tuned_daemon(&tuning).await;
    for (name, job) in names.iter().zip(&jobs) {
        let code = if name == "private" {
            "forbidden_address"
        } else {
            "dns_failed"
        };
        expect_barred(&world, *job, code).await;
    }
    assert_eq!(world.sandbox.requests().await, [] as [Value; 0]);
    world.name_host("gateway.invalid");
    for (name, job) in names.iter().zip(&jobs).take(OPERATIONS.len()) {
        expect_done(&world, *job, name).await;
    }
    for job in &jobs[OPERATIONS.len()..] {
        let still = "it waits for the network";
        world
            .until_job(*job, still, |row| row["reason"] == "network")
            .await;
    }
    bait.expect_nobody();
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_cannot_be_reached_for_long_is_told_of_once_until_it_can_be() {
    let certificates = Certificates::made();
    let world = World::made(Wish {
        roots: Some(certificates.authority.clone()),
        ..wish(&["shop"])
    })
    .await;
    let door = Door::faulty(Fault::Expired, world.sandbox.running.addr, &certificates).await;
    let url = [("accounts.shop.base_url", door.url())];
    let mut jobs = Vec::new();
    for operation in OPERATIONS {
        jobs.push(enqueue(&world, "shop", operation).await);
    }
    let daemon = world.tuned_daemon(&url).await;
    world
        .until_true("select count(*) >= 40 from apipay.attempts")
        .await;
    assert_eq!(world.alerts.deliveries("resolved"), [] as [Value; 0]);
    door.mend();
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    expect_unreachable(&world, "shop", "certificate_expired").await;
    world.end([daemon]).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_way_that_stays_barred_is_given_up_with_nothing_sent() {
    let names = OPERATIONS.map(|name| name.replace('.', "_"));
    let bait = Bait::lay().await;
    let port = bait.addr.port();
    drop(bait);
    let mut wish = wish(&names).tune("retry.network.attempts", "3");
    for name in &names {
        let url = format!("http://127.0.0.1:{port}/api/v1");
        wish = wish.tune(&format!("accounts.{name}.base_url"), &url);
    }
    let (world, daemon) = World::running_as(wish).await;
    for (name, operation) in names.iter().zip(OPERATIONS) {
        let job = enqueue(&world, name, operation).await;
        let row = world.until(job, "failed").await;
        assert_eq!(
            (&row["reason"], &row["attempts"]),
            (&json!("gave_up"), &json!(3))
        );
        assert_eq!(row["error_code"], "connect_failed");
        let start = format!("Job {job} of account {name} was given up: ");
        expect_told_once(&world, name, &start, "(connect_failed).").await;
    }
    assert_eq!(world.sandbox.requests().await, [] as [Value; 0]);
    world.end([daemon]).await;
}
