//! The folder of a demonstration: configuration files a reader can open, databases, logs, and the bundled model.

use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::app::replay::Reading;
use crate::base::replace_file;

/// The recording and the labelled windows, inside the binary so that one file is enough.
pub(crate) const RECORDING: &str = include_str!("../../../examples/data/machine_temperature_system_failure.csv");
const WINDOWS: &str = include_str!("../../../examples/data/windows.json");
const WINDOWS_KEY: &str = "realKnownCause/machine_temperature_system_failure.csv";
const MODEL: &[u8] = include_bytes!("../../../models/machine-temperature/1/model.onnx");
const MANIFEST: &str = include_str!("../../../models/machine-temperature/1/manifest.toml");
/// A folder with this file in it is ours to clear.
const MARK: &str = ".forebay-demo";

/// Name of the demonstration's stream.
pub(crate) const STREAM: &str = "machine-temperature";
/// Topic of its readings.
pub(crate) const TOPIC: &str = "plant/machine/temperature";
/// Name of its gateway.
pub(crate) const GATEWAY: &str = "press-hall-1";

/// Where everything is.
#[derive(Debug)]
pub(crate) struct Site {
    /// The folder.
    pub(crate) folder: PathBuf,
    /// The gateway's MQTT door.
    pub(crate) mqtt: SocketAddr,
    /// The gateway's HTTP door, with the page.
    pub(crate) http: SocketAddr,
    /// The cloud's broker.
    pub(crate) cloud: SocketAddr,
    /// The cloud broker's HTTP door.
    pub(crate) cloud_http: SocketAddr,
}

impl Site {
    /// Clears or creates the folder and picks ports. Nothing that an earlier demo did not make is touched.
    pub(crate) fn prepare(folder: &Path, mqtt_port: u16, http_port: u16) -> Result<Self> {
        let folder = std::path::absolute(folder).context("failed to resolve the folder")?;
        let used = std::fs::read_dir(&folder).is_ok_and(|mut entries| entries.next().is_some());
        if used && !folder.join(MARK).exists() {
            bail!(
                "{} is not empty and not from an earlier demo; name an empty or new folder with --dir",
                folder.display()
            );
        }
        if used {
            std::fs::remove_dir_all(&folder).with_context(|| format!("failed to clear {}", folder.display()))?;
        }
        std::fs::create_dir_all(&folder).with_context(|| format!("failed to create {}", folder.display()))?;
        replace_file(&folder.join(MARK), b"forebay demo clears this folder when it starts\n")?;
        let model = folder.join("models/machine-temperature/1");
        std::fs::create_dir_all(&model).with_context(|| format!("failed to create {}", model.display()))?;
        replace_file(&model.join("model.onnx"), MODEL)?;
        replace_file(&model.join("manifest.toml"), MANIFEST.as_bytes())?;
        Ok(Self {
            folder,
            mqtt: free_near(mqtt_port)?,
            http: free_near(http_port)?,
            cloud: free_near(0)?,
            cloud_http: free_near(0)?,
        })
    }

    /// Writes the gateway's configuration, whose cloud is at the near end of the cable. What it sends is the default, or
    /// `verdicts` too.
    pub(crate) fn write_gateway(&self, cable: SocketAddr, verdicts: bool) -> Result<PathBuf> {
        let verdicts = if verdicts { "\n[stream.cloud]\nverdicts = true\n" } else { "" };
        let folder = self.folder.display();
        let (mqtt, http) = (self.mqtt, self.http);
        let (cable_host, cable_port) = (cable.ip(), cable.port());
        self.write(
            "gateway.toml",
            &format!(
                r#"# The gateway on the machine.
[gateway]
name = "{GATEWAY}"

[store]
state_dir = "{folder}/gateway"

[catalog]
folder = "{folder}/models"

[access]
# Every program on this machine may publish and subscribe without a key: fine for a demonstration.
allow_anonymous_loopback = true

[[mqtt.listener]]
address = "{mqtt}"

[http]
address = "{http}"

[cloud]
host = "{cable_host}"
port = {cable_port}

[sync]
tenant = "demo"
# Try again soon: the demonstration lasts seconds, not days.
retry_most_ms = 1000

[[stream]]
name = "{STREAM}"
topic = "{TOPIC}"

[stream.signal]
fields = [{{ name = "temperature", path = "value", unit = "°F", min = -40.0, max = 250.0 }}]

[stream.signal.decoder]
format = "json"
time = "time"
time_format = "%Y-%m-%d %H:%M:%S"
id = "n"

[stream.signal.intake]
# A sensor that lost its connection sends again what was not acknowledged: `n` tells a repeat from a new reading.
duplicate_key = "id"
interval_ms = 300000

[stream.signal.window]
# The model looks at the last 144 readings (12 hours), after every reading.
size = 144
step = 1

[stream.model]
name = "machine-temperature"
# Thresholds, hysteresis and hold time come from the model's manifest.

[stream.rule]
severity = "critical"
{verdicts}"#
            ),
        )
    }

    /// Writes the configuration of the broker that plays the cloud: this same binary without streams.
    pub(crate) fn write_cloud(&self) -> Result<PathBuf> {
        let folder = self.folder.display();
        let (cloud, http) = (self.cloud, self.cloud_http);
        self.write(
            "cloud.toml",
            &format!(
                r#"# The broker that plays the cloud.
[gateway]
name = "cloud"

[store]
state_dir = "{folder}/cloud"

[access]
allow_anonymous_loopback = true

[[mqtt.listener]]
address = "{cloud}"

[http]
address = "{http}"
"#
            ),
        )
    }

    /// Where `collect` keeps what it received.
    pub(crate) fn collected(&self) -> PathBuf {
        self.folder.join("collected")
    }

    /// The log of one process.
    pub(crate) fn log(&self, process: &str) -> PathBuf {
        self.folder.join(format!("{process}.log"))
    }

    fn write(&self, name: &str, text: &str) -> Result<PathBuf> {
        let path = self.folder.join(name);
        replace_file(&path, text.as_bytes())?;
        Ok(path)
    }
}

/// The wanted loopback port, or a free one if it is taken.
fn free_near(port: u16) -> Result<SocketAddr> {
    let listener = TcpListener::bind(("127.0.0.1", port))
        .or_else(|_| TcpListener::bind(("127.0.0.1", 0)))
        .context("failed to find a free loopback port")?;
    Ok(listener.local_addr()?)
}

/// A labelled anomaly of the recording: first and last time, ms since 1970, UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Anomaly {
    /// Start.
    pub(crate) from_ms: i64,
    /// End.
    pub(crate) to_ms: i64,
}

/// The recording's labelled anomalies, in order.
pub(crate) fn anomalies() -> Result<Vec<Anomaly>> {
    let windows: serde_json::Value =
        serde_json::from_str(WINDOWS).context("failed to read the bundled windows.json")?;
    let pairs = windows[WINDOWS_KEY].as_array().context("the bundled windows.json lacks the recording")?;
    let at = |value: &serde_json::Value| time_ms(value.as_str().unwrap_or_default());
    pairs.iter().map(|pair| Ok(Anomaly { from_ms: at(&pair[0])?, to_ms: at(&pair[1])? })).collect()
}

/// Those that lie within `readings`.
pub(crate) fn anomalies_within(readings: &[Reading]) -> Result<Vec<Anomaly>> {
    let last = readings.last().map_or(Ok(i64::MIN), |reading| time_ms(&reading.time))?;
    Ok(anomalies()?.into_iter().filter(|anomaly| anomaly.to_ms <= last).collect())
}

/// A time as the recording writes it, taken as UTC: ms since 1970.
pub(crate) fn time_ms(text: &str) -> Result<i64> {
    let time = text
        .replace(' ', "T")
        .parse::<jiff::civil::DateTime>()
        .with_context(|| format!("failed to read the time {text:?}"))?;
    Ok(time.to_zoned(jiff::tz::TimeZone::UTC)?.timestamp().as_millisecond())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bundled_recording_has_four_labelled_anomalies() {
        let anomalies = anomalies().unwrap();
        assert_eq!(anomalies.len(), 4);
        assert_eq!(anomalies[0].from_ms, time_ms("2013-12-10 06:25:00").unwrap());
        assert!(anomalies.iter().all(|anomaly| anomaly.from_ms < anomaly.to_ms));
    }

    #[test]
    fn a_folder_with_somebody_elses_files_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        replace_file(&folder.path().join("thesis.tex"), b"irreplaceable").unwrap();
        let refused = Site::prepare(folder.path(), 0, 0).unwrap_err();
        assert!(refused.to_string().contains("--dir"), "{refused}");
        assert!(folder.path().join("thesis.tex").exists());
    }
}
