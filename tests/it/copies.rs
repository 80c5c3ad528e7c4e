//! Copies of final jobs, and what becomes of what they repeat before they are sent.

use serde_json::{Value, json};

use crate::world::{Job, Wish, World, phone};

async fn copy_of(world: &World, job: Job) -> Job {
    let copy = format!("select to_jsonb(apipay.retry({job}, 'once more'))");
    world.value(&copy).await.as_i64().unwrap()
}

/// Waits until a copy has ended because what it repeats lives: nothing of it was sent.
async fn until_original_lives(world: &World, copy: Job) {
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert!(world.effects_of(copy).await.is_empty());
}

/// Waits until what is said of a job begins so, and returns all of it.
async fn until_explained(world: &World, job: Job, beginning: &str) -> String {
    let told = format!("starts_with(explain, '{}')", beginning.replace('\'', "''"));
    world
        .until_true(&format!(
            "select {told} from apipay.overview where id = {job} and state = 'queued'"
        ))
        .await;
    // It may have become due meanwhile.
    loop {
        let explained = world.explain(job).await;
        if explained.starts_with(beginning) {
            return explained;
        }
    }
}

async fn stopped(world: &World) {
    world.sql("select apipay.stop('look first')").await;
}

async fn started(world: &World) {
    world.sql("select apipay.start('seen')").await;
}

/// An invoice in error may be delivered after all. The database does not know it yet when the copy's turn comes.
#[tokio::test]
async fn a_copy_is_not_sent_once_an_invoice_of_its_original_lives() {
    for status in ["pending", "paid"] {
        let (world, daemon) = World::running().await;
        let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
        let invoice = world.until(job, "failed").await["invoice_id"].clone();
        stopped(&world).await;
        let copy = copy_of(&world, job).await;
        let lives = json!({"status": status, "error_code": null});
        world
            .sandbox
            .set_invoice(invoice.as_i64().unwrap(), lives)
            .await;
        started(&world).await;
        let row = world.until(copy, "failed").await;
        assert_eq!(row["reason"], "original_lives", "{row}");
        assert!(row["failing_since"].is_null(), "ApiPay has answered");
        let explained = world.explain(copy).await;
        let shown = format!(
            "Nothing was sent: what it repeats was done after all: the gateway shows invoice {invoice}: 500 tenge (status {status}). "
        );
        assert!(explained.starts_with(&shown), "{explained}");
        assert_eq!(world.effects_of(job).await.len(), 1);
        assert!(world.effects_of(copy).await.is_empty());
        drop(daemon);
        // The original has failed, and lives.
        world.end_unchecked().await;
    }
}

/// What a check leaves out may live, and what it shows unasked says nothing.
#[tokio::test]
async fn a_copy_waits_until_the_invoices_of_its_original_are_shown() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "300ms")
        .tune("retry.server_error.max", "300ms");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let checks = "POST /invoices/status/check";
    let other = json!({"invoices": [{"id": 1, "status": "paid", "amount": "1.00"}]});
    let answer = json!({"status": 200, "json": other});
    world
        .sandbox
        .fault(json!({"route": checks, "match": invoice.to_string(), "share": 1, "answer": answer}))
        .await;
    let copy = copy_of(&world, job).await;
    let asked = format!(
        "select count(*) >= 3 from apipay.attempts where job_id = {copy} and request ->> 'path' = '/invoices/status/check'"
    );
    world.until_true(&asked).await;
    assert!(world.effects_of(copy).await.is_empty());
    let unseen = format!(
        "Not sent so far: it could not be seen whether invoice {invoice} of job {job} (which it repeats) lives: \
         ApiPay left out invoice {invoice} (HTTP 200). "
    );
    let explained = until_explained(&world, copy, &unseen).await;
    assert!(!explained.contains("attempt"), "{explained}");
    assert_eq!(world.job(copy).await["attempts"], 0, "none is sent");
    // ApiPay answers that question: it is not that which is told.
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null
                and summary like 'Job {copy} (invoice.create) of account default is not sent, since %: it could not be seen whether invoice {invoice} of job {job} (which it repeats) lives: ApiPay left out invoice {invoice}. %'
                and summary not like '%clear answer%' and summary not like '%before ApiPay answers%'
                and action like '%dashboard%select apipay.cancel({copy}, %enqueue a new job%' and action not like '%base_url%')"
        ))
        .await;
    world.sandbox.mend().await;
    // It is shown dead, so the copy goes out.
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "async_error", "{row}");
    assert_eq!(world.effects_of(copy).await.len(), 1);
    world.end([daemon]).await;
}

/// What is answered to that question, whatever it is, is no answer to the copy.
#[tokio::test]
async fn what_comes_in_place_of_the_invoices_of_its_original_is_no_refusal_of_a_copy() {
    for (preset, status, said) in [
        ("404", 404, "ApiPay said: Invoice not found"),
        ("500_json", 500, "ApiPay said: "),
    ] {
        let wish = Wish::default()
            .tune("follow.watch_after_final", "1s")
            .tune("retry.server_error.initial", "100ms")
            .tune("retry.server_error.max", "300ms");
        let (world, daemon) = World::running_as(wish).await;
        let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
        let invoice = world.until(job, "failed").await["invoice_id"].clone();
        world
            .until_true("select settled from apipay.invoices")
            .await;
        let fault = json!({"route": "POST /invoices/status/check", "match": invoice.to_string(), "share": 1,
                           "answer": {"preset": preset}});
        world.sandbox.fault(fault).await;
        let copy = copy_of(&world, job).await;
        let unseen = format!(
            "Not sent so far: it could not be seen whether invoice {invoice} of job {job} (which it repeats) lives: {said}"
        );
        let explained = until_explained(&world, copy, &unseen).await;
        for part in [
            format!("(HTTP {status}"),
            " ApiPay is asked again at ".to_owned(),
            format!("select apipay.cancel({copy}, 'why')"),
        ] {
            assert!(explained.contains(&part), "{part}: {explained}");
        }
        let told = format!(
            "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null
                and summary like 'Job {copy} (invoice.create) of account default has got no clear answer since %(HTTP {status}: it could not be seen whether invoice {invoice} of job {job} (which it repeats) lives: {said}%'
                and summary like '%It is not sent before ApiPay answers POST /invoices/status/check.%')"
        );
        world.until_true(&told).await;
        let row = world.job(copy).await;
        assert_eq!(
            (&row["attempts"], &row["generation"]),
            (&json!(0), &json!(1)),
            "{row}"
        );
        assert_eq!(
            world
                .count("apipay.alerts where kind = 'job_refused'")
                .await,
            0
        );
        assert!(world.effects_of(copy).await.is_empty());
        world.sandbox.mend().await;
        let row = world.until(copy, "failed").await;
        assert_eq!(row["reason"], "async_error", "{row}");
        assert_eq!(world.effects_of(copy).await.len(), 1);
        world.until_no_alert().await;
        world.end([daemon]).await;
    }
}

/// What is told of the checks is not all that waits for them.
#[tokio::test]
async fn a_copy_that_waits_for_checks_is_named_while_all_of_them_fail() {
    let wish = Wish::default()
        .tune("retry.server_error.initial", "100ms")
        .tune("retry.server_error.max", "300ms");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    world.until(job, "failed").await;
    // It is checked until it is paid.
    let open = world.bill(phone::UNPAID, 500).await;
    world.until(open, "succeeded").await;
    let fails = json!({"route": "POST /invoices/status/check", "share": 1, "answer": {"preset": "502_html"}});
    world.sandbox.fault(fails).await;
    let copy = copy_of(&world, job).await;
    let told = format!(
        "select exists (select from apipay.alerts where kind = 'gateway_failing' and resolved_at is null
            and summary like '% when asked about payments of account default since %'
            and summary like '%. Job {copy} (invoice.create) has got no clear answer either, since %. It is not sent before ApiPay answers POST /invoices/status/check. Other payments are tried as usual.'
            and action like '%(id = {copy} or state in (%')"
    );
    world.until_true(&told).await;
    world.sandbox.mend().await;
    world.until(copy, "failed").await;
    world.until_no_alert().await;
    world.end([daemon]).await;
}

/// Where tries are limited it is given up, and what it says is that nothing was sent.
#[tokio::test]
async fn a_copy_that_is_given_up_before_it_is_sent_says_so() {
    let wish = Wish::default().tune("retry.server_error.attempts", "3");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let fault = json!({"route": "POST /invoices/status/check", "match": invoice.to_string(), "share": 1,
                       "answer": {"preset": "500_json"}});
    world.sandbox.fault(fault).await;
    let copy = copy_of(&world, job).await;
    let row = world.until(copy, "failed").await;
    assert_eq!(row["reason"], "gave_up", "{row}");
    let explained = world.explain(copy).await;
    let unseen = format!(
        ": it could not be seen whether invoice {invoice} of job {job} (which it repeats) lives: ApiPay said: "
    );
    let unsent = "Given up before ApiPay had taken anything of it; last: HTTP 500";
    assert!(
        explained.starts_with(unsent) && explained.contains(&unseen),
        "{explained}"
    );
    assert!(world.effects_of(copy).await.is_empty());
    world.end([daemon]).await;
}

/// It is looked up first, for nobody knows how far it had come.
#[tokio::test]
async fn a_copy_whose_daemon_dies_while_it_looks_says_what_it_repeats_when_that_lives() {
    let (world, mut daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let hangs = json!({"route": "POST /invoices/status/check", "match": invoice.to_string(), "share": 1, "hang": true});
    world.sandbox.fault(hangs).await;
    let copy = copy_of(&world, job).await;
    world.until(copy, "sending").await;
    world
        .until_holds("it is asked for what the copy repeats", async || {
            let checks = world.sandbox.requests_to("POST /invoices/status/check");
            checks
                .await
                .iter()
                .any(|check| check.to_string().contains(&invoice.to_string()))
        })
        .await;
    daemon.kill().await;
    world.sandbox.mend().await;
    let lives = json!({"status": "pending", "error_code": null});
    let number = invoice.as_i64().unwrap();
    world.sandbox.set_invoice(number, lives).await;
    world.expire_promises().await;
    let heir = world.daemon().await;
    world.until_all_done_or_held().await;
    assert_eq!(world.job(copy).await["reason"], "original_lives");
    let ends = format!("select apipay.resolve({copy}, false, null, 'why', and_cancel => true)");
    let explained = world.explain(copy).await;
    let lives = format!("the gateway shows invoice {invoice}: 500 tenge (status pending)");
    let told = world
        .value("select to_jsonb(summary || action) from apipay.alerts where kind = 'job_held'")
        .await;
    for said in [explained, told.to_string()] {
        assert!(said.contains(&lives) && said.contains(&ends), "{said}");
    }
    world.sql(&ends).await;
    world.until(copy, "cancelled").await;
    assert!(world.effects_of(copy).await.is_empty());
    drop(heir);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// Its invoices name an original whose row was deleted.
#[tokio::test]
async fn a_copy_looks_at_an_original_that_was_deleted() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    stopped(&world).await;
    let copy = copy_of(&world, job).await;
    world
        .sql(&format!("delete from apipay.jobs where id = {job}"))
        .await;
    let lives = json!({"status": "pending", "error_code": null});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), lives)
        .await;
    started(&world).await;
    until_original_lives(&world, copy).await;
    drop(daemon);
    // The gateway has what no job explains any more.
    world.end_unchecked().await;
}

/// A copy of a copy repeats the first one, too; and where all of it is dead it is sent.
#[tokio::test]
async fn a_copy_of_a_copy_looks_at_all_that_it_repeats() {
    let (world, daemon) = World::running().await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    let copy = copy_of(&world, job).await;
    world.until(copy, "failed").await;
    assert_eq!(world.effects_of(copy).await.len(), 1);
    stopped(&world).await;
    let second = copy_of(&world, copy).await;
    let lives = json!({"status": "pending", "error_code": null});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), lives)
        .await;
    started(&world).await;
    let row = world.until(second, "failed").await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    assert!(world.effects_of(second).await.is_empty());
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// The list of refunds that is read before each refund shows that of the job that it repeats.
#[tokio::test]
async fn a_copy_of_a_refund_is_not_sent_once_that_was_made_after_all() {
    let (world, daemon) = World::running().await;
    let bill = world.bill(phone::PAID, 1000).await;
    let invoice = world.until(bill, "succeeded").await["invoice_id"].clone();
    let key = world.key("default");
    let outcome = |outcome: &str| json!({"organization": key, "refund_outcome": outcome});
    world
        .sandbox
        .organization(outcome("refund_rejected_by_kaspi"))
        .await;
    let params = json!({"invoice_id": invoice, "amount": 333});
    let refund = world.enqueue("invoice.refund", params).await;
    let made = world.until(refund, "failed").await["refund_id"].clone();
    world.sandbox.organization(outcome("completed")).await;
    stopped(&world).await;
    let copy = copy_of(&world, refund).await;
    world
        .sandbox
        .control(
            &format!("POST /refunds/{made}"),
            json!({"status": "completed", "error_code": null}),
        )
        .await;
    started(&world).await;
    assert_eq!(world.effects_of(refund).await.len(), 1);
    until_original_lives(&world, copy).await;
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// What a request made that got no clear answer may come after the look-up that found nothing, and is known by its name alone.
#[tokio::test]
async fn a_copy_is_not_sent_once_an_invoice_with_the_name_of_its_original_lives() {
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "2s");
    let (world, daemon) = World::running_as(wish).await;
    let late = json!({"route": "POST /invoices", "effect": "late", "after_ms": 6000, "times": 1,
                      "answer": {"preset": "504_html"}});
    world.sandbox.fault(late).await;
    let job = world.bill("87015550023", 500).await;
    world.until(job, "uncertain").await;
    world
        .sql(&format!(
            "update apipay.jobs set state = 'held', reason = 'unknown_outcome', epoch = epoch + 1
              where id = {job} and state = 'uncertain'"
        ))
        .await;
    world
        .sql(&format!(
            "select apipay.resolve({job}, false, null, 'not there', and_cancel => true)"
        ))
        .await;
    let row = world.until(job, "cancelled").await;
    assert_eq!(row["reason"], "called_off", "{row}");
    assert!(world.effects_of(job).await.is_empty(), "it comes later");
    world
        .until_holds("it has come", async || {
            !world.effects_of(job).await.is_empty()
        })
        .await;
    let broken = json!({"route": "GET /invoices", "share": 1, "answer": {"preset": "500_json"}});
    world.sandbox.fault(broken).await;
    let copy = copy_of(&world, job).await;
    let unseen = format!(
        "Not sent so far: it could not be seen whether an invoice with the name of job {job} (which it repeats) lives: "
    );
    until_explained(&world, copy, &unseen).await;
    world.sandbox.mend().await;
    until_original_lives(&world, copy).await;
    let invoice = &world.effects_of(job).await[0]["invoice_id"];
    let explained = world.explain(job).await;
    let lives = format!("but its invoice {invoice} lives after all");
    assert!(explained.contains(&lives), "{explained}");
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and details ->> 'invoice' = '{invoice}')"
        ))
        .await;
    drop(daemon);
    // The original was called off, and lives.
    world.end_unchecked().await;
}

/// It bears no mark of ours: a person has named it.
#[tokio::test]
async fn a_copy_of_a_refund_is_not_sent_once_the_one_that_was_named_is_made() {
    // Time to make one by hand before it is looked up.
    let wish = Wish::default().tune("reconcile.quiet_after_answer", "1s");
    let (world, daemon) = World::running_as(wish).await;
    let paid = json!({"status": "paid", "amount": "1000.00"});
    let invoice = world.sandbox.invoice(&world.key("default"), paid).await;
    let lost = json!({"route": "POST /invoices/{id}/refund", "effect": "none", "times": 1,
                      "answer": {"preset": "504_html"}});
    world.sandbox.fault(lost).await;
    let named = json!({"invoice_id": invoice, "amount": "100.00", "status": "processing"});
    let params = json!({"invoice_id": invoice, "amount": 100});
    let refund = world.enqueue("invoice.refund", params).await;
    world.until(refund, "uncertain").await;
    let named = world.sandbox.control("POST /refunds", named).await["id"].clone();
    world.until(refund, "held").await;
    world
        .sql(&format!(
            "select apipay.resolve({refund}, true, {named}, 'the cashier made it')"
        ))
        .await;
    world.until(refund, "accepted").await;
    let set = async |state: Value| {
        let path = format!("POST /refunds/{named}");
        world.sandbox.control(&path, state).await;
    };
    set(json!({"status": "failed", "error_code": "refund_rejected_by_kaspi"})).await;
    world.until(refund, "failed").await;
    set(json!({"status": "completed", "error_code": null})).await;
    let copy = copy_of(&world, refund).await;
    until_original_lives(&world, copy).await;
    world
        .until_true(&format!(
            "select exists (select from apipay.alerts where kind = 'refund_revived' and subject = 'refund {named}'
                and resolved_at is null and summary like '%job {refund}, which made it, is failed; the money was given back%')
               and exists (select from apipay.refunds where id = {named} and job_id = {refund} and status = 'completed')"
        ))
        .await;
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}

/// The bill that was repeated, since its invoice had expired, and the copy can both be paid.
#[tokio::test]
async fn an_invoice_that_lives_beside_that_of_a_copy_is_told() {
    for revived_last in ["original", "copy"] {
        let (world, daemon) = World::running().await;
        let job = world.bill(phone::UNPAID, 500).await;
        let first = invoice_of(&world, job).await;
        set(&world, first, "expired").await;
        let copy = copy_of(&world, job).await;
        let second = invoice_of(&world, copy).await;
        let revived = match revived_last {
            "original" => first,
            _ => {
                set(&world, second, "expired").await;
                set(&world, first, "pending").await;
                second
            }
        };
        world
            .sandbox
            .set_invoice(revived, json!({"status": "paid"}))
            .await;
        let (other, of) = if revived == first {
            (second, copy)
        } else {
            (first, job)
        };
        let told = format!(
            "select exists (select from apipay.alerts where kind = 'invoice_revived' and resolved_at is null
                and subject = 'invoice {revived}'
                and summary like '%invoice {other} of job {of} (of these two jobs one repeats the other) is pending: the customer may pay once more.')"
        );
        world.until_true(&told).await;
        set(&world, other, "cancelled").await;
        world.until_no_alert().await;
        world.end([daemon]).await;
    }
}

async fn invoice_of(world: &World, job: Job) -> i64 {
    world.until(job, "succeeded").await["invoice_id"]
        .as_i64()
        .unwrap()
}

/// Has an invoice become so, and waits until that is seen.
async fn set(world: &World, invoice: i64, status: &str) {
    world
        .sandbox
        .set_invoice(invoice, json!({"status": status}))
        .await;
    world
        .until_true(&format!(
            "select status = '{status}' from apipay.invoices where id = {invoice}"
        ))
        .await;
}

/// It is found out by a read, which proves nothing of sends, and takes no probe from the others.
#[tokio::test]
async fn a_copy_that_is_not_sent_leaves_the_probe_of_its_account_to_the_next() {
    let wish = Wish::default()
        .tune("breaker.probe_initial", "1h")
        .tune("breaker.probe_max", "1h")
        // A probe tries no further job once a request might have taken all of its time.
        .tune("http.timeout", "20s")
        .tune("worker.grace", "25s")
        .tune("worker.lease", "50s");
    let (world, daemon) = World::running_as(wish).await;
    let job = world.bill(phone::CLIENT_NOT_FOUND, 500).await;
    let invoice = world.until(job, "failed").await["invoice_id"].clone();
    world.sandbox.session("expired").await;
    let parked = world.bill(phone::PAID, 1500).await;
    world.until(parked, "parked").await;
    world
        .sql(&format!("select apipay.cancel({parked}, 'a mistake')"))
        .await;
    let copy = copy_of(&world, job).await;
    let good = world.bill(phone::PAID, 1600).await;
    let lives = json!({"status": "pending", "error_code": null});
    world
        .sandbox
        .set_invoice(invoice.as_i64().unwrap(), lives)
        .await;
    world.sandbox.session("active").await;
    // The only one that is made.
    world
        .sql("update apipay.accounts set probe_at = now()")
        .await;
    world.until(good, "succeeded").await;
    let row = world.job(copy).await;
    assert_eq!(row["reason"], "original_lives", "{row}");
    drop(daemon);
    // The original has failed, and lives.
    world.end_unchecked().await;
}
