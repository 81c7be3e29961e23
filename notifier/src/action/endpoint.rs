//! Where a request goes: checked when the settings are read, and never shown whole, since addresses hold secrets.

use reqwest::Url;
use std::fmt;
use std::net::IpAddr;

/// An address that may be called.
#[derive(Clone, PartialEq, Eq)]
pub struct Endpoint(Url);

impl Endpoint {
    /// Checks an address: https (or loopback, or `insecure` was asked for), no user in it, and an allowed host.
    ///
    /// # Errors
    /// In words for the person who wrote it.
    pub fn new(text: &str, insecure: bool, allowed_hosts: &[String]) -> Result<Self, String> {
        let url =
            Url::parse(text).map_err(|e| format!("is no address ({e}); write e.g. https://host/path"))?;
        let Some(host) = url.host_str() else { return Err("names no host".to_owned()) };
        match url.scheme() {
            "https" => {}
            "http" if insecure || is_loopback(host) => {}
            "http" => {
                return Err(format!("to {host} is not encrypted; use https, or set `insecure_http: true`"));
            }
            other => return Err(format!("has the scheme `{other}`, expected one of https, http")),
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("holds a user or password; use `token_file`".to_owned());
        }
        allowed(host, allowed_hosts)?;
        Ok(Self(url))
    }

    /// The whole address, for the request alone.
    pub(super) fn url(&self) -> Url {
        self.0.clone()
    }

    /// An address below this one; each segment is encoded.
    pub(super) fn below(&self, segments: &[&str]) -> Self {
        let mut url = self.0.clone();
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Self(url)
    }
}

/// Whether a host may be called.
pub(super) fn allowed(host: &str, allowed_hosts: &[String]) -> Result<(), String> {
    if allowed_hosts.is_empty() || allowed_hosts.iter().any(|allowed| matches(allowed, host)) {
        return Ok(());
    }
    let hosts = allowed_hosts.join(", ");
    Err(format!("goes to {host}, which is not among notifier.allowed_hosts: {hosts}"))
}

/// `host` or `*.domain`.
fn matches(allowed: &str, host: &str) -> bool {
    let (allowed, host) = (allowed.to_ascii_lowercase(), host.to_ascii_lowercase());
    match allowed.strip_prefix("*.") {
        Some(domain) => {
            host.strip_suffix(domain).is_some_and(|below| below.len() > 1 && below.ends_with('.'))
        }
        None => allowed == host,
    }
}

pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    host == "localhost" || address.is_ok_and(|address| address.is_loopback())
}

/// Scheme, host and port only.
impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.0.scheme(), self.0.host_str().unwrap_or_default())?;
        self.0.port().map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Endpoint({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, allowed: &[&str]) -> String {
        let allowed: Vec<String> = allowed.iter().map(|a| (*a).to_owned()).collect();
        Endpoint::new(text, false, &allowed).unwrap_err()
    }

    #[test]
    fn only_https_or_loopback() {
        for good in ["https://a.example/x", "http://127.0.0.1:9/x", "http://[::1]:9/x", "http://localhost/x"]
        {
            assert!(Endpoint::new(good, false, &[]).is_ok(), "{good}");
        }
        assert!(Endpoint::new("http://a.example/", true, &[]).is_ok());
        assert!(refused("http://a.example/", &[]).contains("insecure_http"));
        assert!(refused("http://localhost.evil.example/", &[]).contains("not encrypted"));
        assert!(refused("ftp://a.example/", &[]).contains("`ftp`"));
        assert!(refused("a.example", &[]).contains("is no address"));
        assert!(refused("https://u:p@a.example/", &[]).contains("token_file"));
    }

    #[test]
    fn only_allowed_hosts() {
        let allowed = ["hooks.example", "*.corp.example"];
        for good in ["https://hooks.example/a", "https://HOOKS.example/a", "https://a.b.corp.example/"] {
            assert!(Endpoint::new(good, false, &allowed.map(str::to_owned)).is_ok(), "{good}");
        }
        for bad in ["https://corp.example/", "https://evilcorp.example/", "https://hooks.example.evil/"] {
            assert!(refused(bad, &allowed).contains("allowed_hosts"), "{bad}");
        }
    }

    #[test]
    fn an_address_below_is_encoded() {
        for base in ["https://a.example/api", "https://a.example/api/"] {
            let below = Endpoint::new(base, false, &[]).unwrap().below(&["v2", "a/b c"]);
            assert_eq!(below.url().as_str(), "https://a.example/api/v2/a%2Fb%20c");
        }
    }

    #[test]
    fn the_path_is_never_shown() {
        let endpoint =
            Endpoint::new("https://hooks.example:444/services/T0/SECRET?x=SECRET", false, &[]).unwrap();
        assert_eq!(
            format!("{endpoint} {endpoint:?}"),
            "https://hooks.example:444 Endpoint(https://hooks.example:444)"
        );
    }
}
