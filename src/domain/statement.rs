//! What another session of the database runs, as far as people may read it.

/// The first words of a statement: enough to know it again, and none of its values. It ends before the first word that may
/// hold one: a number, a text in quotes, a comment. None when nothing is left.
pub fn first_words(statement: &str) -> Option<String> {
    const WORDS: usize = 8;
    const LETTERS: usize = 80;
    let is_plain = |word: &&str| {
        let starts = word.starts_with(|c: char| c.is_ascii_alphabetic() || "_(*;".contains(c));
        let holds = word
            .chars()
            .all(|c| c.is_ascii_alphanumeric() || "_.,()*;".contains(c));
        starts && holds && word.chars().filter(char::is_ascii_digit).count() < 5
    };
    let mut shown = String::new();
    let mut is_whole = true;
    for (nth, word) in statement.split_whitespace().enumerate() {
        if nth == WORDS || !is_plain(&word) || shown.len() + word.len() > LETTERS {
            is_whole = false;
            break;
        }
        shown += if nth == 0 { "" } else { " " };
        shown += word;
    }
    match (shown.is_empty(), is_whole) {
        (true, _) => None,
        (false, true) => Some(shown),
        (false, false) => Some(shown + " …"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_is_known_by_its_first_words_and_shows_no_value() {
        for (statement, shown) in [
            (
                "lock table apipay.jobs in access exclusive mode",
                Some("lock table apipay.jobs in access exclusive mode"),
            ),
            (
                "select *\n  from apipay.jobs where id = 7 for update",
                Some("select * from apipay.jobs where id …"),
            ),
            (
                "update orders set phone = '+77001234567'",
                Some("update orders set phone …"),
            ),
            (
                "select one(two.three, 'x') from a",
                Some("select one(two.three, …"),
            ),
            ("select 77001234567", Some("select …")),
            ("select order77001234567", Some("select …")),
            (
                "alter role shop password 'secret'",
                Some("alter role shop password …"),
            ),
            ("select \"77001234567\"", Some("select …")),
            ("select $$text$$", Some("select …")),
            ("-- 87001234567\nselect 1", None),
            ("<insufficient privilege>", None),
            ("", None),
            ("COMMIT", Some("COMMIT")),
            ("a b c d e f g h i", Some("a b c d e f g h …")),
        ] {
            assert_eq!(first_words(statement).as_deref(), shown, "{statement}");
        }
    }
}
