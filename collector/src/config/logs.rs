//! What is read of a tenant's logs, and what may be spent on what Dynatrace bills by what it scans.

use std::time::Duration;
use vouch_proto::Invalid;
use vouch_proto::logs::MAX_LINE_BYTES;
use vouch_service::settings::Section;

const MINUTE: Duration = Duration::from_secs(60);
const GIB: f64 = 1_073_741_824.0;
/// Most GiB a day: beyond it no price is one that anybody pays.
const MOST_GIB: f64 = 1e6;

/// Where lines are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum LogSourceKind {
    /// Nowhere.
    #[default]
    Off,
    /// Logs v2, of tenants with Logs Classic.
    Classic,
    /// Grail, which bills it.
    Grail,
}

/// What is read of a tenant's logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where.
    pub source: LogSourceKind,
    /// How long after its end a minute is read: lines that Dynatrace takes in later are missing.
    pub settle: Duration,
    /// How long before a deployment lines are read as well; whole minutes.
    pub before: Duration,
    /// Most lines of a service and minute.
    pub lines_per_minute: u64,
    /// Most bytes of contents of a service and minute.
    pub bytes_per_minute: u64,
    /// Longer contents are cut.
    pub longest_line: usize,
    /// Buckets of Grail; all that the token may read where it is empty.
    pub buckets: Vec<String>,
}

impl Default for LogSettings {
    fn default() -> Self {
        Self {
            source: LogSourceKind::Off,
            settle: 2 * MINUTE,
            before: 30 * MINUTE,
            lines_per_minute: 20_000,
            bytes_per_minute: 16 << 20,
            longest_line: 16 << 10,
            buckets: Vec::new(),
        }
    }
}

/// What may be spent on what is billed.
#[derive(Debug, Clone, PartialEq)]
pub struct BilledSettings {
    /// Whether metrics of templates may read what is billed, e.g. spans (`fetch`).
    pub queries: bool,
    /// Most gigabytes that one query scans.
    pub scan_limit_gb: u32,
    /// Most bytes that are scanned of the tenant on a day, UTC; `None` where nothing billed is read.
    pub bytes_per_day: Option<u64>,
    /// Most bytes that are scanned for one service on a day.
    pub bytes_per_day_and_service: Option<u64>,
    /// What a GiB costs.
    pub price_per_gib: Option<f64>,
}

impl Default for BilledSettings {
    fn default() -> Self {
        Self {
            queries: false,
            scan_limit_gb: 10,
            bytes_per_day: None,
            bytes_per_day_and_service: None,
            price_per_gib: None,
        }
    }
}

/// Reads `logs`; `takes_grail` says whether the credential is one that Grail takes.
pub(super) fn logs(section: &mut Section<'_>, takes_grail: bool, invalid: &mut Invalid) -> LogSettings {
    let mut logs = section.section("logs");
    let default = LogSettings::default();
    let source = match logs.text("source").as_deref() {
        // YAML has `off` for `false`.
        None | Some("off" | "false") => LogSourceKind::Off,
        Some("classic") => LogSourceKind::Classic,
        Some("grail") => LogSourceKind::Grail,
        Some(other) => {
            logs.refuse("source", format!("unknown value `{other}`, expected one of off, classic, grail"));
            LogSourceKind::Off
        }
    };
    if source == LogSourceKind::Grail && !takes_grail {
        logs.refuse(
            "source",
            "grail takes no access token (dt0c01...); use a platform token or oauth with storage:logs:read and storage:buckets:read on https://<id>.apps.dynatrace.com, or classic",
        );
    }
    let before = logs.duration("before", default.before, Duration::ZERO..=360 * MINUTE);
    if !before.as_secs().is_multiple_of(60) {
        logs.refuse("before", format!("{before:?} is no number of whole minutes"));
    }
    let mib = logs.number("mib_per_minute", default.bytes_per_minute >> 20, 1..=1024);
    let longest = u64::try_from(MAX_LINE_BYTES >> 10).unwrap_or(128);
    let kib = logs.number("longest_line_kib", 16, 1..=longest);
    let buckets = logs.texts("buckets");
    if source != LogSourceKind::Grail && !buckets.is_empty() {
        logs.refuse("buckets", "are Grail's; take them out, or set source to grail");
    }
    let is_bucket = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
    if let Some(wrong) = buckets.iter().find(|name| name.is_empty() || !name.chars().all(is_bucket)) {
        logs.refuse("buckets", format!("`{wrong}` is no name of a bucket, e.g. default_logs"));
    }
    let settings = LogSettings {
        source,
        settle: logs.duration("settle", default.settle, Duration::ZERO..=60 * MINUTE),
        before,
        lines_per_minute: logs.number("lines_per_minute", default.lines_per_minute, 1..=1_000_000),
        bytes_per_minute: mib << 20,
        longest_line: usize::try_from(kib << 10).unwrap_or(default.longest_line),
        buckets,
    };
    logs.finish(invalid);
    settings
}

/// Reads `billed`; `reads_logs` says whether logs of Grail are read.
pub(super) fn billed(section: &mut Section<'_>, reads_logs: bool, invalid: &mut Invalid) -> BilledSettings {
    let mut billed = section.section("billed");
    let queries = billed.flag("queries", false);
    let scan_limit_gb = u32::try_from(billed.number("scan_limit_gb", 10, 1..=1000)).unwrap_or(10);
    let bytes_per_day = gib(&mut billed, "scan_budget_gib_per_day");
    let bytes_per_day_and_service = gib(&mut billed, "scan_budget_gib_per_day_and_service");
    if (reads_logs || queries) && bytes_per_day.is_none() && billed.raw("scan_budget_gib_per_day").is_none() {
        billed.refuse(
            "scan_budget_gib_per_day",
            "is missing; Grail bills what is scanned: say how many GiB a day may be, e.g. 50 (`vouch plan` tells what to expect)",
        );
    }
    if let (Some(all), Some(one)) = (bytes_per_day, bytes_per_day_and_service)
        && one > all
    {
        billed.refuse(
            "scan_budget_gib_per_day_and_service",
            "is more than scan_budget_gib_per_day, which holds for all services together",
        );
    }
    let price = billed.text("price_per_gib").map(|text| (text.parse::<f64>().ok(), text));
    let price_per_gib = match price {
        None => None,
        Some((Some(price), _)) if (0.0..=1e6).contains(&price) => Some(price),
        Some((_, text)) => {
            billed.refuse("price_per_gib", format!("`{text}` is no price; give a number, e.g. 0.0035"));
            None
        }
    };
    billed.finish(invalid);
    BilledSettings { queries, scan_limit_gb, bytes_per_day, bytes_per_day_and_service, price_per_gib }
}

/// A number of GiB, which may be a fraction, as bytes.
fn gib(section: &mut Section<'_>, key: &'static str) -> Option<u64> {
    let text = section.text(key)?;
    match text.parse::<f64>() {
        Ok(gib) if gib > 0.0 && gib <= MOST_GIB => {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the limits")]
            let bytes = (gib * GIB) as u64;
            Some(bytes.max(1))
        }
        Ok(_) | Err(_) => {
            section.refuse(key, format!("`{text}` is not within 0 to {MOST_GIB}; give GiB, e.g. 50"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vouch_service::settings::Document;

    fn read(yaml: &str, takes_grail: bool) -> (LogSettings, BilledSettings, String) {
        let document = Document::parse(yaml).unwrap();
        let (mut root, mut invalid) = (document.section(), Invalid::default());
        let logs = logs(&mut root, takes_grail, &mut invalid);
        let billed = billed(&mut root, logs.source == LogSourceKind::Grail, &mut invalid);
        root.finish(&mut invalid);
        (logs, billed, invalid.to_string())
    }

    #[test]
    fn nothing_is_read_unless_it_is_asked_for() {
        for yaml in ["", "logs: {source: off}", "logs: {settle: 3m}"] {
            let (logs, billed, said) = read(yaml, false);
            assert_eq!(
                (said.as_str(), logs.source, billed.bytes_per_day),
                ("", LogSourceKind::Off, None),
                "{yaml}"
            );
        }
        let (logs, _, said) =
            read("logs: {source: classic, before: 10m, mib_per_minute: 2, longest_line_kib: 8}", false);
        assert_eq!((said.as_str(), logs.source, logs.before), ("", LogSourceKind::Classic, 10 * MINUTE));
        assert_eq!((logs.bytes_per_minute, logs.longest_line), (2 << 20, 8 << 10));
    }

    #[test]
    fn grail_needs_a_budget_and_its_own_credential() {
        let (logs, billed, said) = read(
            "logs: {source: grail, buckets: [default_logs, shop_logs]}\nbilled: {scan_limit_gb: 3, scan_budget_gib_per_day: 0.5, scan_budget_gib_per_day_and_service: 0.25, price_per_gib: 0.0035}",
            true,
        );
        assert_eq!((said.as_str(), logs.buckets.len(), billed.scan_limit_gb), ("", 2, 3));
        assert_eq!((billed.bytes_per_day, billed.bytes_per_day_and_service), (Some(1 << 29), Some(1 << 28)));
        assert_eq!(billed.price_per_gib, Some(0.0035));
        let (_, _, said) = read("logs: {source: grail}", false);
        assert!(said.contains("logs.source: grail takes no access token"), "{said}");
        assert!(said.contains("billed.scan_budget_gib_per_day: is missing"), "{said}");
    }

    #[test]
    fn everything_wrong_is_named_at_once() {
        let (_, _, said) = read(
            "logs: {source: splunk, before: 90s, settle: 2h, lines_per_minute: 0, longest_line_kib: 200, buckets: ['a b'], oops: 1}\n\
             billed: {scan_limit_gb: 0, scan_budget_gib_per_day: 1, scan_budget_gib_per_day_and_service: 2, price_per_gib: -1, oops: 1}",
            true,
        );
        for part in [
            "logs.source: unknown value `splunk`, expected one of off, classic, grail",
            "logs.before: 90s is no number of whole minutes",
            "logs.settle: `2h` is not within",
            "logs.lines_per_minute: `0`",
            "logs.longest_line_kib: `200` is not within 1 to 128",
            "logs.buckets: are Grail's",
            "logs.buckets: `a b` is no name of a bucket",
            "logs.oops: is no setting here",
            "billed.scan_limit_gb: `0`",
            "billed.scan_budget_gib_per_day_and_service: is more than",
            "billed.price_per_gib: `-1` is no price",
            "billed.oops: is no setting here",
        ] {
            assert!(said.contains(part), "{part} in {said}");
        }
        let (_, _, said) = read("billed: {queries: true}", true);
        assert!(said.contains("billed.scan_budget_gib_per_day: is missing"), "{said}");
        let (_, _, said) = read("billed: {scan_budget_gib_per_day: lots}", true);
        assert!(said.contains("billed.scan_budget_gib_per_day: `lots` is not within 0 to 1000000"), "{said}");
    }
}
