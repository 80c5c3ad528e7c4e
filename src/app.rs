//! Wiring, and the order of starting and stopping.
//!
//! Start: clients → database (waited for, however long it takes) → schema → accounts → loops.
//! Stop: claim no more → finish what is in flight → record it → leave. What is not finished when the
//! grace is over is settled by its lease: it becomes uncertain and is looked up.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{error, info, warn};
use uuid::Uuid;

use crate::alert::{SendError, Webhook};
use crate::config::Settings;
use crate::db::fault::AtFault;
use crate::db::migrate::{MigrationError, SchemaVersion};
use crate::db::{Connect, DbError, health, migrate, progress};
use crate::heart::Heart;
use crate::policy::rules::Jitter;
use crate::reload::{ReadSettings, Refusal, Reload, UnusableAccount, open_room};
use crate::service::Service;
use crate::telemetry::Chain;
use crate::watchdog::Watchdog;
use crate::worker::context::Context;
use crate::worker::held_up::HeldUp;
use crate::worker::in_hand::InHand;
use crate::worker::patience::wait_for_database;
use crate::worker::progress::Progress;
use crate::worker::pulse::Pulse;
use crate::worker::recorder::{Inbox, Recorder};
use crate::worker::rooms::Rooms;
use crate::worker::slots::Slots;
use crate::worker::start::Start;
use crate::worker::steady::SteadyClock;
use crate::worker::unstored::Unstored;
use crate::worker::{self, listen, oversee, writer};

/// What a pooler needs that the configuration does not know of.
pub const POOLER: &str = "database.url leads to a pooler such as PgBouncer: set database.listen_url, \
                          a direct connection to the same database, so that statements are sent as a pooler needs them";

/// What `session_replication_role = replica` means for us. Only a superuser may set it.
pub const TRIGGERS_OFF: &str = "session_replication_role is replica for this user or database, which switches the triggers \
                                of the schema apipay off; a superuser resets it: alter role … reset session_replication_role, \
                                or alter database …";

/// What a server loses with the power that says too early that it wrote.
pub const NO_POWER_CUT: &str = "fsync or full_page_writes is off: after a power cut the database may forget, or be damaged, \
                                and what was sent may be sent again; set both on in postgresql.conf";

/// Why the daemon ended otherwise than by a signal.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// An account's client could not be made.
    #[error(transparent)]
    Account(UnusableAccount),
    /// The channel of alerts could not be made.
    #[error("alerts.webhook cannot be used")]
    Webhook(#[source] SendError),
    /// The schema is not the one this version works with.
    #[error("the database's schema is {}", match .0 {
        SchemaVersion::Missing => "missing",
        SchemaVersion::Older => "older than this apipayd",
        SchemaVersion::Newer => "newer than this apipayd",
        SchemaVersion::Changed(_) => "another than this apipayd makes",
        SchemaVersion::Current => "current",
    })]
    Schema(SchemaVersion),
    /// The server takes no writes.
    #[error(
        "the database is read-only: it is a replica, or set so; database.url must lead to the primary"
    )]
    ReadOnly,
    /// There is a pooler where a direct connection is taken for granted.
    #[error("{POOLER}")]
    Pooler,
    /// The triggers of our tables are switched off.
    #[error("{TRIGGERS_OFF}")]
    TriggersOff,
    /// The schema could not be brought up to date.
    #[error("the migration failed")]
    Migrate(#[source] MigrationError),
    /// The database refused what every start needs.
    #[error("the database refused the start")]
    Database(#[source] DbError),
    /// The operating system refused the thread that tells systemd that the daemon is alive.
    #[error("the watchdog's thread cannot be started")]
    Watchdog(#[source] std::io::Error),
    /// The operating system refused a signal handler.
    #[error("signals cannot be handled")]
    Signals(#[source] std::io::Error),
    /// Outcomes could not be written before the grace was over.
    #[error(
        "the grace period is over and not everything is recorded; what is missing is asked about again"
    )]
    Grace,
}

/// Runs until SIGTERM or SIGINT.
///
/// `read_again` reads the settings again at each SIGHUP.
pub async fn run(settings: Settings, read_again: ReadSettings) -> Result<(), RunError> {
    // From here on it does not end the process, which is what it does where nobody handles it.
    let hangups = signal(SignalKind::hangup()).map_err(RunError::Signals)?;
    let mut stop_signals = StopSignals::new().map_err(RunError::Signals)?;
    let service = Arc::new(Service::from_environment());
    let watchdog = Watchdog::start(
        service.clone(),
        longest_silence(settings.rules().request_timeout),
    )
    .map_err(RunError::Watchdog)?;
    let connect = settings.connect();
    let grace = settings.worker.grace;
    let (recorder, inbox) = Recorder::new();
    let ctx = Arc::new(context(&settings, recorder)?);
    info!(version = env!("CARGO_PKG_VERSION"), worker = %ctx.worker, accounts = settings.accounts.len(), "starting");

    // Ready before the database is: a unit that waits for Postgres must not fail with it.
    service.ready("starting: waiting for the database");
    let mut progress = Progress::new();
    let mut start = Start::default();
    let prepared = tokio::select! {
        prepared = prepare_database(&ctx, &settings, &service, &mut progress, &mut start) => prepared,
        () = stop_signals.wait() => {
            service.stopping("stopped before the database was there");
            return Ok(());
        }
    };
    prepared?;
    info!("the database is ready");
    let serving = Serving {
        connect,
        inbox,
        progress,
        start,
        grace,
        watchdog,
        reload: Reload::new(read_again, &settings),
        hangups,
    };
    serve(ctx, serving, &service, &mut stop_signals).await
}

fn context(settings: &Settings, recorder: Recorder) -> Result<Context, RunError> {
    let connect = settings.connect();
    let webhook = settings
        .alerts
        .webhook
        .as_ref()
        .map(|webhook| Webhook::new(webhook.url.clone(), webhook.timeout))
        .transpose()
        .map_err(RunError::Webhook)?;
    let ctx = Context {
        pool: connect.pool(),
        lookout: connect.lookout(),
        worker: Uuid::new_v4(),
        host: rustix::system::uname().nodename().to_string_lossy().into(),
        rooms: Rooms::default(),
        rules: Arc::new(settings.rules()),
        lease: settings.worker.lease,
        poll_interval: settings.worker.poll_interval,
        claim_batch: settings.worker.claim_batch,
        concurrency: settings.worker.concurrency,
        webhook,
        alert_repeat: settings.alerts.repeat,
        passed_over: Arc::default(),
        unstored: Unstored::default(),
        held_up: HeldUp::default(),
        clock: Arc::new(SteadyClock::new()),
        recorder: Arc::new(recorder),
        in_hand: InHand::default(),
        slots: Slots::new(settings.worker.concurrency),
        sends: TaskTracker::new(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
        wake: Arc::default(),
        standstill: Mutex::default(),
    };
    for account in &settings.accounts {
        let room = open_room(account, settings.http, ctx.handles()).map_err(RunError::Account)?;
        ctx.rooms.add(Arc::new(room));
    }
    Ok(ctx)
}

/// Waits for the database, checks or migrates its schema, and stores the accounts that nobody has locked.
async fn prepare_database(
    ctx: &Context,
    settings: &Settings,
    service: &Service,
    progress: &mut Progress,
    start: &mut Start,
) -> Result<(), RunError> {
    let mut failures = 0;
    loop {
        match try_prepare(ctx, settings, start).await {
            Err(RunError::Database(error)) => {
                failures += 1;
                if failures == 1 {
                    warn!(error = %Chain(&error), "the database cannot be used; trying again");
                }
                service.status(&unusable(&error, ctx.standstill()));
                let told = progress.database_fails(ctx, &error);
                if tokio::time::timeout(TELLING, told).await.is_err() {
                    warn!("the receiver of alerts is slow; it is told again");
                }
                wait_for_database(failures, Jitter::NONE).await;
            }
            done => return done,
        }
    }
}

fn of_start(error: DbError) -> RunError {
    if error.is_of_pooler() {
        RunError::Pooler
    } else {
        RunError::Database(error)
    }
}

async fn try_prepare(
    ctx: &Context,
    settings: &Settings,
    start: &mut Start,
) -> Result<(), RunError> {
    let pool = &ctx.pool;
    let server = health::server(pool).await.map_err(of_start)?;
    if !server.is_set {
        return Err(RunError::Pooler);
    }
    if server.read_only {
        return Err(RunError::ReadOnly);
    }
    if server.triggers_are_off {
        return Err(RunError::TriggersOff);
    }
    let mut version = migrate::version(pool).await.map_err(RunError::Database)?;
    let is_behind = matches!(version, SchemaVersion::Missing | SchemaVersion::Older);
    if is_behind && settings.database.migrate_on_start {
        migrate::migrate(settings.connect().direct().pool().connections())
            .await
            .map_err(RunError::Migrate)?;
        version = migrate::version(pool).await.map_err(RunError::Database)?;
    }
    if version != SchemaVersion::Current {
        return Err(RunError::Schema(version));
    }
    progress::recall(pool).await.map_err(RunError::Database)?;
    let jump = ctx.clock.look(pool, ctx.lease).await;
    if let Some(jump) = jump.map_err(RunError::Database)? {
        warn!(
            by_s = jump.0 / 1_000_000,
            "the database's clock was set since an earlier start"
        );
    }
    if !server.survives_power_cut {
        warn!("{NO_POWER_CUT}");
    }
    // Accounts that somebody keeps locked begin later.
    start.step(ctx).await.map_err(RunError::Database)?;
    Ok(())
}

/// How long a start that waits for the database waits for a receiver of alerts.
const TELLING: Duration = Duration::from_secs(10);

/// What the status line says of a database that does not let us begin, or look: `standstill` is what people were told.
fn unusable(error: &DbError, standstill: Option<String>) -> String {
    let what = match error.fault() {
        AtFault::Lock => "the database is locked; nothing is sent",
        _ if error.is_too_slow() => "the database does not answer in time; nothing is sent",
        _ => return format!("{UNREACHABLE}: {}", Chain(error)),
    };
    // That names who keeps what locked.
    match standstill {
        Some(told) => format!("{what}: {told}"),
        None => format!("{what}: {}", Chain(error)),
    }
}

const UNREACHABLE: &str = "the database cannot be reached; nothing is sent";

const UNWRITTEN: &str =
    "the database does not take outcomes, which wait in memory; nothing new is sent";

const FORGOTTEN: &str = "the database has lost commits; nothing is sent until apipayd is started again, see the \
                         alert history_lost";

/// Outcomes that are set aside, in words.
fn unrecorded(recorder: &Recorder) -> Option<String> {
    let count = recorder.shelf().count();
    (count > 0).then(|| {
        format!("{count} outcomes are not taken by the database and wait in memory, see the alert job_stuck")
    })
}

/// What the loops are made from.
struct Serving {
    connect: Connect,
    inbox: Inbox,
    progress: Progress,
    start: Start,
    grace: Duration,
    watchdog: Watchdog,
    reload: Reload,
    hangups: Signal,
}

async fn serve(
    ctx: Arc<Context>,
    serving: Serving,
    service: &Service,
    stop_signals: &mut StopSignals,
) -> Result<(), RunError> {
    let loops = TaskTracker::new();
    let writing = Heart::new("record");
    let writer = tokio::spawn(writer::write(ctx.clone(), serving.inbox, writing.clone()));
    let pulses = worker::spawn_loops(&ctx, &loops, serving.progress, serving.start);
    let hearts = pulses.iter().map(|pulse| pulse.heart.clone());
    serving.watchdog.watch(hearts.chain([writing]));
    loops.spawn(listen::run(ctx.clone(), serving.connect));
    loops.close();
    let refusal = serving.reload.refusal();
    let mut hangups = serving.hangups;

    tokio::select! {
        () = stop_signals.wait() => {}
        () = oversee_for_ever(&ctx, &pulses, service, &refusal) => {}
        () = serving.reload.run(&ctx, service, &mut hangups) => {}
    }
    service.stopping(&format!("stopping; {} requests in flight", ctx.sends.len()));
    info!(
        in_flight = ctx.sends.len(),
        "stopping: nothing new is claimed"
    );
    ctx.stop.cancel();
    let finish = async {
        // The loops first: a step under way may still start sends.
        loops.wait().await;
        // Then the tasks of the accounts: a probe sends too.
        ctx.tasks.close();
        ctx.tasks.wait().await;
        ctx.sends.close();
        ctx.sends.wait().await;
        ctx.recorder.close();
        if let Err(panic) = writer.await {
            error!(error = %Chain(&panic), "the writer of outcomes panicked");
        }
    };
    tokio::pin!(finish);
    let deadline = tokio::time::sleep(serving.grace);
    tokio::pin!(deadline);
    loop {
        tokio::select! {
            () = &mut finish => {
                leave(&ctx).await;
                info!("stopped; everything is recorded");
                return Ok(());
            }
            () = &mut deadline => {
                for (job, after) in ctx.recorder.shelf().if_lost() {
                    error!(job.id = %job, "its outcome is not taken by the database and lost with this process; {after}");
                }
                return Err(RunError::Grace);
            }
            () = stop_signals.wait() => info!("stopping already; what is in flight is being finished"),
        }
    }
}

/// How long a stop waits for a database that is to know of it. Without it another key of an account waits a little.
const LEAVING: Duration = Duration::from_secs(2);

async fn leave(ctx: &Context) {
    let left = progress::leave(&ctx.pool, ctx.worker);
    match tokio::time::timeout(LEAVING, left).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => warn!(error = %Chain(&error), "the stop is not stored"),
        Err(_) => warn!("the stop is not stored: the database says nothing"),
    }
}

/// For how long a loop that is not stuck may give no sign of life: its longest waits are for an answer of the
/// gateway, and for a database that says nothing, which is given up after some forty seconds.
fn longest_silence(request_timeout: Duration) -> Duration {
    Duration::from_secs(60).max(request_timeout + Duration::from_secs(30))
}

/// Keeps the status line.
async fn oversee_for_ever(
    ctx: &Arc<Context>,
    pulses: &[Arc<Pulse>],
    service: &Service,
    refusal: &Refusal,
) {
    loop {
        let troubles = [
            ctx.recorder.forgotten().map(|_| FORGOTTEN.to_owned()),
            pulses.iter().find_map(|pulse| pulse.trouble()),
            ctx.recorder.is_waiting().then(|| UNWRITTEN.to_owned()),
            unrecorded(&ctx.recorder),
            ctx.standstill(),
            refusal.in_words(),
        ];
        let trouble = troubles.into_iter().flatten().next();
        let status = match oversee::look(ctx, trouble).await {
            Ok(status) => status,
            Err(error) => unusable(&error, ctx.standstill()),
        };
        service.status(&status);
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
}

struct StopSignals {
    term: Signal,
    int: Signal,
}

impl StopSignals {
    fn new() -> std::io::Result<StopSignals> {
        Ok(StopSignals {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
        })
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.term.recv() => {}
            _ = self.int.recv() => {}
        }
    }
}
