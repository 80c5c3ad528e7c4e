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
    /// Blanks, dashes, dots and brackets count for nothing, wherever they stand; what is left must be 8, 7 or +7
    /// and ten more digits. `apipay._phone` reads the same.
    pub fn parse(written: &str) -> Option<Phone> {
        let bare: String = written.chars().filter(|c| !is_filler(*c)).collect();
        let digits = bare
            .strip_prefix("+7")
            .or_else(|| bare.strip_prefix(['7', '8']))?;
        let is_whole = digits.len() == 10 && digits.bytes().all(|b| b.is_ascii_digit());
        is_whole.then(|| Phone(format!("8{digits}")))
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

/// What may stand in a number as people write it: brackets, dots, dashes, and blanks of any width.
fn is_filler(letter: char) -> bool {
    matches!(
        letter,
        '(' | ')' | '.' | '-' | '\u{2010}'..='\u{2015}' | '\u{2212}'
    ) || matches!(letter, '\t'..='\r' | ' ' | '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}')
        || matches!(
            letter,
            '\u{2028}' | '\u{2029}' | '\u{202f}' | '\u{205f}' | '\u{3000}'
        )
}

/// A digit, also of the Arabic and the full-width ones.
fn is_digit(letter: char) -> bool {
    digit_of(letter).is_some()
}

fn digit_of(letter: char) -> Option<u32> {
    let zero = match letter {
        '0'..='9' => '0',
        '\u{660}'..='\u{669}' => '\u{660}',
        '\u{6f0}'..='\u{6f9}' => '\u{6f0}',
        '\u{ff10}'..='\u{ff19}' => '\u{ff10}',
        _ => return None,
    };
    Some(u32::from(letter) - u32::from(zero))
}

/// Blanks, dashes and strokes that may stand within a number as people write it.
fn is_separator(letter: char) -> bool {
    letter.is_whitespace()
        || matches!(
            letter,
            '(' | ')' | '.' | '_' | '/' | '-' | '\u{2010}'..='\u{2015}' | '\u{2212}'
        )
}

/// Where a number ends that begins here with a prefix (7 or 8) and ten digits, or with the 7 of a mobile number and nine
/// more; the same rule as `apipay._mask_phones` has.
fn end_of_phone(letters: &[char]) -> Option<usize> {
    let digits = |from: usize, many: usize| {
        let part = letters.get(from..from + many)?;
        part.iter()
            .all(|letter| is_digit(*letter))
            .then_some(from + many)
    };
    let past = |from: usize, most: usize| {
        let rest = letters.iter().skip(from).take(most);
        from + rest.take_while(|letter| is_separator(**letter)).count()
    };
    let rest = |from: usize| {
        let from = digits(past(from, 3), 3)?;
        let from = digits(past(from, 2), 2)?;
        let end = digits(past(from, 2), 2)?;
        let goes_on = letters.get(end).is_some_and(|letter| is_digit(*letter));
        (!goes_on).then_some(end)
    };
    let first = digit_of(*letters.first()?)?;
    let prefixed = || {
        matches!(first, 7 | 8).then_some(())?;
        rest(digits(past(1, 3), 3)?)
    };
    let bare = || {
        (first == 7).then_some(())?;
        rest(digits(0, 3)?)
    };
    // Digit by digit, which no amount is.
    let apart = |more: usize| {
        let pairs = letters.get(1..1 + 2 * more)?;
        let is_apart = pairs.chunks(2).all(
            |pair| matches!(pair, [before, digit] if is_separator(*before) && is_digit(*digit)),
        );
        let end = 1 + 2 * more;
        let goes_on = letters.get(end).is_some_and(|letter| is_digit(*letter));
        (is_apart && !goes_on).then_some(end)
    };
    let spaced = || match first {
        7 => apart(10).or_else(|| apart(9)),
        8 => apart(10),
        _ => None,
    };
    prefixed().or_else(bare).or_else(spaced)
}

/// From so many digits on a number may be a phone, a card or a name of a person's.
const LONG: usize = 9;

/// A text of somebody else's, without what may be a phone number: whatever looks like one, as people write it, and each
/// long row of digits becomes `***`.
pub fn without_phones(text: &str) -> String {
    let letters: Vec<char> = text.chars().collect();
    let mut masked = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(letter) = letters.get(at) {
        if !is_digit(*letter) {
            masked.push(*letter);
            at += 1;
            continue;
        }
        // Here a row of digits begins.
        let rest = &letters[at..];
        let row = rest.iter().take_while(|letter| is_digit(**letter)).count();
        let hidden = end_of_phone(rest).or_else(|| (row >= LONG).then_some(row));
        match hidden {
            Some(_) => masked.push_str("***"),
            None => masked.extend(&rest[..row]),
        }
        at += hidden.unwrap_or(row);
    }
    masked
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
            "8\u{a0}700\u{2011}123\u{2013}45\u{2212}67",
            "(+7) 700 123 45 67",
            "-8700123\u{3000}4567",
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
            "8700123\u{85}4567",
            "8700123\u{200b}4567",
            "7+7001234567",
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

    #[test]
    fn a_phone_leaves_no_text_however_it_is_written() {
        for (written, expected) in [
            (
                "order 15 of +77001234567, 87001234567",
                "order 15 of +***, ***",
            ),
            ("to +7 (700) 123-45-67 or 8.700.123.45.67", "to +*** or ***"),
            (
                "8\u{a0}700\u{2011}123\u{2013}45\u{2013}67 is ill",
                "*** is ill",
            ),
            ("700 123 45 67", "***"),
            ("8_700_123_45_67, 8/700/1234567", "***, ***"),
            ("7 0 0 1 2 3 4 5 6 7", "***"),
            ("to 8-7-0-0-1-2-3-4-5-6-7 now", "to *** now"),
            (
                "\u{668}\u{667}\u{660}\u{660}\u{661}\u{662}\u{663} \u{664}\u{665} \u{666}\u{667}",
                "***",
            ),
            (
                "\u{ff18}\u{ff17}\u{ff10}\u{ff10}\u{ff11}\u{ff12}\u{ff13}\u{ff14}\u{ff15}\u{ff16}\u{ff17}",
                "***",
            ),
            ("sizes 7 8 9 10", "sizes 7 8 9 10"),
            ("on 23/11/2026", "on 23/11/2026"),
            ("7001234567", "***"),
            (
                "Failing row contains (7, {\"phone_number\": \"8 700 123 45 67\"}).",
                "Failing row contains (7, {\"phone_number\": \"***\"}).",
            ),
            (
                "invoice 100001, card 4400430012345678",
                "invoice 100001, card ***",
            ),
            (
                "at 2026-11-23 13:57:22 +00, code 42P01, 1 500 000 tenge",
                "at 2026-11-23 13:57:22 +00, code 42P01, 1 500 000 tenge",
            ),
            (
                "\u{442}\u{435}\u{43b}. 87001234567",
                "\u{442}\u{435}\u{43b}. ***",
            ),
            ("", ""),
        ] {
            assert_eq!(without_phones(written), expected, "{written:?}");
        }
    }

    proptest! {
        #[test]
        fn what_is_a_phone_is_never_left(plus in any::<bool>(), first in "[78]", rest in "[0-9]{10}", apart in "[ -]?", before in "[a-z (]{0,5}", after in "[a-z ).]{0,5}") {
            let plus = if plus { "+" } else { "" };
            let number = format!("{plus}{first}{apart}{}{apart}{}{apart}{}{apart}{}", &rest[..3], &rest[3..6], &rest[6..8], &rest[8..]);
            let text = without_phones(&format!("{before}{number}{after}"));
            prop_assert_eq!(text, format!("{before}{plus}***{after}"));
        }
    }
}
