//! Pages of lists: the key holds everything that the first call fixed, so that later calls send it alone.

use crate::base64::Alphabet;
use crate::error::ApiError;
use serde::{Deserialize, Serialize};

/// What the first call of a list fixes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct First {
    /// Items of a page.
    pub(super) size: usize,
    /// The window, resolved to epoch milliseconds.
    pub(super) window: (i64, i64),
    /// Selectors and the like.
    pub(super) texts: Vec<String>,
}

/// A position in a list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pages {
    list: String,
    size: usize,
    offset: usize,
    window: (i64, i64),
    texts: Vec<String>,
}

impl Pages {
    /// The page that a call asks for.
    ///
    /// # Errors
    /// 400 where the key is not one of this list's, or came with other parameters.
    pub(super) fn start(
        list: &str,
        key: Option<&str>,
        others: bool,
        first: impl FnOnce() -> Result<First, ApiError>,
    ) -> Result<Self, ApiError> {
        let Some(key) = key else {
            let First { size, window, texts } = first()?;
            return Ok(Self { list: list.to_owned(), size, offset: 0, window, texts });
        };
        if others {
            return Err(ApiError::query(
                "nextPageKey",
                "No other query parameters may be given when nextPageKey is specified",
            ));
        }
        let refuse = || ApiError::query("nextPageKey", "The nextPageKey is invalid or has expired");
        let pages: Self =
            alphabet(list).decode(key).and_then(|b| serde_json::from_slice(&b).ok()).ok_or_else(refuse)?;
        if pages.list == list && pages.size > 0 { Ok(pages) } else { Err(refuse()) }
    }

    /// Reads `pageSize`.
    ///
    /// # Errors
    /// 400 where it is no number within the limits.
    pub(super) fn size(text: Option<&str>, default: usize, limit: usize) -> Result<usize, ApiError> {
        let Some(text) = text else { return Ok(default) };
        text.parse().ok().filter(|n| (1..=limit).contains(n)).ok_or_else(|| {
            ApiError::query("pageSize", format!("'{text}' must be a number between 1 and {limit}"))
        })
    }

    /// The window.
    pub(super) fn window(&self) -> (i64, i64) {
        self.window
    }

    /// Items of a page.
    pub(super) fn page_size(&self) -> usize {
        self.size
    }

    /// A text of the first call.
    pub(super) fn text(&self, index: usize) -> &str {
        self.texts.get(index).map_or("", String::as_str)
    }

    /// The items of this page, and the key of the next.
    pub(super) fn cut<'a, T>(&self, all: &'a [T]) -> (&'a [T], Option<String>) {
        let start = self.offset.min(all.len());
        let end = start.saturating_add(self.size).min(all.len());
        let next = (end < all.len()).then(|| {
            let next = Self { offset: end, ..self.clone() };
            alphabet(&self.list).encode(&serde_json::to_vec(&next).unwrap_or_default())
        });
        (&all[start..end], next)
    }
}

/// How the keys of a list are written: those of metrics and SLOs need no percent-encoding.
fn alphabet(list: &str) -> Alphabet {
    match list {
        "metrics" | "slo" => Alphabet::UrlSafe,
        _ => Alphabet::Standard,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_pinned_and_comes_alone() {
        let first = || Ok(First { size: 2, window: (5, 9), texts: vec!["type(SERVICE)".into()] });
        let items = [1, 2, 3, 4, 5];
        let pages = Pages::start("entities", None, true, first).unwrap();
        let (page, key) = pages.cut(&items);
        assert_eq!(page, [1, 2]);
        let never = || Err(ApiError::bad("the first call is over"));
        let pages = Pages::start("entities", key.as_deref(), false, never).unwrap();
        assert_eq!((pages.window(), pages.text(0)), ((5, 9), "type(SERVICE)"));
        let (page, last) = pages.cut(&items);
        assert_eq!(page, [3, 4]);
        let pages = Pages::start("entities", last.as_deref(), false, never).unwrap();
        assert_eq!(pages.cut(&items), ([5].as_slice(), None));
        for (list, key, others) in [
            ("entities", key.as_deref(), true),
            ("metrics", key.as_deref(), false),
            ("entities", Some("AAAA"), false),
        ] {
            assert_eq!(Pages::start(list, key, others, never).unwrap_err().violations[0].path, "nextPageKey");
        }
    }
}
