//! Execution providers of ONNX Runtime: the one that a session gets, and which there are.

use std::path::Path;

use ort::environment::Environment;
use ort::ep::{
    self, ArbitrarilyConfigurableExecutionProvider as Options, ExecutionProvider, ExecutionProviderDispatch,
};
use ort::memory::DeviceType;
use ort::session::builder::SessionBuilder;

use crate::engine::delegate::config::{FAST_MATH, Provider, truth};
use crate::engine::delegate::library::RUNTIME_VERSION;
use crate::engine::delegate::wire::{Found, FoundDevice, PROTOCOL, Probe, Runtime};

/// Loads ONNX Runtime with its telemetry off: by the environment, which the gateway sets, and by its own switch.
pub(super) fn open(library: &Path) -> Result<Environment, String> {
    #[allow(clippy::disallowed_methods, reason = "a host refuses to load the library without it")]
    let off = std::env::var("ORT_DISABLE_TELEMETRY").is_ok_and(|value| value == "1");
    if !off {
        return Err("ORT_DISABLE_TELEMETRY is not 1: the gateway sets it".to_owned());
    }
    let builder = ort::init_from(library).map_err(|error| error.to_string())?;
    builder.with_name("forebay").with_telemetry(false).build().map_err(|error| error.to_string())
}

/// ONNX Runtime's version, as its build says it.
pub(super) fn version() -> String {
    let info = ort::info();
    let tag = |key: &str| info.split(", ").find_map(|word| word.split_once(key)).map(|(_, value)| value.trim());
    // A release's branch is called after it.
    let branch = tag("git-branch=").and_then(|branch| branch.strip_prefix("rel-")).map(ToOwned::to_owned);
    branch.unwrap_or_else(|| RUNTIME_VERSION.to_owned())
}

/// Gives the session the devices that it shall compute on, by name: without any ONNX Runtime would choose. Says which.
pub(super) fn assign(
    environment: &Environment,
    builder: SessionBuilder,
    runtime: &Runtime,
    threads: usize,
) -> Result<(SessionBuilder, String), String> {
    if let Some(plugin) = &runtime.plugin {
        environment
            .register_ep_library(runtime.provider.name(), plugin)
            .map_err(|error| format!("failed to load {}: {error}", plugin.display()))?;
    }
    if runtime.provider == Provider::Cpu || runtime.plugin.is_some() {
        return listed(environment, builder, runtime);
    }
    let provider = built_in(runtime, threads)?.error_on_failure();
    let builder = builder.with_execution_providers([provider]).map_err(|error| error.to_string())?;
    let device = runtime.device.as_deref().map_or_else(String::new, |device| format!(" device {device}"));
    Ok((builder, format!("{}{device}", runtime.provider.name())))
}

/// One of the devices that the environment lists.
fn listed(
    environment: &Environment,
    builder: SessionBuilder,
    runtime: &Runtime,
) -> Result<(SessionBuilder, String), String> {
    let name = runtime.provider.name();
    let all: Vec<_> = environment.devices().filter(|device| device.ep().is_ok_and(|ep| ep == name)).collect();
    let words: Vec<String> = all.iter().map(describe).collect();
    let index = match runtime.device.as_deref() {
        None => Some(0),
        Some(wanted) => match wanted.parse::<usize>() {
            Ok(index) => Some(index),
            Err(_) => all.iter().position(|device| kind(device.hardware_device().ty()).eq_ignore_ascii_case(wanted)),
        },
    };
    let Some(index) = index.filter(|&index| index < all.len()) else {
        let wanted = runtime.device.as_deref().unwrap_or("device");
        let there = if words.is_empty() { "none".to_owned() } else { words.join("; ") };
        return Err(format!("{name} has no {wanted}; it lists {there}"));
    };
    let options: Vec<_> = runtime.options.iter().map(|(key, value)| (format!("{name}.{key}"), value.clone())).collect();
    let device = all.into_iter().nth(index);
    let builder = builder.with_devices(device, Some(&options)).map_err(|error| error.to_string())?;
    Ok((builder, format!("{name} {}", words[index])))
}

fn kind(device: DeviceType) -> &'static str {
    match device {
        DeviceType::CPU => "CPU",
        DeviceType::GPU => "GPU",
        DeviceType::FPGA => "FPGA",
        DeviceType::NPU => "NPU",
    }
}

fn describe(device: &ort::device::Device<'_>) -> String {
    let hardware = device.hardware_device();
    format!("{} {} ({})", kind(hardware.ty()), hardware.vendor().unwrap_or("of an unnamed vendor"), hardware.id())
}

/// A provider that is part of the library, with its settings.
fn built_in(runtime: &Runtime, threads: usize) -> Result<ExecutionProviderDispatch, String> {
    fn with<P: Options>(provider: P, runtime: &Runtime, device_key: &str) -> P {
        let device = runtime.device.iter().map(|device| (device_key.to_owned(), device.clone()));
        let options = runtime.options.iter().map(|(key, value)| (key.clone(), value.clone()));
        device.chain(options).fold(provider, |provider, (key, value)| provider.with_arbitrary_config(key, value))
    }
    // The gateway has refused it already; another caller of this program has not.
    if let Some((_, problem)) = runtime.provider.refuses(runtime.device.as_deref(), &runtime.options) {
        return Err(problem);
    }
    Ok(match runtime.provider {
        Provider::Cpu => return Err("its devices are listed".to_owned()),
        Provider::Cuda => with(ep::CUDA::default(), runtime, "device_id").build(),
        Provider::TensorRt => with(ep::TensorRT::default(), runtime, "device_id").build(),
        Provider::OpenVino => {
            let provider = ep::OpenVINO::default().with_num_threads(threads);
            with(provider, runtime, "device_type").build()
        }
        Provider::Qnn => with(ep::QNN::default(), runtime, "device_id").build(),
        Provider::Xnnpack => {
            let threads = std::num::NonZeroUsize::new(threads).unwrap_or(std::num::NonZeroUsize::MIN);
            with(ep::XNNPACK::default().with_intra_op_num_threads(threads), runtime, "device_id").build()
        }
        Provider::CoreMl => with(ep::CoreML::default(), runtime, "MLComputeUnits").build(),
        Provider::Rknpu => ep::RKNPU::default().build(),
        Provider::Acl => {
            let fast = runtime.options.get(FAST_MATH).and_then(|value| truth(value)).unwrap_or(false);
            ep::ACL::default().with_fast_math(fast).build()
        }
        Provider::DirectMl => {
            let device = runtime.device.as_deref().unwrap_or("0");
            let number = device.parse().map_err(|_| format!("directml has no device {device}: a number is wanted"))?;
            ep::DirectML::default().with_device_id(number).build()
        }
    })
}

/// What the library was built with and which devices it lists.
pub(super) fn probe(probe: &Probe) -> Found {
    let mut found = Found { protocol: PROTOCOL, ..Found::default() };
    let environment = match open(&probe.library) {
        Ok(environment) => environment,
        Err(problem) => {
            found.problems.push(problem);
            return found;
        }
    };
    found.runtime = version();
    for (provider, plugin) in &probe.plugins {
        match environment.register_ep_library(provider.name(), plugin) {
            Ok(()) => found.providers.push(provider.as_str().to_owned()),
            Err(error) => found.problems.push(format!("failed to load {}: {error}", plugin.display())),
        }
    }
    let built_in = Provider::ALL.into_iter().filter(|&provider| has(provider));
    found.providers.extend(built_in.map(|provider| provider.as_str().to_owned()));
    found.providers.sort();
    found.providers.dedup();
    for device in environment.devices() {
        let hardware = device.hardware_device();
        found.devices.push(FoundDevice {
            provider: device.ep().unwrap_or("").to_owned(),
            kind: kind(hardware.ty()).to_owned(),
            vendor: hardware.vendor().unwrap_or("").to_owned(),
            id: hardware.id(),
        });
    }
    found
}

fn has(provider: Provider) -> bool {
    let built = match provider {
        Provider::Cpu => ep::CPU::is_available(),
        Provider::Cuda => ep::CUDA::is_available(),
        Provider::TensorRt => ep::TensorRT::is_available(),
        Provider::OpenVino => ep::OpenVINO::is_available(),
        Provider::Qnn => ep::QNN::is_available(),
        Provider::Rknpu => ep::RKNPU::is_available(),
        Provider::Acl => ep::ACL::is_available(),
        Provider::Xnnpack => ep::XNNPACK::is_available(),
        Provider::CoreMl => ep::CoreML::is_available(),
        Provider::DirectMl => ep::DirectML::is_available(),
    };
    built.unwrap_or(false)
}
