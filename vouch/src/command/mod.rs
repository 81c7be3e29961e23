//! The commands, one file each.

pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod judge;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod watch;
