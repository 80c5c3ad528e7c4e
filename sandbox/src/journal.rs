//! The request log, bounded, and what can be counted exactly while it fills.

use std::collections::{BTreeMap, HashMap, VecDeque};

use serde::Serialize;
use serde_json::{Value, json};
use time::OffsetDateTime;

use crate::limits::unix_us;
use crate::stamp;

const WINDOW_US: i64 = 60_000_000;
const BODY_LIMIT: usize = 4_096;

#[derive(Debug)]
pub(crate) struct Entry {
    pub(crate) at: OffsetDateTime,
    /// The owner's name or a mask, never the key.
    pub(crate) key: String,
    /// The key that was used. Two keys of one organization are told apart by it, and have a minute each.
    pub(crate) masked_key: String,
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: String,
    pub(crate) body: String,
    pub(crate) route: &'static str,
    pub(crate) status: Option<u16>,
    pub(crate) fault: Option<String>,
    pub(crate) applied: bool,
    pub(crate) limited: bool,
    pub(crate) duration_us: Option<i64>,
}

#[derive(Debug, Default)]
struct Minute {
    seen_us: VecDeque<i64>,
    most: usize,
    total: u64,
}

#[derive(Debug)]
pub(crate) struct Journal {
    entries: VecDeque<Entry>,
    first_seq: u64,
    capacity: usize,
    answers: BTreeMap<&'static str, BTreeMap<String, u64>>,
    minutes: HashMap<String, Minute>,
    in_flight: usize,
    most_in_flight: usize,
}

impl Journal {
    pub(crate) fn new(capacity: usize) -> Self {
        Self {
            entries: VecDeque::new(),
            first_seq: 1,
            capacity: capacity.max(1),
            answers: BTreeMap::new(),
            minutes: HashMap::new(),
            in_flight: 0,
            most_in_flight: 0,
        }
    }

    /// Forgets everything but the numbering, so that requests still under way keep numbers of their own.
    pub(crate) fn clear(&mut self) {
        let mut fresh = Self::new(self.capacity);
        fresh.first_seq = self.first_seq + self.entries.len() as u64;
        fresh.in_flight = self.in_flight;
        fresh.most_in_flight = self.in_flight;
        *self = fresh;
    }

    /// Notes a request at its arrival and gives it a number.
    pub(crate) fn open(&mut self, entry: Entry) -> u64 {
        self.count_minute(&entry.masked_key, unix_us(entry.at));
        self.in_flight += 1;
        self.most_in_flight = self.most_in_flight.max(self.in_flight);
        if self.entries.len() == self.capacity {
            self.entries.pop_front();
            self.first_seq += 1;
        }
        self.entries.push_back(entry);
        self.first_seq + self.entries.len() as u64 - 1
    }

    pub(crate) fn entry(&mut self, seq: u64) -> Option<&mut Entry> {
        let index = usize::try_from(seq.checked_sub(self.first_seq)?).ok()?;
        self.entries.get_mut(index)
    }

    /// Notes the end of a request; `status` is `None` when no whole answer was sent.
    pub(crate) fn close(&mut self, seq: u64, status: Option<u16>, now: OffsetDateTime) {
        self.in_flight = self.in_flight.saturating_sub(1);
        let Some(entry) = self.entry(seq) else {
            return;
        };
        entry.status = status;
        entry.duration_us = i64::try_from((now - entry.at).whole_microseconds()).ok();
        let route = entry.route;
        let status = status.map_or_else(|| "none".to_owned(), |status| status.to_string());
        *self
            .answers
            .entry(route)
            .or_default()
            .entry(status)
            .or_default() += 1;
    }

    pub(crate) fn show(&self, since: u64, route: Option<&str>) -> Vec<Row<'_>> {
        let known = usize::try_from(since.saturating_sub(self.first_seq - 1)).unwrap_or(usize::MAX);
        let numbered = (self.first_seq..).zip(&self.entries).skip(known);
        let wanted = numbered.filter(|(_, entry)| route.is_none_or(|route| route == entry.route));
        wanted.map(|(seq, entry)| Row::new(seq, entry)).collect()
    }

    pub(crate) fn stats(&self) -> Value {
        let keys: BTreeMap<_, _> = self
            .minutes
            .iter()
            .map(|(key, minute)| {
                (
                    key,
                    json!({"requests": minute.total, "most_in_60s": minute.most}),
                )
            })
            .collect();
        let most = self
            .minutes
            .values()
            .map(|minute| minute.most)
            .max()
            .unwrap_or_default();
        json!({
            "routes": self.answers,
            "keys": keys,
            "max_requests_per_key_60s": most,
            "in_flight": self.in_flight,
            "max_in_flight": self.most_in_flight,
        })
    }

    fn count_minute(&mut self, key: &str, now_us: i64) {
        if !self.minutes.contains_key(key) {
            self.minutes.insert(key.to_owned(), Minute::default());
        }
        let Some(minute) = self.minutes.get_mut(key) else {
            return;
        };
        while minute
            .seen_us
            .front()
            .is_some_and(|seen| *seen <= now_us - WINDOW_US)
        {
            minute.seen_us.pop_front();
        }
        minute.seen_us.push_back(now_us);
        minute.most = minute.most.max(minute.seen_us.len());
        minute.total += 1;
    }
}

/// The start of a body, as text.
pub(crate) fn excerpt(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(BODY_LIMIT)]).into_owned()
}

/// A request as the control API shows it; a log can be long, so it is written without detours.
#[derive(Serialize)]
pub(crate) struct Row<'a> {
    seq: u64,
    at: String,
    at_unix_us: i64,
    key: &'a str,
    masked_key: &'a str,
    method: &'a str,
    path: &'a str,
    query: &'a str,
    body: &'a str,
    route: &'static str,
    status: Option<u16>,
    fault: Option<&'a str>,
    applied: bool,
    limited: bool,
    duration_ms: Option<f64>,
}

impl<'a> Row<'a> {
    fn new(seq: u64, entry: &'a Entry) -> Self {
        Self {
            seq,
            at: stamp::micros(entry.at),
            at_unix_us: unix_us(entry.at),
            key: &entry.key,
            masked_key: &entry.masked_key,
            method: &entry.method,
            path: &entry.path,
            query: &entry.query,
            body: &entry.body,
            route: entry.route,
            status: entry.status,
            fault: entry.fault.as_deref(),
            applied: entry.applied,
            limited: entry.limited,
            duration_ms: entry.duration_us.map(|us| us as f64 / 1_000.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use time::Duration;
    use time::macros::datetime;

    fn entry(seconds: i64) -> Entry {
        Entry {
            at: datetime!(2026-09-06 10:00 UTC) + Duration::seconds(seconds),
            key: "k…1".to_owned(),
            masked_key: "k…1".to_owned(),
            method: "GET".to_owned(),
            path: "/api/v1/invoices".to_owned(),
            query: String::new(),
            body: String::new(),
            route: "GET /invoices",
            status: None,
            fault: None,
            applied: false,
            limited: false,
            duration_us: None,
        }
    }

    #[test]
    fn the_log_keeps_the_newest_and_its_numbers() {
        let mut journal = Journal::new(2);
        assert_eq!(
            [1, 2, 3].map(|second| journal.open(entry(second))),
            [1, 2, 3]
        );
        journal.close(3, Some(200), entry(4).at);
        let shown = journal.show(0, Some("GET /invoices"));
        assert_eq!(shown.iter().map(|row| row.seq).collect::<Vec<_>>(), [2, 3]);
        assert_eq!(shown[1].duration_ms, Some(1000.0));
        assert_eq!(journal.show(2, None).len(), 1);
        assert_eq!(journal.show(9, None).len(), 0);
        assert_eq!(journal.stats()["routes"]["GET /invoices"]["200"], 1);
    }

    #[test]
    fn the_busiest_minute_is_exact() {
        let mut journal = Journal::new(10);
        for second in [0, 30, 59, 60, 61] {
            journal.open(entry(second));
        }
        assert_eq!(journal.stats()["max_requests_per_key_60s"], 4);
        assert_eq!(journal.stats()["max_in_flight"], 5);
    }
}
