//! The contract between Vouch's services and with everybody else: messages, validated domain types, subjects, envelope.

mod vocabulary;

pub use vocabulary::{Classification, Direction, Outcome, Strategy, UnknownWord};
