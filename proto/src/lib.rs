//! vouch-proto
