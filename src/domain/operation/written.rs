//! A job's params as its row has them: bytes that anybody may have written.
//!
//! Whoever may insert a job may insert anything that jsonb takes. What cannot be read is the job's own
//! failure, in the words of [`FieldErrors`]; it is never an error of the statement that read it.

use std::fmt;

use serde_json::Value;

use crate::domain::errors::FieldErrors;

/// Most bytes of params that are read, as text and as the database keeps them. What the gateway takes is a
/// tenth of it.
pub const PARAMS_MAX: usize = 64 * 1024;

/// How keys begin by which serde_json passes numbers to itself: as a user's key it would make a number of
/// an object, of which the database knows nothing.
const PARSERS_OWN: &str = "\"$serde_json::private::";

/// The params of a job, unread.
#[derive(Clone, PartialEq, Eq)]
pub enum Written {
    /// The bytes of their text.
    Here(Vec<u8>),
    /// Too long to be read together with those of other jobs.
    Apart,
    /// Longer than [`PARAMS_MAX`], or with a number of more digits than any amount has.
    Excessive,
    /// The database itself cannot write them as text.
    Broken,
}

/// Without the bytes: they hold phone numbers.
impl fmt::Debug for Written {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Written::Here(bytes) => write!(f, "{} bytes", bytes.len()),
            Written::Apart => f.write_str("apart"),
            Written::Excessive => f.write_str("excessive"),
            Written::Broken => f.write_str("broken"),
        }
    }
}

impl Written {
    /// Reads them, or says why that is not possible. Those [`Written::Apart`] have to be fetched first.
    pub fn read(&self) -> Result<Value, FieldErrors> {
        let unreadable = match self {
            Written::Here(bytes) => match parse(bytes) {
                Ok(params) => return Ok(params),
                Err(sentence) => sentence,
            },
            Written::Excessive | Written::Apart => format!(
                "must not be longer than {} KiB, nor hold numbers of more than 40 digits",
                PARAMS_MAX / 1024
            ),
            Written::Broken => "cannot be written as text by the database".to_owned(),
        };
        let mut errors = FieldErrors::new();
        errors.add("params", unreadable);
        Err(errors)
    }
}

fn parse(bytes: &[u8]) -> Result<Value, String> {
    let Ok(text) = str::from_utf8(bytes) else {
        return Err("must be UTF-8".to_owned());
    };
    if text.contains(PARSERS_OWN) {
        return Err("must not hold the word $serde_json::private".to_owned());
    }
    // The parser's words tell where it stopped, and nothing of what stands there.
    serde_json::from_str(text).map_err(|error| format!("cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn refused(written: &str, part: &str) {
        let errors = Written::Here(written.as_bytes().to_vec())
            .read()
            .expect_err("unreadable");
        let sentence = errors.of("params").concat();
        assert!(sentence.contains(part), "{sentence}");
    }

    #[test]
    fn what_cannot_be_read_is_an_error_of_the_params() {
        let deep = format!("{{\"a\": {}1{}}}", "[".repeat(200), "]".repeat(200));
        refused(&deep, "recursion limit");
        refused(
            r#"{"amount": {"$serde_json::private::Number": "5000"}}"#,
            "$serde_json::private",
        );
        refused(r#"{"a": "\ud800"}"#, "cannot be read");
        refused("", "cannot be read");
        let cyrillic_in_cp1251 = Written::Here(vec![b'"', 0xcf, 0xf0, b'"']);
        let errors = cyrillic_in_cp1251.read().expect_err("not UTF-8");
        assert_eq!(errors.of("params"), ["must be UTF-8"]);
        for written in [Written::Excessive, Written::Broken] {
            assert!(written.read().is_err(), "{written:?}");
        }
    }

    #[test]
    fn an_unreadable_text_is_not_repeated() {
        for written in [
            r#"{"phone": 87001234567x}"#,
            r#"{"phone": "87001234567\u"}"#,
        ] {
            let errors = Written::Here(written.as_bytes().to_vec()).read();
            let said = errors.expect_err("unreadable").to_string();
            assert!(!said.contains("8700"), "{said}");
        }
        assert_eq!(
            format!("{:?}", Written::Here(b"87001234567".to_vec())),
            "11 bytes"
        );
    }

    #[test]
    fn numbers_keep_their_digits() {
        let digits = "9".repeat(60_000);
        let read = Written::Here(format!("{{\"a\": {digits}}}").into_bytes()).read();
        assert_eq!(read.expect("params")["a"].to_string(), digits);
    }
}
