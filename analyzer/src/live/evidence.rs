//! Keeps evidence bundles in a stream: compressed, in parts of one message each, the newest of a verification.

use super::Shared;
use anyhow::Context as _;
use async_nats::HeaderMap;
use async_nats::jetstream::stream::LastRawMessageErrorKind;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use std::io::{Read as _, Write as _};
use vouch_proto::subject::{self, EVIDENCE};
use vouch_proto::{Name, Verdict};
use vouch_service::publish::publish;

/// Bytes of a part; a server takes messages of 1 MiB.
const PART_BYTES: usize = 512 << 10;
/// Most parts of one bundle: what is larger is not kept.
const MAX_PARTS: usize = 64;
/// Longest bundle that is read back.
const MAX_BUNDLE_BYTES: u64 = 256 << 20;
/// Header that says how many parts there are.
const PARTS: &str = "Vouch-Parts";

/// Keeps the bundle of a verdict. The first part is written last, so that what it promises is there.
pub(crate) async fn store(shared: &Shared, verdict: &Verdict, bundle: String) -> anyhow::Result<()> {
    let packed = tokio::task::spawn_blocking(move || pack(&bundle)).await??;
    let parts: Vec<Bytes> = packed.chunks(PART_BYTES).map(Bytes::copy_from_slice).collect();
    anyhow::ensure!(
        parts.len() <= MAX_PARTS,
        "{} bytes compressed, at most {} are kept",
        packed.len(),
        MAX_PARTS * PART_BYTES
    );
    let count = parts.len();
    for (part, bytes) in parts.into_iter().enumerate().rev() {
        let topic = subject::evidence(&verdict.environment, &verdict.service, &verdict.verification_id, part);
        let mut headers = HeaderMap::new();
        headers.insert(PARTS, count.to_string());
        headers.insert("content-type", "application/gzip");
        publish(&shared.context.nats, topic, headers, bytes).await?;
    }
    Ok(())
}

/// The compressed bundle of a verification; `None` where none is kept.
pub(crate) async fn load(
    shared: &Shared,
    (environment, service): (&Name, &Name),
    id: &str,
) -> anyhow::Result<Option<Vec<u8>>> {
    let stream = shared.context.nats.jetstream.get_stream_no_info(EVIDENCE.name).await?;
    let (mut packed, mut part, mut parts) = (Vec::new(), 0, 1);
    while part < parts {
        let topic = subject::evidence(environment, service, id, part);
        let message = match stream.get_last_raw_message_by_subject(&topic).await {
            Ok(message) => message,
            Err(e) if e.kind() == LastRawMessageErrorKind::NoMessageFound => return Ok(None),
            Err(e) => return Err(e.into()),
        };
        let said = message.headers.get(PARTS).and_then(|n| n.as_str().parse::<usize>().ok());
        parts = said.filter(|n| (1..=MAX_PARTS).contains(n)).context("the evidence is damaged")?;
        packed.extend_from_slice(&message.payload);
        part += 1;
    }
    Ok(Some(packed))
}

fn pack(bundle: &str) -> anyhow::Result<Vec<u8>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bundle.as_bytes())?;
    encoder.write_all(b"\n")?;
    Ok(encoder.finish()?)
}

/// The text of a compressed bundle.
pub(crate) fn unpack(packed: &[u8]) -> anyhow::Result<String> {
    let mut text = String::new();
    GzDecoder::new(packed)
        .take(MAX_BUNDLE_BYTES)
        .read_to_string(&mut text)
        .context("the evidence is damaged")?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_packed_is_unpacked_and_a_part_that_is_missing_is_noticed() {
        let bundle = "{\"id\":\"a\"}".repeat(1000);
        let packed = pack(&bundle).unwrap();
        assert_eq!(unpack(&packed).unwrap(), bundle + "\n");
        assert!(unpack(&packed[..packed.len() - 9]).is_err());
        assert!(unpack(b"nonsense").is_err());
    }
}
