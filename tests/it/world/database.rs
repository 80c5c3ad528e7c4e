//! A database per test, cloned from the migrated template.

use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{Connection, PgPool};
use uuid::Uuid;

use super::cluster::{Cluster, run};
use super::hostile;

pub(crate) struct Database {
    pub(crate) cluster: Cluster,
    pub(crate) name: String,
    /// Connections of the test's own.
    pub(crate) pool: PgPool,
    /// Who the daemon is in it.
    user: &'static str,
}

/// Whoever may do everything, as migrations need it.
const OWNER: &str = "postgres";

/// What the daemon is in production: a role with no more rights than `apipay_worker`.
pub(crate) const WORKER: &str = "worker_of_tests";

/// Stands in the daemon's configuration: a password that must show up nowhere.
pub(crate) const PASSWORD_CANARY: &str = "canary-of-the-database";

impl Database {
    /// With the schema `apipay`.
    pub(crate) async fn migrated(cluster: Cluster) -> Database {
        let template = cluster.template.clone();
        Database::create(cluster, &template, WORKER).await
    }

    /// Without anything.
    pub(crate) async fn empty(cluster: Cluster) -> Database {
        Database::create(cluster, "template0", OWNER).await
    }

    /// Without anything, and with an encoding, a collation and so on of its own: words of `create database`.
    pub(crate) async fn of_kind(cluster: Cluster, words: &str) -> Database {
        Database::create(cluster, &format!("template0 {words}"), OWNER).await
    }

    async fn create(cluster: Cluster, template: &str, user: &'static str) -> Database {
        let name = format!("test_{}", Uuid::new_v4().simple());
        let mut admin = cluster.admin().await;
        run(
            &mut admin,
            format!("create database {name} template {template}"),
        )
        .await;
        run(&mut admin, hostile::defaults_of(&name)).await;
        admin.close().await.unwrap();
        let pool = PgPoolOptions::new()
            .max_connections(4)
            .connect_lazy_with(Database::sane(&cluster, &name));
        Database {
            cluster,
            name,
            pool,
            user,
        }
    }

    /// For connections that mean what they say, whatever the database's defaults.
    fn sane(cluster: &Cluster, name: &str) -> PgConnectOptions {
        cluster.options(name).options(hostile::usual())
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        Database::sane(&self.cluster, &self.name)
    }

    /// Takes the hostile defaults back, as most databases are.
    pub(crate) async fn be_plain(&self) {
        let mut admin = self.cluster.admin().await;
        run(
            &mut admin,
            format!("alter database {} reset all", self.name),
        )
        .await;
        admin.close().await.unwrap();
    }

    /// For the daemon's configuration.
    pub(crate) fn url(&self) -> String {
        self.url_of(self.user)
    }

    /// The same for another role.
    pub(crate) fn url_of(&self, user: &str) -> String {
        let socket = self.cluster.socket().to_str().unwrap().replace('/', "%2F");
        format!("postgres://{user}:{PASSWORD_CANARY}@{socket}/{}", self.name)
    }

    /// The same at another place than the cluster's own.
    pub(crate) fn url_at(&self, place: &str) -> String {
        let user = self.user;
        format!("postgres://{user}:{PASSWORD_CANARY}@{place}/{}", self.name)
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
