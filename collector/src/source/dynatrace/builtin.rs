//! Units of Dynatrace's built-in metrics, as its documentation has them: for a tenant that does not describe its metrics.

/// Keys, or what keys begin with, and their unit; the first that fits.
const UNITS: [(&str, &str); 39] = [
    ("builtin:service.request.count", "Count"),
    ("builtin:service.request.failure_count", "Count"),
    ("builtin:service.request.", "MilliSecond"),
    ("builtin:service.response.", "MicroSecond"),
    ("builtin:service.totalProcessingTime", "MicroSecond"),
    ("builtin:service.cpu.", "MicroSecond"),
    ("builtin:service.ioTime", "MicroSecond"),
    ("builtin:service.lockTime", "MicroSecond"),
    ("builtin:service.waitTime", "MicroSecond"),
    ("builtin:service.dbChildCallTime", "MicroSecond"),
    ("builtin:service.nonDbChildCallTime", "MicroSecond"),
    ("builtin:service.dbChildCallCount", "Count"),
    ("builtin:service.nonDbChildCallCount", "Count"),
    ("builtin:service.requestCount.", "Count"),
    ("builtin:service.dbconnections.failureRate", "Percent"),
    ("builtin:service.dbconnections.", "Count"),
    ("builtin:service.keyRequest.count.", "Count"),
    ("builtin:service.keyRequest.dbChildCallCount", "Count"),
    ("builtin:service.keyRequest.nonDbChildCallCount", "Count"),
    ("builtin:service.keyRequest.response.", "MicroSecond"),
    ("builtin:service.keyRequest.totalProcessingTime", "MicroSecond"),
    ("builtin:service.keyRequest.cpu.", "MicroSecond"),
    ("builtin:host.cpu.usage", "Percent"),
    ("builtin:host.cpu.idle", "Percent"),
    ("builtin:host.cpu.user", "Percent"),
    ("builtin:host.cpu.system", "Percent"),
    ("builtin:host.cpu.iowait", "Percent"),
    ("builtin:security.securityProblem.open.", "Count"),
    ("builtin:host.mem.usage", "Percent"),
    ("builtin:host.availability", "Percent"),
    ("builtin:host.disk.usedPct", "Percent"),
    ("builtin:pgi.availability", "Percent"),
    ("builtin:tech.generic.cpu.usage", "Percent"),
    ("builtin:tech.generic.mem.workingSetSize", "Byte"),
    ("builtin:tech.generic.mem.usage", "Percent"),
    ("builtin:tech.generic.processCount", "Count"),
    ("builtin:containers.cpu.usagePercent", "Percent"),
    ("builtin:containers.memory.residentSetBytes", "Byte"),
    ("builtin:containers.memory.usagePercent", "Percent"),
];

/// The unit of a key; `None` where it is not listed.
pub(super) fn unit(key: &str) -> Option<&'static str> {
    let errors =
        key.starts_with("builtin:service.errors.") || key.starts_with("builtin:service.keyRequest.errors.");
    if errors {
        return Some(if key.ends_with(".rate") { "Percent" } else { "Count" });
    }
    UNITS.iter().find(|(begins, _)| key.starts_with(begins)).map(|(_, unit)| *unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn response_times_are_microseconds_and_rates_percent() {
        for (key, expected) in [
            ("builtin:service.response.time", Some("MicroSecond")),
            ("builtin:service.request.response_time", Some("MilliSecond")),
            ("builtin:service.request.count", Some("Count")),
            ("builtin:service.errors.total.rate", Some("Percent")),
            ("builtin:service.errors.fivexx.count", Some("Count")),
            ("builtin:service.keyRequest.errors.server.rate", Some("Percent")),
            ("builtin:apps.web.actionCount", None),
        ] {
            assert_eq!(unit(key), expected, "{key}");
        }
    }
}
