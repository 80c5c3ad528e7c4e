//! The daemon's connections, direct or through a pooler: each statement is a transaction of its own.
//!
//! A pooler in transaction mode (PgBouncer) gives each transaction another server connection. A
//! statement is prepared in one round trip and run in the next, so without a transaction around both
//! the second may meet a server that never heard of the first, or heard the same name from somebody
//! else. And what a session was set to belongs to whoever comes next. So behind a pooler a statement is
//! wrapped: begin and settings, the statement without a name, commit. Direct, the session is ours: it is
//! set once, its statements are prepared once, and one statement is its own transaction.

use std::io::ErrorKind;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::{self, BoxStream};
use futures_util::{TryFutureExt, TryStreamExt};
use sqlx::pool::PoolConnection;
use sqlx::postgres::{
    PgArguments, PgConnectOptions, PgConnection, PgPoolOptions, PgQueryResult, PgRow, PgStatement,
    PgTypeInfo,
};
use sqlx::{
    ConnectOptions, Connection, Describe, Either, Error, Execute, Executor, PgPool, Postgres,
    SqlStr,
};
use tokio::time::timeout;

use super::host::Host;
use super::settings;

/// How long a statement waits for a connection. A claim that waited longer than the send window would
/// claim what is not sent.
const ACQUIRE: Duration = Duration::from_secs(4);

/// When a server that says nothing is given up: it stops each statement earlier by itself. So a machine
/// that lost its power, or a pooler without a server, holds nobody for ever.
const SILENCE: Duration = Duration::from_secs(35);

/// Connections to the database; a clone shares them.
#[derive(Clone, Debug)]
pub struct Pool {
    connections: PgPool,
    host: Host,
    /// What a transaction begins with, behind a pooler.
    begin: Option<SqlStr>,
}

impl Pool {
    /// Opens the pool without connecting: the database may come up later.
    pub(super) fn new(options: PgConnectOptions, most: u32, is_pooled: bool, host: Host) -> Pool {
        Pool::of(PgPoolOptions::new(), options, most, is_pooled, host)
    }

    /// The same, of connections that are closed after each use: they take none from whoever works.
    pub(super) fn fleeting(
        options: PgConnectOptions,
        most: u32,
        is_pooled: bool,
        host: Host,
    ) -> Pool {
        let closing = PgPoolOptions::new().after_release(|_, _| Box::pin(async { Ok(false) }));
        Pool::of(closing, options, most, is_pooled, host)
    }

    fn of(
        pool: PgPoolOptions,
        options: PgConnectOptions,
        most: u32,
        is_pooled: bool,
        host: Host,
    ) -> Pool {
        let connections = pool.max_connections(most).acquire_timeout(ACQUIRE);
        let connections = if is_pooled {
            connections
        } else {
            connections.after_connect(|connection, _| Box::pin(settings::complete(connection)))
        };
        Pool {
            host,
            connections: connections.connect_lazy_with(options),
            begin: is_pooled.then(settings::begin),
        }
    }

    /// The connections themselves, for what is no single statement: a migration.
    pub fn connections(&self) -> &PgPool {
        &self.connections
    }

    async fn run<'q, E>(&self, query: E) -> Result<Vec<Either<PgQueryResult, PgRow>>, Error>
    where
        E: 'q + Execute<'q, Postgres>,
    {
        let mut connection = self.acquire().await?;
        let run = async {
            match &self.begin {
                None => connection.fetch_many(query).try_collect().await,
                Some(begin) => in_transaction(&mut connection, begin.clone(), query).await,
            }
        };
        let done = timeout(SILENCE, run)
            .await
            .unwrap_or_else(|_| Err(Error::Io(ErrorKind::TimedOut.into())));
        if done.as_ref().is_err_and(is_of_the_session) {
            connection.close_on_drop();
        }
        done
    }

    /// The pool tries again until its time is over, and then tells only that: the cause is asked for.
    async fn acquire(&self) -> Result<PoolConnection<Postgres>, Error> {
        if self.will_connect() {
            self.host.expect_found(ACQUIRE).await?;
        }
        let error = match self.connections.acquire().await {
            Err(Error::PoolTimedOut) => Error::PoolTimedOut,
            done => return done,
        };
        let options = self.connections.connect_options();
        match timeout(ACQUIRE, options.connect()).await {
            Ok(Err(cause)) => return Err(cause),
            // What we came for is the error; a connection that is not needed ends as it may.
            Ok(Ok(connection)) => drop(connection.close().await),
            Err(_) => {}
        }
        Err(error)
    }

    /// Whether there is no connection to be had but a new one.
    fn will_connect(&self) -> bool {
        self.connections.num_idle() == 0
            && self.connections.size() < self.connections.options().get_max_connections()
    }
}

/// Whether a new connection may do better: this one is silent, or its server takes no writes, as one
/// that has become a replica.
fn is_of_the_session(error: &Error) -> bool {
    match error {
        Error::Io(error) => error.kind() == ErrorKind::TimedOut,
        Error::Database(error) => error.code().as_deref() == Some("25006"),
        _ => false,
    }
}

async fn in_transaction<'q, E>(
    connection: &mut PgConnection,
    begin: SqlStr,
    query: E,
) -> Result<Vec<Either<PgQueryResult, PgRow>>, Error>
where
    E: 'q + Execute<'q, Postgres>,
{
    let mut transaction = connection.begin_with(begin).await?;
    let done = transaction.fetch_many(Unnamed(query)).try_collect().await?;
    transaction.commit().await?;
    Ok(done)
}

/// A statement that leaves no name behind on the server, where the next client would trip over it.
struct Unnamed<E>(E);

impl<'q, E: Execute<'q, Postgres>> Execute<'q, Postgres> for Unnamed<E> {
    fn sql(self) -> SqlStr {
        self.0.sql()
    }

    fn statement(&self) -> Option<&PgStatement> {
        self.0.statement()
    }

    fn take_arguments(
        &mut self,
    ) -> Result<Option<PgArguments>, Box<dyn std::error::Error + Send + Sync>> {
        self.0.take_arguments()
    }

    fn persistent(&self) -> bool {
        false
    }
}

impl<'p> Executor<'p> for &'p Pool {
    type Database = Postgres;

    // The rows are given out once they are committed: a claim that was rolled back must reach nobody.
    fn fetch_many<'e, 'q: 'e, E>(
        self,
        query: E,
    ) -> BoxStream<'e, Result<Either<PgQueryResult, PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows = self.run(query);
        Box::pin(
            rows.map_ok(|rows| stream::iter(rows.into_iter().map(Ok)))
                .try_flatten_stream(),
        )
    }

    fn fetch_optional<'e, 'q: 'e, E>(self, query: E) -> BoxFuture<'e, Result<Option<PgRow>, Error>>
    where
        'p: 'e,
        E: 'q + Execute<'q, Postgres>,
    {
        let rows = self.run(query);
        Box::pin(rows.map_ok(|rows| rows.into_iter().find_map(Either::right)))
    }

    fn prepare_with<'e>(
        self,
        sql: SqlStr,
        parameters: &'e [PgTypeInfo],
    ) -> BoxFuture<'e, Result<PgStatement, Error>>
    where
        'p: 'e,
    {
        self.connections.prepare_with(sql, parameters)
    }

    fn describe<'e>(self, sql: SqlStr) -> BoxFuture<'e, Result<Describe<Postgres>, Error>>
    where
        'p: 'e,
    {
        self.connections.describe(sql)
    }
}
