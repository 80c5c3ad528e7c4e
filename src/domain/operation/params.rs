//! A reader over a job's params: it takes what an operation may send and collects what is wrong.
//!
//! It knows the kinds of values, not the operations. Every sentence names what is allowed and
//! repeats nothing of a value, since any text may hold a phone number. Amounts are read from their
//! digits; no number passes through a float.

use std::ops::RangeInclusive;

use rust_decimal::Decimal;
use serde_json::{Map, Number, Value};

use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::phone::Phone;

/// The largest amount in whole tenge (API, section 1, "Money").
const WHOLE_TENGE_MAX: i64 = 99_999_999;

/// The largest amount where tiyn are allowed, 99 999 999.99.
const TIYN_MAX: i64 = 9_999_999_999;

/// Items of a list (API, sections 2.1 and 2.8).
const ITEMS_MAX: usize = 100;

/// Unknown fields that are reported at most: the errors are stored beside the job.
const UNKNOWN_MAX: usize = 20;

/// An object under reading, with the errors found so far.
pub(super) struct Params<'p> {
    fields: &'p Map<String, Value>,
    path: String,
    errors: FieldErrors,
}

impl<'p> Params<'p> {
    /// Opens the params of a job. Refuses what is not an object, and notes every field that is
    /// not in `allowed`; those in `reserved` with the sentence beside them.
    pub(super) fn open(
        params: &'p Value,
        allowed: &[&str],
        reserved: &[(&str, &str)],
    ) -> Result<Params<'p>, FieldErrors> {
        let Some(fields) = params.as_object() else {
            let mut errors = FieldErrors::new();
            errors.add("params", "must be an object");
            return Err(errors);
        };
        let mut params = Params {
            fields,
            path: String::new(),
            errors: FieldErrors::new(),
        };
        params.refuse_unknown(allowed, reserved);
        Ok(params)
    }

    /// The errors, or the value if there are none. `None` stands for a value that could not be
    /// built because of an error.
    pub(super) fn finish<T>(self, value: Option<T>) -> Result<T, FieldErrors> {
        match value {
            Some(value) => self.errors.or_ok(value),
            None => Err(self.errors),
        }
    }

    /// Notes an error of a field.
    pub(super) fn refuse(&mut self, field: &str, sentence: impl Into<String>) {
        self.errors.add(format!("{}{field}", self.path), sentence);
    }

    /// Whether a field is given. JSON's null is the same as no field.
    pub(super) fn has(&self, field: &str) -> bool {
        self.value(field).is_some()
    }

    /// Notes an error if a field is not given.
    pub(super) fn require(&mut self, field: &str) {
        if !self.has(field) {
            self.refuse(field, "is required");
        }
    }

    /// A phone number, in any form that [`Phone::parse`] reads.
    pub(super) fn phone(&mut self, field: &str) -> Option<Phone> {
        self.read(
            field,
            "must be a phone number as text: eleven digits that start with 8, 7 or +7",
            |value| Phone::parse(value.as_str()?),
        )
    }

    /// A positive id, as a number or as digits.
    pub(super) fn id(&mut self, field: &str) -> Option<i64> {
        self.read(field, "must be a positive whole number", |value| {
            whole(value).filter(|id| *id > 0)
        })
    }

    /// A whole number in a range.
    pub(super) fn whole(&mut self, field: &str, range: RangeInclusive<i64>) -> Option<i64> {
        let sentence = format!(
            "must be a whole number from {} to {}",
            range.start(),
            range.end()
        );
        self.read(field, &sentence, |value| {
            whole(value).filter(|number| range.contains(number))
        })
    }

    /// An amount that a phone invoice may have.
    pub(super) fn whole_tenge(&mut self, field: &str) -> Option<Decimal> {
        let sentence = format!("must be a whole number of tenge from 1 to {WHOLE_TENGE_MAX}");
        self.read(field, &sentence, |value| {
            let range = Decimal::ONE..=Decimal::from(WHOLE_TENGE_MAX);
            decimal(value).filter(|amount| amount.is_integer() && range.contains(amount))
        })
    }

    /// An amount that may have tiyn.
    pub(super) fn tenge(&mut self, field: &str) -> Option<Decimal> {
        let range = Decimal::new(1, 2)..=Decimal::new(TIYN_MAX, 2);
        let sentence = format!(
            "must be an amount in tenge from {} to {} with at most two decimals",
            range.start(),
            range.end()
        );
        self.read(field, &sentence, |value| {
            decimal(value).filter(|amount| amount.scale() <= 2 && range.contains(amount))
        })
    }

    /// A text of at most `max` characters. Blank text is the same as none: the gateway stores null
    /// for it.
    pub(super) fn text(&mut self, field: &str, max: usize) -> Option<&'p str> {
        let value = self.value(field)?;
        let Some(text) = value.as_str() else {
            self.refuse(field, "must be text");
            return None;
        };
        if text.chars().count() > max {
            self.refuse(field, format!("must be at most {max} characters long"));
        }
        if text.chars().any(char::is_control) {
            self.refuse(
                field,
                "must not hold control characters such as line breaks",
            );
        }
        (!text.trim().is_empty()).then_some(text)
    }

    /// A text that will be sent with a job's mark behind it, in a field of the gateway's that holds
    /// `max` characters.
    ///
    /// Text with the beginning of a mark is refused: a copied mark would make the look-up of the
    /// job it was copied from find this job's object.
    pub(super) fn text_to_mark(&mut self, field: &str, max: usize) -> Option<&'p str> {
        let text = self.text(field, max - JobName::MARK_MAX - 1)?;
        if text.contains(JobName::MARK_START) {
            self.refuse(
                field,
                format!(
                    "must not hold \"{}\", which marks jobs",
                    JobName::MARK_START.trim_end()
                ),
            );
        }
        Some(text)
    }

    /// A list of 1 to 100 objects, each with the fields in `allowed` only.
    pub(super) fn items(
        &mut self,
        field: &str,
        allowed: &[&str],
        read: impl Fn(&mut Params<'p>) -> Value,
    ) -> Option<Value> {
        let items = self.read(field, "must be a list of 1 to 100 objects", |value| {
            value
                .as_array()
                .filter(|items| (1..=ITEMS_MAX).contains(&items.len()))
        })?;
        let read_item =
            |(index, item)| self.item(&format!("{field}.{index}"), item, allowed, &read);
        Some(items.iter().enumerate().filter_map(read_item).collect())
    }

    fn item(
        &mut self,
        at: &str,
        item: &'p Value,
        allowed: &[&str],
        read: impl Fn(&mut Params<'p>) -> Value,
    ) -> Option<Value> {
        let Some(fields) = item.as_object() else {
            self.refuse(at, "must be an object");
            return None;
        };
        // The errors travel through the item and back, so that one reader at a time holds them.
        let errors = std::mem::take(&mut self.errors);
        let mut inner = Params {
            fields,
            path: format!("{at}."),
            errors,
        };
        inner.refuse_unknown(allowed, &[]);
        let value = read(&mut inner);
        self.errors = inner.errors;
        Some(value)
    }

    fn read<T>(
        &mut self,
        field: &str,
        sentence: &str,
        read: impl FnOnce(&'p Value) -> Option<T>,
    ) -> Option<T> {
        let read = read(self.value(field)?);
        if read.is_none() {
            self.refuse(field, sentence);
        }
        read
    }

    fn value(&self, field: &str) -> Option<&'p Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    fn refuse_unknown(&mut self, allowed: &[&str], reserved: &[(&str, &str)]) {
        let fields = self.fields;
        let unknown = fields
            .keys()
            .filter(|field| !allowed.contains(&field.as_str()));
        for field in unknown.take(UNKNOWN_MAX) {
            match reserved.iter().find(|(name, _)| name == field) {
                Some((name, sentence)) => self.refuse(name, *sentence),
                None => self.refuse_unknown_field(field, allowed),
            }
        }
    }

    fn refuse_unknown_field(&mut self, field: &str, allowed: &[&str]) {
        let list = allowed.join(", ");
        if can_be_named(field) {
            self.refuse(field, format!("is not a known field; allowed: {list}"));
        } else {
            let object = self.path.strip_suffix('.').unwrap_or("params");
            self.errors.add(
                object,
                format!("has a field with an unreadable name; allowed: {list}"),
            );
        }
    }
}

/// The body of a request: only what is given gets in.
#[derive(Default)]
pub(super) struct Body(Map<String, Value>);

impl Body {
    /// Sets a field, if there is a value.
    pub(super) fn set(&mut self, field: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self.0.insert(field.to_owned(), value.into());
        }
    }
}

impl From<Body> for Value {
    fn from(body: Body) -> Value {
        Value::Object(body.0)
    }
}

/// An amount as a JSON number with exactly its digits; a whole amount is an integer.
pub(super) fn number(amount: Decimal) -> Value {
    let digits = amount.normalize().to_string();
    let number: Number = digits.parse().expect("a decimal prints as a JSON number");
    Value::Number(number)
}

/// A field name that an error may repeat: short, and without the digits of a phone number.
fn can_be_named(field: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let digits = field.chars().filter(char::is_ascii_digit).count();
    (1..=64).contains(&field.len()) && field.chars().all(letters) && digits <= 4
}

/// Digits, with leading zeros or not, and a fraction of zeros or none: exactly what `apipay._id` reads in
/// the database, where one number written in two ways must be one.
fn whole(value: &Value) -> Option<i64> {
    let written = written(value)?;
    let (digits, fraction) = written.split_once('.').unwrap_or((written, "0"));
    let is_whole = digits.bytes().all(|b| b.is_ascii_digit())
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b == b'0');
    is_whole.then(|| digits.parse().ok())?
}

/// Digits with or without a fraction, nothing else: no sign, exponent, blank or underscore.
fn decimal(value: &Value) -> Option<Decimal> {
    let written = written(value)?;
    let (whole, fraction) = written.split_once('.').unwrap_or((written, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (is_digits(whole) && is_digits(fraction))
        .then(|| Decimal::from_str_exact(written).ok())?
        .map(|amount| amount.normalize())
}

fn written(value: &Value) -> Option<&str> {
    match value {
        Value::Number(number) => Some(number.as_str()),
        Value::String(text) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod laws;
