//! Failures that a loop meets again and again: when one of them is to be logged.

use std::collections::BTreeMap;
use std::time::Duration;

/// One that lasts is logged again after so long.
const AGAIN: Duration = Duration::from_secs(300);

/// One that was not met for so long is over: the next one is another.
const OVER: Duration = Duration::from_secs(60);

/// So many are remembered; of more, none is logged before one of them is over.
const MOST: usize = 1000;

/// What fails, and of what: the place in the code, and an account, a job or nothing.
type Key = (&'static str, String);

#[derive(Debug)]
struct Spell {
    logged_at: Duration,
    met_at: Duration,
}

/// The spells of failures that have not ended.
#[derive(Debug, Default)]
pub struct Spells {
    lasting: BTreeMap<Key, Spell>,
}

impl Spells {
    /// None.
    pub const fn new() -> Spells {
        Spells {
            lasting: BTreeMap::new(),
        }
    }

    /// Whether this failure, which was met now, is to be logged; `at` is a time that only rises.
    pub fn is_news(&mut self, place: &'static str, of: &str, at: Duration) -> bool {
        self.lasting
            .retain(|_, spell| at.saturating_sub(spell.met_at) < OVER);
        let key = (place, of.to_owned());
        if let Some(spell) = self.lasting.get_mut(&key) {
            spell.met_at = at;
            let is_due = at.saturating_sub(spell.logged_at) >= AGAIN;
            if is_due {
                spell.logged_at = at;
            }
            return is_due;
        }
        let has_room = self.lasting.len() < MOST;
        if has_room {
            let spell = Spell {
                logged_at: at,
                met_at: at,
            };
            self.lasting.insert(key, spell);
        }
        has_room
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_logged_once_for_each_spell_and_every_five_minutes_of_it() {
        let mut spells = Spells::new();
        let mut logged = |of: &str, seconds: std::ops::Range<u64>| {
            let news =
                seconds.filter(|second| spells.is_news("a", of, Duration::from_secs(*second)));
            news.collect::<Vec<_>>()
        };
        assert_eq!(logged("shop", 0..650), [0, 300, 600]);
        // It was met the last time a minute ago.
        assert_eq!(logged("shop", 709..720), [709]);
        assert_eq!(logged("other", 720..730), [720]);
        assert_eq!(logged("shop", 730..740), [0; 0]);
        assert!(spells.is_news("b", "shop", Duration::from_secs(740)));
    }

    #[test]
    fn very_many_do_not_fill_the_log() {
        let mut spells = Spells::new();
        let at = Duration::ZERO;
        let logged = (0..MOST + 5).filter(|number| spells.is_news("a", &number.to_string(), at));
        assert_eq!(logged.count(), MOST);
    }
}
