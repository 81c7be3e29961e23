//! Addresses: every base address that tenants have leads to the same routes.

use super::auth::Realm;
use axum::extract::Request;
use axum::http::Uri;
use axum::http::uri::PathAndQuery;
use axum::middleware::Next;
use axum::response::Response;

/// How a call was addressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// Which tokens count there.
    pub(super) realm: Realm,
    /// The path as received.
    pub(super) received: String,
}

/// Takes `/e/{environment}` and needless slashes away, and notes how the call was addressed.
pub(super) async fn normalize(mut request: Request, next: Next) -> Response {
    let received = request.uri().path().to_owned();
    let path = routed(&received);
    let realm = if path.starts_with("/platform/") { Realm::Platform } else { Realm::Classic };
    if path != received {
        let query = request.uri().query().map(|q| format!("?{q}")).unwrap_or_default();
        let mut parts = request.uri().clone().into_parts();
        if let Ok(target) = format!("{path}{query}").parse::<PathAndQuery>() {
            parts.path_and_query = Some(target);
            if let Ok(uri) = Uri::from_parts(parts) {
                *request.uri_mut() = uri;
            }
        }
    }
    request.extensions_mut().insert(Address { realm, received });
    next.run(request).await
}

/// The path that is routed.
fn routed(path: &str) -> String {
    let mut path = path.trim_start_matches('/').trim_end_matches('/');
    if let Some((_, rest)) = path.strip_prefix("e/").and_then(|rest| rest.split_once('/')) {
        path = rest.trim_start_matches('/');
    }
    format!("/{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_base_address_leads_to_one_path() {
        for (received, expected) in [
            ("/api/v2/metrics/query", "/api/v2/metrics/query"),
            ("/api/v2/metrics/query/", "/api/v2/metrics/query"),
            ("//api/v2/metrics", "/api/v2/metrics"),
            ("/e/abc12345/api/v2/metrics", "/api/v2/metrics"),
            ("/e/6cfb8a1c-1f5a-4a6e//api/v2/entities/", "/api/v2/entities"),
            ("/e/abc/platform/storage/query/v1/query:poll", "/platform/storage/query/v1/query:poll"),
            ("/e/abc", "/e/abc"),
            ("/", "/"),
        ] {
            assert_eq!(routed(received), expected, "{received}");
        }
    }
}
