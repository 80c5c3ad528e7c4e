//! Postgres is stopped, killed, or away for long, and comes back.
