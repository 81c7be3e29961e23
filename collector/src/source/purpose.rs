//! What a call to a source is for: where there is no room for all, the first goes before.

/// What something is read for, the most urgent first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Purpose {
    /// A verification that is running.
    #[default]
    Verification,
    /// A service that is looked after outside of deployments.
    Guard,
    /// What later verifications will compare with.
    History,
}

impl Purpose {
    /// All of them, the most urgent first.
    pub const ALL: [Self; 3] = [Self::Verification, Self::Guard, Self::History];

    /// The word for it in metrics and messages.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Verification => "verification",
            Self::Guard => "guard",
            Self::History => "history",
        }
    }
}
