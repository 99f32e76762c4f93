//! The delegate host: its program, its library, what keeps it off the network, and the devices that it sees.

use super::{Finding, State};
use crate::engine::delegate::{Config, RUNTIME_VERSION, digest_of, pinned, probe};

/// How to get ONNX Runtime's library.
const GET_LIBRARY: &str = "pip download --no-deps onnxruntime==1.28.0, and unzip capi/libonnxruntime.so.1.28.0 from it";
/// How to get the host.
const GET_PROGRAM: &str = "`make delegate` builds it beside the library that it needs; put both where [delegate] says";

/// Looks at what `[delegate]` names, or, without one, at the places where it would look.
pub(super) fn findings(config: Option<&Config>) -> Vec<Finding> {
    let needed = config.is_some();
    let usual = Config::default();
    let config = config.unwrap_or(&usual);
    let mut findings = Vec::new();
    let mut add = |state: State, what: &'static str, text: String, advice: Option<&str>| {
        findings.push(Finding { state, what, text, advice: advice.map(str::to_owned) });
    };
    let lacking = if needed { State::Bad } else { State::Absent };
    if let Err(error) = std::fs::File::open(&config.program) {
        add(
            lacking,
            "delegate",
            format!("no host program at {}: {error}", config.program.display()),
            Some(GET_PROGRAM),
        );
        return findings;
    }
    add(State::Ok, "delegate", format!("host program at {}", config.program.display()), None);
    let library = config.library.display();
    let expected = config.library_sha256.or_else(pinned);
    match digest_of(&config.library) {
        Err(error) => {
            add(lacking, "library", format!("no ONNX Runtime at {library}: {error}"), Some(GET_LIBRARY));
            return findings;
        }
        Ok(found) if Some(found) == expected => {
            let whose = match config.library_sha256 {
                Some(_) => "the one that delegate.library_sha256 names".to_owned(),
                None => format!("ONNX Runtime {RUNTIME_VERSION} as PyPI has it"),
            };
            add(State::Ok, "library", format!("{library}: {whose}"), None);
        }
        Ok(found) => {
            let text =
                format!("{library} has SHA-256 {found}, which is not the library that was tried; it is not loaded");
            let advice = format!(
                "take ONNX Runtime {RUNTIME_VERSION} ({GET_LIBRARY}), or, if you trust this one, say library_sha256 = \"{found}\""
            );
            add(lacking, "library", text, Some(&advice));
            return findings;
        }
    }
    for device in &config.device {
        if let Some(plugin) = &device.library
            && let Err(error) = std::fs::File::open(plugin)
        {
            let advice = match device.provider.as_str() {
                "openvino" => {
                    "pip install onnxruntime-ep-openvino (x86_64) has libonnxruntime_providers_openvino_plugin.so"
                }
                _ => "the provider's own package has it",
            };
            let text = format!("device {} needs {}: {error}", device.name, plugin.display());
            add(State::Bad, "provider", text, Some(advice));
        }
    }
    let folder = std::env::temp_dir().join(format!("forebay-doctor-{}", std::process::id()));
    let probed = probe(config, &folder);
    let _ = std::fs::remove_dir_all(&folder);
    let (found, isolation) = match probed {
        Ok(probed) => probed,
        Err(reason) => {
            add(lacking, "host", format!("it does not answer: {reason}"), Some(GET_PROGRAM));
            return findings;
        }
    };
    let isolated = if isolation.holds() || config.allow_network { State::Ok } else { lacking };
    let advice = "allow user namespaces or seccomp filters to this service, or set delegate.allow_network = true";
    add(isolated, "network", format!("a host has {}", isolation.as_str()), (!isolation.holds()).then_some(advice));
    for problem in found.problems {
        add(lacking, "provider", problem, None);
    }
    add(State::Ok, "runtime", format!("ONNX Runtime {} with {}", found.runtime, found.providers.join(", ")), None);
    for device in found.devices {
        let text = format!("{} {} ({}) by {}", device.kind, device.vendor, device.id, device.provider);
        add(State::Ok, "device", text, None);
    }
    for device in &config.device {
        let there = device.library.is_some() || found.providers.iter().any(|name| name == device.provider.as_str());
        if !there {
            let provider = device.provider.as_str();
            let text = format!("device {} wants {provider}, which this ONNX Runtime was built without", device.name);
            let advice =
                format!("take a build with {provider} (docs/delegate.md lists them) and say its library_sha256");
            add(State::Bad, "provider", text, Some(&advice));
        }
    }
    findings
}
