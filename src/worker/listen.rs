//! Turns NOTIFY into wake-ups. While it cannot listen, polling goes on.

use std::sync::Arc;

use tracing::{info, warn};

use crate::db::listen::Listener;
use crate::db::{Connect, DbError};
use crate::telemetry::Chain;
use crate::worker::context::Context;
use crate::worker::jitter::jitter;
use crate::worker::patience::wait_for_database;

/// Listens until the stop, connecting again whenever the connection is lost.
pub async fn run(ctx: Arc<Context>, connect: Connect) {
    let stop = ctx.stop.clone();
    let mut failures = 0;
    while !stop.is_cancelled() {
        let result = tokio::select! {
            () = stop.cancelled() => return,
            result = listen(&ctx, &connect, &mut failures) => result,
        };
        if let Err(error) = result {
            failures += 1;
            if failures == 1 {
                warn!(error = %Chain(&error), "no hints of new jobs: polling until the database listens again");
            }
            tokio::select! {
                () = stop.cancelled() => {}
                () = wait_for_database(failures, jitter()) => {}
            }
        }
    }
}

async fn listen(ctx: &Context, connect: &Connect, failures: &mut u32) -> Result<(), DbError> {
    let mut listener = Listener::connect(connect).await?;
    if std::mem::take(failures) > 0 {
        info!("listening for jobs again");
    }
    loop {
        // Before the first hint as well: one may have been missed while nobody listened.
        ctx.wake.dispatch.notify_one();
        listener.hint().await?;
    }
}
