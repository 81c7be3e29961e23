//! Lists of entities, page by page.

use super::answer::{Entity, EntityPage};
use super::client::{Call, Client};
use crate::source::{Failure, FailureKind};
use std::time::Duration;
use vouch_proto::Timestamp;

const SCOPE: &str = "entities.read";
/// Most pages of one list: far more than a tenant has, so that a page key that repeats ends.
const PAGES: usize = 2000;
/// How far the API looks back by itself, less than which nothing is said.
const LOOKS_BACK: Duration = Duration::from_secs(2 * 86_400);

/// Every page of a list.
pub(super) async fn list(client: &Client, selector: &str) -> Result<Vec<Entity>, Failure> {
    list_with(client, selector, None).await
}

/// Every page of a list with more fields.
pub(super) async fn list_with(
    client: &Client,
    selector: &str,
    fields: Option<&str>,
) -> Result<Vec<Entity>, Failure> {
    let mut query = vec![("entitySelector", selector.to_owned()), ("pageSize", "500".to_owned())];
    query.extend(fields.map(|fields| ("fields", fields.to_owned())));
    whole(client, query).await
}

/// The same of what has been seen since `from`, as the API writes a time.
pub(super) async fn list_active(
    client: &Client,
    selector: &str,
    (fields, from): (&str, &str),
) -> Result<Vec<Entity>, Failure> {
    let query = vec![
        ("entitySelector", selector.to_owned()),
        ("pageSize", "500".to_owned()),
        ("fields", fields.to_owned()),
        ("from", from.to_owned()),
    ];
    whole(client, query).await
}

/// The same of what was there at `since` or later, where that is longer ago than the API looks back by itself.
pub(super) async fn list_since(
    client: &Client,
    selector: &str,
    (fields, since): (&str, Timestamp),
) -> Result<Vec<Entity>, Failure> {
    let mut query = vec![
        ("entitySelector", selector.to_owned()),
        ("pageSize", "500".to_owned()),
        ("fields", fields.to_owned()),
    ];
    if client.now().since(since) > LOOKS_BACK {
        query.push(("from", since.as_millis().to_string()));
    }
    whole(client, query).await
}

/// Every page. Where the key of a page has expired, the list is read once more from its beginning.
async fn whole(client: &Client, query: Vec<(&str, String)>) -> Result<Vec<Entity>, Failure> {
    match pages(client, query.clone()).await {
        Err((failure, true)) if failure.kind == FailureKind::BadRequest => {
            tracing::debug!(%failure, "a page of entities is gone; listing again");
            pages(client, query).await.map_err(|(failure, _)| failure)
        }
        read => read.map_err(|(failure, _)| failure),
    }
}

/// The pages: the first names the selector, the others the page key alone. A failure says whether it was another page's.
async fn pages(client: &Client, first: Vec<(&str, String)>) -> Result<Vec<Entity>, (Failure, bool)> {
    let mut query = first;
    let mut entities = Vec::new();
    for number in 0..PAGES {
        let page = client.send(&Call::get(&["entities"], query, SCOPE)).await;
        let page: EntityPage = page.map_err(|failure| (failure, number > 0))?;
        entities.extend(page.entities);
        match page.next_page_key.filter(|key| !key.is_empty()) {
            Some(key) => query = vec![("nextPageKey", key)],
            None => return Ok(entities),
        }
    }
    let message = format!("entities has more than {PAGES} pages");
    Err((Failure::new(FailureKind::BadAnswer, message), false))
}
