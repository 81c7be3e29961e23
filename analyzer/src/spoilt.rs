//! Times in which a service ran a version that failed. Pure.

use vouch_proto::{LeftOut, Name, Timestamp, Window};

/// Most times that are kept, the newest.
pub const MOST: usize = 50;

/// A version that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its deployment.
    pub deployment_id: String,
    /// The verification.
    pub verification_id: String,
    /// The version.
    pub version: Name,
    /// What was judged.
    pub window: Window,
}

/// A rollback that was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// The deployment.
    pub deployment_id: String,
    /// When.
    pub at: Timestamp,
}

/// Times that say nothing about the service as it should be: the window of each version that failed, and where it was
/// rolled back, all until then. Oldest first.
#[must_use]
pub fn spoilt(failed: &[Failed], rollbacks: &[RolledBack]) -> Vec<LeftOut> {
    let of = |failed: &Failed| {
        let done = rollbacks.iter().filter(|one| one.deployment_id == failed.deployment_id);
        let rolled_back = done.map(|one| one.at.ceil_minute()).max();
        // A version that is gone says nothing about what follows; one that stays is the service as it is.
        let end = rolled_back.unwrap_or(failed.window.end());
        let window = Window::new(failed.window.start(), end).ok()?;
        let and = if rolled_back.is_some() { " and was rolled back" } else { "" };
        let why = format!("version {} failed{and} (verification {})", failed.version, failed.verification_id);
        Some(LeftOut { window, why })
    };
    let mut all: Vec<LeftOut> = failed.iter().filter_map(of).collect();
    all.sort_by(|a, b| (a.window, &a.why).cmp(&(b.window, &b.why)));
    let old = all.len().saturating_sub(MOST);
    all.split_off(old)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::tests::at;

    fn failed(n: i64, from: i64) -> Failed {
        Failed {
            deployment_id: format!("d{n}"),
            verification_id: format!("d{n}.1"),
            version: Name::new(format!("{n}.0")).unwrap(),
            window: Window::around(at(from), 0, 30).unwrap(),
        }
    }

    #[test]
    fn a_rollback_ends_what_a_version_spoilt() {
        let rollbacks = [RolledBack { deployment_id: "d2".into(), at: at(-92) }];
        let all = spoilt(&[failed(2, -100), failed(1, -500)], &rollbacks);
        let told: Vec<(Window, &str)> = all.iter().map(|one| (one.window, one.why.as_str())).collect();
        let expected = [
            (Window::around(at(-500), 0, 30).unwrap(), "version 1.0 failed (verification d1.1)"),
            (
                Window::new(at(-100), at(-92)).unwrap(),
                "version 2.0 failed and was rolled back (verification d2.1)",
            ),
        ];
        assert_eq!(told, expected);
        let late = [RolledBack { deployment_id: "d2".into(), at: at(40) }];
        assert_eq!(spoilt(&[failed(2, -100)], &late)[0].window, Window::new(at(-100), at(40)).unwrap());
    }

    #[test]
    fn the_newest_are_kept() {
        let many: Vec<Failed> = (1..=60).map(|n| failed(n, -50 * n)).collect();
        let all = spoilt(&many, &[]);
        assert_eq!((all.len(), all[49].window.start()), (50, at(-50)));
    }
}
