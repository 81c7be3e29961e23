//! Who takes lines of logs in tests, and who counts what they cost.

use async_trait::async_trait;
use std::collections::BTreeMap;
use std::sync::Mutex;
use vouch_collector::source::logs::{Allowance, LineSink, LogAsk, Meter, SourceLine};
use vouch_collector::source::{Failure, FailureKind};

/// Takes lines, of each service at most so many.
#[derive(Debug, Default)]
pub(crate) struct Taken {
    pub(crate) lines: BTreeMap<usize, Vec<SourceLine>>,
    pub(crate) most: Option<usize>,
}

#[async_trait]
impl LineSink for Taken {
    async fn take(&mut self, service: usize, lines: Vec<SourceLine>) -> anyhow::Result<bool> {
        let all = self.lines.entry(service).or_default();
        all.extend(lines);
        assert!(all.is_sorted_by_key(|line| line.line.at), "in the order of their time");
        Ok(self.most.is_none_or(|most| all.len() < most))
    }
}

impl Taken {
    pub(crate) fn contents(&self, service: usize) -> Vec<&str> {
        self.lines.get(&service).into_iter().flatten().map(|line| line.line.content.as_str()).collect()
    }
}

/// Allows all but some, and remembers what was charged.
#[derive(Debug, Default)]
pub(crate) struct Counter {
    pub(crate) refused: Vec<usize>,
    pub(crate) closed: bool,
    pub(crate) charged: Mutex<Vec<(usize, u64)>>,
}

#[async_trait]
impl Meter for Counter {
    async fn allow(&self, _: &LogAsk, services: &[usize]) -> Result<Allowance, Failure> {
        let over = || Failure::new(FailureKind::Budget, "used up");
        if self.closed {
            return Err(over());
        }
        let refused = self.refused.iter().filter(|place| services.contains(place));
        Ok(Allowance { scan_limit_gb: 3, refused: refused.map(|place| (*place, over())).collect() })
    }

    async fn charge(&self, _: &LogAsk, shares: &[(usize, u64)]) {
        self.charged.lock().unwrap().extend(shares);
    }
}
