//! Where the cloud is and how to get in.

use std::io;
use std::path::PathBuf;

use serde::Deserialize;

use super::nats_settings::NatsConfig;

/// What kind of server is at the far side.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// An MQTT broker.
    #[default]
    Mqtt,
    /// A NATS server whose JetStream takes the fleet's messages; see `nats`.
    Nats,
}

/// Which MQTT is spoken first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Protocol {
    /// 5.0; a broker that refuses it gets 3.1.1. Only 5.0 says why a message is not taken.
    #[default]
    #[serde(rename = "5")]
    V5,
    /// 3.1.1 at once.
    #[serde(rename = "3.1.1")]
    V3,
}

/// The link's settings.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What kind of server is there. Settings that name neither kind count for both.
    pub kind: Kind,
    /// Name or address of the server.
    pub host: String,
    /// MQTT: 1883 is usual without TLS, 8883 with it. NATS: 4222.
    pub port: u16,
    /// Which MQTT is spoken first.
    pub protocol: Protocol,
    /// How the broker knows this client; empty takes the name that `app` gives (`forebay-{gateway}`).
    pub client_id: String,
    /// With a user name comes `password_file`.
    pub username: Option<String>,
    /// A file that holds the password and nothing else; a line end at its end does not count.
    pub password_file: Option<PathBuf>,
    /// TLS, unless absent.
    pub tls: Option<TlsConfig>,
    /// An idle link is asked for a sign of life this often, 5 to 65535 s; two unanswered ones end it.
    pub keep_alive_s: u16,
    /// For name look-up, TCP, TLS and CONNACK together.
    pub connect_timeout_ms: u64,
    /// A link on which messages wait and no answer comes for this long is given up.
    pub answer_timeout_ms: u64,
    /// Messages that may wait for their answers at once, 1 to 64.
    pub window: u16,
    /// Largest MQTT packet either way; a smaller limit of the broker counts.
    pub max_packet_bytes: u32,
    /// Under MQTT 5 a broker can say that nobody subscribes to a topic. Usually that means that the message is gone,
    /// so it is kept and sent again. A broker whose rules consume messages without a subscription (EMQX) needs `true`.
    pub accept_no_subscriber: bool,
    /// For the kind `nats` only: which stream, and how to get in.
    pub nats: Option<NatsConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            kind: Kind::Mqtt,
            host: "127.0.0.1".to_owned(),
            port: 1883,
            protocol: Protocol::V5,
            client_id: String::new(),
            username: None,
            password_file: None,
            tls: None,
            keep_alive_s: 30,
            connect_timeout_ms: 10_000,
            answer_timeout_ms: 20_000,
            window: 4,
            max_packet_bytes: 128 * 1024,
            accept_no_subscriber: false,
            nats: None,
        }
    }
}

/// Certificates. The files are read at start and again before every connection, so that renewed ones are taken up.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the authorities that may sign the broker's certificate.
    pub ca_file: PathBuf,
    /// PEM file with this client's certificate and what lies between it and its authority.
    pub certificate_file: Option<PathBuf>,
    /// PEM file with the certificate's key.
    pub key_file: Option<PathBuf>,
    /// The name that the broker's certificate must hold, where it is not `host`.
    pub server_name: Option<String>,
}

/// Why the link cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A setting that cannot work.
    #[error("failed to set up the link: {setting} {problem}")]
    Setting {
        /// The setting's name.
        setting: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// A file that cannot be read.
    #[error("failed to read {setting} {}: {source}; {hint}", path.display())]
    File {
        /// The setting that names it.
        setting: &'static str,
        /// Where it should be.
        path: PathBuf,
        /// What to do.
        hint: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A file without what it should hold.
    #[error("failed to use {setting} {}: {problem}; {hint}", path.display())]
    Content {
        /// The setting that names it.
        setting: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What is wrong.
        problem: String,
        /// What to do.
        hint: &'static str,
    },
}

impl Config {
    /// Finds what cannot work, before anything is opened. Reads no file.
    pub fn check(&self) -> Result<(), Error> {
        let wrong = |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        if self.host.trim().is_empty() || self.host.contains(['/', ' ']) {
            return wrong("host", "must be a name or an address without `mqtt://` and port");
        }
        if self.port == 0 {
            return wrong("port", "must not be 0");
        }
        if self.keep_alive_s < 5 {
            return wrong("keep_alive_s", "must be 5 or more");
        }
        if !(1..=64).contains(&self.window) {
            return wrong("window", "must be 1 to 64");
        }
        if self.connect_timeout_ms == 0 || self.answer_timeout_ms == 0 {
            return wrong("connect_timeout_ms and answer_timeout_ms", "must not be 0");
        }
        if !(1024..=268_435_455).contains(&self.max_packet_bytes) {
            return wrong("max_packet_bytes", "must be 1024 to 268435455");
        }
        self.check_kind()?;
        if self.username.is_none() && self.password_file.is_some() {
            return wrong("password_file", "needs a username");
        }
        match &self.tls {
            Some(tls) if tls.ca_file.as_os_str().is_empty() => wrong(
                "tls.ca_file",
                "is missing: name the PEM file of the broker's authority (for public ones often /etc/ssl/certs/ca-certificates.crt)",
            ),
            Some(tls) if tls.certificate_file.is_some() != tls.key_file.is_some() => {
                wrong("tls.certificate_file and tls.key_file", "come together or not at all")
            }
            _ => Ok(()),
        }
    }

    /// Finds settings of one kind that stand beside the other.
    fn check_kind(&self) -> Result<(), Error> {
        let wrong = |setting, problem: &str| Err(Error::Setting { setting, problem: problem.to_owned() });
        match self.kind {
            Kind::Mqtt if self.nats.is_some() => wrong("nats", "is for kind = \"nats\", and the kind is mqtt"),
            Kind::Mqtt => Ok(()),
            Kind::Nats if self.accept_no_subscriber => {
                wrong("accept_no_subscriber", "is for MQTT: a message that no stream takes is never kept")
            }
            Kind::Nats if self.protocol != Protocol::V5 => wrong("protocol", "is for MQTT, and the kind is nats"),
            Kind::Nats if matches!(self.port, 1883 | 8883) => {
                wrong("port", "must be the NATS server's, usually 4222; 1883 and 8883 are for MQTT")
            }
            Kind::Nats => self.nats.clone().unwrap_or_default().check(self.username.is_some()),
        }
    }

    /// The files that the kind's own settings name, with their keys.
    pub fn files(&self) -> Vec<(&'static str, &std::path::Path)> {
        self.nats.as_ref().map(|nats| nats.files().collect()).unwrap_or_default()
    }

    /// The password, if a file is named.
    pub(super) fn password(&self) -> Result<Option<String>, Error> {
        let Some(path) = &self.password_file else { return Ok(None) };
        let text = std::fs::read_to_string(path).map_err(|source| Error::File {
            setting: "password_file",
            path: path.clone(),
            hint: "write the password into it, readable for this service only",
            source,
        })?;
        Ok(Some(text.trim_end_matches(['\r', '\n']).to_owned()))
    }

    /// `host:port`, as errors and logs name the far side.
    pub(super) fn far_side(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_cannot_work_are_named() {
        let good = Config::default();
        good.check().unwrap();
        let cases = [
            (Config { host: "mqtt://cloud".to_owned(), ..good.clone() }, "host"),
            (Config { window: 0, ..good.clone() }, "window"),
            (Config { keep_alive_s: 1, ..good.clone() }, "keep_alive_s"),
            (Config { tls: Some(TlsConfig::default()), ..good.clone() }, "tls.ca_file"),
            (Config { password_file: Some("x".into()), ..good.clone() }, "password_file"),
        ];
        for (config, setting) in cases {
            let error = config.check().unwrap_err().to_string();
            assert!(error.starts_with(&format!("failed to set up the link: {setting} ")), "{error}");
        }
    }

    #[test]
    fn a_missing_password_file_is_named_with_what_to_do() {
        let config = Config { password_file: Some("/nowhere/pw".into()), ..Config::default() };
        let error = config.password().unwrap_err().to_string();
        assert!(error.contains("/nowhere/pw") && error.contains("write the password into it"), "{error}");
    }
}
