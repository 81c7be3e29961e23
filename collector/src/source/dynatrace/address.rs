//! The tenant's address: every form that people paste, brought to one.

use super::credential::Scheme;
use reqwest::Url;

/// Reads a base URL: SaaS, Managed (`/e/{id}`), ActiveGate (`:9999/e/{id}`), with or without `/api/v2` and slashes.
///
/// # Errors
/// In words, with what to write instead.
pub fn base_url(text: &str) -> Result<Url, String> {
    let example =
        "write e.g. https://abc12345.live.dynatrace.com or https://dynatrace.example.com/e/<environment id>";
    let mut url = Url::parse(text.trim()).map_err(|e| format!("`{text}` is no URL ({e}); {example}"))?;
    if !matches!(url.scheme(), "https" | "http") || url.host_str().is_none() {
        return Err(format!("`{text}` is no http or https address; {example}"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(format!(
            "must hold no user, query or fragment; the token goes into `token_file`; {example}"
        ));
    }
    let mut path = url.path().trim_end_matches('/').to_owned();
    for suffix in ["/api/v2", "/api/v1", "/api"] {
        if let Some(short) = path.strip_suffix(suffix) {
            path = short.trim_end_matches('/').to_owned();
            break;
        }
    }
    url.set_path(&path);
    Ok(url)
}

/// Whether an address and a token belong together: Dynatrace has one host for each kind.
///
/// # Errors
/// In words, with what to write instead.
pub fn fits(base: &Url, scheme: Scheme) -> Result<(), String> {
    let host = base.host_str().unwrap_or_default();
    let swapped = |from: &str, to: &str| {
        let labels: Vec<&str> = host.split('.').map(|label| if label == from { to } else { label }).collect();
        format!("https://{}", labels.join("."))
    };
    let is_dynatrace = host.ends_with(".dynatrace.com") || host.ends_with(".dynatracelabs.com");
    let has = |label: &str| is_dynatrace && host.split('.').any(|one| one == label);
    match scheme {
        Scheme::ApiToken if has("apps") => Err(format!(
            "{host} takes platform tokens (dt0s16...) and OAuth, no access token (dt0c01...); write {} or use a platform token",
            swapped("apps", "live")
        )),
        Scheme::Bearer if has("live") => Err(format!(
            "{host} takes access tokens (dt0c01...), no platform token or OAuth; write {} or use an access token",
            swapped("live", "apps")
        )),
        Scheme::ApiToken | Scheme::Bearer => Ok(()),
    }
}

/// One of Dynatrace's APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Api {
    /// The environment API v2, which the platform mirrors.
    Classic,
    /// The query API of Grail, on the platform alone.
    Grail,
}

impl Api {
    const fn path(self, scheme: Scheme) -> &'static [&'static str] {
        match (self, scheme) {
            (Self::Classic, Scheme::ApiToken) => &["api", "v2"],
            (Self::Classic, Scheme::Bearer) => &["platform", "classic", "environment-api", "v2"],
            (Self::Grail, _) => &["platform", "storage", "query", "v1"],
        }
    }
}

/// The address of a call below the base; every segment is encoded.
#[must_use]
pub(super) fn endpoint(base: &Url, api: Api, scheme: Scheme, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(api.path(scheme)).extend(segments);
    }
    url
}

/// Whether the token would travel in the clear over a network.
#[must_use]
pub(super) fn is_in_the_clear(base: &Url) -> bool {
    let local = |host: &str| host == "localhost" || host.starts_with("127.") || host == "[::1]";
    base.scheme() == "http" && !base.host_str().is_some_and(local)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn classic(base: &Url, segments: &[&str]) -> Url {
        endpoint(base, Api::Classic, Scheme::ApiToken, segments)
    }

    #[test]
    fn a_platform_token_has_its_own_paths() {
        let base = base_url("https://abc.apps.dynatrace.com/").unwrap();
        let url = |api, segments: &[&str]| endpoint(&base, api, Scheme::Bearer, segments).path().to_owned();
        assert_eq!(
            url(Api::Classic, &["metrics", "query"]),
            "/platform/classic/environment-api/v2/metrics/query"
        );
        assert_eq!(url(Api::Grail, &["query:execute"]), "/platform/storage/query/v1/query:execute");
    }

    #[test]
    fn address_and_token_must_belong_together() {
        let said = |url: &str, scheme| fits(&base_url(url).unwrap(), scheme);
        for (url, scheme) in [
            ("https://abc.live.dynatrace.com", Scheme::ApiToken),
            ("https://abc.apps.dynatrace.com", Scheme::Bearer),
            ("https://dt.example.com/e/1", Scheme::ApiToken),
            ("http://127.0.0.1:8080", Scheme::Bearer),
        ] {
            assert_eq!(said(url, scheme), Ok(()), "{url}");
        }
        let refused = said("https://abc.apps.dynatrace.com", Scheme::ApiToken).unwrap_err();
        assert!(refused.contains("write https://abc.live.dynatrace.com"), "{refused}");
        let refused = said("https://abc.sprint.live.dynatracelabs.com", Scheme::Bearer).unwrap_err();
        assert!(refused.contains("write https://abc.sprint.apps.dynatracelabs.com"), "{refused}");
    }

    #[test]
    fn every_form_leads_to_the_same_endpoint() {
        for (given, endpoint_is) in [
            ("https://abc.live.dynatrace.com", "https://abc.live.dynatrace.com/api/v2/metrics/query"),
            ("https://abc.live.dynatrace.com/", "https://abc.live.dynatrace.com/api/v2/metrics/query"),
            (
                " https://abc.live.dynatrace.com/api/v2/ ",
                "https://abc.live.dynatrace.com/api/v2/metrics/query",
            ),
            ("https://abc.live.dynatrace.com//api/", "https://abc.live.dynatrace.com/api/v2/metrics/query"),
            ("https://dt.example.com/e/1-2/", "https://dt.example.com/e/1-2/api/v2/metrics/query"),
            ("https://gate:9999/e/abc/api/v2", "https://gate:9999/e/abc/api/v2/metrics/query"),
        ] {
            let url = classic(&base_url(given).unwrap(), &["metrics", "query"]);
            assert_eq!(url.as_str(), endpoint_is, "{given}");
        }
        let base = base_url("https://abc.live.dynatrace.com").unwrap();
        let key = classic(&base, &["metrics", "calc:service.a/b?c"]);
        assert_eq!(key.path(), "/api/v2/metrics/calc:service.a%2Fb%3Fc");
    }

    #[test]
    fn wrong_forms_are_refused_with_the_right_one() {
        for (given, said) in [
            ("abc12345", "is no URL"),
            ("ftp://abc", "no http or https"),
            ("https://user:secret@abc.live.dynatrace.com", "no user, query or fragment"),
            ("https://abc.live.dynatrace.com?api-token=x", "no user, query or fragment"),
        ] {
            let refused = base_url(given).unwrap_err();
            assert!(refused.contains(said) && !refused.contains("secret"), "{refused}");
        }
        assert!(is_in_the_clear(&base_url("http://gate:8080").unwrap()));
        assert!(!is_in_the_clear(&base_url("http://127.0.0.1:8080").unwrap()));
    }
}
