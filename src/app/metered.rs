//! Whether bytes cost money, as far as Linux says it without a daemon: the kernel has no such flag, but it knows by which
//! interface the default route leaves, and of each interface whether it is a cellular modem.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// How often the route is looked at.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// `ARPHRD_PPP` and `ARPHRD_RAWIP` of the kernel's `if_arp.h`: how modems present themselves.
const MODEM_TYPES: [&str; 2] = ["512", "519"];

/// Looks at the default route now and then. A guess: a VPN over a modem is not seen, a hot-spot's Wi-Fi neither.
pub(super) struct Metered {
    /// `/proc`, or a folder that a test has made.
    proc: PathBuf,
    /// `/sys`.
    sys: PathBuf,
    told: watch::Sender<bool>,
}

impl Metered {
    pub(super) fn new(proc: &Path, sys: &Path) -> (Self, watch::Receiver<bool>) {
        let metered = Self { proc: proc.to_owned(), sys: sys.to_owned(), told: watch::Sender::new(false) };
        metered.look();
        let told = metered.told.subscribe();
        (metered, told)
    }

    /// Until `stop`.
    pub(super) async fn run(self, stop: CancellationToken) {
        while tokio::time::timeout(LOOK_EVERY, stop.cancelled()).await.is_err() {
            self.look();
        }
    }

    fn look(&self) {
        let interface = self.default_interface();
        let metered = interface.as_deref().is_some_and(|interface| self.is_modem(interface));
        let changed = self.told.send_if_modified(|told| std::mem::replace(told, metered) != metered);
        if changed {
            let interface = interface.unwrap_or_default();
            tracing::info!(interface, metered, "the default route changed");
        }
    }

    /// Of the default route with the lowest metric. IPv4; an IPv6-only route is not seen.
    fn default_interface(&self) -> Option<String> {
        let routes = std::fs::read_to_string(self.proc.join("net/route")).ok()?;
        let default = |line: &str| {
            // Iface Destination Gateway Flags RefCnt Use Metric Mask MTU Window IRTT
            let columns: Vec<&str> = line.split_whitespace().collect();
            let is_default = columns.get(1) == Some(&"00000000") && columns.get(7) == Some(&"00000000");
            let metric: u32 = columns.get(6)?.parse().ok()?;
            is_default.then(|| (metric, columns[0].to_owned()))
        };
        routes.lines().skip(1).filter_map(default).min().map(|(_, interface)| interface)
    }

    fn is_modem(&self, interface: &str) -> bool {
        let folder = self.sys.join("class/net").join(interface);
        let read = |file: &str| std::fs::read_to_string(folder.join(file)).unwrap_or_default();
        read("uevent").lines().any(|line| line == "DEVTYPE=wwan") || MODEM_TYPES.contains(&read("type").trim())
    }
}

#[cfg(test)]
#[allow(clippy::disallowed_methods, reason = "the test makes the files that the kernel would")]
mod tests {
    use super::*;

    fn route(folder: &Path, lines: &str) {
        std::fs::create_dir_all(folder.join("net")).unwrap();
        let head = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n";
        std::fs::write(folder.join("net/route"), format!("{head}{lines}")).unwrap();
    }

    fn interface(folder: &Path, name: &str, kind: &str, uevent: &str) {
        let folder = folder.join("class/net").join(name);
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("type"), kind).unwrap();
        std::fs::write(folder.join("uevent"), uevent).unwrap();
    }

    #[test]
    fn a_default_route_over_a_modem_is_metered_and_one_over_a_cable_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        interface(folder, "eth0", "1\n", "INTERFACE=eth0\nIFINDEX=2\n");
        interface(folder, "wwan0", "1\n", "DEVTYPE=wwan\nINTERFACE=wwan0\n");
        interface(folder, "ppp0", "512\n", "INTERFACE=ppp0\n");
        let line =
            |name: &str, metric: u32| format!("{name}\t00000000\t0101A8C0\t0003\t0\t0\t{metric}\t00000000\t0\t0\t0\n");
        let (metered, told) = Metered::new(folder, folder);
        assert!(!*told.borrow(), "no route at all");
        for (routes, expected) in [
            (line("wwan0", 700), true),
            (format!("{}{}", line("wwan0", 700), line("eth0", 100)), false),
            (line("ppp0", 0), true),
            ("eth0\t0001A8C0\t00000000\t0001\t0\t0\t100\t00FFFFFF\t0\t0\t0\n".to_owned(), false),
        ] {
            route(folder, &routes);
            metered.look();
            assert_eq!(*told.borrow(), expected, "{routes}");
        }
    }
}
