//! vouch-notifier
