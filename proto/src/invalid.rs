//! What is wrong with an input: every wrong field at once, each with its value, the limit and the way out.

use std::fmt;

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldViolation {
    /// Path of the field, e.g. `metrics[2].direction`.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// An input that was refused, with all of its wrong fields.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Invalid {
    /// In the order in which they were found; never empty once returned as an error.
    pub violations: Vec<FieldViolation>,
}

impl Invalid {
    /// A refusal of a single field.
    #[must_use]
    pub fn field(field: impl Into<String>, message: impl Into<String>) -> Self {
        let mut invalid = Self::default();
        invalid.push(field, message);
        invalid
    }

    /// Adds a wrong field.
    pub fn push(&mut self, field: impl Into<String>, message: impl Into<String>) {
        self.violations.push(FieldViolation { field: field.into(), message: message.into() });
    }

    /// Takes over the violations of a part, below `prefix` (e.g. `hosts[1]`).
    pub fn extend(&mut self, prefix: &str, part: Self) {
        for violation in part.violations {
            let field = match (prefix.is_empty(), violation.field.is_empty()) {
                (true, _) => violation.field,
                (false, true) => prefix.to_owned(),
                (false, false) => format!("{prefix}.{}", violation.field),
            };
            self.push(field, violation.message);
        }
    }

    /// Keeps the value, or takes over the violations of the part and answers `None`.
    pub fn check<T>(&mut self, prefix: &str, part: Result<T, Self>) -> Option<T> {
        part.map_err(|invalid| self.extend(prefix, invalid)).ok()
    }

    /// `Ok` where nothing was wrong.
    ///
    /// # Errors
    /// Itself, where a field is wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.violations.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, violation) in self.violations.iter().enumerate() {
            let separator = if i == 0 { "" } else { "; " };
            write!(f, "{separator}{}: {}", violation.field, violation.message)?;
        }
        Ok(())
    }
}

impl std::error::Error for Invalid {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_wrong_fields_are_named_with_their_paths() {
        let mut invalid = Invalid::default();
        invalid.push("service", "is empty");
        invalid.extend("hosts[1]", Invalid::field("name", "is empty"));
        invalid.extend("duration", Invalid::field("", "is negative"));
        assert_eq!(invalid.to_string(), "service: is empty; hosts[1].name: is empty; duration: is negative");
        assert!(invalid.into_result().is_err());
        assert!(Invalid::default().into_result().is_ok());
    }
}
