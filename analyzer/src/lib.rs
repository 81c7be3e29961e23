//! vouch-analyzer
