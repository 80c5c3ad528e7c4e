//! A database per test, cloned from the migrated template.

use sqlx::postgres::PgPoolOptions;
use sqlx::{Connection, PgPool};
use uuid::Uuid;

use super::cluster::{Cluster, run};

pub(crate) struct Database {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
    /// Connections of the test's own.
    pub(crate) pool: PgPool,
}

/// Stands in the daemon's configuration: a password that must show up nowhere.
pub(crate) const PASSWORD_CANARY: &str = "canary-of-the-database";

impl Database {
    /// With the schema `apipay`.
    pub(crate) async fn migrated(cluster: Cluster) -> Database {
        let template = cluster.template.clone();
        Database::create(cluster, &template).await
    }

    /// Without anything.
    pub(crate) async fn empty(cluster: Cluster) -> Database {
        Database::create(cluster, "template0").await
    }

    async fn create(cluster: Cluster, template: &str) -> Database {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut admin = cluster.admin().await;
        run(
            &mut admin,
            format!("create database {name} template {template}"),
        )
        .await;
        admin.close().await.unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(cluster.options(&name));
        Database {
            cluster,
            name,
            pool,
        }
    }

    /// For the daemon's configuration.
    pub(crate) fn url(&self) -> String {
        let socket = self.cluster.socket().to_str().unwrap().replace('/', "%2F");
        format!(
            "postgres://postgres:{PASSWORD_CANARY}@{socket}/{}",
            self.name
        )
    }

    pub(crate) async fn drop_database(&self) {
        self.pool.close().await;
        let mut admin = self.cluster.admin().await;
        run(
            &mut admin,
            format!("drop database {} with (force)", self.name),
        )
        .await;
        admin.close().await.unwrap();
    }
}
