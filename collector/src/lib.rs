//! vouch-collector
