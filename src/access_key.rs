//! Access keys: their ids, what IAM lists of them, and a new one with its secret.

use std::fmt;

use jiff::Timestamp;
use secrecy::SecretString;
use serde::{Deserialize, Serialize};

/// The id of an access key. `Display` is its short form (`…WXYZ`); the full id is given on purpose
/// only.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AccessKeyId(String);

impl AccessKeyId {
    /// Takes 16 to 128 capital letters and digits, the form that the IAM API reference gives for an
    /// `AccessKeyId`.
    pub fn parse(text: &str) -> Option<Self> {
        let fits = (16..=128).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_uppercase() || b.is_ascii_digit());
        fits.then(|| Self(text.to_owned()))
    }

    pub fn full(&self) -> &str {
        &self.0
    }

    /// Temporary credentials of STS: they cannot be rotated.
    pub fn is_of_a_session(&self) -> bool {
        self.0.starts_with("ASIA")
    }
}

impl fmt::Display for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "…{}", &self.0[self.0.len() - 4..])
    }
}

impl fmt::Debug for AccessKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl TryFrom<String> for AccessKeyId {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Self::parse(&text).ok_or("not the id of an access key")
    }
}

impl From<AccessKeyId> for String {
    fn from(id: AccessKeyId) -> Self {
        id.0
    }
}

/// An access key of the user, as IAM lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    pub id: AccessKeyId,
    pub active: bool,
    pub created: Timestamp,
    /// `None`: not asked yet.
    pub used: Option<Use>,
}

/// The last use of a key, as IAM reports it: advisory, and hours late at times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Use {
    Never,
    At { when: Timestamp, service: String },
}

/// What `CreateAccessKey` returns. It cannot be cloned, printed or serialised.
pub struct CreatedKey {
    pub id: AccessKeyId,
    pub created: Timestamp,
    pub secret: SecretString,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_sixteen_capitals_and_digits_or_more_and_is_shown_short() {
        for (text, is_one) in [
            ("AKIAIOSFODNN7EXAMPLE", true),
            ("AKIAIOSFODNN", false),
            ("akiaiosfodnn7example", false),
            ("AKIAIOSFODNN7EXAMPL!", false),
        ] {
            assert_eq!(AccessKeyId::parse(text).is_some(), is_one, "{text}");
        }
        assert_eq!(AccessKeyId::parse(&"A".repeat(129)), None);
        let id = AccessKeyId::parse("AKIAIOSFODNN7EXAMPLE").unwrap();
        assert_eq!((id.to_string(), format!("{id:?}")), ("…MPLE".to_owned(), "…MPLE".to_owned()));
        assert!(
            !id.is_of_a_session()
                && AccessKeyId::parse("ASIAIOSFODNN7EXAMPLE").unwrap().is_of_a_session()
        );
    }
}
