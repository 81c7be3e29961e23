//! Base64: page keys of lists, and the parts of an access token.

/// Which characters stand for 62 and 63, and whether the end is padded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Alphabet {
    /// `+`, `/` and `=`, which must be percent-encoded in a URL.
    Standard,
    /// `-`, `_` and no padding.
    UrlSafe,
}

const COMMON: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

impl Alphabet {
    fn last(self) -> [u8; 2] {
        match self {
            Self::Standard => *b"+/",
            Self::UrlSafe => *b"-_",
        }
    }

    fn character(self, index: usize) -> u8 {
        COMMON.get(index).copied().unwrap_or_else(|| self.last()[usize::from(index == 63)])
    }

    fn index(self, character: u8) -> Option<u32> {
        let index = COMMON
            .iter()
            .position(|c| *c == character)
            .or_else(|| self.last().iter().position(|c| *c == character).map(|i| COMMON.len() + i))?;
        u32::try_from(index).ok()
    }

    /// Writes bytes as text.
    pub(crate) fn encode(self, bytes: &[u8]) -> String {
        let mut text = String::new();
        for chunk in bytes.chunks(3) {
            let group = chunk.iter().fold(0_u32, |g, b| (g << 8) | u32::from(*b)) << (8 * (3 - chunk.len()));
            for i in 0..4 {
                if i <= chunk.len() {
                    let index = (group >> (18 - 6 * i)) & 63;
                    text.push(char::from(self.character(index as usize)));
                } else if self == Self::Standard {
                    text.push('=');
                }
            }
        }
        text
    }

    /// Reads a text; `None` where it was not written so.
    pub(crate) fn decode(self, text: &str) -> Option<Vec<u8>> {
        let padding = text.bytes().rev().take_while(|c| *c == b'=').count();
        match self {
            Self::Standard if padding > 2 || !text.len().is_multiple_of(4) => return None,
            Self::UrlSafe if padding > 0 => return None,
            Self::Standard | Self::UrlSafe => {}
        }
        let mut bytes = Vec::new();
        for chunk in text.as_bytes()[..text.len() - padding].chunks(4) {
            let mut group = 0_u32;
            for c in chunk {
                group = (group << 6) | self.index(*c)?;
            }
            group <<= 6 * (4 - chunk.len());
            bytes.extend_from_slice(group.to_be_bytes().get(1..chunk.len()).filter(|b| !b.is_empty())?);
        }
        Some(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn both_alphabets_round_trip(bytes in proptest::collection::vec(0_u8..=255, 0..50)) {
            for alphabet in [Alphabet::Standard, Alphabet::UrlSafe] {
                assert_eq!(alphabet.decode(&alphabet.encode(&bytes)), Some(bytes.clone()));
            }
        }

        #[test]
        fn nothing_panics(text in "[A-Za-z0-9+/=_-]{0,12}") {
            let _ = Alphabet::Standard.decode(&text);
            let _ = Alphabet::UrlSafe.decode(&text);
        }
    }

    #[test]
    fn known_texts() {
        assert_eq!(Alphabet::Standard.encode(b"a"), "YQ==");
        assert_eq!(Alphabet::UrlSafe.encode(b"a"), "YQ");
        assert_eq!(Alphabet::Standard.encode(&[0xFB, 0xFF]), "+/8=");
        assert_eq!(Alphabet::UrlSafe.encode(&[0xFB, 0xFF]), "-_8");
    }
}
