//! A backup of the data alone, restored into a schema that is there already: a stop, or a park of an operator's, is
//! not forgotten.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::world::{Cluster, Database, ROOT, Wish, World, phone};

/// A program of the server's installation.
fn program(name: &str) -> PathBuf {
    let place = Command::new(Path::new(ROOT).join("scripts/throwaway-postgres"))
        .arg("bin")
        .output()
        .unwrap();
    Path::new(String::from_utf8(place.stdout).unwrap().trim()).join(name)
}

fn of_database(name: &str, world: &World) -> Command {
    let mut command = Command::new(program(name));
    command
        .arg("--host")
        .arg(world.database.cluster.socket())
        .args(["--username", "postgres", "--dbname", &world.database.name]);
    command
}

fn dump(world: &World, how: &[&str], file: &Path) {
    let done = of_database("pg_dump", world)
        .args(["--data-only", "--schema", "apipay", "--file"])
        .arg(file)
        .args(how)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

fn restore(world: &World, how: &[&str], file: &Path) {
    let done = of_database("psql", world)
        .args(["--no-psqlrc", "--quiet", "--output", "/dev/null", "--file"])
        .arg(file)
        .args(how)
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "{said}");
}

/// A schema that was just made, with the accounts that the migration makes.
async fn migrated() -> World {
    let database = Database::empty(Cluster::shared().await).await;
    let world = World::on(database, Wish::default().accounts(&["default", "other"])).await;
    let mut migrate = world.spawn(&["migrate"], &[]);
    let status = migrate.ended(Duration::from_secs(40)).await;
    assert_eq!(status.code(), Some(0), "{}", migrate.log_text());
    // A dump and its restore are the shop's own business: they are no tests of hostile defaults.
    world.database.be_plain().await;
    world
}

#[tokio::test]
async fn a_stop_and_a_park_outlive_a_restore_of_the_data_alone() {
    let shop = World::made(Wish::default().accounts(&["default", "other"])).await;
    shop.database.be_plain().await;
    let params = json!({"phone_number": phone::PAID, "amount": 700});
    for account in ["default", "other"] {
        shop.enqueue_with(
            "invoice.create",
            params.clone(),
            json!({"account": account}),
        )
        .await;
    }
    shop.sql(
        "select apipay.stop('the cashier moves'); select apipay.park('other', 'a new Kaspi login')",
    )
    .await;
    // As people do it, with errors for the rows that are there already; as superusers do it; and as the README says.
    let emptied = "truncate apipay.accounts, apipay._control, apipay._migrations cascade";
    for (dumped, restored, is_emptied) in [
        (vec![], vec![], false),
        (vec!["--disable-triggers"], vec![], false),
        (
            vec![],
            vec!["--single-transaction", "--set", "ON_ERROR_STOP=1"],
            true,
        ),
    ] {
        let file = shop.config().with_file_name("dump.sql");
        dump(&shop, &dumped, &file);
        let world = migrated().await;
        if is_emptied {
            world.sql(emptied).await;
        }
        restore(&world, &restored, &file);
        assert_eq!(world.count("apipay.jobs where state = 'queued'").await, 2);
        let before =
            world.value("select to_jsonb(array_agg(to_jsonb(j) order by id)) from apipay.jobs j");
        let there =
            shop.value("select to_jsonb(array_agg(to_jsonb(j) order by id)) from apipay.jobs j");
        assert_eq!(
            before.await,
            there.await,
            "word for word, with their tokens"
        );

        let daemon = world.daemon().await;
        world
            .until_true("select stopped and reason = 'the cashier moves' from apipay._control")
            .await;
        world
            .until_true("select state = 'parked' and parked_reason = 'parked_by_user' from apipay.accounts where name = 'other'")
            .await;
        world
            .until_true("select exists (select from apipay.alerts where account = 'other' and kind = 'account_parked' and resolved_at is null)")
            .await;
        assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 0);
        world.sql("select apipay.start('moved')").await;
        world
            .until_true("select state = 'succeeded' from apipay.jobs where account = 'default'")
            .await;
        assert_eq!(world.sandbox.requests_to("POST /invoices").await.len(), 1);
        world
            .sql("select apipay.resume('other', 'logged in')")
            .await;
        world
            .until_true("select bool_and(state = 'succeeded') from apipay.jobs")
            .await;
        drop(daemon);
        world.end_unchecked().await;
    }
    shop.end_unchecked().await;
}

#[tokio::test]
async fn a_restore_of_the_data_alone_brings_what_was_followed_and_no_news_of_it() {
    let shop = World::made(Wish::default().accounts(&["default", "other"])).await;
    shop.database.be_plain().await;
    shop.sql(
        "insert into apipay.invoices (account, id, status) values ('default', 77, 'pending'), ('other', 78, 'paid');
         insert into apipay.refunds (account, id, invoice_id, status) values ('other', 9, 78, 'completed')",
    )
    .await;
    // As if it had been a moment ago.
    shop.sql("update apipay.invoices set created_at = now() - interval '1 s'")
        .await;
    let file = shop.config().with_file_name("dump.sql");
    dump(&shop, &[], &file);
    let world = migrated().await;
    world
        .sql("truncate apipay.accounts, apipay._control, apipay._migrations cascade")
        .await;
    restore(
        &world,
        &["--single-transaction", "--set", "ON_ERROR_STOP=1"],
        &file,
    );
    for table in ["invoices", "refunds", "events"] {
        let rows =
            format!("select to_jsonb(array_agg(to_jsonb(r) order by id)) from apipay.{table} r");
        let (here, there) = (world.value(&rows).await, shop.value(&rows).await);
        assert!(there.is_array(), "{table}");
        assert_eq!(here, there, "{table}");
    }
    world.end_unchecked().await;
    shop.end_unchecked().await;
}
