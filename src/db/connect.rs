//! The ways to the database.

use std::sync::Arc;

use sqlx::postgres::PgConnectOptions;

use super::APPLICATION;
use super::host::Host;
use super::pool::Pool;
use super::settings::SETTINGS;
use crate::names::Names;

/// One to wait for a lock, and one to see who keeps it.
const LOOKOUT: u32 = 2;

/// How to reach the database.
#[derive(Clone)]
pub struct Connect {
    /// Where statements go: through a pooler, when there is a way past it.
    pub options: PgConnectOptions,
    /// Past the pooler: LISTEN and migrations need a session of their own.
    pub past_pooler: Option<PgConnectOptions>,
    /// The size of the pool.
    pub max_connections: u32,
    /// The look-ups of the hosts' names; a clone shares them.
    names: Arc<Names>,
}

impl Connect {
    /// By these options; past a pooler by others, if there is one.
    pub fn new(
        options: PgConnectOptions,
        past_pooler: Option<PgConnectOptions>,
        max_connections: u32,
    ) -> Connect {
        Connect {
            options,
            past_pooler,
            max_connections,
            names: Arc::default(),
        }
    }

    /// The same past a pooler, with one connection: a migration sets its session as it needs it, which poolers do not
    /// keep.
    pub fn direct(&self) -> Connect {
        Connect {
            options: self.past_pooler.as_ref().unwrap_or(&self.options).clone(),
            past_pooler: None,
            max_connections: 1,
            names: self.names.clone(),
        }
    }

    /// How a connection of this pool introduces itself. Poolers know few start-up parameters, refuse
    /// or forget the others, and give a session to the next who comes: they are sent none.
    pub fn session(&self) -> PgConnectOptions {
        let options = self.options.clone().application_name(APPLICATION);
        // The one that sqlx sends by itself is in the list too.
        let options = options.extra_float_digits(None);
        if self.is_pooled() {
            options.statement_cache_capacity(0)
        } else {
            options.options(SETTINGS)
        }
    }

    /// Opens the pool without connecting: the database may come up later.
    pub fn pool(&self) -> Pool {
        Pool::new(
            self.session(),
            self.max_connections,
            self.is_pooled(),
            self.host(),
        )
    }

    /// A second pool, for what looks at the daemon's work from outside: whatever keeps all connections of the first one
    /// waiting, a locked table for instance, is seen all the same. Where connections are few it keeps none.
    pub fn lookout(&self) -> Pool {
        Pool::fleeting(self.session(), LOOKOUT, self.is_pooled(), self.host())
    }

    /// Where the pool leads to.
    pub(super) fn host(&self) -> Host {
        Host::of(&self.options, self.names.clone())
    }

    fn is_pooled(&self) -> bool {
        self.past_pooler.is_some()
    }
}
