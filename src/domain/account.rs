//! The account: one API key of one organization.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// The name of an account in the configuration and in `apipay.accounts`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccountName(Arc<str>);

impl AccountName {
    /// Accepts what the database's check constraint accepts: a lower-case letter or digit, then up
    /// to 62 of these, `_` and `-`.
    pub fn parse(name: &str) -> Option<AccountName> {
        let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
        let holds_well = name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '-');
        (starts_well && holds_well && name.len() <= 63).then(|| AccountName(name.into()))
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for AccountName {
    type Error = &'static str;

    fn try_from(name: String) -> Result<AccountName, &'static str> {
        AccountName::parse(&name).ok_or(
            "an account's name is a lower-case letter or digit, then up to 62 of these, \"_\" and \"-\"",
        )
    }
}

impl From<AccountName> for String {
    fn from(name: AccountName) -> String {
        name.as_str().to_owned()
    }
}

impl fmt::Display for AccountName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Which of the gateway's two protections against a second invoice the account may rely on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DuplicateProtection {
    /// The gateway honours `external_order_id_idempotency`: after one look-up that finds nothing
    /// the same key is sent again, and a 409 is then our own success.
    #[default]
    Key,
    /// The gateway ignores the key: only two look-ups that find nothing, with the settle time
    /// between them, allow a second send.
    Lookup,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_what_the_database_accepts() {
        let longest = "a".repeat(63);
        for name in ["default", "0", "shop-2_b", &longest] {
            assert_eq!(AccountName::parse(name).expect("a name").as_str(), name);
            let read: AccountName = serde_json::from_value(json!(name)).expect("a name");
            assert_eq!(serde_json::to_value(&read).expect("JSON"), json!(name));
        }
        let too_long = "a".repeat(64);
        for name in ["", "-a", "_a", "Shop", "магазин", "a b", "a\n", &too_long] {
            assert_eq!(AccountName::parse(name), None, "{name:?}");
            assert!(
                serde_json::from_value::<AccountName>(json!(name)).is_err(),
                "{name:?}"
            );
        }
    }

    #[test]
    fn the_key_protects_unless_configured_otherwise() {
        assert_eq!(DuplicateProtection::default(), DuplicateProtection::Key);
        let read = |word: &str| serde_json::from_value::<DuplicateProtection>(json!(word)).ok();
        assert_eq!(read("key"), Some(DuplicateProtection::Key));
        assert_eq!(read("lookup"), Some(DuplicateProtection::Lookup));
        assert_eq!(read("both"), None);
    }
}
