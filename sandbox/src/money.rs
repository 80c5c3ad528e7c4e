//! Tenge: exact decimals in, the documented shapes out. No binary fractions anywhere.

use rust_decimal::{Decimal, RoundingStrategy};
use serde_json::{Number, Value};

/// The largest amount any field of the gateway accepts.
pub(crate) const LARGEST: Decimal = Decimal::from_parts(1_410_065_407, 2, 0, false, 2);

/// Reads a JSON number exactly as it was written; `None` when it does not fit a decimal.
pub(crate) fn from_number(number: &Number) -> Option<Decimal> {
    let text = number.to_string();
    if text.contains(['e', 'E']) {
        return Decimal::from_scientific(&text).ok();
    }
    Decimal::from_str_exact(&text).ok()
}

/// Amounts in answers: a string with two decimals.
pub(crate) fn text(amount: Decimal) -> String {
    format!("{amount:.2}")
}

/// The few amounts that the gateway answers as JSON numbers.
pub(crate) fn number(amount: Decimal) -> Value {
    let shortest = amount.normalize().to_string();
    shortest
        .parse::<Number>()
        .map_or(Value::Null, Value::Number)
}

pub(crate) fn is_whole(amount: Decimal) -> bool {
    amount.fract().is_zero()
}

/// Finer than a tiyn.
pub(crate) fn is_too_fine(amount: Decimal) -> bool {
    amount.normalize().scale() > 2
}

/// What is left of a line's price after the discount, rounded to tiyn.
///
/// The discount is taken from every line, not from the sum, so whole prices can give a fractional total.
pub(crate) fn after_discount(price: Decimal, percentage: Option<Decimal>) -> Decimal {
    let Some(percentage) = percentage else {
        return price;
    };
    let left = price * (Decimal::ONE_HUNDRED - percentage) / Decimal::ONE_HUNDRED;
    left.round_dp_with_strategy(2, RoundingStrategy::MidpointAwayFromZero)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decimal(text: &str) -> Decimal {
        text.parse().unwrap()
    }

    #[test]
    fn the_largest_amount_is_the_documented_one() {
        assert_eq!(LARGEST, decimal("99999999.99"));
    }

    #[test]
    fn numbers_are_read_exactly() {
        for (json, expected) in [
            ("5000", Some("5000")),
            ("0.1", Some("0.1")),
            ("5e3", Some("5000")),
            ("100000000000000000000000000000000000", None),
        ] {
            let number: Number = json.parse().unwrap();
            assert_eq!(from_number(&number), expected.map(decimal), "{json}");
        }
    }

    #[test]
    fn amounts_are_written_as_documented() {
        assert_eq!(text(decimal("5000")), "5000.00");
        assert_eq!(text(decimal("0.5")), "0.50");
        assert_eq!(number(decimal("5000.00")).to_string(), "5000");
        assert_eq!(number(decimal("12.50")).to_string(), "12.5");
    }

    #[test]
    fn discounts_leave_tiyn() {
        for (price, percentage, expected) in [
            ("100", "10", "90"),
            ("333", "50", "166.5"),
            ("0.33", "50", "0.17"),
        ] {
            assert_eq!(
                after_discount(decimal(price), Some(decimal(percentage))),
                decimal(expected)
            );
        }
    }
}
