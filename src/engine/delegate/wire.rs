//! What gateway and host say to each other.
//!
//! A message is one byte that says what it is, then its body: JSON for what happens once in a model's life, little-endian numbers for
//! what happens in every request. Tensors lie in shared memory; a message says where. Both sides check every number.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::config::Provider;
use crate::base::{Datatype, Shape};

/// Changes with every change of the messages: the two programs are built together, and say so when they are not.
pub(super) const PROTOCOL: u32 = 1;

/// Tensors of a request or an answer.
pub(super) const TENSORS_MAX: usize = 1024;
/// Dimensions of a tensor.
const RANK_MAX: usize = 32;
/// Tensors begin at multiples of this: vector instructions like it, and every element type is aligned.
pub(super) const ALIGNMENT: usize = 64;

/// Gateway to host: load this model. The file beside it is the model.
pub(super) const LOAD: u8 = 1;
/// Gateway to host: tensors lie in this file from now on. `u64` bytes; the file is beside it.
pub(super) const MEMORY: u8 = 2;
/// Gateway to host: `u64` id, where outputs may begin as `u64`, slots of the inputs in the declared order.
pub(super) const RUN: u8 = 3;
/// Gateway to host: put the outputs that you have into the new memory. `u64` id, `u64` where they may begin.
pub(super) const TAKE: u8 = 4;
/// Gateway to host: say which devices there are.
pub(super) const PROBE: u8 = 5;
/// Host to gateway: the model is loaded.
pub(super) const READY: u8 = 16;
/// Host to gateway: it cannot be, and why.
pub(super) const REFUSED: u8 = 17;
/// Host to gateway: `u64` id, `u64` nanoseconds of computing, slots of the outputs in the declared order.
pub(super) const OUTPUTS: u8 = 18;
/// Host to gateway: `u64` id, `u64` bytes that the outputs take, which is more than there is.
pub(super) const TOO_SMALL: u8 = 19;
/// Host to gateway: `u64` id, then why it could not be computed.
pub(super) const FAILED: u8 = 20;
/// Host to gateway: the devices.
pub(super) const FOUND: u8 = 21;

/// A declared input or output.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Port {
    pub(super) name: String,
    /// The protocol's word.
    pub(super) datatype: String,
    /// -1 is free.
    pub(super) shape: Vec<i64>,
}

/// Body of [`LOAD`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Load {
    pub(super) protocol: u32,
    /// `name/version`, for messages.
    pub(super) model: String,
    pub(super) runtime: Runtime,
    pub(super) threads: usize,
    /// Bytes of its own that the kernel lets the process have; 0 for no such limit.
    pub(super) hard_limit_bytes: u64,
    /// Go on although nothing keeps the process off the network.
    pub(super) allow_network: bool,
    pub(super) inputs: Vec<Port>,
    pub(super) outputs: Vec<Port>,
}

/// Which library computes, on what.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Runtime {
    /// ONNX Runtime's library.
    pub(super) library: PathBuf,
    pub(super) provider: Provider,
    /// A provider that is a library of its own.
    pub(super) plugin: Option<PathBuf>,
    /// Which of its devices: a number, or `CPU`, `GPU`, `NPU`.
    pub(super) device: Option<String>,
    pub(super) options: BTreeMap<String, String>,
}

/// Body of [`READY`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ready {
    pub(super) protocol: u32,
    /// ONNX Runtime's version.
    pub(super) runtime: String,
    /// The device in its driver's words.
    pub(super) device: String,
    /// How many of the model's operators each provider took; empty where the runtime does not say.
    pub(super) placement: BTreeMap<String, usize>,
    /// Whether the kernel holds it to the hard limit.
    pub(super) limited: bool,
}

/// Body of [`PROBE`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Probe {
    pub(super) protocol: u32,
    pub(super) library: PathBuf,
    /// Providers that are libraries of their own.
    pub(super) plugins: Vec<(Provider, PathBuf)>,
}

/// Body of `FOUND`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found {
    /// Of the messages.
    pub(super) protocol: u32,
    /// ONNX Runtime's version.
    pub runtime: String,
    /// Providers that the library was built with, by their names in the configuration.
    pub providers: Vec<String>,
    /// Devices that it lists.
    pub devices: Vec<FoundDevice>,
    /// What went wrong while looking.
    pub problems: Vec<String>,
}

/// A device as ONNX Runtime lists it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundDevice {
    /// The execution provider that would use it.
    pub provider: String,
    /// `CPU`, `GPU` or `NPU`.
    pub kind: String,
    /// Who made it.
    pub vendor: String,
    /// The vendor's number of its kind.
    pub id: u32,
}

/// Where a tensor lies in shared memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) datatype: Datatype,
    pub(super) shape: Shape,
    pub(super) offset: usize,
    pub(super) bytes: usize,
}

/// A message that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(super) struct Torn(pub(super) String);

fn torn(what: impl Into<String>) -> Torn {
    Torn(what.into())
}

/// `kind` with a JSON body.
pub(super) fn json(kind: u8, body: &impl Serialize) -> Vec<u8> {
    let mut message = vec![kind];
    serde_json::to_writer(&mut message, body).expect("texts and numbers are always JSON");
    message
}

/// Reads a JSON body.
pub(super) fn from_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Torn> {
    serde_json::from_slice(body).map_err(|error| torn(format!("a message is not what was agreed: {error}")))
}

/// Starts `message` with `kind` and numbers.
pub(super) fn begin(message: &mut Vec<u8>, kind: u8, numbers: &[u64]) {
    message.clear();
    message.push(kind);
    numbers.iter().for_each(|number| message.extend_from_slice(&number.to_le_bytes()));
}

/// Appends slots.
pub(super) fn push_slots<'a>(message: &mut Vec<u8>, slots: impl ExactSizeIterator<Item = &'a Slot>) {
    message.extend_from_slice(&u32::try_from(slots.len()).unwrap_or(u32::MAX).to_le_bytes());
    for slot in slots {
        let datatype = Datatype::ALL.iter().position(|&other| other == slot.datatype).unwrap_or(usize::MAX);
        message.extend_from_slice(&[datatype as u8, u8::try_from(slot.shape.len()).unwrap_or(u8::MAX)]);
        let dims = slot.shape.iter().copied();
        dims.chain([slot.offset, slot.bytes]).for_each(|n| message.extend_from_slice(&(n as u64).to_le_bytes()));
    }
}

/// Reads a body of numbers from its front.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Torn> {
        let (first, rest) = self.0.split_first_chunk::<N>().ok_or_else(|| torn("a message ends too early"))?;
        self.0 = rest;
        Ok(*first)
    }

    pub(super) fn number(&mut self) -> Result<u64, Torn> {
        self.take().map(u64::from_le_bytes)
    }

    pub(super) fn size(&mut self) -> Result<usize, Torn> {
        usize::try_from(self.number()?).map_err(|_| torn("a size is larger than memory can be"))
    }

    /// What is left, as text.
    pub(super) fn text(self) -> String {
        String::from_utf8_lossy(self.0).into_owned()
    }

    /// Slots, and nothing behind them. Each one's bytes are its shape's.
    pub(super) fn slots(mut self) -> Result<Vec<Slot>, Torn> {
        let count = u32::from_le_bytes(self.take()?) as usize;
        if count > TENSORS_MAX {
            return Err(torn(format!("{count} tensors, the most is {TENSORS_MAX}")));
        }
        let slots = (0..count).map(|_| self.slot()).collect::<Result<Vec<_>, _>>()?;
        if self.0.is_empty() { Ok(slots) } else { Err(torn("a message has something behind its end")) }
    }

    fn slot(&mut self) -> Result<Slot, Torn> {
        let [datatype, rank] = self.take()?;
        let datatype = Datatype::ALL.get(usize::from(datatype)).copied();
        let datatype = datatype.ok_or_else(|| torn("a tensor of no known type"))?;
        let rank = usize::from(rank);
        if rank > RANK_MAX {
            return Err(torn(format!("a tensor of {rank} dimensions, the most is {RANK_MAX}")));
        }
        let shape = (0..rank).map(|_| self.size()).collect::<Result<Shape, _>>()?;
        let (offset, bytes) = (self.size()?, self.size()?);
        let slot = Slot { datatype, shape, offset, bytes };
        let elements = slot.shape.iter().try_fold(1_usize, |all, &dim| all.checked_mul(dim));
        let expected = datatype.size_bytes().map(|size| elements.and_then(|elements| elements.checked_mul(size)));
        match expected {
            Some(expected) if expected != Some(bytes) => {
                Err(torn(format!("a tensor of {datatype} {:?} in {bytes} bytes", slot.shape)))
            }
            _ if !offset.is_multiple_of(ALIGNMENT) => Err(torn(format!("a tensor at byte {offset}"))),
            _ => Ok(slot),
        }
    }
}

/// Places tensors one behind the other from `start` on: the offset of each, and where the last one ends. None where that
/// is larger than memory can be.
pub(super) fn place(start: usize, sizes: impl IntoIterator<Item = usize>) -> Option<(Vec<usize>, usize)> {
    let mut end = start;
    let mut offsets = Vec::new();
    for bytes in sizes {
        let offset = end.checked_next_multiple_of(ALIGNMENT)?;
        offsets.push(offset);
        end = offset.checked_add(bytes)?;
    }
    Some((offsets, end))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn slot(shape: &[usize], offset: usize, bytes: usize) -> Slot {
        Slot { datatype: Datatype::Fp32, shape: shape.into(), offset, bytes }
    }

    fn told(slots: &[Slot]) -> Result<Vec<Slot>, String> {
        let mut message = Vec::new();
        begin(&mut message, OUTPUTS, &[7]);
        push_slots(&mut message, slots.iter());
        let mut reader = Reader(&message[1..]);
        assert_eq!(reader.number(), Ok(7));
        reader.slots().map_err(|torn| torn.to_string())
    }

    #[test]
    fn slots_come_back_as_they_were_said() {
        let slots = [slot(&[2, 3], 64, 24), slot(&[], 128, 4), slot(&[0, 9], 192, 0)];
        assert_eq!(told(&slots).unwrap(), slots);
    }

    #[test]
    fn a_slot_that_lies_about_itself_is_refused() {
        assert_eq!(told(&[slot(&[2, 3], 64, 20)]).unwrap_err(), "a tensor of FP32 [2, 3] in 20 bytes");
        assert_eq!(told(&[slot(&[1], 3, 4)]).unwrap_err(), "a tensor at byte 3");
        assert!(told(&[slot(&[usize::MAX, 2], 0, 0)]).unwrap_err().contains("in 0 bytes"));
        assert!(told(&[slot(&[1; 33], 0, 4)]).unwrap_err().contains("33 dimensions"));
        assert!(told(&vec![slot(&[1], 0, 4); 1025]).unwrap_err().contains("1025 tensors"));
    }

    #[test]
    fn a_torn_message_is_refused_wherever_it_is_torn() {
        let mut message = Vec::new();
        begin(&mut message, OUTPUTS, &[]);
        push_slots(&mut message, [slot(&[2, 3], 64, 24)].iter());
        for end in 1..message.len() {
            assert_eq!(Reader(&message[1..end]).slots(), Err(torn("a message ends too early")), "{end}");
        }
        message.push(0);
        assert_eq!(Reader(&message[1..]).slots(), Err(torn("a message has something behind its end")));
        message[5] = 13;
        assert!(Reader(&message[1..]).slots().unwrap_err().0.contains("no known type"));
    }

    #[test]
    fn tensors_are_placed_aligned_and_never_beyond_memory() {
        assert_eq!(place(0, [1, 64, 3]), Some((vec![0, 64, 128], 131)));
        assert_eq!(place(131, [4]), Some((vec![192], 196)));
        assert_eq!(place(0, [usize::MAX, 1]), None);
    }
}
