//! The commands, one file each.

pub(crate) mod budget;
pub(crate) mod check;
pub(crate) mod demo;
pub(crate) mod explain;
pub(crate) mod init;
pub(crate) mod judge;
pub(crate) mod logs;
pub(crate) mod notify;
pub(crate) mod plan;
pub(crate) mod query;
pub(crate) mod services;
pub(crate) mod simulate;
mod tenant;
pub(crate) mod up;
pub(crate) mod verify;
pub(crate) mod watch;

/// Comes true at SIGINT or SIGTERM: a person, or a pipeline that gives up.
pub(crate) async fn interrupted() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut interrupt), Ok(mut terminate)) =
        (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}
