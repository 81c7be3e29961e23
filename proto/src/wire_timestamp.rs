//! `google.protobuf.Timestamp` on the wire. In JSON it is written as proto3 says: UTC with `Z`, and 0, 3, 6 or 9 digits
//! of a second. Any offset is read.

use jiff::fmt::temporal::DateTimePrinter;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use std::borrow::Cow;

/// An instant as protobuf has it. [`crate::Timestamp`] is the validated one.
#[derive(Clone, Copy, PartialEq, Eq, Hash, prost::Message)]
pub struct WireTimestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    #[prost(int64, tag = "1")]
    pub seconds: i64,
    /// Nanoseconds on top of that, 0 to 999,999,999.
    #[prost(int32, tag = "2")]
    pub nanos: i32,
}

/// The digits that proto3 writes: none, or as few groups of three as say it all.
const fn digits(nanos: i32) -> u8 {
    if nanos == 0 {
        0
    } else if nanos % 1_000_000 == 0 {
        3
    } else if nanos % 1000 == 0 {
        6
    } else {
        9
    }
}

impl Serialize for WireTimestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let instant = jiff::Timestamp::new(self.seconds, self.nanos).map_err(ser::Error::custom)?;
        let printer = DateTimePrinter::new().precision(Some(digits(self.nanos)));
        serializer.serialize_str(&printer.timestamp_to_string(&instant))
    }
}

impl<'de> Deserialize<'de> for WireTimestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Cow::<'_, str>::deserialize(deserializer)?;
        let instant: jiff::Timestamp = text.parse().map_err(|_| {
            de::Error::custom(format!("`{text}` is no instant in RFC 3339, e.g. 2026-11-24T10:00:00Z"))
        })?;
        // Both parts of jiff's have one sign; protobuf's nanoseconds always count forwards.
        let (seconds, nanos) = (instant.as_second(), instant.subsec_nanosecond());
        Ok(if nanos < 0 {
            Self { seconds: seconds - 1, nanos: nanos + 1_000_000_000 }
        } else {
            Self { seconds, nanos }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(seconds: i64, nanos: i32) -> String {
        serde_json::to_string(&WireTimestamp { seconds, nanos }).unwrap()
    }

    #[test]
    fn it_is_written_in_utc_with_z_and_groups_of_three_digits() {
        assert_eq!(json(1_795_514_400, 0), "\"2026-11-24T10:00:00Z\"");
        assert_eq!(json(1_795_514_400, 900_000_000), "\"2026-11-24T10:00:00.900Z\"");
        assert_eq!(json(1_795_514_400, 1000), "\"2026-11-24T10:00:00.000001Z\"");
        assert_eq!(json(1_795_514_400, 1), "\"2026-11-24T10:00:00.000000001Z\"");
    }

    #[test]
    fn any_offset_is_read_and_nonsense_is_named() {
        let read = |text: &str| serde_json::from_str::<WireTimestamp>(text);
        let instant = WireTimestamp { seconds: 1_795_514_400, nanos: 900_000_000 };
        for text in ["10:00:00.9Z", "10:00:00.900+00:00", "12:00:00.900000+02:00"] {
            assert_eq!(read(&format!("\"2026-11-24T{text}\"")).unwrap(), instant, "{text}");
        }
        assert!(read("\"yesterday\"").unwrap_err().to_string().contains("`yesterday`"));
        assert!(read("7").is_err());
    }

    #[test]
    fn what_no_text_can_say_is_an_error() {
        assert!(serde_json::to_string(&WireTimestamp { seconds: i64::MAX, nanos: 0 }).is_err());
    }

    proptest! {
        #[test]
        fn text_says_every_nanosecond(seconds in -62_135_596_800_i64..253_402_300_799, nanos in 0..1_000_000_000_i32) {
            let instant = WireTimestamp { seconds, nanos };
            let text = serde_json::to_string(&instant).unwrap();
            prop_assert!(text.ends_with("Z\""));
            prop_assert_eq!(serde_json::from_str::<WireTimestamp>(&text).unwrap(), instant);
        }
    }
}
