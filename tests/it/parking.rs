//! An account that is unwell: everything of it stops, one alert says so, and a probe or a human
//! ends it.

mod unsent;

use apipayd::db::accounts::AlertText;
use apipayd::db::alerts;
use apipayd::domain::account::AccountName;
use serde_json::json;

use crate::world::{Job, Wish, World, phone};

/// Parked until a human says otherwise, as far as a test can wait.
fn without_probes() -> Wish {
    Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h")
}

async fn until_parked(world: &World) {
    world
        .until_true("select state = 'parked' from apipay.accounts where name = 'default'")
        .await;
}

#[tokio::test]
async fn a_503_parks_job_and_account_and_nothing_more_leaves_until_an_operator_resumes_it() {
    let (world, daemon) = World::running_as(without_probes()).await;
    world.alerts.refuse(2);
    world.sandbox.session("expired").await;
    let first = world.bill(phone::PAID, 1500).await;
    let row = world.until(first, "parked").await;
    assert_eq!(row["reason"], "session_expired");
    assert_eq!(row["http_status"], 503);
    until_parked(&world).await;

    let mut jobs = vec![first];
    for _ in 0..5 {
        jobs.push(world.bill(phone::PAID, 2000).await);
    }
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let requests = world.sandbox.requests().await;
    assert_eq!(requests.len(), 1, "{requests:?}");
    let waiting = world
        .rows("select explain from apipay.overview where state in ('queued', 'parked')")
        .await;
    for line in waiting {
        let explain = line["explain"].as_str().unwrap();
        assert!(explain.contains("account default is parked"), "{explain}");
    }

    // One alert: a row, a line in the log at error level, and a post that was tried until it was taken.
    let alerts = world.rows("select * from apipay.alerts").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    assert_eq!(alerts[0]["kind"], "account_parked");
    assert_eq!(alerts[0]["severity"], "critical");
    assert!(
        alerts[0]["action"]
            .as_str()
            .unwrap()
            .contains("apipay.resume('default'")
    );
    world
        .until_holds("the alert is posted", async || {
            !world.alerts.bodies().is_empty()
        })
        .await;
    assert_eq!(world.alerts.refused(), 2);
    // The first that is told counts the job that is the cause, too.
    let told = &world.alerts.deliveries("firing")[0]["commonAnnotations"];
    assert_ne!(told["jobs_waiting"], "0", "{told}");
    let error = daemon
        .log_text()
        .lines()
        .any(|line| line.contains("ERROR") && line.contains("default"));
    assert!(error, "no line at error level:\n{}", daemon.log_text());
    daemon.until_told("PARKED session_expired").await;
    daemon.until_told("OPEN ALERTS: account_parked").await;

    world.sandbox.session("active").await;
    world
        .sql("select apipay.resume('default', 'session renewed')")
        .await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("the end is posted", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    let told: Vec<_> = world
        .alerts
        .bodies()
        .iter()
        .map(|body| body["status"].clone())
        .collect();
    assert_eq!(told, ["firing", "resolved"]);
    let alert = &world.rows("select * from apipay.alerts").await[0];
    assert_eq!(alert["resolution"], "session renewed");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_probe_that_succeeds_resumes_the_account() {
    let (world, daemon) = World::running().await;
    world.sandbox.session("expired").await;
    let mut jobs = Vec::new();
    for _ in 0..12 {
        jobs.push(world.bill(phone::PAID, 1500).await);
    }
    until_parked(&world).await;
    world
        .until_holds("two probes", async || {
            world.sandbox.requests_to("GET /account/health").await.len() >= 2
        })
        .await;
    world.sandbox.session("active").await;
    for job in jobs {
        world.until(job, "succeeded").await;
    }
    world
        .until_holds("the end is posted", async || {
            !world.alerts.deliveries("resolved").is_empty()
        })
        .await;
    assert_eq!(world.alerts.deliveries("firing").len(), 1);
    assert_eq!(world.alerts.deliveries("resolved").len(), 1);
    let alerts = world.rows("select * from apipay.alerts").await;
    assert_eq!(alerts.len(), 1, "{alerts:?}");
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_park_survives_a_restart() {
    let (world, mut daemon) = World::running_as(without_probes()).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    daemon.stop().await;
    let heir = world.daemon().await;
    world.bill(phone::PAID, 1600).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.sandbox.requests().await.len(), 1);
    world.sandbox.session("active").await;
    world
        .sql("select apipay.resume('default', 'renewed')")
        .await;
    world.until_all_final().await;
    world.end([heir]).await;
}

#[tokio::test]
async fn the_park_of_one_account_does_not_touch_another() {
    let wish = without_probes().accounts(&["default", "other"]);
    let (world, daemon) = World::running_as(wish).await;
    world
        .sandbox
        .control(
            "POST /session",
            json!({"organization": "default", "state": "expired"}),
        )
        .await;
    let unwell = world.bill(phone::PAID, 1500).await;
    world.until(unwell, "parked").await;
    let params = json!({"phone_number": phone::PAID, "amount": 700});
    let well = world
        .enqueue_with("invoice.create", params, json!({"account": "other"}))
        .await;
    world.until(well, "succeeded").await;
    assert_eq!(world.job(unwell).await["state"], "parked");
    world.end([daemon]).await;
}

#[tokio::test]
async fn what_an_operator_parked_only_an_operator_resumes() {
    let (world, daemon) = World::running().await;
    world
        .sql("select apipay.park('default', 'the till is being counted')")
        .await;
    let job = world.bill(phone::PAID, 1500).await;
    tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
    assert_eq!(world.sandbox.requests().await.len(), 0);
    assert_eq!(world.job(job).await["state"], "queued");
    world
        .sql("select apipay.resume('default', 'counted')")
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// The account is parked and well again, and a probe of it is under way that takes a second.
async fn until_slow_probe(world: &World) -> Job {
    world
        .sandbox
        .fault(json!({"route": "GET /account/health", "share": 1.0, "delay_ms": 1000}))
        .await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    let before = world
        .value("select to_jsonb(probes) from apipay.accounts where name = 'default'")
        .await;
    world.sandbox.session("active").await;
    world
        .until_true(&format!(
            "select probes > {before} from apipay.accounts where name = 'default'"
        ))
        .await;
    job
}

#[tokio::test]
async fn a_probe_that_is_under_way_does_not_end_the_park_of_an_operator() {
    let (world, daemon) = World::running().await;
    let job = until_slow_probe(&world).await;
    world
        .sql("select apipay.park('default', 'the till is being counted')")
        .await;
    daemon.until_logged("has parked or resumed meanwhile").await;
    assert_eq!(world.job(job).await["state"], "parked");
    let parked = "apipay.accounts where state = 'parked' and parked_reason = 'parked_by_user'";
    assert_eq!(world.count(parked).await, 1);
    let alerts = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    assert_eq!(world.count(alerts).await, 1);
    world
        .sql("select apipay.resume('default', 'counted')")
        .await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_job_that_cannot_be_tried_now_is_waited_for() {
    let (world, daemon) = World::running().await;
    let job = until_slow_probe(&world).await;
    world.sql("select apipay.stop('closing time')").await;
    tokio::time::sleep(std::time::Duration::from_secs(3)).await;
    let parked = "apipay.accounts where state = 'parked' and parked_by = 'apipayd'";
    assert_eq!(world.count(parked).await, 1, "health was taken for a proof");
    assert_eq!(world.job(job).await["state"], "parked");
    world.sql("select apipay.start('morning')").await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn alerts_that_nobody_takes_do_not_hold_up_payments() {
    let wish = Wish::default().accounts(&["default", "other"]);
    let (world, daemon) = World::running_as(wish).await;
    world.alerts.refuse(usize::MAX);
    world.sql("select apipay.park('other', 'a test')").await;
    world
        .until_holds("a post is refused", async || world.alerts.refused() > 0)
        .await;
    for _ in 0..10 {
        world.bill(phone::PAID, 1500).await;
    }
    world
        .until_true("select count(*) = 10 from apipay.jobs where state = 'succeeded'")
        .await;
    world
        .until_true("select exists (select from apipay.alert_deliveries where channel = 'webhook' and tries > 0 and delivered_at is null and last_error is not null)")
        .await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn an_open_alert_is_told_again() {
    let wish = without_probes().tune("alerts.repeat", "1s");
    let (world, daemon) = World::running_as(wish).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    world
        .until_holds("it is told again", async || {
            world.alerts.deliveries("firing").len() >= 2
        })
        .await;
    assert_eq!(world.count("apipay.alerts").await, 1);
    world.end([daemon]).await;
}

#[tokio::test]
async fn no_request_leaves_while_all_sending_is_stopped() {
    let (world, daemon) = World::running().await;
    world.sql("select apipay.stop('closing time')").await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    let job = world.bill(phone::PAID, 1500).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(world.sandbox.requests().await.len(), 0);
    daemon.until_told("STOPPED").await;
    world.sql("select apipay.start('morning')").await;
    world.until(job, "succeeded").await;
    world.end([daemon]).await;
}

/// The list of refunds that is read before a refund takes its time, and the account is parked meanwhile.
#[tokio::test]
async fn a_refund_that_reads_its_list_while_the_account_is_parked_does_not_leave() {
    let (world, daemon) = World::running_as(without_probes()).await;
    let slow = json!({"route": "GET /invoices/{id}/refunds", "share": 1.0, "delay_ms": 1000});
    world.sandbox.fault(slow).await;
    let key = world.key("default");
    let invoice = world.sandbox.invoice(&key, json!({"status": "paid"})).await;
    let params = json!({"invoice_id": invoice, "amount": 100});
    let refund = world.enqueue("invoice.refund", params).await;
    world.until_in_flight(1).await;
    world.sandbox.session("expired").await;
    let bill = world.bill(phone::PAID, 1500).await;
    world.until(bill, "parked").await;

    let row = world.until(refund, "queued").await;
    assert_eq!(row["reason"], "account_parked");
    let sent = "apipay.attempts where kind = 'send' and duration_ms is not null and job_id = ";
    assert_eq!(world.count(&format!("{sent}{refund}")).await, 0);

    world.sandbox.session("active").await;
    world
        .sql("select apipay.resume('default', 'logged in')")
        .await;
    world.until_all_final().await;
    world.end([daemon]).await;
}

/// As `begin; select apipay.acknowledge(…)` without a commit.
#[tokio::test]
async fn an_alert_that_somebody_keeps_locked_keeps_no_account_parked_and_none_from_being_parked() {
    let (world, daemon) = World::running().await;
    let open = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    let acknowledge = "select apipay.acknowledge(id) from apipay.alerts where resolved_at is null";
    world.sandbox.session("expired").await;
    let first = world.bill(phone::PAID, 1500).await;
    world.until(first, "parked").await;
    let acknowledged = world.hold(acknowledge).await;
    world.sandbox.session("active").await;
    world.until(first, "succeeded").await;
    world
        .until_true("select state = 'active' from apipay.accounts")
        .await;
    assert_eq!(world.count(open).await, 1, "it is kept locked");

    // A park, of another cause, and its end do not wait for it either.
    let refusal = json!({"error": "kyc_required", "error_code": "kyc_required", "message": "No."});
    let answer = json!({"status": 403, "json": refusal});
    world
        .sandbox
        .fault(json!({"route": "POST /invoices", "times": 1000, "answer": answer}))
        .await;
    let second = world.bill(phone::PAID, 1500).await;
    world.until(second, "parked").await;
    acknowledged.commit().await.unwrap();
    world
        .until_true(
            "select exists (select from apipay.alerts l join apipay.accounts a on l.details ->> 'reason' = a.parked_reason
              where l.resolved_at is null and a.state = 'parked')",
        )
        .await;

    // One that was resolved in that moment is opened again.
    world
        .sql("update apipay.alerts set resolved_at = now(), resolution = 'by mistake' where resolved_at is null")
        .await;
    world
        .until_holds("it is told again", async || world.count(open).await == 1)
        .await;
    world
        .sandbox
        .control("DELETE /faults", serde_json::Value::Null)
        .await;
    world.until(second, "succeeded").await;
    world
        .until_holds("it ends", async || world.count(open).await == 0)
        .await;
    world.end([daemon]).await;
}

/// What is advised of an account that is parked, in its alert and in the views.
async fn advice(world: &World) -> Vec<String> {
    let said = world
        .rows(
            "select action as said from apipay.alerts where kind = 'account_parked' and resolved_at is null
             union all select explain from apipay.account_status
             union all select explain from apipay.overview where state in ('parked', 'queued')",
        )
        .await;
    said.iter()
        .map(|row| row["said"].as_str().unwrap().to_owned())
        .collect()
}

async fn until_nobody_advises(world: &World, text: &str) {
    world
        .until_holds("nobody advises that any more", async || {
            let said = advice(world).await;
            said.len() >= 2 && said.iter().all(|said| !said.contains(text))
        })
        .await;
}

#[tokio::test]
async fn nobody_is_told_to_cancel_a_job_that_is_cancelled() {
    let (world, daemon) = World::running_as(without_probes()).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    let advised = format!("select apipay.cancel({job}, 'why')");
    world
        .until_holds("it is told what ends the park", async || {
            let said = advice(&world).await;
            said.len() == 3 && said.iter().all(|said| said.contains(&advised))
        })
        .await;
    world
        .sql(&format!("select apipay.cancel({job}, 'as told')"))
        .await;
    until_nobody_advises(&world, &advised).await;
    // What else is to be done stands there still, and that is no news.
    for said in advice(&world).await {
        assert!(said.contains("log the cashier in again"), "{said}");
    }
    let told = "apipay.alerts where kind = 'account_parked' and changed_at > opened_at";
    assert_eq!(world.count(told).await, 0);
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_parked_job_past_its_end_expires_while_its_account_stays_parked() {
    let (world, daemon) = World::running_as(without_probes()).await;
    world.sandbox.session("expired").await;
    let params = json!({"phone_number": phone::PAID, "amount": 1500});
    let soon = world
        .value("select to_jsonb(now() + interval '8 seconds')")
        .await;
    let job = world
        .enqueue_with("invoice.create", params, json!({"expires_at": soon}))
        .await;
    world.until(job, "parked").await;
    let other = world.bill(phone::PAID, 1600).await;
    let row = world.until(job, "expired").await;
    assert_eq!(row["reason"], "expired");
    let explain = world
        .value(&format!(
            "select to_jsonb(explain) from apipay.overview where id = {job}"
        ))
        .await;
    let explain = explain.as_str().unwrap();
    let says = "Nothing that was sent of it by its expires_at, ";
    assert!(explain.starts_with(says), "{explain}");
    until_parked(&world).await;
    until_nobody_advises(&world, &format!("select apipay.cancel({job}, 'why')")).await;
    assert_eq!(world.job(other).await["state"], "queued");
    let resumed = world
        .value("select to_jsonb(apipay.resume('default', 'logged in'))")
        .await;
    assert_eq!(resumed, 0, "nothing is parked any more");
    world.sandbox.session("active").await;
    world.end([daemon]).await;
}

#[tokio::test]
async fn once_a_probe_is_told_that_the_account_is_unwell_no_job_is_blamed_for_it() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1s")
        .tune("breaker.probe_max", "1s");
    let (world, daemon) = World::running_as(wish).await;
    world.sandbox.session("expired").await;
    let job = world.bill(phone::PAID, 1500).await;
    world.until(job, "parked").await;
    world
        .until_true("select probes >= 1 from apipay.accounts")
        .await;
    until_nobody_advises(&world, &format!("select apipay.cancel({job}, 'why')")).await;
    assert_eq!(world.job(job).await["state"], "parked");
    world.end([daemon]).await;
}

/// Its alert ends in the same transaction as its park, and whoever rewrites it has read the row before.
#[tokio::test]
async fn the_alert_of_a_park_that_ends_meanwhile_is_not_opened_again() {
    let (world, mut daemon) = World::running_as(without_probes()).await;
    world.sandbox.session("expired").await;
    world.bill(phone::PAID, 1500).await;
    until_parked(&world).await;
    daemon.stop().await;
    let text = AlertText {
        summary: "Account default is parked: another text.".to_owned(),
        action: "look".to_owned(),
        details: json!({"reason": "session_expired"}),
    };
    let account = AccountName::parse("default").unwrap();
    let daemons = world.daemon_pool();
    let say = async || {
        alerts::say_of_park(&daemons, &account, &text)
            .await
            .unwrap()
    };
    let open = "apipay.alerts where kind = 'account_parked' and resolved_at is null";
    let says_so = format!("{open} and summary like '%another text.'");
    let mut person = world.pool().begin().await.unwrap();
    sqlx::query("select apipay.resume('default', 'logged in')")
        .execute(&mut *person)
        .await
        .unwrap();
    assert!(say().await);
    assert_eq!(world.count(&says_so).await, 0, "it is being resumed");
    person.commit().await.unwrap();
    assert!(say().await);
    assert_eq!(world.count(open).await, 0, "it is parked no more");
    world
        .sql("select apipay.park('default', 'stocktaking')")
        .await;
    assert!(say().await);
    assert_eq!(world.count(&says_so).await, 1);
    world.end_unchecked().await;
}
