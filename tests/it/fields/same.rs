//! The daemon and the database take the same params, as the same request, and refuse the others in the same words.

use std::collections::BTreeSet;

use apipayd::domain::errors::FieldErrors;
use apipayd::domain::job::JobName;
use apipayd::domain::operation::{OPERATIONS, Operation, Request, Written};
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::any::Any;
use super::value;
use crate::world::{Cluster, Database};

const NAME: JobName = JobName {
    token: Uuid::from_u128(7),
    generation: 1,
};

/// What the daemon makes of params that its statements return so: null where it would not read them.
fn prepared(operation: &dyn Operation, params: Option<Vec<u8>>) -> Result<Request, FieldErrors> {
    let written = params.map_or(Written::Excessive, Written::Here);
    Ok(operation.prepare(&written.read()?, &NAME)?.request)
}

/// The sentences that the typed function could say of such errors.
fn sentences(errors: &FieldErrors) -> BTreeSet<String> {
    let errors = serde_json::to_value(errors).unwrap();
    let of_field = |(place, said): (&String, &Value)| {
        let argument = argument(place);
        let said = said.as_array().unwrap().clone();
        said.into_iter()
            .map(move |sentence| format!("{argument} {}", sentence.as_str().unwrap()))
    };
    errors
        .as_object()
        .unwrap()
        .iter()
        .flat_map(of_field)
        .collect()
}

/// `cart_items.0.count` is what people count as `cart_items, item 1, count`.
fn argument(place: &str) -> String {
    let mut parts = place.splitn(3, '.');
    let field = parts.next().unwrap();
    let Some(item) = parts.next() else {
        return field.to_owned();
    };
    let item = item.parse::<usize>().unwrap() + 1;
    match parts.next() {
        Some(of_item) => format!("{field}, item {item}, {of_item}"),
        None => format!("{field}, item {item},"),
    }
}

/// The beginning of what is too long to be shown whole.
fn shown(text: &str) -> String {
    text.chars().take(600).collect()
}

#[tokio::test]
async fn params_are_taken_by_both_or_by_none() {
    let database = Database::migrated(Cluster::shared().await).await;
    for (seed, operation) in (1..).zip(OPERATIONS) {
        let mut any = Any::of(seed);
        let (mut taken, mut refused, mut kinds) = (0, 0, BTreeSet::new());
        for _ in 0..6 {
            let texts: Vec<String> = (0..500).map(|_| any.params(operation.fields())).collect();
            let checked: Vec<(Option<String>, Option<Vec<u8>>)> = sqlx::query_as(
                "select apipay._wrong_params($1, t.params), apipay._params_alone(t.params)
                   from (select written::jsonb as params, nth from unnest($2::text[]) with ordinality as u (written, nth)) as t
                  order by nth",
            )
            .bind(operation.name())
            .bind(&texts)
            .fetch_all(&database.pool)
            .await
            .unwrap();
            assert_eq!(checked.len(), texts.len());
            for (text, (said, params)) in texts.iter().zip(checked) {
                let is_readable = params.is_some()
                    && Written::Here(params.clone().unwrap_or_default())
                        .read()
                        .is_ok();
                match (said, prepared(*operation, params)) {
                    (None, Ok(_)) => taken += 1,
                    (Some(said), Err(errors)) => {
                        refused += 1;
                        let words = sentences(&errors);
                        assert!(
                            words.contains(&said) || !is_readable,
                            "{}: the database says: {said}\nthe daemon: {words:#?}\nof {}",
                            operation.name(),
                            shown(text)
                        );
                        kinds.extend(
                            said.split("; ")
                                .next()
                                .map(|it| it.replace(|c: char| c.is_ascii_digit(), "")),
                        );
                    }
                    (said, prepared) => panic!(
                        "{}: the database says {said:?}, the daemon {:?}, of {}",
                        operation.name(),
                        prepared.map(|request| request.body),
                        shown(text)
                    ),
                }
            }
        }
        assert!(
            taken > 500 && refused > 500,
            "{}: {taken} taken, {refused} refused",
            operation.name()
        );
        assert!(kinds.len() > 10, "{}: {kinds:#?}", operation.name());
    }
    database.drop_database().await;
}

/// Calls the typed function of an operation with arguments as texts, and makes the params of a plain insert with the same
/// values.
const TYPED: &str = "
create function pg_temp.typed(operation text, a jsonb, out said text, out made jsonb, out plain jsonb)
language plpgsql set search_path = pg_catalog, pg_temp as $$
declare
  job bigint;
begin
  case operation
    when 'invoice.cancel' then
      plain := jsonb_build_object('invoice_id', (a ->> 'invoice_id')::bigint);
    when 'invoice.create' then
      plain := jsonb_build_object('phone_number', a ->> 'phone_number', 'amount', (a ->> 'amount')::numeric,
        'cart_items', (a ->> 'cart_items')::jsonb, 'discount_percentage', (a ->> 'discount_percentage')::numeric,
        'description', a ->> 'description', 'internal_comment', a ->> 'internal_comment',
        'external_order_id', a ->> 'external_order_id', 'kaspi_connection_id', (a ->> 'kaspi_connection_id')::bigint);
    when 'invoice.refund' then
      plain := jsonb_build_object('invoice_id', (a ->> 'invoice_id')::bigint, 'amount', (a ->> 'amount')::numeric,
        'reason', a ->> 'reason', 'return_items', (a ->> 'return_items')::jsonb);
  end case;
  begin
    case operation
      when 'invoice.cancel' then
        job := apipay.cancel_invoice((a ->> 'invoice_id')::bigint);
      when 'invoice.create' then
        job := apipay.create_invoice(phone_number => a ->> 'phone_number', amount => (a ->> 'amount')::numeric,
          cart_items => (a ->> 'cart_items')::jsonb, discount_percentage => (a ->> 'discount_percentage')::numeric,
          description => a ->> 'description', internal_comment => a ->> 'internal_comment',
          external_order_id => a ->> 'external_order_id', kaspi_connection_id => (a ->> 'kaspi_connection_id')::bigint);
      when 'invoice.refund' then
        job := apipay.refund_invoice((a ->> 'invoice_id')::bigint, (a ->> 'amount')::numeric, a ->> 'reason', (a ->> 'return_items')::jsonb);
    end case;
    select params into strict made from apipay.jobs where id = job;
  exception when invalid_parameter_value then
    said := sqlerrm;
  end;
end $$";

#[tokio::test]
async fn a_typed_function_takes_what_a_plain_insert_of_the_same_values_would_be_sent_for() {
    let database = Database::migrated(Cluster::shared().await).await;
    let mut connection = database.pool.acquire().await.unwrap();
    let setup = format!("insert into apipay.accounts (name) values ('default'); {TYPED}");
    sqlx::raw_sql(AssertSqlSafe(setup))
        .execute(&mut *connection)
        .await
        .unwrap();
    for (seed, operation) in (1..).zip(OPERATIONS) {
        let mut any = Any::of(seed);
        let arguments: Vec<Value> = (0..1000)
            .map(|_| any.arguments(operation.fields()))
            .collect();
        type Row = (Option<String>, Option<Vec<u8>>, Option<Vec<u8>>);
        let called: Vec<Row> = sqlx::query_as(
            "select said, apipay._params_alone(made), apipay._params_alone(plain)
               from unnest($2::jsonb[]) with ordinality as u (a, nth), pg_temp.typed($1, a) order by nth",
        )
        .bind(operation.name())
        .bind(&arguments)
        .fetch_all(&mut *connection)
        .await
        .unwrap();
        let mut taken = 0;
        for (arguments, (said, made, plain)) in arguments.iter().zip(called) {
            let plain = prepared(*operation, plain);
            let at = || format!("{}: {}", operation.name(), shown(&arguments.to_string()));
            match (&said, plain) {
                (None, Ok(plain)) => {
                    taken += 1;
                    let made = prepared(*operation, made)
                        .unwrap_or_else(|errors| panic!("{}: {errors}", at()));
                    let bytes = |request: &Request| {
                        (
                            request.path.clone(),
                            request.body.as_ref().map(Value::to_string),
                        )
                    };
                    assert_eq!(bytes(&made), bytes(&plain), "{}", at());
                }
                (Some(_), Err(_)) => {}
                (said, plain) => panic!(
                    "the function says {said:?}, the daemon {:?}, of {}",
                    plain.map(|request| request.body),
                    at()
                ),
            }
        }
        assert!(
            (60..940).contains(&taken),
            "{}: {taken} taken",
            operation.name()
        );
    }
    drop(connection.detach());
    database.drop_database().await;
}

#[tokio::test]
async fn the_arguments_of_a_typed_function_are_the_fields_of_its_operation() {
    let database = Database::migrated(Cluster::shared().await).await;
    for operation in OPERATIONS {
        let (object, verb) = operation.name().split_once('.').unwrap();
        let sql = format!(
            "select array_agg(distinct argument) from pg_proc p, unnest(p.proargnames) as argument
              where p.pronamespace = 'apipay'::regnamespace and p.proname = '{verb}_{object}'"
        );
        let arguments: Vec<String> = value(&database.pool, &sql).await;
        let of_each_job = [
            "account",
            "dedup_key",
            "priority",
            "run_at",
            "expires_at",
            "metadata",
            "traceparent",
        ];
        let own: BTreeSet<&str> = arguments
            .iter()
            .map(String::as_str)
            .filter(|argument| !of_each_job.contains(argument))
            .collect();
        let fields = operation
            .fields()
            .fields
            .iter()
            .map(|field| field.name)
            .collect();
        assert_eq!(own, fields, "{}", operation.name());
    }
    database.drop_database().await;
}
