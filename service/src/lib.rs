//! vouch-service
