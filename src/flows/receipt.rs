//! What a receiver says about one message, after its commit: which numbers of which stream it keeps, or why it does
//! not. `docs/batch.cddl` says the same for other people's receivers.

use bytes::Bytes;

use crate::base::{Digest, Epoch, Name, NameError, Seq};
use crate::inbox::{IncomingBatch, VerifiedBatch};

use super::address::Address;
use super::batch::Batch;
use super::cbor::{CborError, Decoder, Encoder};

/// The format's version, the first thing in every receipt.
const VERSION: u64 = 1;
/// Pairs of a receipt for what is kept.
const PAIRS_KEPT: usize = 7;
/// Pairs of a receipt for what is not.
const PAIRS_REFUSED: usize = 3;
/// Longest text in which a receiver gives its reason.
const MAX_REASON_BYTES: usize = 256;

/// The numbers that a message carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The life of the queue file.
    pub epoch: Epoch,
    /// The class of the stream.
    pub class: Name,
    /// The stream.
    pub stream: Name,
    /// First number.
    pub first: Seq,
    /// Last number.
    pub last: Seq,
}

impl Span {
    /// What `batch` carries.
    pub fn of(batch: &Batch) -> Self {
        let Batch { epoch, class, stream, first, last, .. } = batch;
        Self { epoch: *epoch, class: class.clone(), stream: stream.clone(), first: *first, last: *last }
    }

    /// What a batch carries that was read; `address` is where it came from.
    pub(super) fn of_verified(address: &Address, batch: &VerifiedBatch) -> Self {
        let IncomingBatch { epoch, stream, first, last, .. } = batch.batch();
        Self { epoch: *epoch, class: address.class.clone(), stream: stream.clone(), first: *first, last: *last }
    }
}

/// What became of the message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its effect is committed.
    Kept(Span),
    /// It has no effect, and the sender should keep it.
    Refused {
        /// Why, for a person.
        reason: String,
    },
}

/// One answer to one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Receipt {
    /// SHA-256 of the message as it came, so that an answer to another message with the same numbers counts for
    /// nothing.
    pub digest: Digest,
    /// What became of it.
    pub verdict: Verdict,
}

/// Why bytes are not a receipt.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    /// Not the CBOR that `docs/batch.cddl` describes.
    #[error("failed to read the receipt: {0}")]
    Cbor(#[from] CborError),
    /// A version that this binary does not know.
    #[error("failed to read the receipt: it has version {0}, this binary reads version {VERSION}")]
    Version(u64),
    /// A name that cannot be one.
    #[error("failed to read the receipt: {0}")]
    Name(#[from] NameError),
    /// Something that a receipt does not hold.
    #[error("failed to read the receipt: {0}")]
    Shape(&'static str),
}

impl Receipt {
    /// Writes a receipt, deterministically (RFC 8949, 4.2.1). A longer reason is cut.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Encoder::with_capacity(256);
        match &self.verdict {
            Verdict::Kept(span) => {
                out.map(PAIRS_KEPT);
                out.text("v");
                out.uint(VERSION);
                out.text("last");
                out.uint(span.last.0);
                out.text("class");
                out.text(span.class.as_str());
                out.text("epoch");
                out.uint(span.epoch.0);
                out.text("first");
                out.uint(span.first.0);
                out.text("digest");
                out.bytes(self.digest.as_bytes());
                out.text("stream");
                out.text(span.stream.as_str());
            }
            Verdict::Refused { reason } => {
                out.map(PAIRS_REFUSED);
                out.text("v");
                out.uint(VERSION);
                out.text("digest");
                out.bytes(self.digest.as_bytes());
                out.text("refused");
                let end = (0..=reason.len().min(MAX_REASON_BYTES)).rev().find(|&end| reason.is_char_boundary(end));
                out.text(&reason[..end.unwrap_or(0)]);
            }
        }
        out.finish()
    }

    /// Reads a receipt.
    pub fn decode(bytes: &Bytes) -> Result<Self, ReceiptError> {
        let mut cbor = Decoder::new(bytes);
        let kept = match cbor.map()? {
            PAIRS_KEPT => true,
            PAIRS_REFUSED => false,
            _ => return Err(ReceiptError::Shape("a receipt is a map of 3 or 7 pairs")),
        };
        cbor.key("v")?;
        match cbor.uint()? {
            VERSION => {}
            other => return Err(ReceiptError::Version(other)),
        }
        let receipt = if kept {
            cbor.key("last")?;
            let last = Seq(cbor.uint()?);
            cbor.key("class")?;
            let class = Name::new(cbor.text()?)?;
            cbor.key("epoch")?;
            let epoch = Epoch(cbor.uint()?);
            cbor.key("first")?;
            let first = Seq(cbor.uint()?);
            let digest = read_digest(&mut cbor)?;
            cbor.key("stream")?;
            let stream = Name::new(cbor.text()?)?;
            Self { digest, verdict: Verdict::Kept(Span { epoch, class, stream, first, last }) }
        } else {
            let digest = read_digest(&mut cbor)?;
            cbor.key("refused")?;
            let reason = cbor.text()?.to_owned();
            if reason.len() > MAX_REASON_BYTES {
                return Err(ReceiptError::Shape("its reason is too long"));
            }
            Self { digest, verdict: Verdict::Refused { reason } }
        };
        cbor.finish()?;
        Ok(receipt)
    }
}

fn read_digest(cbor: &mut Decoder<'_>) -> Result<Digest, ReceiptError> {
    cbor.key("digest")?;
    let digest = <[u8; 32]>::try_from(cbor.bytes()?).map_err(|_| ReceiptError::Shape("a digest has 32 bytes"))?;
    Ok(Digest::from(digest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn receipt() -> impl Strategy<Value = Receipt> {
        let name = || "[a-zA-Z0-9_-][a-zA-Z0-9_.-]{0,63}".prop_map(|text| Name::new(&text).unwrap());
        let span = (any::<u64>(), name(), name(), any::<u64>(), any::<u64>()).prop_map(
            |(epoch, class, stream, first, last)| {
                Verdict::Kept(Span { epoch: Epoch(epoch), class, stream, first: Seq(first), last: Seq(last) })
            },
        );
        let refused = "\\PC{0,64}".prop_map(|reason| Verdict::Refused { reason });
        (any::<[u8; 32]>(), prop_oneof![span, refused])
            .prop_map(|(digest, verdict)| Receipt { digest: Digest::from(digest), verdict })
    }

    proptest! {
        #[test]
        fn what_is_encoded_reads_back(receipt in receipt()) {
            let bytes = Bytes::from(receipt.encode());
            prop_assert_eq!(Receipt::decode(&bytes).unwrap(), receipt);
        }

        #[test]
        fn bytes_of_a_stranger_are_refused_and_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Receipt::decode(&Bytes::from(bytes));
        }
    }

    #[test]
    fn a_cut_a_longer_or_a_newer_receipt_is_refused() {
        let verdict = Verdict::Refused { reason: "é".repeat(200) };
        let bytes = Receipt { digest: Digest::of(b""), verdict }.encode();
        let read = Receipt::decode(&Bytes::from(bytes.clone())).unwrap();
        assert_eq!(read.verdict, Verdict::Refused { reason: "é".repeat(128) }, "a long reason is cut between letters");
        for end in 0..bytes.len() {
            Receipt::decode(&Bytes::copy_from_slice(&bytes[..end])).unwrap_err();
        }
        let longer = [&bytes[..], &[0]].concat();
        Receipt::decode(&Bytes::from(longer)).unwrap_err();
        let mut newer = bytes;
        newer[3] = 2;
        assert_eq!(Receipt::decode(&Bytes::from(newer)), Err(ReceiptError::Version(2)));
    }
}
