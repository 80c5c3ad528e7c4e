//! Alerts that the database does not take: when the text of one is to be logged instead.

use std::collections::BTreeMap;
use std::time::Duration;

/// One whose text has changed is logged again after so long.
const NEWS: Duration = Duration::from_secs(300);

/// One that says the same is logged again after so long.
const AGAIN: Duration = Duration::from_secs(3600);

/// So many are remembered; of more, none is logged before an hour is over.
const MOST: usize = 1000;

/// Which alert it is: its account, kind and subject.
pub type Key = (Option<String>, String, String);

/// What was logged last of each.
#[derive(Debug, Default)]
pub struct Unwritten {
    logged: BTreeMap<Key, (String, Duration)>,
}

impl Unwritten {
    /// Nothing was logged yet.
    pub const fn new() -> Unwritten {
        Unwritten {
            logged: BTreeMap::new(),
        }
    }

    /// Whether the text of this alert is to be logged now; `at` is a time that only rises.
    pub fn is_news(&mut self, key: &Key, text: &str, at: Duration) -> bool {
        self.logged
            .retain(|_, (_, logged_at)| at.saturating_sub(*logged_at) < AGAIN);
        let is_news = match self.logged.get(key) {
            None => self.logged.len() < MOST,
            Some((logged, logged_at)) => logged != text && at.saturating_sub(*logged_at) >= NEWS,
        };
        if is_news {
            self.logged.insert(key.clone(), (text.to_owned(), at));
        }
        is_news
    }

    /// It is written: should it be refused again, that is news.
    pub fn is_written(&mut self, key: &Key) {
        self.logged.remove(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> Key {
        (None, "job_held".to_owned(), number.to_string())
    }

    #[test]
    fn each_alert_is_logged_once_and_again_when_it_says_something_else_or_lasts() {
        let mut unwritten = Unwritten::new();
        let mut is_news = |number, text, second| {
            unwritten.is_news(&key(number), text, Duration::from_secs(second))
        };
        assert!(is_news(1, "one", 0));
        assert!(is_news(2, "one", 0));
        assert!(!is_news(1, "one", 2));
        // A text that changes with each look is not logged with each look.
        assert!(!is_news(1, "two", 4));
        assert!(is_news(1, "two", 300));
        assert!(!is_news(1, "two", 3800));
        assert!(is_news(1, "two", 3900));
        unwritten.is_written(&key(1));
        assert!(unwritten.is_news(&key(1), "two", Duration::from_secs(3901)));
    }

    #[test]
    fn very_many_do_not_fill_the_log() {
        let mut unwritten = Unwritten::new();
        let mut logged = 0;
        for round in 0..5 {
            for number in 0..MOST + 5 {
                let is_news = unwritten.is_news(&key(number), "it", Duration::from_secs(2 * round));
                logged += usize::from(is_news);
            }
        }
        assert_eq!(logged, MOST);
    }
}
