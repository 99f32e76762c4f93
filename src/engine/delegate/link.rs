//! One loaded model in one host: requests go in, answers come out, nothing that the host says is believed.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustix::io::Errno;

use super::socket::{Socket, buffer};
use super::system::{Mapping, sealed_memory};
use super::wire::{self, Load, Reader, Ready, Slot, Torn};
use crate::base::{Datatype, Tensor};
use crate::engine::spec::{NamedTensor, TensorSpec};

/// Smallest memory that tensors are exchanged in.
const SHARED_BYTES_MIN: usize = 64 * 1024;

/// What became of a request, or of a host, other than an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fault {
    /// The process is gone.
    Ended,
    /// No answer in time.
    Hung {
        /// How long it had.
        timeout: Duration,
    },
    /// An answer that cannot be one.
    Lied(String),
    /// The host is well and says that it cannot do this.
    Refused(String),
    /// More than the configured memory. The host is well.
    TooLarge {
        /// What the tensors take.
        bytes: usize,
        /// What they may.
        most: usize,
    },
}

impl Fault {
    /// Whether the host has to go.
    pub(super) fn is_fatal(&self) -> bool {
        !matches!(self, Self::Refused(_) | Self::TooLarge { .. })
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Ended => f.write_str("its host ended"),
            Self::Hung { timeout } => {
                write!(f, "its host gave no answer within {} ms and was killed", timeout.as_millis())
            }
            Self::Lied(what) => write!(f, "its host broke the agreement and was killed: {what}"),
            Self::Refused(reason) => write!(f, "its host says: {reason}"),
            Self::TooLarge { bytes, most } => {
                write!(f, "inputs and outputs take {bytes} bytes, the most is {most} (delegate.shared_bytes_max)")
            }
        }
    }
}

impl From<Torn> for Fault {
    fn from(torn: Torn) -> Self {
        Self::Lied(torn.0)
    }
}

/// Memory that both see.
struct Shared {
    file: OwnedFd,
    mapping: Mapping,
}

/// An open link to a host with a model in it.
pub(super) struct Link {
    socket: Socket,
    timeout: Duration,
    outputs: Vec<TensorSpec>,
    shared: Option<Shared>,
    shared_bytes_max: usize,
    /// What the outputs took at most so far.
    outputs_bytes: usize,
    requests: u64,
    /// The message that goes.
    message: Vec<u8>,
    /// The one that comes.
    received: Box<[u8]>,
}

impl Link {
    /// Has the host at the other end load `model`, and says what it says of itself then.
    pub(super) fn open(
        socket: Socket,
        load: &Load,
        model: impl AsFd,
        outputs: Vec<TensorSpec>,
        (load_timeout, timeout): (Duration, Duration),
        shared_bytes_max: usize,
    ) -> Result<(Self, Ready), Fault> {
        // Free dimensions count as one: more room is made as soon as it is known what is needed.
        let outputs_bytes = outputs.iter().filter_map(TensorSpec::least_bytes).fold(0, usize::saturating_add);
        let mut link = Self {
            socket,
            timeout: load_timeout,
            outputs,
            shared: None,
            shared_bytes_max,
            outputs_bytes,
            requests: 0,
            message: Vec::new(),
            received: buffer(),
        };
        link.socket.set_timeout(load_timeout).map_err(|error| Fault::Refused(error.to_string()))?;
        let message = wire::json(wire::LOAD, load);
        link.socket.send(&message, Some(model.as_fd())).map_err(|error| link.broken(&error))?;
        let ready: Ready = match link.receive()? {
            (wire::READY, body) => wire::from_json(body)?,
            (wire::REFUSED, body) => return Err(Fault::Refused(String::from_utf8_lossy(body).into_owned())),
            (kind, _) => return Err(unexpected(kind)),
        };
        if ready.protocol != wire::PROTOCOL {
            let what = format!("it speaks version {} of the protocol, this is {}", ready.protocol, wire::PROTOCOL);
            return Err(Fault::Refused(what + "; install the two programs of one release"));
        }
        link.timeout = timeout;
        link.socket.set_timeout(timeout).map_err(|error| Fault::Refused(error.to_string()))?;
        Ok((link, ready))
    }

    /// Computes one request. After a fatal fault the link is of no more use.
    pub(super) fn infer(&mut self, inputs: &[NamedTensor]) -> Result<Vec<NamedTensor>, Fault> {
        let beyond = Fault::TooLarge { bytes: usize::MAX, most: self.shared_bytes_max };
        let sizes = inputs.iter().map(|input| input.tensor.bytes().len());
        let (offsets, inputs_end) = wire::place(0, sizes).ok_or(beyond.clone())?;
        let begin = inputs_end.checked_next_multiple_of(wire::ALIGNMENT).ok_or(beyond)?;
        let slots: Vec<Slot> = inputs
            .iter()
            .zip(&offsets)
            .map(|(input, &offset)| Slot {
                datatype: input.tensor.datatype(),
                shape: input.tensor.shape().into(),
                offset,
                bytes: input.tensor.bytes().len(),
            })
            .collect();
        self.make_room(begin.saturating_add(self.outputs_bytes))?;
        let mapping = &self.shared.as_ref().expect("room was made").mapping;
        for (input, slot) in inputs.iter().zip(&slots) {
            assert!(mapping.write(slot.offset, input.tensor.bytes()), "room was made for every input");
        }
        self.requests += 1;
        wire::begin(&mut self.message, wire::RUN, &[self.requests, begin as u64]);
        wire::push_slots(&mut self.message, slots.iter());
        self.send()?;
        match self.answer(begin)? {
            Answer::Outputs(outputs) => Ok(outputs),
            Answer::Needs(bytes) => {
                // The inputs are read: the outputs may have all of the new memory, and the next request the same again.
                self.outputs_bytes = bytes;
                self.make_room(begin.saturating_add(bytes))?;
                wire::begin(&mut self.message, wire::TAKE, &[self.requests, 0]);
                self.send()?;
                match self.answer(0)? {
                    Answer::Outputs(outputs) => Ok(outputs),
                    Answer::Needs(more) => Err(Fault::Lied(format!("it wants {more} bytes after {bytes}"))),
                }
            }
        }
    }

    /// Gives the host memory of at least `bytes`, if what it has is smaller.
    fn make_room(&mut self, bytes: usize) -> Result<(), Fault> {
        if self.shared.as_ref().is_some_and(|shared| shared.mapping.bytes() >= bytes) {
            return Ok(());
        }
        let most = self.shared_bytes_max;
        if bytes > most {
            return Err(Fault::TooLarge { bytes, most });
        }
        let bytes = bytes.checked_next_power_of_two().unwrap_or(most).clamp(SHARED_BYTES_MIN.min(most), most);
        let make = || {
            let file = sealed_memory(bytes)?;
            let mapping = Mapping::shared(&file, bytes)?;
            io::Result::Ok(Shared { file, mapping })
        };
        let shared = make().map_err(|error| Fault::Refused(format!("failed to make shared memory: {error}")))?;
        let mut message = Vec::new();
        wire::begin(&mut message, wire::MEMORY, &[bytes as u64]);
        self.socket.send(&message, Some(shared.file.as_fd())).map_err(|error| self.broken(&error))?;
        self.shared = Some(shared);
        Ok(())
    }

    /// Waits for the answer to the last request, whose outputs must not begin before `begin`.
    fn answer(&mut self, begin: usize) -> Result<Answer, Fault> {
        let asked = self.requests;
        let (kind, body) = self.receive()?;
        let mut reader = Reader(body);
        let id = reader.number()?;
        if id != asked {
            return Err(Fault::Lied(format!("an answer to request {id}, expected {asked}")));
        }
        match kind {
            wire::FAILED => Err(Fault::Refused(reader.text())),
            wire::TOO_SMALL => Ok(Answer::Needs(reader.size()?)),
            wire::OUTPUTS => {
                reader.number()?;
                let slots = reader.slots()?;
                self.read(&slots, begin).map(Answer::Outputs)
            }
            kind => Err(unexpected(kind)),
        }
    }

    /// Copies the outputs out of the shared memory, and then looks at them: nobody can change the copy.
    fn read(&mut self, slots: &[Slot], begin: usize) -> Result<Vec<NamedTensor>, Fault> {
        if slots.len() != self.outputs.len() {
            return Err(Fault::Lied(format!("{} outputs, expected {}", slots.len(), self.outputs.len())));
        }
        let mapping = &self.shared.as_ref().expect("a request had memory").mapping;
        let read = |(slot, spec): (&Slot, &TensorSpec)| {
            let lied = |what: String| Fault::Lied(format!("output {}: {what}", spec.name));
            if slot.datatype != spec.datatype {
                return Err(lied(format!("{}, expected {}", slot.datatype, spec.datatype)));
            }
            if !spec.admits(&slot.shape) {
                return Err(lied(format!("shape {:?}, expected {:?}", slot.shape, spec.shape)));
            }
            let outside = || lied(format!("{} bytes at {} of {}", slot.bytes, slot.offset, mapping.bytes()));
            if slot.offset < begin && slot.bytes > 0 {
                return Err(outside());
            }
            let bytes: Bytes = mapping.copy_out(slot.offset, slot.bytes).ok_or_else(outside)?.into();
            let tensor =
                Tensor::from_bytes(slot.datatype, &slot.shape, bytes).map_err(|error| lied(error.to_string()))?;
            Ok(NamedTensor::new(Arc::clone(&spec.name), tensor))
        };
        let outputs = slots.iter().zip(&self.outputs).map(read).collect::<Result<Vec<_>, Fault>>()?;
        let end = slots.iter().map(|slot| slot.offset + slot.bytes).max().unwrap_or(begin);
        self.outputs_bytes = self.outputs_bytes.max(end.saturating_sub(begin));
        Ok(outputs)
    }

    fn send(&self) -> Result<(), Fault> {
        self.socket.send(&self.message, None).map_err(|error| self.broken(&error))
    }

    fn receive(&mut self) -> Result<(u8, &[u8]), Fault> {
        let length = self.socket.receive(&mut self.received).map_err(|error| self.broken(&error))?;
        let (&kind, body) = self.received[..length].split_first().ok_or(Fault::Ended)?;
        Ok((kind, body))
    }

    fn broken(&self, error: &io::Error) -> Fault {
        match Errno::from_io_error(error) {
            Some(Errno::AGAIN) => Fault::Hung { timeout: self.timeout },
            Some(Errno::PIPE | Errno::CONNRESET) => Fault::Ended,
            _ => Fault::Lied(error.to_string()),
        }
    }
}

enum Answer {
    Outputs(Vec<NamedTensor>),
    Needs(usize),
}

fn unexpected(kind: u8) -> Fault {
    Fault::Lied(format!("a message of kind {kind}, which is no answer to this"))
}

/// A declared tensor in the protocol's words.
pub(super) fn port(spec: &TensorSpec) -> wire::Port {
    let datatype: Datatype = spec.datatype;
    wire::Port { name: spec.name.to_string(), datatype: datatype.as_str().to_owned(), shape: spec.shape.clone() }
}
