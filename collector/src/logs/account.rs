//! What was scanned of a tenant on a day, and what may be: by service and by purpose. Pure.

use crate::config::BilledSettings;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use vouch_proto::Timestamp;

/// The version that this program writes, and the newest that it reads.
const VERSION: u32 = 1;
/// Share of a budget from which on it is warned, in percent.
const WARN_PERCENT: u128 = 80;
/// Bytes of a gigabyte, in which queries are limited.
const GB: u64 = 1_000_000_000;
/// Bytes of a GiB, in which they are billed.
pub(crate) const GIB: u64 = 1 << 30;

/// One day of one tenant, UTC. Written by compare-and-set only.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ScanDay {
    /// Version of this format.
    version: u32,
    /// Bytes of all services together.
    #[serde(default)]
    pub(crate) bytes: u64,
    /// By `environment/service`.
    #[serde(default)]
    services: BTreeMap<String, u64>,
    /// By purpose.
    #[serde(default)]
    purposes: BTreeMap<String, u64>,
}

/// Bytes that were scanned for a service.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Charge {
    /// `environment/service`.
    pub(crate) service: String,
    pub(crate) purpose: String,
    pub(crate) bytes: u64,
}

/// The day of an instant, as keys name it: `2026-11-24`.
pub(crate) fn day_of(at: Timestamp) -> String {
    at.to_string().chars().take(10).collect()
}

impl ScanDay {
    /// Reads an entry of the bucket; there is none before the first charge of a day.
    ///
    /// # Errors
    /// Where it is damaged, or newer than this program.
    pub(crate) fn read(bytes: Option<&[u8]>) -> anyhow::Result<Self> {
        let Some(bytes) = bytes else { return Ok(Self { version: VERSION, ..Self::default() }) };
        let day: Self = serde_json::from_slice(bytes)?;
        anyhow::ensure!(
            day.version <= VERSION,
            "the account of scanned bytes has version {}, this program reads up to {VERSION}; finish the update of all collectors",
            day.version
        );
        Ok(day)
    }

    /// As the bucket keeps it.
    ///
    /// # Errors
    /// Never in practice: every value can be written as JSON.
    pub(crate) fn write(&self) -> anyhow::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Adds what was scanned.
    pub(crate) fn charge(&mut self, charges: &[Charge]) {
        for charge in charges {
            self.bytes = self.bytes.saturating_add(charge.bytes);
            for (all, key) in [(&mut self.services, &charge.service), (&mut self.purposes, &charge.purpose)] {
                let sum = all.entry(key.clone()).or_default();
                *sum = sum.saturating_add(charge.bytes);
            }
        }
    }

    fn of_service(&self, service: &str) -> u64 {
        self.services.get(service).copied().unwrap_or(0)
    }

    /// Most gigabytes that the next query may scan, so that it exceeds the budget by less than one.
    ///
    /// # Errors
    /// Where nothing is left, in words.
    pub(crate) fn allows(&self, limits: &BilledSettings) -> Result<u32, String> {
        let Some(budget) = limits.bytes_per_day else {
            return Err(
                "nothing billed may be read: no budget is set (collector.billed.scan_budget_gib_per_day)"
                    .to_owned(),
            );
        };
        let left = budget.saturating_sub(self.bytes);
        if left == 0 {
            return Err(used_up(self.bytes, budget, "collector.billed.scan_budget_gib_per_day"));
        }
        Ok(limits.scan_limit_gb.min(u32::try_from(left.div_ceil(GB)).unwrap_or(u32::MAX)))
    }

    /// Whether a service may be read.
    ///
    /// # Errors
    /// Where nothing is left for it, in words.
    pub(crate) fn allows_service(&self, limits: &BilledSettings, service: &str) -> Result<(), String> {
        let Some(budget) = limits.bytes_per_day_and_service else { return Ok(()) };
        let spent = self.of_service(service);
        if spent < budget {
            return Ok(());
        }
        Err(used_up(spent, budget, "collector.billed.scan_budget_gib_per_day_and_service"))
    }

    /// What is to be told once: budgets of which four fifths, or all, were used up since `before`.
    pub(crate) fn crossed(&self, before: &Self, limits: &BilledSettings) -> Vec<String> {
        let mut told = Vec::new();
        let mut look = |of: &str, budget: Option<u64>, was: u64, is: u64| {
            let Some(budget) = budget else { return };
            let percent = |spent: u64| u128::from(spent) * 100 / u128::from(budget.max(1));
            for mark in [100, WARN_PERCENT] {
                if percent(was) < mark && percent(is) >= mark {
                    told.push(format!(
                        "{} % of the scan budget of {of} are used up today ({} of {} GiB)",
                        percent(is),
                        gib(is),
                        gib(budget)
                    ));
                    break;
                }
            }
        };
        look("the tenant", limits.bytes_per_day, before.bytes, self.bytes);
        for (service, spent) in &self.services {
            look(service, limits.bytes_per_day_and_service, before.of_service(service), *spent);
        }
        told
    }
}

fn used_up(spent: u64, budget: u64, setting: &str) -> String {
    format!(
        "logs not analysed: budget: {} GiB were scanned today, {} GiB may be ({setting}); from 00:00 UTC on they are read again",
        gib(spent),
        gib(budget)
    )
}

/// Bytes as GiB for a person, to three digits.
pub(crate) fn gib(bytes: u64) -> String {
    #[allow(clippy::cast_precision_loss, reason = "shown to three digits")]
    let gib = bytes as f64 / GIB as f64;
    if gib >= 100.0 {
        format!("{gib:.0}")
    } else if gib >= 0.1 {
        format!("{gib:.2}")
    } else {
        format!("{gib:.6}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn limits(all: u64, each: Option<u64>) -> BilledSettings {
        BilledSettings {
            bytes_per_day: Some(all),
            bytes_per_day_and_service: each,
            ..BilledSettings::default()
        }
    }

    fn charge(service: &str, bytes: u64) -> Charge {
        Charge { service: service.into(), purpose: "verification".into(), bytes }
    }

    fn day(charges: &[Charge]) -> ScanDay {
        let mut day = ScanDay::read(None).unwrap();
        day.charge(charges);
        day
    }

    #[test]
    fn the_released_day_is_read_and_written_for_ever() {
        let history = Charge { purpose: "history".into(), ..charge("prod/cart", 5) };
        let day = day(&[charge("prod/checkout", 1 << 40), history]);
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/scan_day.json");
        let json = serde_json::to_string_pretty(&day).unwrap() + "\n";
        if !path.exists() {
            std::fs::write(&path, &json).unwrap();
            panic!("{} was missing and has been written: look at it and commit it", path.display());
        }
        let released = std::fs::read_to_string(&path).unwrap();
        assert_eq!(ScanDay::read(Some(released.as_bytes())).unwrap(), day);
        assert_eq!(released, json, "written differently now");
        let newer = ScanDay { version: 2, ..day };
        assert!(ScanDay::read(Some(&newer.write().unwrap())).unwrap_err().to_string().contains("version 2"));
        assert!(ScanDay::read(Some(b"oops")).is_err(), "what cannot be read is no empty account");
    }

    #[test]
    fn days_begin_at_midnight_utc() {
        assert_eq!(day_of("2026-11-24T23:59:59.999Z".parse().unwrap()), "2026-11-24");
        assert_eq!(day_of("2026-11-25T00:30:00+01:00".parse().unwrap()), "2026-11-24");
    }

    #[test]
    fn nothing_is_allowed_beyond_the_budget_and_little_beyond_by_a_query() {
        let limits = limits(25 * GB, Some(10 * GB));
        assert_eq!(day(&[]).allows(&limits), Ok(10), "the limit of a query");
        let spent = day(&[charge("prod/cart", 22 * GB + GB / 2)]);
        assert_eq!(spent.allows(&limits), Ok(3), "what is left, rounded up");
        assert!(spent.allows_service(&limits, "prod/checkout").is_ok());
        let said = spent.allows_service(&limits, "prod/cart").unwrap_err();
        assert!(said.contains("logs not analysed: budget") && said.contains("_and_service"), "{said}");
        let said = day(&[charge("prod/cart", 25 * GB)]).allows(&limits).unwrap_err();
        assert!(said.contains("23.28 GiB were scanned today, 23.28 GiB may be"), "{said}");
        assert!(day(&[]).allows(&BilledSettings::default()).unwrap_err().contains("no budget is set"));
    }

    #[test]
    fn a_mark_is_told_when_it_is_crossed_and_only_then() {
        let limits = limits(100, Some(50));
        let days: Vec<ScanDay> =
            [0, 40, 79, 85, 99, 130].iter().map(|n| day(&[charge("prod/cart", *n)])).collect();
        let told: Vec<usize> =
            days.iter().zip(&days[1..]).map(|(before, after)| after.crossed(before, &limits).len()).collect();
        assert_eq!(
            told,
            [1, 1, 1, 0, 1],
            "of the service, of the service, of the tenant, none, of the tenant"
        );
        let said = days[3].crossed(&days[2], &limits).remove(0);
        assert!(said.starts_with("85 % of the scan budget of the tenant"), "{said}");
    }
}
