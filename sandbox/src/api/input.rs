//! Reading request bodies and queries, and collecting what is wrong with them into one 422.

use rust_decimal::Decimal;
use serde_json::{Map, Value, json};

use crate::envelope::Reply;
use crate::money;

/// The fields of a JSON object under validation. An absent field and `null` are the same.
pub(super) struct Fields<'a> {
    map: &'a Map<String, Value>,
    prefix: String,
    errors: Map<String, Value>,
    code: Option<&'static str>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(map: &'a Map<String, Value>) -> Self {
        Self::nested(map, String::new())
    }

    /// Fields of an object inside a list; their names in errors start with `prefix`.
    pub(super) fn nested(map: &'a Map<String, Value>, prefix: String) -> Self {
        Self {
            map,
            prefix,
            errors: Map::new(),
            code: None,
        }
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub(super) fn has_key(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    pub(super) fn wrong(&mut self, name: &str, message: String) {
        self.wrong_with(name, message, None);
    }

    pub(super) fn wrong_with(&mut self, name: &str, message: String, code: Option<&'static str>) {
        let sentences = self
            .errors
            .entry(format!("{}{name}", self.prefix))
            .or_insert_with(|| json!([]));
        if let Some(sentences) = sentences.as_array_mut() {
            sentences.push(message.into());
        }
        self.code = self.code.or(code);
    }

    pub(super) fn required(&mut self, name: &str) {
        self.wrong(name, format!("The {} field is required.", words(name)));
    }

    /// A text of at most `limit` characters; a longer one is refused with `code`.
    pub(super) fn text(&mut self, name: &str, limit: usize, code: &'static str) -> Option<String> {
        let text = self.get(name)?;
        let Some(text) = text.as_str() else {
            self.wrong(name, format!("The {} field must be a string.", words(name)));
            return None;
        };
        if text.chars().count() > limit {
            let message = format!(
                "The {} field must not be greater than {limit} characters.",
                words(name)
            );
            self.wrong_with(name, message, Some(code));
            return None;
        }
        Some(text.to_owned())
    }

    /// A JSON number between two amounts, both included.
    pub(super) fn amount(
        &mut self,
        name: &str,
        lowest: Decimal,
        highest: Decimal,
    ) -> Option<Decimal> {
        let value = self.get(name)?;
        let number = value.as_number().map(money::from_number);
        match number {
            None => self.wrong(name, format!("The {} field must be a number.", words(name))),
            Some(Some(amount)) if amount < lowest => {
                self.wrong(
                    name,
                    format!("The {} field must be at least {lowest}.", words(name)),
                );
            }
            Some(Some(amount)) if amount <= highest => return Some(amount),
            Some(_) => self.wrong(
                name,
                format!(
                    "The {} field must not be greater than {highest}.",
                    words(name)
                ),
            ),
        }
        None
    }

    pub(super) fn integer(&mut self, name: &str, lowest: u64) -> Option<u64> {
        let value = self.get(name)?;
        let integer = value.as_u64().filter(|integer| *integer >= lowest);
        if integer.is_none() {
            self.wrong(
                name,
                format!(
                    "The {} field must be an integer of at least {lowest}.",
                    words(name)
                ),
            );
        }
        integer
    }

    /// A list of 1 to 100 objects, each read by `read`.
    pub(super) fn objects<T>(
        &mut self,
        name: &str,
        read: impl Fn(&mut Fields<'_>) -> Option<T>,
    ) -> Option<Vec<T>> {
        let value = self.get(name)?;
        let list = value
            .as_array()
            .filter(|list| (1..=100).contains(&list.len()));
        let Some(list) = list else {
            self.wrong(
                name,
                format!(
                    "The {} field must be an array of 1 to 100 items.",
                    words(name)
                ),
            );
            return None;
        };
        let mut read_items = Vec::with_capacity(list.len());
        for (position, item) in list.iter().enumerate() {
            let Some(map) = item.as_object() else {
                self.wrong(
                    &format!("{name}.{position}"),
                    "The item must be an object.".to_owned(),
                );
                continue;
            };
            let mut fields = Fields::nested(map, format!("{}{name}.{position}.", self.prefix));
            read_items.extend(read(&mut fields));
            self.errors.append(&mut fields.errors);
            self.code = self.code.or(fields.code);
        }
        (read_items.len() == list.len()).then_some(read_items)
    }

    pub(super) fn finish(self) -> Result<(), Reply> {
        if self.errors.is_empty() {
            Ok(())
        } else {
            Err(Reply::invalid(self.errors, self.code))
        }
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

/// The pairs of a query string, decoded; a plus sign is a space.
pub(crate) fn parse_query(query: &str) -> Vec<(String, String)> {
    let pairs = query.split('&').filter(|pair| !pair.is_empty());
    pairs
        .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
        .map(|(name, value)| (decode(name), decode(value)))
        .collect()
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let escaped = (byte == b'%').then(|| text.get(at + 1..at + 3)).flatten();
        let escaped = escaped.and_then(|hex| u8::from_str_radix(hex, 16).ok());
        decoded.push(escaped.unwrap_or(if byte == b'+' { b' ' } else { byte }));
        at += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8_lossy(&decoded).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn queries_are_decoded() {
        let pairs = parse_query("status%5B%5D=paid&search=a+b%2Bc&bad=%zz%4&flag");
        let expected = [
            ("status[]", "paid"),
            ("search", "a b+c"),
            ("bad", "%zz%4"),
            ("flag", ""),
        ];
        assert_eq!(
            pairs,
            expected.map(|(name, value)| (name.to_owned(), value.to_owned()))
        );
    }

    #[test]
    fn every_wrong_field_is_named() {
        let body = json!({"name": 7, "sum": 0, "list": [{"n": 0}, 3]});
        let mut fields = Fields::new(body.as_object().unwrap());
        assert_eq!(fields.text("name", 5, "field_too_long"), None);
        assert_eq!(fields.amount("sum", Decimal::ONE, Decimal::TEN), None);
        assert_eq!(fields.objects("list", |item| item.integer("n", 1)), None);
        let refusal = fields.finish().unwrap_err();
        let body: Value = serde_json::from_slice(&refusal.body).unwrap();
        let named: Vec<_> = body["errors"]
            .as_object()
            .unwrap()
            .keys()
            .cloned()
            .collect();
        assert_eq!(named, ["list.0.n", "list.1", "name", "sum"]);
    }
}
