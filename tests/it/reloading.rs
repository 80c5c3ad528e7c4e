//! SIGHUP: accounts come, go and change while the daemon runs, and nothing under way is lost or doubled.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::time::sleep;

use crate::world::{Daemon, Job, Wish, World, phone, write_private};

const SERVED: &str = "select array(select unnest(accounts) order by 1) from apipay.daemons";

/// Tells the daemon to read its configuration again, and waits until it has.
async fn reload(daemon: &Daemon) {
    let times = || {
        let told = daemon.notified.lock().unwrap();
        told.iter().filter(|line| *line == "READY=1").count()
    };
    let before = times();
    daemon.signal(Signal::HUP);
    for _ in 0..1_500 {
        if times() > before {
            return;
        }
        sleep(Duration::from_millis(20)).await;
    }
    panic!("the configuration is not taken\n{}", daemon.log_text());
}

async fn expect_one_effect_each(world: &World, jobs: &[Job]) {
    for job in jobs {
        let effects = world.effects_of(*job).await;
        assert_eq!(effects.len(), 1, "job {job}: {effects:?}");
    }
}

/// The requests of bills with each key, as its name, when the first came and when the last was answered, in microseconds; in
/// the order in which the keys were first used.
async fn times_of_keys(world: &World) -> Vec<(String, i64, i64)> {
    let mut times: Vec<(String, i64, i64)> = Vec::new();
    for request in world.sandbox.requests_to("POST /invoices").await {
        let key = request["masked_key"].as_str().unwrap();
        let came = request["at_unix_us"].as_i64().unwrap();
        let answered = came + (request["duration_ms"].as_f64().unwrap() * 1e3) as i64;
        match times.iter_mut().find(|(of, ..)| of == key) {
            Some((_, _, last)) => *last = answered.max(*last),
            None => times.push((key.to_owned(), came, answered)),
        }
    }
    times
}

#[tokio::test]
async fn an_account_that_is_added_is_served_and_the_others_go_on() {
    let wish = Wish::default().accounts(&["shop", "clinic"]);
    let world = World::made(wish).await;
    world.configure(&["shop"]);
    let daemon = world.daemon().await;
    let waiting = world.bill_of("clinic").await;
    let first = world.bill_of("shop").await;
    world.until(first, "succeeded").await;
    assert_eq!(world.job(waiting).await["state"], "queued");
    world.configure(&["shop", "clinic"]);
    reload(&daemon).await;
    assert!(daemon.was_told("RELOADING=1"));
    let second = world.bill_of("shop").await;
    world.until(waiting, "succeeded").await;
    world.until(second, "succeeded").await;
    world
        .until_true(&format!("({SERVED}) = '{{clinic,shop}}'"))
        .await;
    expect_one_effect_each(&world, &[waiting, first, second]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_is_under_way_of_an_account_that_goes_is_ended_and_the_rest_waits_and_is_explained() {
    let wish = Wish::default().accounts(&["shop", "clinic"]);
    let (world, daemon) = World::running_as(wish).await;
    let slow = json!({"route": "POST /invoices", "organization": world.key("clinic"), "effect": "apply",
        "delay_ms": 600, "share": 1.0});
    world.sandbox.fault(slow).await;
    let mut jobs = Vec::new();
    for _ in 0..20 {
        jobs.push(world.bill_of("clinic").await);
    }
    world
        .until_true("select exists (select from apipay.jobs where state = 'sending')")
        .await;
    world.configure(&["shop"]);
    reload(&daemon).await;
    // Whatever was claimed is sent and recorded, or back in the queue; no lease has to run out for it.
    world
        .until_true("select not exists (select from apipay.jobs where state = 'sending')")
        .await;
    assert_eq!(
        world
            .count("apipay.events where subject = 'job' and to_state = 'uncertain'")
            .await,
        0
    );
    let waiting = world.count("apipay.jobs where state = 'queued'").await;
    assert!((1..20).contains(&waiting), "{waiting} wait");
    let other = world.bill_of("shop").await;
    world.until(other, "succeeded").await;
    assert_eq!(
        world.count("apipay.jobs where state = 'queued'").await,
        waiting
    );
    world.until_true(&format!("({SERVED}) = '{{shop}}'")).await;
    let explained = "select explain like 'Waiting: no daemon serves account clinic since % s ago): see that apipayd runs %' from apipay.overview where state = 'queued' limit 1";
    world.until_true(explained).await;
    world.sandbox.mend().await;
    world.configure(&["clinic", "shop"]);
    reload(&daemon).await;
    world.until_all_final().await;
    expect_one_effect_each(&world, &jobs).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_key_is_renewed_under_load_and_no_two_keys_are_used_at_a_time() {
    let wish = Wish::default()
        .tune("http.timeout", "6s")
        .tune("worker.grace", "7s")
        .tune("worker.lease", "20s");
    let (world, daemon) = World::running_as(wish).await;
    let (old, new) = (world.key("default"), world.key("renewed"));
    let both = json!({"organization": old, "add_key": new});
    world.sandbox.organization(both).await;
    // Longer than it takes until an account is served.
    let slow =
        json!({"route": "POST /invoices", "effect": "apply", "delay_ms": 4_000, "times": 20});
    world.sandbox.fault(slow).await;
    let mut jobs = Vec::new();
    for number in 0..60 {
        jobs.push(world.bill(phone::PAID, 500).await);
        if number == 20 {
            write_private(&world.key_file("default"), &new);
            daemon.signal(Signal::HUP);
        }
        sleep(Duration::from_millis(20)).await;
    }
    world.until_all_final().await;
    expect_one_effect_each(&world, &jobs).await;
    let keys = times_of_keys(&world).await;
    assert_eq!(keys.len(), 2, "{keys:?}");
    assert!(
        keys[0].2 <= keys[1].1,
        "the last answer to the old key comes after the first request with the new one: {keys:?}"
    );
    assert_eq!(world.count("apipay.alerts").await, 0);
    daemon.until_logged("changed: default").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_configuration_that_is_wrong_is_refused_and_the_one_before_stays_in_force() {
    let (world, daemon) = World::running().await;
    let right = std::fs::read_to_string(world.config()).unwrap();
    let key = std::fs::read_to_string(world.key_file("default")).unwrap();
    let missing = right.replace("default.key", "nowhere.key");
    let wrongs = [
        (format!("{right}\nconcurency = 3\n"), "concurency"),
        (
            right.replace("[accounts.default]", "[accounts.default"),
            "apipayd.toml",
        ),
        (missing, "nowhere.key"),
        (
            right.split("[accounts.").next().unwrap().to_owned(),
            "there is no account",
        ),
    ];
    for (wrong, named) in wrongs {
        write_private(&world.config(), &wrong);
        reload(&daemon).await;
        daemon.until_told("the new configuration is refused").await;
        for _ in 0..100 {
            if daemon.status().contains(named) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        let status = daemon.status();
        assert!(
            status.contains("is refused") && status.contains(named),
            "{named}: {status}"
        );
        assert!(daemon.log_text().contains(named), "{named}");
        let job = world.bill(phone::PAID, 500).await;
        world.until(job, "succeeded").await;
    }
    write_private(&world.config(), &right);
    reload(&daemon).await;
    for _ in 0..100 {
        if !daemon.status().contains("refused") {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(!daemon.status().contains("refused"), "{}", daemon.status());
    assert!(!daemon.log_text().contains(&key));
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_parked_account_that_gets_another_key_is_probed_at_once() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "10m")
        .tune("breaker.probe_max", "10m");
    let (world, daemon) = World::running_as(wish).await;
    let first = world.bill(phone::PAID, 500).await;
    world.until(first, "succeeded").await;
    let (old, new) = (world.key("default"), world.key("renewed"));
    let both = json!({"organization": old, "add_key": new});
    world.sandbox.organization(both).await;
    let revoke = json!({"organization": new, "revoke_key": old});
    world.sandbox.organization(revoke).await;
    let second = world.bill(phone::PAID, 500).await;
    world
        .until_true("select parked_reason = 'key_rejected' from apipay.accounts")
        .await;
    write_private(&world.key_file("default"), &new);
    reload(&daemon).await;
    world.until(second, "succeeded").await;
    world.until_no_alert().await;
    expect_one_effect_each(&world, &[first, second]).await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn the_key_of_another_organization_is_told_once_each_time_it_comes() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::PAID, 500).await;
    world.until(job, "succeeded").await;
    let told = "apipay.alerts where kind = 'other_organization'";
    for round in 1..=4 {
        let other = world.key(&format!("other{round}"));
        write_private(&world.key_file("default"), &other);
        reload(&daemon).await;
        let open = format!("select count(*) = {round} from {told}");
        world.until_true(&open).await;
        // In this time several rounds look whether any daemon has that key.
        sleep(Duration::from_secs(3)).await;
        let alerts = world
            .rows(&format!("select * from {told} order by id"))
            .await;
        assert_eq!(alerts.len(), round, "{alerts:?}");
        assert_eq!(alerts[round - 1]["resolved_at"], Value::Null, "{alerts:?}");
    }
    write_private(&world.key_file("default"), &world.key("default"));
    reload(&daemon).await;
    world
        .until_true(&format!(
            "select not exists (select from {told} and resolved_at is null)"
        ))
        .await;
    world.end([daemon]).await;
}

/// Puts a pipe into which nobody writes in the place of a file.
fn hang(file: &Path) {
    std::fs::remove_file(file).unwrap();
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
}

#[tokio::test]
async fn a_file_that_never_answers_is_named_and_the_next_signal_reads_it_again() {
    let wish = Wish::default().accounts(&["shop", "clinic"]);
    let world = World::made(wish).await;
    world.configure(&["shop"]);
    let daemon = world.daemon().await;
    for file in [world.config(), world.key_file("shop")] {
        let before = daemon.log_text().matches("cannot be read").count();
        hang(&file);
        reload(&daemon).await;
        let named = file.to_str().unwrap();
        let says = |text: &str| text.contains("cannot be read") && text.contains(named);
        let is_logged = || daemon.log_text().matches("cannot be read").count() > before;
        for _ in 0..100 {
            if is_logged() && says(&daemon.status()) {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        assert!(is_logged(), "{}", daemon.log_text());
        assert!(says(&daemon.log_text()), "{}", daemon.log_text());
        assert!(says(&daemon.status()), "{}", daemon.status());
        let job = world.bill_of("shop").await;
        world.until(job, "succeeded").await;
        std::fs::remove_file(&file).unwrap();
        world.configure(&["shop"]);
    }
    let waiting = world.bill_of("clinic").await;
    world.configure(&["shop", "clinic"]);
    reload(&daemon).await;
    world.until(waiting, "succeeded").await;
    for _ in 0..100 {
        if !daemon.status().contains("cannot be read") {
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    assert!(
        !daemon.status().contains("cannot be read"),
        "{}",
        daemon.status()
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_start_says_which_file_it_waits_for() {
    let world = World::made(Wish::default()).await;
    let key = world.key_file("default");
    let text = std::fs::read_to_string(&key).unwrap();
    hang(&key);
    let daemon = world.spawn(&["run"], &[]);
    daemon.until_logged(key.to_str().unwrap()).await;
    // It waits on.
    std::fs::write(&key, text).unwrap();
    daemon.until_logged("is not a file").await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn an_account_that_comes_back_sends_nothing_before_its_park_is_stored() {
    let wish = Wish::default().accounts(&["shop", "clinic"]);
    let world = World::made(wish).await;
    let daemon = world.daemon().await;
    let first = world.bill_of("clinic").await;
    world.until(first, "succeeded").await;
    let sends = async || world.sandbox.requests_to("POST /invoices").await.len();
    let set_session = async |state: &str| {
        let body = json!({"state": state, "organization": world.key("clinic")});
        world.sandbox.control("POST /session", body).await;
    };
    // Whoever keeps its row locked keeps the park from being stored.
    let held = world
        .hold("select from apipay.accounts where name = 'clinic' for no key update")
        .await;
    set_session("expired").await;
    world.bill_of("clinic").await;
    let before = sends().await;
    world
        .until_holds("a bill is answered 503", async || sends().await > before)
        .await;
    world.configure(&["shop"]);
    reload(&daemon).await;
    world.configure(&["shop", "clinic"]);
    reload(&daemon).await;
    let before = sends().await;
    for _ in 0..5 {
        world.bill_of("clinic").await;
    }
    let other = world.bill_of("shop").await;
    world.until(other, "succeeded").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(
        sends().await,
        before + 1,
        "only the bill of the other account"
    );
    held.rollback().await.unwrap();
    world
        .until_true("select state = 'parked' from apipay.accounts where name = 'clinic'")
        .await;
    set_session("active").await;
    world.sql("select apipay.resume('clinic')").await;
    world.until_all_final().await;
    world.end([daemon]).await;
}
