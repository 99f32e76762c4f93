//! The loop of a host: a message in, a message out.

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::Instant;

use super::isolate::{Given, limit_memory};
use super::provider;
use super::runtime::{Model, Outputs};
use crate::engine::delegate::socket::{Socket, buffer};
use crate::engine::delegate::system::Mapping;
use crate::engine::delegate::wire::{self, Load, Probe, Reader, Slot};

struct Host {
    given: Given,
    model: Option<Model>,
    memory: Option<Mapping>,
    /// Outputs for which there was no room.
    kept: Option<(u64, Outputs)>,
    message: Vec<u8>,
}

/// Does what the gateway says until it is gone.
pub(super) fn serve(given: Given) -> Result<(), String> {
    let socket = Socket::inherited().map_err(|error| format!("failed to use standard input: {error}"))?;
    let mut host = Host { given, model: None, memory: None, kept: None, message: Vec::new() };
    let mut received = buffer();
    loop {
        let (length, file) =
            socket.receive_with_file(&mut received).map_err(|error| format!("failed to hear the gateway: {error}"))?;
        let Some((&kind, body)) = received[..length].split_first() else { return Ok(()) };
        host.message.clear();
        host.hear(kind, body, file)?;
        if !host.message.is_empty() {
            socket.send(&host.message, None).map_err(|error| format!("failed to answer the gateway: {error}"))?;
        }
    }
}

impl Host {
    /// Does what one message says and leaves the answer in `message`. An error ends the host: the gateway speaks another protocol.
    fn hear(&mut self, kind: u8, body: &[u8], file: Option<OwnedFd>) -> Result<(), String> {
        let said = |error: wire::Torn| error.to_string();
        match kind {
            wire::LOAD => {
                let load: Load = wire::from_json(body).map_err(said)?;
                let file = file.ok_or("a model without its file")?;
                self.message = match self.load(&load, &file) {
                    Ok(ready) => ready,
                    Err(reason) => {
                        let mut message = vec![wire::REFUSED];
                        message.extend_from_slice(short(&reason).as_bytes());
                        message
                    }
                };
            }
            wire::PROBE => {
                let probe: Probe = wire::from_json(body).map_err(said)?;
                self.message = wire::json(wire::FOUND, &provider::probe(&probe));
            }
            wire::MEMORY => {
                let bytes = Reader(body).size().map_err(said)?;
                let file = file.ok_or("memory without its file")?;
                let memory = Mapping::shared(&file, bytes).map_err(|error| format!("failed to map memory: {error}"))?;
                self.memory = Some(memory);
            }
            wire::RUN => {
                let mut reader = Reader(body);
                let (id, begin) = (reader.number().map_err(said)?, reader.size().map_err(said)?);
                let inputs = reader.slots().map_err(said)?;
                self.kept = None;
                self.run(id, begin, &inputs);
            }
            wire::TAKE => {
                let mut reader = Reader(body);
                let (id, begin) = (reader.number().map_err(said)?, reader.size().map_err(said)?);
                match self.kept.take() {
                    Some((kept, outputs)) if kept == id => self.put(id, begin, outputs),
                    _ => self.failed(id, "there is nothing to take"),
                }
            }
            kind => return Err(format!("a message of kind {kind}: the gateway is of another release")),
        }
        Ok(())
    }

    fn load(&mut self, load: &Load, file: &OwnedFd) -> Result<Vec<u8>, String> {
        if load.protocol != wire::PROTOCOL {
            let (its, ours) = (load.protocol, wire::PROTOCOL);
            return Err(format!(
                "the gateway speaks version {its} of the protocol, this host {ours}; install one release"
            ));
        }
        if !self.given.off_the_network && !load.allow_network {
            let reason = "nothing keeps it off the network here: neither namespaces nor filters are allowed";
            return Err(format!("{reason}; delegate.allow_network = true lets it run all the same"));
        }
        let limited = limit_memory(load.hard_limit_bytes);
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let (model, mut ready) = Model::load(load, path.as_ref())?;
        ready.limited = limited;
        self.model = Some(model);
        Ok(wire::json(wire::READY, &ready))
    }

    fn run(&mut self, id: u64, begin: usize, inputs: &[Slot]) {
        let (Some(model), Some(memory)) = (&mut self.model, &self.memory) else {
            return self.failed(id, "no model or no memory yet");
        };
        #[allow(clippy::disallowed_methods, reason = "a host has no clock but the machine's")]
        let before = Instant::now();
        match model.run(inputs, memory) {
            Ok(mut outputs) => {
                outputs.duration_ns = u64::try_from(before.elapsed().as_nanos()).unwrap_or(u64::MAX);
                self.put(id, begin, outputs);
            }
            Err(reason) => self.failed(id, &reason),
        }
    }

    /// Puts outputs into the memory from `begin` on; where they do not fit, keeps them and says how many bytes they take.
    fn put(&mut self, id: u64, begin: usize, outputs: Outputs) {
        let Some(memory) = &self.memory else { return self.failed(id, "no memory yet") };
        let placed = wire::place(begin, outputs.tensors.iter().map(|tensor| tensor.bytes().len()));
        let Some((offsets, end)) = placed else { return self.failed(id, "outputs are larger than memory can be") };
        if end > memory.bytes() {
            wire::begin(&mut self.message, wire::TOO_SMALL, &[id, (end - begin) as u64]);
            self.kept = Some((id, outputs));
            return;
        }
        let mut slots = Vec::with_capacity(offsets.len());
        for (tensor, offset) in outputs.tensors.iter().zip(offsets) {
            let bytes = tensor.bytes();
            assert!(memory.write(offset, &bytes), "it was placed within");
            let (datatype, shape) = (tensor.datatype, tensor.shape.clone());
            slots.push(Slot { datatype, shape, offset, bytes: bytes.len() });
        }
        wire::begin(&mut self.message, wire::OUTPUTS, &[id, outputs.duration_ns]);
        wire::push_slots(&mut self.message, slots.iter());
    }

    fn failed(&mut self, id: u64, reason: &str) {
        wire::begin(&mut self.message, wire::FAILED, &[id]);
        self.message.extend_from_slice(short(reason).as_bytes());
    }
}

/// A library's error can be a page long.
fn short(reason: &str) -> &str {
    let end = reason.char_indices().map(|(at, _)| at).find(|&at| at >= 2000).unwrap_or(reason.len());
    &reason[..end]
}
