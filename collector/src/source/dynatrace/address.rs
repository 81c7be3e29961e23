//! The tenant's address: every form that people paste, brought to one.

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
    let host = url.host_str().unwrap_or_default();
    if let Some(environment) = host.strip_suffix(".apps.dynatrace.com") {
        return Err(format!("{host} takes no API token; write https://{environment}.live.dynatrace.com"));
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

/// The address of a call below the base; every segment is encoded.
#[must_use]
pub(super) fn endpoint(base: &Url, segments: &[&str]) -> Url {
    let mut url = base.clone();
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(["api", "v2"]).extend(segments);
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
            let url = endpoint(&base_url(given).unwrap(), &["metrics", "query"]);
            assert_eq!(url.as_str(), endpoint_is, "{given}");
        }
        let base = base_url("https://abc.live.dynatrace.com").unwrap();
        let key = endpoint(&base, &["metrics", "calc:service.a/b?c"]);
        assert_eq!(key.path(), "/api/v2/metrics/calc:service.a%2Fb%3Fc");
    }

    #[test]
    fn wrong_forms_are_refused_with_the_right_one() {
        for (given, said) in [
            ("abc12345", "is no URL"),
            ("ftp://abc", "no http or https"),
            ("https://abc.apps.dynatrace.com", "write https://abc.live.dynatrace.com"),
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
