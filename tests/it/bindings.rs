//! Names: whoever may create things in the database is called by nothing of ours, at migration or later,
//! and what is made is open to nobody but whom the schema names.

use std::borrow::Cow;
use std::time::Duration;

use serde_json::Value;
use sqlx::migrate::{Migration, Migrator};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use crate::world::{Cluster, Database, Wish, World, phone};

const PIN: &str = "set search_path = pg_catalog, pg_temp;";

/// What an intruder makes in `public` to be called in the place of what Postgres has: whoever calls it fails.
const TRAPS: &str = r"
create function public.trap() returns void language plpgsql as
  $$ begin raise exception 'the intruder was called by %', current_user; end $$;
do $$
declare
  trapped record;
begin
  -- The very signatures, which a search path that has public first prefers …
  for trapped in
    select p.proname, pg_get_function_identity_arguments(p.oid) as arguments, pg_get_function_result(p.oid) as result
    from pg_catalog.pg_proc p
    where p.pronamespace operator(pg_catalog.=) 'pg_catalog'::pg_catalog.regnamespace and p.prokind operator(pg_catalog.=) 'f'
      and not p.proretset
      and p.proname operator(pg_catalog.=) any (array['now', 'clock_timestamp', 'gen_random_uuid', 'length', 'left', 'round', 'trunc',
        'trim_scale', 'regexp_replace', 'substring', 'array_to_string', 'jsonb_typeof', 'jsonb_strip_nulls', 'jsonb_array_length',
        'current_setting', 'set_config', 'pg_notify', 'to_char', 'isfinite', 'date_trunc', 'make_interval', 'array_length',
        'to_regclass', 'to_regrole', 'abs', 'floor']::pg_catalog.name[])
      and p.provariadic operator(pg_catalog.=) 0::pg_catalog.oid
      and not ('internal'::pg_catalog.regtype operator(pg_catalog.=) any (p.proargtypes))
      and p.prorettype operator(pg_catalog.<>) all (array['pg_catalog.anyelement', 'pg_catalog.anyarray']::pg_catalog.regtype[])
  loop
    execute pg_catalog.format('create function public.%I(%s) returns %s language plpgsql as
      $f$ begin perform public.trap(); %s end $f$', trapped.proname, trapped.arguments, trapped.result,
      case trapped.result when 'void' then '' else 'return null;' end);
  end loop;
end $$;
-- … and better ones than a function of any type of arguments, which every search path prefers.
create function public.format(text, bigint) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.format(text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.format(text, text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.concat(text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.concat(text, text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.concat(text, bigint, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.concat_ws(text, text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.jsonb_build_object(text, bigint) returns jsonb language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.texts(text, text) returns text language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.equal(text, text) returns boolean language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.of_json(jsonb, text) returns jsonb language plpgsql as $$ begin perform public.trap(); return null; end $$;
create function public.in_json(jsonb, text) returns boolean language plpgsql as $$ begin perform public.trap(); return null; end $$;
create operator public.|| (function = public.texts, leftarg = text, rightarg = text);
create operator public.= (function = public.equal, leftarg = text, rightarg = text);
create operator public.<> (function = public.equal, leftarg = text, rightarg = text);
create operator public.~ (function = public.equal, leftarg = text, rightarg = text);
create operator public.-> (function = public.of_json, leftarg = jsonb, rightarg = text);
create operator public.? (function = public.in_json, leftarg = jsonb, rightarg = text);
create table public.pg_roles (); create table public.pg_proc (); create table public.pg_class ();
create domain public.timestamptz as pg_catalog.text;
create domain public.jobs as pg_catalog.text;
";

/// The same for a session: relations and types are looked up there before all others, unless it is named last.
const TEMPORARY_TRAPS: &str = "
create temporary table pg_roles (); create temporary table pg_class (); create temporary table jobs ();
create domain pg_temp.text as pg_catalog.int4; create domain pg_temp.jsonb as pg_catalog.int4;
create function pg_temp.now() returns timestamptz language sql as 'select null::timestamptz';
";

async fn on_empty() -> World {
    let database = Database::empty(Cluster::shared().await).await;
    World::on(database, Wish::default()).await
}

async fn ended(world: &World, command: &str, code: i32) -> String {
    let mut daemon = world.spawn(&[command], &[]);
    let status = daemon.ended(Duration::from_secs(30)).await;
    let said = daemon.log_text();
    assert_eq!(status.code(), Some(code), "{command}: {said}");
    said
}

/// As a role without any right but to create things in `public`.
async fn intrude(world: &World, statements: &str) {
    let role = format!("intruder_{}", world.database.name);
    world
        .sql(&format!(
            "create role {role} nologin; grant create on schema public to {role}"
        ))
        .await;
    world
        .sql(&format!("set role {role}; {statements}; reset role"))
        .await;
}

async fn outside_bindings(world: &World) -> Vec<Value> {
    world
        .rows(include_str!("../../src/db/outside_bindings.sql"))
        .await
}

/// A session with the database's own defaults, and everything of its own in the way.
async fn session_of(world: &World, role: &str) -> PgConnection {
    let options = world.database.cluster.options(&world.database.name);
    let mut session = PgConnection::connect_with(&options).await.unwrap();
    // The hostile search path stays. Limits of time are another test's, and so is compiling a view for minutes.
    let calm = "set statement_timeout = 0; set idle_session_timeout = 0; set lock_timeout = 0; set row_security = on; set jit = off;";
    execute(
        &mut session,
        &format!("{calm} {TEMPORARY_TRAPS} set role {role}"),
    )
    .await;
    session
}

/// The hostile defaults make it serializable: beside a daemon that writes the same row, whoever asks for that asks again.
async fn execute(session: &mut PgConnection, statement: &str) {
    for _ in 0..20 {
        let done = sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
            .execute(&mut *session)
            .await;
        match done {
            Ok(_) => return,
            Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some("40001") => {}
            Err(error) => panic!("{statement}: {error}"),
        }
    }
    panic!("{statement}: could not be serialized twenty times");
}

#[tokio::test]
async fn nothing_of_an_intruders_is_bound_by_a_migration_or_called_later() {
    let world = on_empty().await;
    intrude(&world, TRAPS).await;
    ended(&world, "migrate", 0).await;
    assert_eq!(outside_bindings(&world).await, Vec::<Value>::new());
    let said = ended(&world, "check", 0).await;
    assert!(said.contains("ok       bindings"), "{said}");

    let mut enqueuer = session_of(&world, "apipay_enqueuer").await;
    for statement in [
        "select apipay.create_invoice('87000000001', 100, dedup_key => 'a')",
        "select apipay.create_invoice('87000000001', 100, dedup_key => 'a')",
        "select apipay.create_invoice('87000000003', cart_items => '[{\"catalog_item_id\": 1, \"count\": 1}]')",
        "insert into apipay.jobs (operation, params) values ('invoice.create', '{\"phone_number\": \"1\"}')",
        "insert into apipay.jobs (operation, params) values ('invoice.create', '{\"phone_number\": \"87000000001\", \"amount\": 5}')",
        "select apipay.cancel_invoice(7)",
        "select apipay.refund_invoice(7, 100, 'why')",
    ] {
        execute(&mut enqueuer, statement).await;
    }
    let daemon = world.daemon().await;
    world.until_all_final().await;
    for role in ["apipay_auditor", "apipay_operator"] {
        let mut reader = session_of(&world, role).await;
        for view in [
            "overview",
            "waiting",
            "uncertain",
            "parked",
            "daily",
            "account_status",
        ] {
            execute(&mut reader, &format!("select * from apipay.{view}")).await;
        }
        reader.close().await.unwrap();
    }
    let mut operator = session_of(&world, "apipay_operator").await;
    for statement in [
        "select apipay.park('default', 'drill')",
        "select apipay.resume('default', 'drill')",
        "select apipay.stop('drill')",
        "select apipay.start('drill')",
        // The database's default isolation shows an old state, which it refuses.
        "begin isolation level read committed; select apipay.retry(4, 'drill'); commit",
    ] {
        execute(&mut operator, statement).await;
    }
    world.until_all_final().await;
    assert!(!world.said().contains("intruder"), "{}", world.said());
    operator.close().await.unwrap();
    enqueuer.close().await.unwrap();
    world.end([daemon]).await;
}

/// As an earlier version did it, without a word of where names are looked up.
async fn migrate_unpinned(world: &World) {
    let all = sqlx::migrate!();
    let unpinned = all.iter().map(|it| {
        let text = it.sql.as_str();
        assert!(
            text.contains(PIN),
            "{} does not begin with its search path",
            it.version
        );
        let text = AssertSqlSafe(text.replace(PIN, ""));
        Migration::new(
            it.version,
            it.description.clone(),
            it.migration_type,
            sqlx::SqlSafeStr::into_sql_str(text),
            false,
        )
    });
    let mut migrator = Migrator {
        migrations: Cow::Owned(unpinned.collect()),
        ..Migrator::DEFAULT
    };
    migrator.create_schema("apipay");
    migrator.dangerous_set_table_name("apipay._migrations");
    migrator.run(world.pool()).await.unwrap();
    // What is told here is not that the texts differ.
    for migration in all.iter() {
        sqlx::query("update apipay._migrations set checksum = $1 where version = $2")
            .bind(&*migration.checksum)
            .bind(migration.version)
            .execute(world.pool())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn what_an_earlier_migration_bound_is_told_and_mended_by_what_is_told() {
    let world = on_empty().await;
    intrude(
        &world,
        "create function public.format(text, bigint) returns text language plpgsql as $$ begin raise exception 'the intruder was called'; end $$;
         create function public.concat(text, text, text) returns text language plpgsql as $$ begin raise exception 'the intruder was called'; end $$",
    )
    .await;
    migrate_unpinned(&world).await;
    let bound = outside_bindings(&world).await;
    assert!(bound.len() >= 5, "{bound:?}");
    let said = ended(&world, "check", 1).await;
    let (_, advice) = said.split_once("the schema's owner runs: ").unwrap();
    let advice = advice.lines().next().unwrap();
    world.sql(advice).await;
    assert_eq!(outside_bindings(&world).await, Vec::<Value>::new());
    let said = ended(&world, "check", 0).await;
    assert!(said.contains("ok       bindings"), "{said}");

    let daemon = world.daemon().await;
    let job = world.bill(phone::PAID, 100).await;
    world.until(job, "succeeded").await;
    let explained = world.rows("select explain from apipay.overview").await;
    assert!(
        explained[0]["explain"]
            .as_str()
            .unwrap()
            .contains("Invoice")
    );
    world.end([daemon]).await;
}

#[tokio::test]
async fn a_schema_that_somebody_else_made_is_not_filled() {
    let world = on_empty().await;
    let role = format!("intruder_{}", world.database.name);
    world
        .sql(&format!(
            "create role {role} nologin; create schema apipay authorization {role}"
        ))
        .await;
    let said = ended(&world, "migrate", 1).await;
    assert!(said.contains("there is a schema apipay already"), "{said}");
    assert!(said.contains(&role), "{said}");
    // Its own, but with something in it.
    world
        .sql("alter schema apipay owner to current_user; create function apipay._tenge(int) returns text language sql return '1'")
        .await;
    ended(&world, "migrate", 1).await;
    world.sql("drop function apipay._tenge").await;
    ended(&world, "migrate", 0).await;
    world.end_unchecked().await;
}

#[tokio::test]
async fn default_privileges_open_nothing_of_ours() {
    let world = on_empty().await;
    let reader = format!("reader_{}", world.database.name);
    world.sql(&format!("create role {reader} nologin")).await;
    for grantee in ["public", &reader] {
        for objects in ["tables", "sequences", "functions", "schemas", "types"] {
            world
                .sql(&format!(
                    "alter default privileges grant all on {objects} to {grantee}"
                ))
                .await;
        }
    }
    ended(&world, "migrate", 0).await;
    let open = world
        .rows(&format!(
            "select c.oid::regclass::text as open from pg_class c
              where c.relnamespace = 'apipay'::regnamespace and c.relkind in ('r', 'v', 'p', 'm')
                and has_table_privilege('{reader}', c.oid, 'select, insert, update, delete, truncate, references, trigger')
             union all
             select s.seqrelid::regclass::text from pg_sequence s join pg_class c on c.oid = s.seqrelid
              where c.relnamespace = 'apipay'::regnamespace
                and has_sequence_privilege('{reader}', s.seqrelid, 'usage, select, update')
             union all
             select p.oid::regprocedure::text from pg_proc p
              where p.pronamespace = 'apipay'::regnamespace and has_function_privilege('{reader}', p.oid, 'execute')
                -- What runs inside every insert into apipay.jobs, or a change of it, as whoever writes.
                and p.proname <> all (array['_operations', '_is_ahead_of_sequence', '_next_job', '_given_amiss', '_most_of_queue', '_next_states', '_is_notifying', '_notify', '_number_within', '_id',
                                            '_is_in_turn', '_mask_phones', '_order_id', '_day'])
             union all
             select 'the schema' where has_schema_privilege('{reader}', 'apipay', 'usage, create')"
        ))
        .await;
    assert_eq!(open, Vec::<Value>::new());
    world.end_unchecked().await;
}
