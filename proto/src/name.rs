//! Names of services, environments and versions, and how they become tokens of a NATS subject or key.

use crate::Invalid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// Longest name, in bytes of UTF-8.
pub const MAX_NAME_BYTES: usize = 128;

/// A name that can be said in a subject: 1 to 128 bytes, no control characters.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

impl Name {
    /// Validates a name.
    ///
    /// # Errors
    /// Where it is empty, longer than 128 bytes, or holds a control character.
    pub fn new(name: impl Into<String>) -> Result<Self, Invalid> {
        let name = name.into();
        let refuse = |message: String| Err(Invalid::field("", message));
        if name.trim().is_empty() {
            return refuse(format!("is empty; give a name of 1 to {MAX_NAME_BYTES} bytes"));
        }
        if name.len() > MAX_NAME_BYTES {
            return refuse(format!("has {} bytes, at most {MAX_NAME_BYTES} are allowed", name.len()));
        }
        if name.chars().any(char::is_control) {
            return refuse(format!("`{}` holds a control character", name.escape_debug()));
        }
        Ok(Self(name))
    }

    /// The name as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name as one token of a subject or key: bytes outside `[A-Za-z0-9_-]` become `=XX`.
    #[must_use]
    pub fn token(&self) -> String {
        encode_token(&self.0)
    }
}

/// Encodes any text as one token; reversible.
pub(crate) fn encode_token(text: &str) -> String {
    let mut token = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            token.push(char::from(byte));
        } else {
            token.push_str(&format!("={byte:02X}"));
        }
    }
    token
}

/// Reads a token back; `None` where it is not one that `encode_token` writes.
pub(crate) fn decode_token(token: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(token.len());
    let mut rest = token.bytes();
    while let Some(byte) = rest.next() {
        match byte {
            b'=' => {
                let digits = [rest.next()?, rest.next()?];
                let text = std::str::from_utf8(&digits).ok()?;
                bytes.push(u8::from_str_radix(text, 16).ok()?);
            }
            _ => bytes.push(byte),
        }
    }
    let text = String::from_utf8(bytes).ok()?;
    (!text.is_empty() && encode_token(&text) == token).then_some(text)
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl TryFrom<String> for Name {
    type Error = Invalid;

    fn try_from(name: String) -> Result<Self, Invalid> {
        Self::new(name)
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn reserved_bytes_are_written_as_hexadecimal() {
        assert_eq!(Name::new("shop.cart *>").unwrap().token(), "shop=2Ecart=20=2A=3E");
        assert_eq!(Name::new("Überweisung_1-a").unwrap().token(), "=C3=9Cberweisung_1-a");
        assert_eq!(decode_token("a=2"), None);
        assert_eq!(decode_token("a=2e"), None, "one spelling only");
        assert_eq!(decode_token(""), None);
    }

    #[test]
    fn a_refusal_says_why() {
        assert!(Name::new(" ").unwrap_err().to_string().contains("is empty"));
        assert!(Name::new("x".repeat(129)).unwrap_err().to_string().contains("has 129 bytes, at most 128"));
        assert!(Name::new("a\nb").unwrap_err().to_string().contains("control character"));
    }

    proptest! {
        #[test]
        fn tokens_are_reversible_and_safe(name in "\\PC{1,40}") {
            let token = encode_token(&name);
            prop_assert_eq!(decode_token(&token), Some(name));
            prop_assert!(token.bytes().all(|b| b.is_ascii_alphanumeric() || b"=_-".contains(&b)));
        }
    }
}
