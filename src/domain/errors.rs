//! Errors by field, in the shape of the gateway's own 422.

use std::collections::BTreeMap;
use std::fmt;

use serde::Serialize;

/// Sentences that are kept at most.
const SENTENCES_MAX: usize = 100;

/// What is wrong with a job's params: for each field, sentences that name what is allowed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct FieldErrors(BTreeMap<String, Vec<String>>);

impl FieldErrors {
    /// No errors yet.
    pub fn new() -> FieldErrors {
        FieldErrors::default()
    }

    /// Adds a sentence to a field; of very many, only the first: they are stored beside the job.
    pub fn add(&mut self, field: impl Into<String>, sentence: impl Into<String>) {
        if self.0.values().map(Vec::len).sum::<usize>() < SENTENCES_MAX {
            self.0
                .entry(field.into())
                .or_default()
                .push(sentence.into());
        }
    }

    /// Whether nothing was added.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// `Ok(value)` when nothing was added.
    pub fn or_ok<T>(self, value: T) -> Result<T, FieldErrors> {
        if self.is_empty() {
            Ok(value)
        } else {
            Err(self)
        }
    }

    /// The sentences of a field.
    pub fn of(&self, field: &str) -> &[String] {
        self.0.get(field).map_or(&[], Vec::as_slice)
    }
}

impl fmt::Display for FieldErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fields: Vec<String> = self
            .0
            .iter()
            .map(|(field, sentences)| format!("{field}: {}", sentences.join(" ")))
            .collect();
        f.write_str(&fields.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn errors_have_the_gateways_shape() {
        let mut errors = FieldErrors::new();
        assert_eq!(errors.clone().or_ok(7), Ok(7));
        errors.add("phone_number", "is required");
        errors.add("amount", "must be whole.");
        errors.add("amount", "must be positive.");

        assert_eq!(
            serde_json::to_value(&errors).expect("JSON"),
            json!({"amount": ["must be whole.", "must be positive."], "phone_number": ["is required"]})
        );
        assert_eq!(
            errors.to_string(),
            "amount: must be whole. must be positive.; phone_number: is required"
        );
        assert_eq!(errors.of("phone_number"), ["is required"]);
        assert!(errors.of("description").is_empty());
        assert_eq!(errors.clone().or_ok(7), Err(errors));
    }

    #[test]
    fn of_very_many_errors_the_first_are_kept() {
        let mut errors = FieldErrors::new();
        for field in 0..2 * SENTENCES_MAX {
            errors.add(format!("field{field}"), "is not a known field");
            errors.add("params", "is wrong");
        }
        let kept = errors.0.values().map(Vec::len).sum::<usize>();
        assert_eq!(kept, SENTENCES_MAX);
        assert_eq!(errors.of("field0"), ["is not a known field"]);
    }
}
