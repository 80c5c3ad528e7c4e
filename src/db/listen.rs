//! Wake-ups: NOTIFY becomes a hint that there is work. Polling alone must be correct.

use std::time::Duration;

use sqlx::postgres::{PgListener, PgPoolOptions};

use super::{Connect, DbError, Task, settings};

/// How long a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// A connection that listens on `apipay_jobs`.
pub struct Listener(PgListener);

impl Listener {
    /// Connects and listens. The connection is direct: poolers lose LISTEN.
    pub async fn connect(connect: &Connect) -> Result<Listener, DbError> {
        let direct = connect.direct();
        direct
            .host()
            .expect_found(PATIENCE)
            .await
            .task("connect to listen")?;
        let pool = PgPoolOptions::new()
            .max_connections(1)
            .acquire_timeout(PATIENCE)
            .connect_with(direct.session().application_name("apipayd listen"))
            .await
            .task("connect to listen")?;
        let is_set = settings::are_set(&pool).await.task("connect to listen")?;
        if !is_set {
            let cause = "database.listen_url leads to a pooler, which would lose the hints";
            return Err(sqlx::Error::Configuration(cause.into())).task("connect to listen");
        }
        let mut listener = PgListener::connect_with(&pool)
            .await
            .task("connect to listen")?;
        listener
            .listen("apipay_jobs")
            .await
            .task("listen for jobs")?;
        Ok(Listener(listener))
    }

    /// Waits for the next hint. An error means that the connection is gone, and hints with it.
    pub async fn hint(&mut self) -> Result<(), DbError> {
        match self.0.try_recv().await.task("receive hints")? {
            Some(_) => Ok(()),
            None => Err(sqlx::Error::PoolClosed).task("keep listening"),
        }
    }
}
