//! How an error is printed.

use std::error::Error;
use std::fmt;

/// Shows an error with all its causes, in one line.
pub struct Chain<'a>(pub &'a (dyn Error + 'static));

impl fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut told = self.0.to_string();
        f.write_str(&told)?;
        let mut cause = self.0.source();
        while let Some(error) = cause {
            let text = error.to_string();
            // sqlx and others end their own text with that of the cause.
            if !told.ends_with(&text) {
                write!(f, ": {text}")?;
            }
            told = text;
            cause = error.source();
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_shows_every_cause() {
        #[derive(Debug, thiserror::Error)]
        #[error("the payment stopped")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the disk is full"));
        assert_eq!(
            Chain(&error).to_string(),
            "the payment stopped: the disk is full"
        );
    }

    #[test]
    fn a_cause_that_was_told_already_is_not_told_twice() {
        #[derive(Debug, thiserror::Error)]
        #[error("it stopped: {0}")]
        struct Outer(#[source] std::io::Error);
        let error = Outer(std::io::Error::other("the disk is full"));
        assert_eq!(Chain(&error).to_string(), "it stopped: the disk is full");
    }
}
