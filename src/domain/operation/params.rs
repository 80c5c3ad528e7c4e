//! The reader of a job's params: it takes what the description of an operation allows and collects what is wrong.
//!
//! It knows the kinds of values, not the operations. Each sentence says what is wrong and what is allowed, in the words
//! of `apipay._wrong_params`, and repeats no text and no long number, since it may be a phone number. Amounts are read
//! from their digits; no number passes through a float.

use std::collections::BTreeMap;

use rust_decimal::Decimal;
use serde_json::{Map, Number, Value};

use super::fields::{Field, FieldKind, Fields, ITEMS_MAX, Need, Rule};
use crate::domain::errors::FieldErrors;
use crate::domain::job::JobName;
use crate::domain::phone::Phone;

/// Unknown fields that are reported at most: the errors are stored beside the job.
const UNKNOWN_MAX: usize = 20;

/// Characters of a wrong number that are repeated at most. A phone number has more digits.
const SHOWN_MAX: usize = 9;

/// Digits of a number that are looked at: more than any limit has.
const DIGITS_MAX: usize = 27;

/// Reads the params of a job.
pub(super) fn read(params: &Value, fields: &'static Fields) -> Result<Given, FieldErrors> {
    let mut reader = Reader {
        errors: FieldErrors::new(),
    };
    let given = reader.object("", params, fields);
    reader.errors.or_ok(given)
}

/// What was given, and is right.
#[derive(Default)]
pub(super) struct Given(BTreeMap<&'static str, Taken>);

/// A value that was taken.
enum Taken {
    Phone(Phone),
    Id(i64),
    Number(Decimal),
    Text(String),
    Items(Vec<Given>),
}

impl Given {
    /// The phone number in a field.
    pub(super) fn phone(&self, field: &str) -> Option<&Phone> {
        match self.0.get(field)? {
            Taken::Phone(phone) => Some(phone),
            _ => unreachable!("{field} is not described as a phone number"),
        }
    }

    /// The id in a required field.
    pub(super) fn id(&self, field: &str) -> i64 {
        match self.0.get(field) {
            Some(Taken::Id(id)) => *id,
            _ => unreachable!("{field} is not described as a required id"),
        }
    }

    /// The number in a field.
    pub(super) fn number(&self, field: &str) -> Option<Decimal> {
        match self.0.get(field)? {
            Taken::Number(number) => Some(*number),
            _ => unreachable!("{field} is not described as a number"),
        }
    }

    /// The text in a field.
    pub(super) fn text(&self, field: &str) -> Option<&str> {
        match self.0.get(field)? {
            Taken::Text(text) => Some(text),
            _ => unreachable!("{field} is not described as text"),
        }
    }

    /// The body of a request with all of it.
    pub(super) fn body(&self) -> Map<String, Value> {
        let fields = self.0.iter();
        fields
            .map(|(field, taken)| ((*field).to_owned(), taken.value()))
            .collect()
    }
}

impl Taken {
    fn value(&self) -> Value {
        match self {
            Taken::Phone(phone) => phone.as_str().into(),
            Taken::Id(id) => (*id).into(),
            Taken::Number(amount) => number(*amount),
            Taken::Text(text) => text.as_str().into(),
            Taken::Items(items) => items.iter().map(Given::body).collect(),
        }
    }
}

/// What is left of an amount after a discount in percent.
pub(super) fn after_discount(amount: Decimal, discount: Option<Decimal>) -> Decimal {
    let hundred = Decimal::ONE_HUNDRED;
    (amount * (hundred - discount.unwrap_or_default()) / hundred).normalize()
}

/// What was found wrong so far.
struct Reader {
    errors: FieldErrors,
}

impl Reader {
    fn refuse(&mut self, place: &str, problem: &str, allowed: &str) {
        self.errors
            .add(place, format!("{problem}; allowed: {allowed}"));
    }

    /// Reads an object. Its fields' places begin with `path`, which is empty or ends with a point.
    fn object(&mut self, path: &str, value: &Value, fields: &'static Fields) -> Given {
        let itself = path.strip_suffix('.').unwrap_or("params");
        let list = names_of(fields);
        let Some(given) = value.as_object() else {
            let problem = format!("is a JSON {}", kind_of(value));
            self.refuse(itself, &problem, &format!("an object with {list}"));
            return Given::default();
        };
        self.refuse_unknown(path, given, fields);
        let mut taken = Given::default();
        for field in fields.fields {
            if let Some(value) = self.field(path, given, field) {
                taken.0.insert(field.name, value);
            }
        }
        for rule in fields.rules {
            self.hold(path, given, &taken, rule);
        }
        taken
    }

    fn refuse_unknown(&mut self, path: &str, given: &Map<String, Value>, fields: &Fields) {
        let is_known = |name: &str| fields.fields.iter().any(|field| field.name == name);
        let unknown = given.keys().filter(|name| !is_known(name));
        for name in unknown.take(UNKNOWN_MAX) {
            let place = format!("{path}{name}");
            if let Some(reserved) = fields.reserved.iter().find(|it| it.name == name) {
                self.errors.add(place, reserved.why);
            } else if can_be_named(name) {
                self.refuse(&place, "is not a known field", &names_of(fields));
            } else {
                let itself = path.strip_suffix('.').unwrap_or("params");
                let problem = "has a field with an unreadable name";
                self.refuse(itself, problem, &names_of(fields));
            }
        }
    }

    fn field(
        &mut self,
        path: &str,
        given: &Map<String, Value>,
        field: &'static Field,
    ) -> Option<Taken> {
        let is_instead = matches!(field.need, Need::Unless(other) if has(given, other));
        let place = format!("{path}{}", field.name);
        match given.get(field.name).filter(|value| !value.is_null()) {
            _ if is_instead => None,
            Some(value) => self.value(&place, value, field),
            None if matches!(field.need, Need::Optional) => None,
            None => {
                self.refuse(&place, "is missing", field.allowed);
                None
            }
        }
    }

    fn value(&mut self, place: &str, value: &Value, field: &'static Field) -> Option<Taken> {
        let taken = match field.kind {
            FieldKind::Phone => phone(value).map(Taken::Phone),
            FieldKind::Id => id(value)
                .map(Taken::Id)
                .ok_or_else(|| "is not an id of the gateway".to_owned()),
            FieldKind::Number {
                least,
                most,
                decimals,
            } => number_within(value, least, most, decimals).map(Taken::Number),
            FieldKind::Text {
                most,
                lines,
                marked,
            } => return self.text(place, value, field.allowed, most, lines, marked),
            FieldKind::Items(item) => return self.items(place, value, field.allowed, item),
        };
        taken
            .map_err(|problem| self.refuse(place, &problem, field.allowed))
            .ok()
    }

    fn text(
        &mut self,
        place: &str,
        value: &Value,
        allowed: &str,
        most: usize,
        lines: bool,
        marked: bool,
    ) -> Option<Taken> {
        let Some(written) = value.as_str() else {
            self.refuse(place, &format!("is a JSON {}", kind_of(value)), allowed);
            return None;
        };
        let text = if lines {
            written.replace(['\t', '\n', '\r'], " ")
        } else {
            written.to_owned()
        };
        let length = text.chars().count();
        if length > most {
            let problem = format!("has {length} characters");
            self.refuse(place, &problem, &format!("at most {most}"));
        }
        if text.chars().any(char::is_control) {
            let allowed = if lines {
                "line breaks and tabs, and no others"
            } else {
                "none, not even line breaks and tabs"
            };
            self.refuse(place, "has control characters", allowed);
        }
        if marked && text.contains(JobName::MARK_START) {
            let problem = format!(
                "has \"{}\", which marks jobs",
                JobName::MARK_START.trim_end()
            );
            self.refuse(place, &problem, "text without it");
        }
        (!text.trim().is_empty()).then_some(Taken::Text(text))
    }

    fn items(
        &mut self,
        place: &str,
        value: &Value,
        allowed: &str,
        fields: &'static Fields,
    ) -> Option<Taken> {
        let Some(items) = value.as_array() else {
            self.refuse(place, &format!("is a JSON {}", kind_of(value)), allowed);
            return None;
        };
        if !(1..=ITEMS_MAX).contains(&items.len()) {
            let problem = format!("has {} items", items.len());
            self.refuse(place, &problem, &format!("1 to {ITEMS_MAX}"));
            return None;
        }
        let items = items.iter().enumerate();
        let taken =
            items.map(|(index, item)| self.object(&format!("{place}.{index}."), item, fields));
        Some(Taken::Items(taken.collect()))
    }

    fn hold(&mut self, path: &str, given: &Map<String, Value>, taken: &Given, rule: &Rule) {
        match rule {
            Rule::ExactlyOne(one, other) => {
                let itself = path.strip_suffix('.').unwrap_or("params");
                let allowed = "exactly one of the two";
                match (has(given, one), has(given, other)) {
                    (true, true) => self.refuse(itself, &format!("has {one} and {other}"), allowed),
                    (false, false) => {
                        self.refuse(itself, &format!("has neither {one} nor {other}"), allowed);
                    }
                    _ => {}
                }
            }
            Rule::WholeAfterDiscount { amount, discount } => {
                let Some(of) = taken.number(amount) else {
                    return;
                };
                if !after_discount(of, taken.number(discount)).is_integer() {
                    self.refuse(
                        &format!("{path}{discount}"),
                        &format!("leaves no whole tenge of the {amount}"),
                        "one that does",
                    );
                }
            }
        }
    }
}

fn has(given: &Map<String, Value>, field: &str) -> bool {
    given.get(field).is_some_and(|value| !value.is_null())
}

fn names_of(fields: &Fields) -> String {
    let names: Vec<&str> = fields.fields.iter().map(|field| field.name).collect();
    names.join(", ")
}

/// The word for a JSON value, as `jsonb_typeof` has it.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A field name that an error may repeat: short, and without the digits of a phone number.
fn can_be_named(field: &str) -> bool {
    let letters = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    let digits = field.chars().filter(char::is_ascii_digit).count();
    (1..=64).contains(&field.len()) && field.chars().all(letters) && digits <= 4
}

fn phone(value: &Value) -> Result<Phone, String> {
    let Some(written) = value.as_str() else {
        return Err(format!("is a JSON {}", kind_of(value)));
    };
    Phone::parse(written).ok_or_else(|| {
        let length = written.chars().count();
        format!("is not a phone number of Kazakhstan ({length} characters given)")
    })
}

/// Digits, with leading zeros or not, and a fraction of zeros or none: exactly what `apipay._id` reads in
/// the database, where one number written in two ways must be one.
fn id(value: &Value) -> Option<i64> {
    let written = written(value)?;
    let (digits, fraction) = written.split_once('.').unwrap_or((written, "0"));
    let is_whole = digits.bytes().all(|b| b.is_ascii_digit())
        && !fraction.is_empty()
        && fraction.bytes().all(|b| b == b'0');
    let id = is_whole.then(|| digits.parse().ok())??;
    (id > 0).then_some(id)
}

/// A number in digits, with or without a fraction: what `apipay._wrong_number` takes.
fn number_within(value: &Value, least: &str, most: &str, decimals: u32) -> Result<Decimal, String> {
    let Some(written) = written(value) else {
        return Err(format!("is a JSON {}", kind_of(value)));
    };
    let Some(digits) = in_digits(written) else {
        return Err("is not a number in digits".to_owned());
    };
    let limit = |limit| Decimal::from_str_exact(limit).expect("a limit is a decimal");
    let taken = decimal(digits).filter(|number| {
        number.scale() <= decimals && (limit(least)..=limit(most)).contains(number)
    });
    taken.ok_or_else(|| match written.len() {
        ..=SHOWN_MAX => format!("is {written}"),
        _ => "is not an allowed number".to_owned(),
    })
}

/// A number as it is written, if it is digits with or without a fraction; a sign may stand before them.
fn in_digits(written: &str) -> Option<&str> {
    let unsigned = written.strip_prefix('-').unwrap_or(written);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, "0"));
    let is_digits = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
    (is_digits(whole) && is_digits(fraction)).then_some(written)
}

/// The number, if it has no sign and not too many digits. Zeros that change nothing do not count.
fn decimal(digits: &str) -> Option<Decimal> {
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let (whole, fraction) = (
        whole.trim_start_matches('0'),
        fraction.trim_end_matches('0'),
    );
    (!digits.starts_with('-') && whole.len() + fraction.len() <= DIGITS_MAX)
        .then(|| Decimal::from_str_exact(&format!("0{whole}.{fraction}0")).ok())?
        .map(|number| number.normalize())
}

fn written(value: &Value) -> Option<&str> {
    match value {
        Value::Number(number) => Some(number.as_str()),
        Value::String(text) => Some(text),
        _ => None,
    }
}

/// An amount as a JSON number with exactly its digits; a whole amount is an integer.
fn number(amount: Decimal) -> Value {
    let digits = amount.normalize().to_string();
    let number: Number = digits.parse().expect("a decimal prints as a JSON number");
    Value::Number(number)
}

#[cfg(test)]
mod laws;
