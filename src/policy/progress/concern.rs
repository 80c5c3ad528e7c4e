//! What is watched, and what each of it is to people.

/// What should move, or should not last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Concern {
    /// Jobs that are due are claimed.
    Claims,
    /// Claimed jobs are sent before their window closes.
    Window,
    /// Look-ups that are due are made.
    LookUps,
    /// Look-ups come to an answer.
    Answers,
    /// What was accepted is followed.
    Checks,
    /// Leases that ran out are recovered.
    Leases,
    /// Jobs that waited for another one go on when it has ended.
    Turns,
    /// A daemon that has the account in its configuration can begin to serve it.
    Start,
    /// What the gateway says of the account is stored.
    Change,
    /// A daemon has the account in its configuration.
    Service,
    /// The daemon that served accounts was not stopped.
    StoppedDaemon,
    /// The daemon that served accounts gives signs of life.
    SilentDaemon,
    /// The database answers.
    Database,
    /// A loop of the daemon gets its work done.
    Loop,
    /// Outcomes are written.
    Outcomes,
    /// Alerts are delivered.
    Deliveries,
    /// The schema is as it was made, and nothing hides its rows.
    Schema,
    /// The numbers that the database gives out are free.
    Numbers,
    /// Sending is not stopped for ever.
    Stop,
    /// Sends get past the account's limit at the gateway.
    Limit,
    /// What asks gets past it.
    AskingLimit,
    /// Parked accounts are probed when that is due.
    Probing,
    /// Probes of parked accounts get clear answers.
    Probes,
}

impl Concern {
    /// Whether it costs payments, rather than what protects or reports them.
    pub fn is_critical(self) -> bool {
        !matches!(self, Concern::Deliveries | Concern::Stop)
    }

    /// Whether a lock that somebody keeps may be why.
    pub fn may_be_a_lock(self) -> bool {
        match self {
            Concern::Claims
            | Concern::Window
            | Concern::LookUps
            | Concern::Answers
            | Concern::Checks
            | Concern::Leases
            | Concern::Turns
            | Concern::Probing
            | Concern::Database
            | Concern::Loop
            | Concern::Outcomes => true,
            // It names the session itself.
            Concern::Start
            | Concern::Change
            | Concern::Service
            | Concern::StoppedDaemon
            | Concern::SilentDaemon
            | Concern::Deliveries
            | Concern::Schema
            | Concern::Numbers
            | Concern::Stop
            | Concern::Limit
            | Concern::AskingLimit
            | Concern::Probes => false,
        }
    }

    /// Whether what was said of it is its cause: another one is another incident.
    pub fn is_said(self) -> bool {
        matches!(
            self,
            Concern::Database
                | Concern::Loop
                | Concern::Outcomes
                | Concern::Schema
                | Concern::Numbers
        )
    }

    /// Whether payments wait because of it: an alert that is not delivered holds none up.
    pub fn holds_payments(self) -> bool {
        self != Concern::Deliveries
    }

    /// Whether nothing of it can move while all sending is stopped. That a daemon is missing can end all the same.
    pub fn is_kept_by_a_stop(self) -> bool {
        matches!(
            self,
            Concern::Claims
                | Concern::Window
                | Concern::LookUps
                | Concern::Answers
                | Concern::Checks
                | Concern::Leases
                | Concern::Turns
                | Concern::Limit
                | Concern::AskingLimit
                | Concern::Probing
                | Concern::Probes
        )
    }

    /// Whether it says that nobody serves an account.
    pub fn is_of_service(self) -> bool {
        matches!(
            self,
            Concern::Service | Concern::StoppedDaemon | Concern::SilentDaemon
        )
    }

    /// Whether it holds up every account.
    pub fn stops_all(self) -> bool {
        matches!(self, Concern::Loop | Concern::Outcomes | Concern::Schema)
    }

    /// Whether it tells of accounts, each by its name, why nothing of them moves.
    pub fn covers_accounts(self) -> bool {
        self.is_of_service() || matches!(self, Concern::Start | Concern::Change)
    }

    /// Its name in the details of an alert.
    pub fn code(self) -> &'static str {
        match self {
            Concern::Claims => "claims",
            Concern::Window => "window",
            Concern::LookUps => "look_ups",
            Concern::Answers => "answers",
            Concern::Checks => "checks",
            Concern::Leases => "leases",
            Concern::Turns => "turns",
            Concern::Start => "start",
            Concern::Change => "change",
            Concern::Service => "service",
            Concern::StoppedDaemon => "stopped_daemon",
            Concern::SilentDaemon => "silent_daemon",
            Concern::Database => "database",
            Concern::Loop => "loop",
            Concern::Outcomes => "outcomes",
            Concern::Deliveries => "deliveries",
            Concern::Schema => "schema",
            Concern::Numbers => "numbers",
            Concern::Stop => "stop",
            Concern::Limit => "limit",
            Concern::AskingLimit => "asking_limit",
            Concern::Probing => "probing",
            Concern::Probes => "probes",
        }
    }
}
