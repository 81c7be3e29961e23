//! vouch-simulator
