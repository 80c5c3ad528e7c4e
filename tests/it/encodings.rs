//! Databases with an encoding of their own: which work, and which are refused before anything is made in them.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::json;

use crate::world::{Cluster, Database, Wish, World, phone};

async fn of_encoding(encoding: &str) -> World {
    let words = format!("encoding '{encoding}' lc_collate 'C' lc_ctype 'C'");
    let database = Database::of_kind(Cluster::shared().await, &words).await;
    World::on(database, Wish::default()).await
}

async fn migrate(world: &World, code: i32) -> String {
    let mut migrate = world.spawn(&["migrate"], &[]);
    let status = migrate.ended(Duration::from_secs(60)).await;
    let said = migrate.log_text();
    assert_eq!(status.code(), Some(code), "{said}");
    said
}

#[tokio::test]
async fn russian_encodings_work_and_words_that_they_have_not_are_left_out() {
    let tried = ["WIN1251", "KOI8R", "KOI8U", "ISO_8859_5", "WIN866"].map(async |encoding| {
        let world = of_encoding(encoding).await;
        migrate(&world, 0).await;
        let daemon = world.daemon().await;
        let bill = json!({"phone_number": phone::PAID, "amount": 700, "description": "Заказ"});
        let paid = world.enqueue("invoice.create", bill.clone()).await;
        world.until(paid, "succeeded").await;
        let sent = world.sandbox.requests_to("POST /invoices").await.remove(0);
        assert!(sent["body"].as_str().unwrap().contains("Заказ"), "{sent}");

        for (words, stored) in [("Неверный номер", true), ("Қате нөмір", false)]
        {
            world
                .sandbox
                .fault(
                    json!({"route": "POST /invoices", "times": 1, "answer": {"status": 422, "json":
                    {"success": false, "message": words, "errors": {"phone_number": [words]}}}}),
                )
                .await;
            let refused = world.enqueue("invoice.create", bill.clone()).await;
            let row = world.until(refused, "failed").await;
            assert_eq!(row["http_status"], 422, "{encoding}: {row}");
            let message = row["error_message"].as_str().unwrap_or_default();
            assert_eq!(message.contains(words), stored, "{encoding}: {row}");
        }
        let explained = world.rows("select explain from apipay.overview").await;
        assert_eq!(explained.len(), 3);
        world
            .until_true("select bool_and(status = 'paid') from apipay.invoices")
            .await;
        assert!(
            !daemon.was_told("the database failed"),
            "{encoding}: no loop failed"
        );
        drop(daemon);
        world.end_unchecked().await;
    });
    join_all(tried).await;
}

#[tokio::test]
async fn an_encoding_without_russian_letters_is_refused_and_nothing_is_made() {
    for encoding in ["LATIN1", "WIN1252", "EUC_JP"] {
        let world = of_encoding(encoding).await;
        let said = migrate(&world, 1).await;
        assert!(said.contains(encoding) && said.contains("UTF8"), "{said}");
        assert_eq!(
            world.count("pg_namespace where nspname = 'apipay'").await,
            0
        );
        let mut check = world.spawn(&["check"], &[]);
        let status = check.ended(Duration::from_secs(20)).await;
        let said = check.log_text();
        assert_eq!(status.code(), Some(78), "{said}");
        assert!(said.contains("no Russian letters"), "{said}");
        world.end_unchecked().await;
    }
}
