//! vouch-tests
