//! One model in ONNX Runtime, computed on this thread.

use std::path::Path;

use ort::session::builder::GraphOptimizationLevel;
use ort::session::{HasSelectedOutputs, OutputSelector, RunOptions, Session};
use ort::value::{Outlet, ValueType};

use super::provider::{assign, open, version};
use super::values::{Told, datatype_of, input};
use crate::base::Datatype;
use crate::engine::delegate::system::{Mapping, placement};
use crate::engine::delegate::wire::{Load, PROTOCOL, Port, Ready, Slot};

/// A loaded model.
pub(super) struct Model {
    session: Session,
    options: RunOptions<HasSelectedOutputs>,
    inputs: Vec<String>,
    outputs: Vec<(String, Datatype)>,
}

/// What came out of a request.
pub(super) struct Outputs {
    pub(super) tensors: Vec<Told>,
    pub(super) duration_ns: u64,
}

impl Model {
    /// Loads the model at `path` for the device that `load` names.
    pub(super) fn load(load: &Load, path: &Path) -> Result<(Self, Ready), String> {
        let environment = open(&load.runtime.library)?;
        let build = || -> Result<_, String> {
            let text = |error: ort::Error<_>| error.to_string();
            let builder = Session::builder(&environment).map_err(|error| error.to_string())?;
            let builder = builder.with_intra_threads(load.threads).map_err(text)?;
            let builder = builder.with_inter_threads(1).map_err(text)?;
            // Threads that turn in a loop between two requests cost a second core.
            let builder = builder.with_intra_op_spinning(false).map_err(text)?;
            let builder = builder.with_inter_op_spinning(false).map_err(text)?;
            let builder = builder.with_optimization_level(GraphOptimizationLevel::All).map_err(text)?;
            builder.with_config_entry("session.record_ep_graph_assignment_info", "1").map_err(text)
        };
        let (mut builder, device) = assign(&environment, build()?, &load.runtime, load.threads)?;
        let session = builder.commit_from_file(path).map_err(|error| error.to_string())?;
        agree("input", &load.inputs, session.inputs(), true)?;
        let outputs = agree("output", &load.outputs, session.outputs(), false)?;
        let placement = placement(&session);
        let taken = placement.get(load.runtime.provider.name()).copied().unwrap_or(0);
        if !placement.is_empty() && taken == 0 {
            return Err(format!(
                "{device} takes none of the model's operators: all would be computed by ONNX Runtime's own"
            ));
        }
        let selector = outputs.iter().fold(OutputSelector::no_default(), |selector, (name, _)| selector.with(name));
        let options = RunOptions::new().map_err(|error| error.to_string())?.with_outputs(selector);
        let ready = Ready { protocol: PROTOCOL, runtime: version(), device, placement, limited: false };
        let inputs = load.inputs.iter().map(|port| port.name.clone()).collect();
        Ok((Self { session, options, inputs, outputs }, ready))
    }

    /// Computes with inputs that lie in `memory`, in the declared order.
    pub(super) fn run(&mut self, slots: &[Slot], memory: &Mapping) -> Result<Outputs, String> {
        if slots.len() != self.inputs.len() {
            return Err(format!("{} inputs, expected {}", slots.len(), self.inputs.len()));
        }
        let named = |(name, slot): (&String, &Slot)| {
            let value = input(slot, memory).map_err(|reason| format!("input {name}: {reason}"))?;
            Ok((name.clone(), value))
        };
        let inputs = self.inputs.iter().zip(slots).map(named).collect::<Result<Vec<_>, String>>()?;
        let outputs = self.session.run_with_options(inputs, &self.options).map_err(|error| error.to_string())?;
        let told = |((name, value), (_, datatype)): ((&str, ort::value::DynValue), &(String, Datatype))| {
            Told::of(value, *datatype).map_err(|reason| format!("output {name}: {reason}"))
        };
        let tensors = outputs.into_iter().zip(&self.outputs).map(told).collect::<Result<Vec<_>, String>>()?;
        Ok(Outputs { tensors, duration_ns: 0 })
    }
}

/// Holds the declaration against the file: names, types, dimensions. All of the file's where `whole`.
fn agree(what: &str, declared: &[Port], file: &[Outlet], whole: bool) -> Result<Vec<(String, Datatype)>, String> {
    let names = || file.iter().map(Outlet::name).collect::<Vec<_>>().join(", ");
    if whole && declared.len() != file.len() {
        return Err(format!("{} {what}s are declared, the file has {} ({})", declared.len(), file.len(), names()));
    }
    let agrees = |port: &Port| {
        let found = file.iter().find(|outlet| outlet.name() == port.name);
        let found = found.ok_or_else(|| format!("the file has no {what} {}; it has {}", port.name, names()))?;
        let ValueType::Tensor { ty, shape, .. } = found.dtype() else {
            return Err(format!("{what} {} is no tensor in the file", port.name));
        };
        let datatype = datatype_of(*ty).ok_or_else(|| format!("{what} {} is {ty:?} in the file", port.name))?;
        if datatype.as_str() != port.datatype {
            return Err(format!("{what} {} is {}, in the file {datatype}", port.name, port.datatype));
        }
        // What the file leaves open, or does not know, the declaration may say; outputs are looked at again when they come.
        let fits = shape.len() == port.shape.len()
            && shape.iter().zip(&port.shape).all(|(&dim, &declared)| dim < 0 || dim == declared);
        if what == "input" && !fits {
            return Err(format!("{what} {} has shape {:?}, in the file {:?}", port.name, port.shape, &shape[..]));
        }
        Ok((port.name.clone(), datatype))
    };
    declared.iter().map(agrees).collect()
}
