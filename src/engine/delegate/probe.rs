//! Asking a host which devices there are, without a model.

use std::path::Path;
use std::time::Duration;

use super::config::Config;
use super::library;
use super::process::{Isolation, Process};
use super::socket::buffer;
use super::wire::{self, Found, PROTOCOL, Probe};

/// Starts a host, has it load the configured libraries and say what it finds, and ends it. Takes as long as the libraries need.
pub fn probe(config: &Config, work_folder: &Path) -> Result<(Found, Isolation), String> {
    let config = &config.clone().absolute();
    library::check(&config.library, config.library_sha256)?;
    let home = format!("host-{}-probe", std::process::id());
    let (process, socket) = Process::start(config, work_folder, &home, "none, only looking")?;
    let plugins = config.device.iter().filter_map(|device| Some((device.provider, device.library.clone()?)));
    let mut plugins: Vec<_> = plugins.collect();
    plugins.sort();
    plugins.dedup();
    let asked = Probe { protocol: PROTOCOL, library: config.library.clone(), plugins };
    let message = wire::json(wire::PROBE, &asked);
    let failed = |error: std::io::Error| format!("failed to ask the host: {error}");
    socket.set_timeout(Duration::from_millis(config.load_timeout_ms)).map_err(failed)?;
    socket.send(&message, None).map_err(failed)?;
    let mut answer = buffer();
    let length = socket.receive(&mut answer).map_err(failed)?;
    let isolation = Isolation::of(process.pid());
    let found: Found = match answer[..length].split_first() {
        Some((&wire::FOUND, body)) => wire::from_json(body).map_err(|torn| torn.to_string())?,
        Some((kind, _)) => return Err(format!("the host answered with a message of kind {kind}")),
        None => return Err(format!("the host ended, with {}", process.end())),
    };
    if found.protocol == PROTOCOL {
        return Ok((found, isolation));
    }
    Err(format!("the host speaks version {} of the protocol, this is {PROTOCOL}; install one release", found.protocol))
}
