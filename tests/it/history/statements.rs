//! The statements of the daemon: what `.sqlx` describes, and what the macros do not check.

use std::path::Path;

use serde_json::Value;

use super::{ALL, Case, FEW, Limit};
use crate::world::ROOT;

/// A piece of the statement that no other has, or the whole of it after a `=`; its arguments, and how much it
/// may touch.
const CASES: &[(&str, &str, Limit)] = &[
    // accounts
    (
        "insert into apipay.accounts (name, requests_per_minute)",
        "'branch-1', 60, '1s'",
        FEW,
    ),
    ("extract(epoch from now() - resumed_at)", "", ALL),
    (
        "set blocked_until = now()",
        "'branch-1', 60, 'request_rate_limited', '1s', 'Busy'",
        FEW,
    ),
    (
        "set capped_until = now() + make_interval(secs => $2), capped_reason",
        "'branch-1', 60, 'tariff_limit_reached', 'It is.', '{invoice.create}', '1s'",
        FEW,
    ),
    ("select probes from apipay.accounts", "'branch-13'", FEW),
    (
        "set doubted_since = null, probes = 0",
        "'branch-1', '1s'",
        FEW,
    ),
    ("set probe_at = least(probe_at, now())", "{ACCOUNTS}", ALL),
    (
        "select apipay._park(",
        "'branch-1', 'session_expired', 60, 'It is.', 'Look.', '{}', 'The session is over.', 'Sign in.', '1s', null, null, null, null",
        FEW,
    ),
    (
        "select apipay._learn_of_park(",
        "'branch-13', 'key_rejected', 'It is.', 'Look.', '{}', null, 'Write the new key.', '1s', null, null, null",
        FEW,
    ),
    ("parked_job = null, parked_job_remedy", "'branch-13'", ALL),
    (
        "select apipay._resume(",
        "'branch-13', 'It is over.', '1s', 60",
        FEW,
    ),
    (
        "set probe_at = now() + make_interval(secs => $2), probes",
        "{ACCOUNTS}, 60",
        ALL,
    ),
    (
        "set probe_at = now() + make_interval(secs => $2), trial_from",
        "'branch-13', 60, '1s', 60, true, 1",
        FEW,
    ),
    (
        "select apipay._delivered(",
        "'branch-13', now(), 'It is delivered.', '1s', 60",
        FEW,
    ),
    (
        "set mode = coalesce(mode, $2)",
        "'branch-1', 'live', 100001, '1s'",
        FEW,
    ),
    ("jsonb_populate_record(c,", "{ACCOUNTS}", ALL),
    // outage
    (
        r#"refused_since, least(now(), clock_timestamp()) as "now!""#,
        "'branch-2'",
        FEW,
    ),
    (
        "select account, kind, failing_since, code",
        "{ACCOUNTS}",
        ALL,
    ),
    (
        "stored as (\n  update apipay.accounts",
        "'branch-2', '2026-01-01 00:00Z', 5, '2026-01-01 01:00Z', null, null, null, null, null, null, null, 0, null, null, true, '1s'",
        FEW,
    ),
    (
        "insert into apipay._reads",
        "'branch-2', 'check', '2026-01-01 00:00Z', 2, null, null, null, null, null, null, null, 0, null, null, '1s'",
        FEW,
    ),
    (
        "-- Has jobs go on whose account got a clear answer after all",
        "array[{JOBS} + 1021], '{network}', '{lookup_unclear}'",
        FEW,
    ),
    (
        "-- Jobs that failed last with all others",
        "500, '{}', '', '{network}', '{lookup_unclear}'",
        ALL,
    ),
    ("j.failing_since <= a.answered_at", "500, '{}', ''", ALL),
    (
        "-- Has jobs go on before their time",
        "array[{JOBS} + 1021], '{network}', '{lookup_unclear}'",
        FEW,
    ),
    // troubled
    (
        "-- Accounts of whose requests people are or must be told",
        "{ACCOUNTS}, 155, '{stopping}', 10000, now()",
        ALL,
    ),
    (
        "l.details -> 'fails' is distinct from",
        "'branch-2', 'gateway_failing', 'It is.', 'Look.', '{}', '1s'",
        FEW,
    ),
    // refused
    ("-> 'jobs') as k", "{ACCOUNTS}, 'job_refused'", ALL),
    (
        "-- Jobs that the gateway has refused again and again",
        "{ACCOUNTS}, array[{JOBS} + 1021], 5, 155, 10000, now()",
        ALL,
    ),
    // unserved
    ("' ', 1) = l.account", "'{gateway_failing}', 60", ALL),
    (
        "f.kind = any ($1) and f.account = any ($2)",
        "'{gateway_failing,job_refused}', {ACCOUNTS}, 'It is over.', '1s'",
        ALL,
    ),
    // alerts
    (
        "apipay._open_alert($1, $2, $3, $4, $5, $6, $7) as \"id?\"",
        "'branch-1', 'mode_mismatch', 'critical', 'It is.', 'Look.', '{}', '', '1s'",
        FEW,
    ),
    (
        "apipay._change_alert($1, $2, $3, $4, $5, $6) as",
        "'branch-13', 'account_parked', 'It is.', 'Look.', '{}', '', '1s'",
        FEW,
    ),
    (
        "apipay._tell_held($1, $2,",
        r#"'branch-1', 'job_held', 'critical', 'It is.', 'Look.', '{"job": 7}', '1s'"#,
        FEW,
    ),
    (
        "apipay._tell_stuck(",
        r#"'branch-1', 'critical', 'It is.', 'Look.', '{"job": 7, "case": "P0001"}', false, '1s'"#,
        FEW,
    ),
    // held
    ("apipay._told_held(a.name)", "", ALL),
    ("shown.since is distinct from l.details", "", ALL),
    (
        "apipay._tell_held($1, $3,",
        r#"'branch-1', 7, 'job_held', 'It is.', 'Look.', '{"job": 7}', '1s'"#,
        FEW,
    ),
    // alerts
    ("a.parked_message as said, a.parked_remedy", "", ALL),
    ("apipay._all_changed('apipay.alerts', 1, 0)", "", FEW),
    ("'the job is not held any more'", "3600, 60, 3600", ALL),
    (
        "l.details ->> 'blocker' as blocker",
        "array[{JOBS} + 1021], '{null}'",
        ALL,
    ),
    ("interval '1 hour') l", "'{log,webhook}', 14400, '1s'", ALL),
    ("set tries = d.tries + 1", "'webhook', 60", ALL),
    ("set delivered_at = now()", "10, '1s', 30", FEW),
    ("last_error = $3", "10, 60, 'refused', '1s'", FEW),
    (
        "apipay._resolve_alert($1, $2, $3, $4)",
        "'branch-13', 'account_parked', 'It is over.', '', '1s'",
        FEW,
    ),
    ("with touched as materialized", "{ACCOUNTS}", ALL),
    ("free_invoices as materialized", "{ACCOUNTS}, 15, 100", ALL),
    // among
    (
        "as k(id, version)",
        "array[{JOBS}, {JOBS} + 1021], '{1,2}', '{queued}'",
        FEW,
    ),
    // claim
    (
        "slots as (",
        "'{WORKER}', 30, {ACCOUNTS}, array_fill(5, array[1000]), 100, 1800000000, '{}', null, '1s'",
        ALL,
    ),
    (
        "'sending', reason = 'probe'",
        "'{WORKER}', 30, 'branch-13', '{}', array[{JOBS} + 13061], '1s'",
        FEW,
    ),
    (
        "-- The jobs that a probe of a parked account may let through",
        "'branch-13', '{invoice.create}', '{}', '{}'",
        FEW,
    ),
    (
        "lookups = j.lookups + 1",
        "'{WORKER}', {ACCOUNTS}, array_fill(20, array[1000]), 60, 1800000000, '{}', null, 3600, 40, '1s'",
        ALL,
    ),
    (
        "-- Claims one due job for each account that has slowed down",
        "'{WORKER}', 30, {ACCOUNTS}, 100, 1800000000, 3600, '{}', null, 40, '1s'",
        ALL,
    ),
    (
        "set baseline = coalesce(baseline, $3)",
        "{JOBS} + 1021, 1, '[]', 30, '{TOKEN}', 'branch-1', '{WORKER}', '1s'",
        FEW,
    ),
    (
        "select apipay._take_quota($1, 1, $2, $3)",
        "'branch-1', 'lookup', 1800000000",
        FEW,
    ),
    // bounds
    (
        "update apipay.refunds m\n            set next_check_at = now() + random()",
        "3600, 500, now()",
        ALL,
    ),
    (
        "update apipay.invoices m\n            set next_check_at = now() + random()",
        "3600, 500, now()",
        ALL,
    ),
    (
        "set run_at = apipay._at_most(run_at, now()",
        "3600, 600, 60, 500, now()",
        ALL,
    ),
    (
        "set quiet_until = now() + make_interval(secs => $1)",
        "3600, 500, now()",
        ALL,
    ),
    (
        "set run_at = now() + make_interval(secs => case reason",
        "3600, 600, 60, 500, now()",
        ALL,
    ),
    ("b.probe_at > now()", "'{cap}', 3600, 60, 600, now()", ALL),
    (
        "set leased_until = now() + make_interval(secs => $1)",
        "3600, 500, now()",
        ALL,
    ),
    (
        "kind = 'clock_jumped' and resolved_at is null",
        "1800000000, 60",
        ALL,
    ),
    ("update apipay.alerts set opened_at = now()", "now()", ALL),
    // single rows
    ("where $2 = 'send'", "{ACCOUNTS}, 'send', '{}', 20", ALL),
    ("select distinct d.id as", "{ACCOUNTS}, 30, 5", ALL),
    ("with marked as materialized", "array[{JOBS} + 1021]", FEW),
    (
        r#"l.transactionid::text as "transaction!""#,
        "'apipayd'",
        FEW,
    ),
    ("select apipay._params_alone(params)", "{JOBS} + 1011", FEW),
    // what blocks, what is due to move
    (
        "select xmax as transaction from apipay.jobs",
        "{JOBS} + 1021, 1, 'branch-1', '{40000000}', 50000000",
        ALL,
    ),
    (
        "free as materialized (\n             select j.id from patience",
        "array[{JOBS} + 1021], '1s'",
        FEW,
    ),
    ("-- Parked jobs whose account is", "500, '{}', ''", ALL),
    ("order by leased_until limit $1", "500, '{}'", ALL),
    ("-- Queued jobs that are past", "500, '{}', '', now()", ALL),
    (
        "l.details -> 'accounts' ?|",
        "'a host', {ACCOUNTS}, '{WORKER}'",
        FEW,
    ),
    ("_open_alert(name", "'branch-1', '', '', '{}', '1s'", FEW),
    (
        "apipay._open_alert($1, $2, $3, $4, $5, $6, $7) as id from",
        "'branch-1', 'invoice_revived', 'critical', 'It is.', 'Look.', '{}', 'invoice 7', '1s'",
        FEW,
    ),
    (
        "select kind, summary, action, count(*) over ()",
        "{ACCOUNTS}, 20",
        FEW,
    ),
    ("l.details ->> 'kept_until'", "60, 60, '1s'", FEW),
    (
        "others.jobs > 0 then format",
        "{ACCOUNTS}, 72000, 1000, '1s'",
        ALL,
    ),
    (
        "besides those that are told one by one",
        "{ACCOUNTS}, 1000, 300, '1s'",
        ALL,
    ),
    (
        "as \"is_waiting!\"",
        "'branch-1', 60, 10000, 'no_progress'",
        FEW,
    ),
    // locks
    (
        "select (select count(*) from quota)",
        "'jobs', 'branch-1', {JOBS} + 1021, '1s'",
        FEW,
    ),
    ("bool_and(l.granted) as granted", "", FEW),
    (
        "select q.tableoid as relation",
        "'jobs', 'branch-1', {JOBS} + 1021",
        FEW,
    ),
    ("r.relation = $1::text::regclass::oid", "'apipay.jobs'", FEW),
    (
        "count(*) filter (where not m.is_marked",
        "{ACCOUNTS}, 500, 11",
        ALL,
    ),
    ("select pg_blocking_pids($1) as pids", "4711", FEW),
    (
        "select distinct virtualtransaction, pid from locks",
        "array['3/4711', '-1/4711'], 'apipayd'",
        FEW,
    ),
    // missing
    (
        "jsonb_each_text(l.details -> 'refunds') t (id, shown)",
        "'branch-1'",
        FEW,
    ),
    // originals
    ("with recursive original as", "1002, 100, 100", FEW),
    // given_back
    ("s(id, mark)", "'branch-1', 30001001, '{1}', '{null}'", FEW),
    // revived
    ("o.status as \"other_status?\"", "1002, 30001001", FEW),
    ("k.id = i.job_id and k.token = i.job_token", "", ALL),
    // clock
    (
        "corrected as (",
        "0, 1, 1, 30, 'It jumped.', 'Look.', '{}', '1s'",
        ALL,
    ),
    ("where b.boot = $1", "'a boot'", FEW),
    ("insert into apipay._clocks as b", "'a boot', 1, '1s'", FEW),
    (
        "insert into apipay._clocks (boot, ahead_us)",
        "'a boot', 1, '1s'",
        FEW,
    ),
    ("missed as materialized (", "1, '{}', null", ALL),
    // health
    (
        "(values ('queued'), ('uncertain'), ('parked'), ('held')) as s(state)",
        "{ACCOUNTS}, 10",
        ALL,
    ),
    (
        "concat(nullif(count(*), 1)",
        "'00000000-0000-0000-0000-000000000000'",
        FEW,
    ),
    ("'server_version_num'", "", FEW),
    ("has_table_privilege", "'postgres'", FEW),
    ("apipay._missing_roles()", "", FEW),
    ("apipay._is_notifying()", "", FEW),
    // progress
    (
        "renewed as (",
        "'branch-1', 'no_progress', 'critical', 'It is.', 'Look.', 60, '{}', '{log}', 0, '1s', ''",
        FEW,
    ),
    ("-- What is due and should be moving", "60, '{}', '{}'", ALL),
    (
        "id = any ($2) and not settled",
        "'branch-1', '{30001001}', '{40001001}', '1s', 5",
        FEW,
    ),
    (
        "array(select jsonb_array_elements_text(l.",
        "'stuck', 60",
        ALL,
    ),
    ("apipay._sequences_behind()", "", FEW),
    ("extract(epoch from now() - changed_at)", "", FEW),
    ("array_agg(d.last_error order by d.id)", "true", ALL),
    (r#"=select current_user::text as "user!""#, "", FEW),
    ("pg_event_trigger", "", FEW),
    ("apipay._end_check(", "'branch-1', 60", FEW),
    ("row_security_active", "", FEW),
    ("apipay._recall()", "'1s'", ALL),
    ("apipay._recall_park(", "'branch-1', '1s'", FEW),
    ("t.tgtype & 3 = 3", "", FEW),
    (
        "apipay._announce(",
        "'{WORKER}', 'host', '0.1.0', {ACCOUNTS}, {ACCOUNTS}",
        ALL,
    ),
    ("apipay._leave(", "'{WORKER}'", FEW),
    // organization
    ("name as account, key_fingerprints", "{ACCOUNTS}", ALL),
    ("select given.name from patience", "{ACCOUNTS}, '1s'", ALL),
    ("for share of q skip locked", "{ACCOUNTS}, '1s'", ALL),
    (
        "apipay._serving(a.name, $2) as served_on",
        "'branch-1', '{WORKER}', 100",
        ALL,
    ),
    (
        "set key_fingerprints = $3",
        "'branch-1', null, '{0123456789abcdef}', '{WORKER}', '1s'",
        FEW,
    ),
    (
        "from ((select amount from apipay.jobs",
        "'branch-1', 10000, true, true",
        ALL,
    ),
    ("from (select w.amount", "{ACCOUNTS}, 10000", ALL),
    // listen, migrate
    ("select to_regclass(", "", FEW),
    ("select version, checksum from apipay._migrations", "", FEW),
    ("select current_setting('server_encoding')", "", FEW),
    ("select pg_backend_pid()", "", FEW),
    ("select to_regnamespace('apipay') is not null", "", FEW),
    ("select apipay._grant_roles()", "", FEW),
    ("-- What the schema apipay is made of", "", FEW),
    ("select n.nspowner::regrole::text", "", FEW),
    ("is not distinct from s.value", "'{jit}', '{off}'", FEW),
    // soundness
    ("with ours (class, id)", "", FEW),
    // mirrors
    (
        "where $2 and m.account = a.name",
        "{ACCOUNTS}, false, '{}'",
        ALL,
    ),
    (
        "select apipay._take_check($1",
        "'branch-1', 60, 1800000000",
        FEW,
    ),
    ("job_token = $2", "1002, null, 'branch-1', 100", FEW),
    ("set others_unsought = false", "'branch-1', 1", FEW),
    (
        "from apipay.invoices m\n    where m.account = a.name",
        "{ACCOUNTS}, 100, 100, 60, 1800000000, '{}', null, '1s'",
        ALL,
    ),
    (
        "from apipay.refunds m\n    where m.account = a.name",
        "{ACCOUNTS}, 100, 60, 1800000000, '{}', null, '1s'",
        ALL,
    ),
    // record
    (
        "transition as materialized",
        r#"'[{"job_id": {SENDING}, "token": "{TOKEN}", "account": "branch-1", "worker": "00000000-0000-0000-0000-000000000000", "epoch": 1, "from_state": "sending", "kind": "send", "effect": "applied", "state": "accepted", "invoice_id": 40000000}]',
           '[{"account": "branch-1", "id": 40000000, "job_id": {SENDING}, "token": "{TOKEN}", "status": "processing", "check_after_s": 1, "settled": false}, {"account": "branch-1", "id": 40000001, "marked_token": "{TOKEN}", "marked_generation": 1, "status": "paid", "check_after_s": 1, "settled": true}]',
           '[{"account": "branch-1", "id": 50000000, "job_id": {SENDING}, "token": "{TOKEN}", "invoice_id": 40000000, "status": "pending", "check_after_s": 1, "settled": false}]', '1s'"#,
        FEW,
    ),
    (
        "e.evidence ->> 'epoch'",
        "array[1002, 2002], array[1, 1], '{{TOKEN},{TOKEN}}', '{branch-1,branch-1}', '{{WORKER},{WORKER}}', '{sending,sending}', '{accepted,succeeded}'",
        FEW,
    ),
    (
        "apipay._return_quota(",
        "'branch-1', '{1799999990,1800000000}', 1800000000, '1s'",
        FEW,
    ),
    (
        "apipay._correct_quota(",
        "'branch-1', 60, 10, 1800000000, '1s'",
        FEW,
    ),
    // recover
    (
        "where id = any ($2::bigint[]) and state = 'sending'",
        "60, array[{JOBS} + 1021]",
        ALL,
    ),
    (
        "where kind = 'send' and finished_at is null) t",
        "500, '{}'",
        ALL,
    ),
    (
        "where id = any ($2::bigint[]) and state <> 'sending'",
        "60, array[{JOBS} + 1021]",
        ALL,
    ),
    ("-- Jobs that waited for the end", "500, '{}', ''", ALL),
    ("'expired_unproven'", "array[{JOBS} + 1013]", ALL),
    ("reason = 'resumed'", "array[{JOBS} + 1061]", ALL),
    (
        "-- The invoices that have refunds which wait",
        "'', 0, 500, '{}'",
        ALL,
    ),
    (
        "-- Accepted jobs whose object is not followed",
        "'', 0, 500, '{}', '{kaspi_session_expired}', 138",
        ALL,
    ),
    (
        "-- Has the objects of accepted jobs asked about again",
        "array[{JOBS} + 1021], '1s', '{kaspi_session_expired}', 138",
        FEW,
    ),
    (
        "set reason = null",
        "array[{JOBS} + 200012, {JOBS} + 200022]",
        FEW,
    ),
];

/// Every statement, with its case. One without a case, or with two, ends the test: it is named.
pub(super) fn cases() -> Vec<Case> {
    let jobs = super::finished_jobs();
    let names: Vec<String> = (1..=1000).map(|n| format!("branch-{n}")).collect();
    let accounts = format!("'{{{}}}'", names.join(","));
    let statements = [described(), unchecked()].concat();
    let has_statement = |piece: &str| statements.iter().any(|statement| fits(piece, statement));
    let gone: Vec<&str> = CASES
        .iter()
        .map(|(piece, ..)| *piece)
        .filter(|piece| !has_statement(piece))
        .collect();
    let has_one_case =
        |sql: &String| CASES.iter().filter(|(piece, ..)| fits(piece, sql)).count() == 1;
    let new: Vec<&String> = statements.iter().filter(|sql| !has_one_case(sql)).collect();
    assert!(
        gone.is_empty() && new.is_empty(),
        "tests/it/history/statements.rs: no statement has these pieces any more: {gone:?}; these need one case: {new:#?}"
    );
    let case = |sql: String| {
        let mut fitting = CASES.iter().filter(|(piece, ..)| fits(piece, &sql));
        let (Some((piece, arguments, limit)), None) = (fitting.next(), fitting.next()) else {
            panic!("this statement needs one case in tests/it/history/statements.rs:\n{sql}");
        };
        Case {
            name: (*piece).to_owned(),
            arguments: arguments
                .replace("{ACCOUNTS}", &accounts)
                .replace("{WORKER}", "00000000-0000-0000-0000-000000000001")
                .replace("{TOKEN}", "00000000-0000-0000-0000-00000000000f")
                .replace("{SENDING}", &(jobs + 1021).to_string()),
            limit: *limit,
            sql,
        }
    };
    statements.into_iter().map(case).collect()
}

fn fits(piece: &str, statement: &str) -> bool {
    match piece.strip_prefix('=') {
        Some(whole) => statement == whole,
        None => statement.contains(piece),
    }
}

/// What the macros have checked.
fn described() -> Vec<String> {
    let files = std::fs::read_dir(Path::new(ROOT).join(".sqlx")).unwrap();
    let statements = files.map(|file| {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        let description: Value = serde_json::from_str(&text).unwrap();
        description["query"].as_str().unwrap().to_owned()
    });
    statements.collect()
}

/// What stands in `sqlx::query…(…)`, which no macro checks: tables that only sqlx makes, and the catalog.
fn unchecked() -> Vec<String> {
    let folder = Path::new(ROOT).join("src/db");
    let mut statements = Vec::new();
    for file in std::fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        for call in text.split("sqlx::query").skip(1) {
            if call.trim_start_matches(is_of_a_name).starts_with('!') {
                continue;
            }
            let argument = call.split_once('(').unwrap().1.trim_start();
            let literal = |text: &str| text.split('"').next().unwrap().to_owned();
            if let Some(text) = argument.strip_prefix('"') {
                statements.push(literal(text));
            } else if let Some(name) = argument.strip_prefix("include_str!(\"") {
                let text = std::fs::read_to_string(folder.join(literal(name)));
                statements.push(text.unwrap());
            } else {
                // Put together for the version of the server: of the catalog's collations.
                assert!(
                    path.ends_with("soundness.rs"),
                    "{}: {argument:.80}",
                    path.display()
                );
            }
        }
    }
    statements
}

fn is_of_a_name(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
