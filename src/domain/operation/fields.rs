//! What the params of an operation may hold, as a value that stands beside the operation.
//!
//! Two readers interpret it: `params`, for the daemon, and `apipay._wrong_params` in the database, which the typed
//! functions ask before they insert a job. The database has it as JSON, in `apipay._fields`; a test compares the two.
//! What a kind of value takes, and in which words it is refused, is written once on each side, and another test feeds
//! both with the same params.

use serde::Serialize;

/// The fields of an object: the params of an operation, or an item in a list of them.
#[derive(Debug, Serialize)]
pub struct Fields {
    /// What may be given. Errors list the names in this order.
    pub fields: &'static [Field],
    /// Fields of the gateway's that only the daemon may fill in.
    pub reserved: &'static [Reserved],
    /// What must hold between the fields.
    pub rules: &'static [Rule],
}

/// One field.
#[derive(Debug, Serialize)]
pub struct Field {
    /// Its name in the params, in the body that is sent, and as an argument of the typed function.
    pub name: &'static str,
    /// What its value is.
    #[serde(flatten)]
    pub kind: FieldKind,
    /// Whether it may be left out. JSON's null is the same as no field.
    pub need: Need,
    /// What is allowed, in words that end the sentence about a wrong value.
    pub allowed: &'static str,
}

/// A kind of value, with its limits.
#[derive(Debug, Serialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum FieldKind {
    /// A phone number as text, in any form that [`crate::domain::phone::Phone::parse`] reads.
    Phone,
    /// A positive id of the gateway's, as a number or as digits.
    Id,
    /// A number, also written as text: digits with or without a fraction, and neither sign nor exponent.
    Number {
        /// The least that is taken.
        least: &'static str,
        /// The most that is taken.
        most: &'static str,
        /// Digits behind the point at most, zeros at the end not counted.
        decimals: u32,
    },
    /// A text without control characters. Blank text is the same as none: the gateway stores null for it.
    Text {
        /// Its characters at most.
        most: usize,
        /// Whether line breaks and tabs may stand in it. Each is sent as a blank.
        lines: bool,
        /// Whether it is sent with the job's mark behind it. It may hold no beginning of a mark then: a copied mark
        /// would make the look-up of the job it was copied from find this job's object.
        marked: bool,
    },
    /// A list of 1 to [`ITEMS_MAX`] objects.
    Items(&'static Fields),
}

/// Items of a list (API, sections 2.1 and 2.8).
pub const ITEMS_MAX: usize = 100;

/// When a field has to be given.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Need {
    /// It may be left out.
    Optional,
    /// It has to be given.
    Required,
    /// It has to be given unless that other field is. Beside that one it is neither checked nor sent.
    Unless(&'static str),
}

/// A field that must not be given.
#[derive(Debug, Serialize)]
pub struct Reserved {
    /// Its name.
    pub name: &'static str,
    /// The rest of the sentence that begins with the name.
    pub why: &'static str,
}

/// What must hold between fields that are right by themselves.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Rule {
    /// One of the two is given, and not both.
    ExactlyOne(&'static str, &'static str),
    /// The amount less the discount is whole tenge.
    WholeAfterDiscount {
        /// The field with the amount.
        amount: &'static str,
        /// The field with the percentage.
        discount: &'static str,
    },
}

/// An amount in whole tenge (API, section 1, "Money").
pub(super) const WHOLE_TENGE: FieldKind = FieldKind::Number {
    least: "1",
    most: "99999999",
    decimals: 0,
};

/// An amount where tiyn are allowed.
pub(super) const TENGE: FieldKind = FieldKind::Number {
    least: "0.01",
    most: "99999999.99",
    decimals: 2,
};

/// How many pieces. The gateway names no upper limit, so what JSON programs take for a whole number is the limit.
pub(super) const COUNT: FieldKind = FieldKind::Number {
    least: "1",
    most: "9223372036854775807",
    decimals: 0,
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::operation::OPERATIONS;

    fn each_field(fields: &'static Fields, look: &mut impl FnMut(&'static Field)) {
        for field in fields.fields {
            look(field);
            if let FieldKind::Items(item) = field.kind {
                each_field(item, look);
            }
        }
    }

    #[test]
    fn what_is_allowed_names_the_limits() {
        let mut look = |field: &'static Field| match field.kind {
            FieldKind::Number { least, most, .. } => {
                let is_bounded = most.len() < 19;
                assert!(
                    field.allowed.contains(least) && (!is_bounded || field.allowed.contains(most)),
                    "{}: {}",
                    field.name,
                    field.allowed
                );
            }
            FieldKind::Text { most, .. } => assert_eq!(
                field.allowed,
                format!("text of at most {most} characters"),
                "{}",
                field.name
            ),
            FieldKind::Items(_) => {
                assert!(field.allowed.contains(&format!("1 to {ITEMS_MAX}")));
            }
            FieldKind::Phone | FieldKind::Id => {}
        };
        for operation in OPERATIONS {
            each_field(operation.fields(), &mut look);
        }
    }
}
