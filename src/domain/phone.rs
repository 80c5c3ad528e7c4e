//! Phone numbers of payers.

use std::fmt;

/// A phone number in the only form the gateway takes, `8XXXXXXXXXX`.
///
/// `Debug` and `Display` show it masked: whole numbers belong into requests and nowhere else.
#[derive(Clone, PartialEq, Eq)]
pub struct Phone(String);

impl Phone {
    /// Reads the forms people store: `+7 700 123-45-67`, `77001234567`, `8 (700) 123 45 67`.
    ///
    /// Anything that is not eleven digits starting with 7 or 8, or holds other characters than
    /// blanks, dashes, dots, brackets and one leading plus, is refused.
    pub fn parse(written: &str) -> Option<Phone> {
        let trimmed = written.trim();
        let (plus, rest) = match trimmed.strip_prefix('+') {
            Some(rest) => (true, rest),
            None => (false, trimmed),
        };
        let is_filler = |c: char| {
            c.is_whitespace() || matches!(c, '-' | '.' | '(' | ')' | '\u{2010}'..='\u{2015}')
        };
        if !rest.chars().all(|c| c.is_ascii_digit() || is_filler(c)) {
            return None;
        }
        let digits: String = rest.chars().filter(char::is_ascii_digit).collect();
        match (plus, digits.as_bytes().first(), digits.len()) {
            (_, Some(b'7'), 11) | (false, Some(b'8'), 11) => {
                Some(Phone(format!("8{}", &digits[1..])))
            }
            _ => None,
        }
    }

    /// The whole number, for the request.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}***{}", &self.0[..4], &self.0[7..])
    }
}

impl fmt::Debug for Phone {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Phone({self})")
    }
}
