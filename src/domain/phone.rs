//! Phone numbers of payers.

use std::fmt;

/// A phone number in the only form the gateway takes: `8` and ten more digits.
///
/// `Debug` and `Display` show it masked: whole numbers belong in requests and nowhere else.
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parsed(written: &str) -> Option<String> {
        Phone::parse(written).map(|phone| phone.as_str().to_owned())
    }

    #[test]
    fn the_forms_people_store_are_one_number() {
        for written in [
            "87001234567",
            "77001234567",
            "+77001234567",
            "+7 700 123-45-67",
            "8 (700) 123 45 67",
            " 8.700.123.45.67\n",
            "8\u{a0}700\u{2011}123\u{2013}45\u{2013}67",
        ] {
            assert_eq!(
                parsed(written).as_deref(),
                Some("87001234567"),
                "{written:?}"
            );
        }
    }

    #[test]
    fn anything_else_is_refused() {
        for written in [
            "",
            "+",
            "8700123456",
            "870012345678",
            "+87001234567",
            "++77001234567",
            "97001234567",
            "8700123456a",
            "8700123456٧",
            "7001234567",
            "8700123+4567",
            "87001234567;",
            "8700***4567",
        ] {
            assert_eq!(parsed(written), None, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn what_was_read_is_read_again(digits in "[0-9]{10}", start in "(8|7|\\+7) ?") {
            let phone = Phone::parse(&format!("{start}{digits}")).expect("a number");
            prop_assert_eq!(phone.as_str(), format!("8{digits}"));
            prop_assert_eq!(Phone::parse(phone.as_str()), Some(phone));
        }

        #[test]
        fn any_text_is_read_or_refused(written in ".*") {
            if let Some(phone) = Phone::parse(&written) {
                prop_assert!(phone.as_str().len() == 11 && phone.as_str().starts_with('8'));
            }
        }

        /// Numbers that differ in the middle only are printed alike, so the print tells nothing of it.
        #[test]
        fn the_middle_is_never_shown(code in "[0-9]{3}", middle in "[0-9]{3}", end in "[0-9]{4}") {
            let phone = Phone::parse(&format!("8{code}{middle}{end}")).expect("a number");
            prop_assert_eq!(phone.to_string(), format!("8{code}***{end}"));
            prop_assert_eq!(format!("{phone:?}"), format!("Phone(8{code}***{end})"));
        }
    }
}
