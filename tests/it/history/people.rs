//! What people and their programs run: every view with its usual filters, every function.

use sqlx::{PgConnection, Row};

use super::{ALL, Case, FEW, Limit};

/// With the state as a literal, as a person writes it.
const FEW_AS_WRITTEN: Limit = Limit {
    only_custom: true,
    ..FEW
};

/// Statement, arguments, how much it may touch. Of the ids, {JOBS} and less are history.
const CASES: &[(&str, &str, Limit)] = &[
    ("select * from apipay.overview where id = $1", "1002", FEW),
    (
        "select * from apipay.overview where id = $1",
        "{JOBS} + 1051",
        FEW,
    ),
    (
        "select * from apipay.overview where external_order_id = $1",
        "'order-1002'",
        FEW,
    ),
    (
        "select * from apipay.overview where account = $1 and external_order_id = $2",
        "'branch-1', 'order-1002'",
        FEW,
    ),
    (
        "select * from apipay.overview where external_order_id = $1",
        "'no such order'",
        FEW,
    ),
    (
        "select * from apipay.overview where invoice_id = $1",
        "10001002",
        FEW,
    ),
    (
        "select * from apipay.overview where account = $1 and invoice_id = $2",
        "'branch-1', 10001002",
        FEW,
    ),
    (
        "select * from apipay.overview order by id desc limit 20",
        "",
        FEW,
    ),
    (
        "select * from apipay.overview where account = $1 order by id desc limit 20",
        "'branch-1'",
        FEW,
    ),
    (
        "select * from apipay.overview where account = $1 order by id desc limit 20",
        "'branch-500'",
        FEW,
    ),
    (
        "select * from apipay.overview where account = $1 order by id desc limit 20",
        "'default'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'queued'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'sending'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'uncertain'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'accepted'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'parked'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'held'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'succeeded'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = $1 order by id desc limit 20",
        "'failed'",
        FEW,
    ),
    (
        "select * from apipay.overview where state = 'held'",
        "",
        FEW,
    ),
    (
        "select * from apipay.overview where state in ('parked', 'held')",
        "",
        ALL,
    ),
    (
        "select * from apipay.overview where account = 'branch-1' and state = 'held'",
        "",
        FEW_AS_WRITTEN,
    ),
    (
        "select * from apipay.overview where account = 'branch-1' and state = 'queued' order by id desc limit 20",
        "",
        FEW_AS_WRITTEN,
    ),
    (
        "select * from apipay.overview where account = 'branch-1' and state = 'failed' order by id desc limit 20",
        "",
        FEW_AS_WRITTEN,
    ),
    (
        "select * from apipay.overview where account = 'branch-500' and state = 'held' order by id desc limit 20",
        "",
        FEW_AS_WRITTEN,
    ),
    ("select * from apipay.waiting", "", ALL),
    ("select * from apipay.waiting limit 20", "", ALL),
    (
        "select * from apipay._job_facts where (job).id = $1",
        "1002",
        FEW,
    ),
    (
        "select * from apipay.waiting where account = $1",
        "'branch-1'",
        FEW,
    ),
    (
        "select * from apipay.waiting where id = $1",
        "{JOBS} + 1051",
        FEW,
    ),
    (
        "select * from apipay.waiting order by created_at limit 20",
        "",
        ALL,
    ),
    (
        "select * from apipay.waiting order by id desc limit 20",
        "",
        ALL,
    ),
    (
        "select cause, count(*) from apipay.waiting group by 1",
        "",
        ALL,
    ),
    ("select * from apipay.uncertain", "", ALL),
    (
        "select * from apipay.uncertain where account = $1",
        "'branch-1'",
        FEW,
    ),
    (
        "select * from apipay.uncertain order by id desc limit 20",
        "",
        ALL,
    ),
    ("select * from apipay.parked", "", ALL),
    (
        "select * from apipay.parked where account = $1",
        "'branch-13'",
        FEW,
    ),
    (
        "select * from apipay.parked order by id desc limit 20",
        "",
        ALL,
    ),
    ("select * from apipay.account_status", "", ALL),
    (
        "select * from apipay.account_status where account = $1",
        "'branch-1'",
        FEW,
    ),
    // A day is one of 730: with 300,000 jobs some 400, half of them of the first branch.
    (
        "select * from apipay.daily where account = $1 and day >= current_date - 1",
        "'branch-500'",
        DAY,
    ),
    (
        "select * from apipay.daily where account = $1 and day = $2",
        "'branch-1', current_date - 100",
        DAY,
    ),
    (
        "select * from apipay.daily where day = $1",
        "current_date - 100",
        DAY,
    ),
    (
        "select account, day, jobs, amount from apipay.daily where day_of = 'paid' and day = $1",
        "current_date - 100",
        DAY,
    ),
    (
        "select * from apipay.daily where day > current_date - $1::int order by day",
        "2",
        DAY,
    ),
    (
        "select * from apipay.daily order by day desc limit 7",
        "",
        DAY,
    ),
    (
        "select * from apipay.daily where account = $1 order by day desc limit 7",
        "'branch-500'",
        DAY,
    ),
    ("select max(day) from apipay._days ", "", DAY),
    (
        "select id, state from apipay.jobs where dedup_key = $1",
        "'event-1002'",
        FEW,
    ),
    (
        "select id, state from apipay.jobs where account = $1 and dedup_key = $2",
        "'branch-1', 'event-1002'",
        FEW,
    ),
    (
        "select * from apipay.events where job_id = $1 order by id",
        "1002",
        FEW,
    ),
    (
        "select * from apipay.attempts where job_id = $1 order by epoch",
        "1002",
        FEW,
    ),
    (
        "select * from apipay.invoices where job_id = $1",
        "1002",
        FEW,
    ),
    (
        "select * from apipay.refunds where account = $1 and invoice_id = $2",
        "'branch-1', 10000130",
        FEW,
    ),
    (
        "select * from apipay.alerts where resolved_at is null",
        "",
        ALL,
    ),
    // Functions.
    (
        "select apipay.create_invoice('87010000000', $1, external_order_id => $2, account => $3, dedup_key => $4)",
        "1002, 'order-2', 'branch-1', 'event-2'",
        FEW,
    ),
    (
        "select apipay.create_invoice('87010000000', $1, account => $2, dedup_key => $3)",
        "1000, 'branch-1', 'a new event'",
        FEW,
    ),
    (
        "select apipay.cancel_invoice($1, account => $2, dedup_key => $3)",
        "10001002, 'branch-1', 'another new event'",
        FEW,
    ),
    (
        "select apipay.refund_invoice($1, $2, account => $3)",
        "10001002, 10, 'branch-1'",
        FEW,
    ),
    ("select apipay.retry($1, 'why')", "24", FEW),
    ("select apipay.retry($1, 'why')", "{JOBS} + 1012", FEW),
    ("select apipay.retry($1, 'why')", "{JOBS} + 1061", FEW),
    ("select apipay.cancel($1, 'why')", "{JOBS} + 1061", FEW),
    (
        "select * from apipay.cancel_jobs($1, 'why')",
        "array[24, {JOBS} + 1012, {JOBS} + 1061]",
        FEW,
    ),
    (
        "select * from apipay.retry_jobs($1, 'why')",
        "array[24, {JOBS} + 1012, {JOBS} + 1061]",
        FEW,
    ),
    (
        "select apipay.resolve($1, false, null, 'why')",
        "{JOBS} + 1051",
        FEW,
    ),
    (
        "select apipay.resolve($1, true, $2, 'why')",
        "{JOBS} + 1051, 40000000",
        FEW,
    ),
    (
        "select apipay.resolve($1, true, $2, 'why')",
        "{JOBS} + 1031, 40000000",
        FEW,
    ),
    ("select apipay.park($1, 'why')", "'branch-1'", FEW),
    ("select apipay.park($1, 'why')", "'branch-13'", FEW),
    ("select apipay.resume($1, 'why')", "'branch-13'", FEW),
    ("select apipay.resume($1, 'why')", "'branch-1'", FEW),
    ("select apipay.stop('why')", "", FEW),
    ("select apipay.start('why')", "", FEW),
    (
        "select apipay.acknowledge(id, 'why') from apipay.alerts where account = $1 and kind = $2 and resolved_at is null",
        "'branch-13', 'account_parked'",
        FEW,
    ),
];

/// The jobs of a few days of two years.
const DAY: Limit = Limit {
    rows: 0,
    pages: 0,
    only_custom: false,
};

pub(super) fn cases() -> Vec<Case> {
    let of_days = super::finished_jobs() / 730 * 3;
    let case = |(sql, arguments, limit): &(&str, &str, Limit)| {
        let mut limit = *limit;
        if limit.rows == 0 {
            // A job of a day, its invoice or refund, and these by the day on which they were paid or made; what is
            // under way; and a step from each day with one of the three to the next.
            limit.rows = of_days * 3 + 600 + 2 * 731;
            limit.pages = limit.rows * 8;
        }
        Case {
            name: format!("{sql} ({arguments})"),
            sql: (*sql).to_owned(),
            arguments: (*arguments).to_owned(),
            limit,
        }
    };
    CASES.iter().map(case).collect()
}

/// The views and public functions that no case runs.
pub(super) async fn without_a_case(session: &mut PgConnection, cases: &[Case]) -> Vec<String> {
    let names = sqlx::raw_sql(
        "select 'apipay.' || viewname || ' ' as name from pg_catalog.pg_views where schemaname = 'apipay'
         union
         select 'apipay.' || proname || '(' from pg_catalog.pg_proc
          where pronamespace = 'apipay'::regnamespace and proname not like '\\_%'",
    )
    .fetch_all(session)
    .await
    .unwrap();
    let names = names.into_iter().map(|row| row.get::<String, _>("name"));
    names
        .filter(|name| {
            let mut statements = cases.iter().map(|case| format!("{} ", case.sql));
            !statements.any(|sql| sql.contains(name))
        })
        .map(|name| format!("{name} has no case in tests/it/history/people.rs"))
        .collect()
}
