//! Opening a connection: name, TCP, INFO, TLS, CONNECT and the first PONG within one time limit.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, ConnectOptions, Event, ServerError};
use tokio::sync::mpsc;

use crate::base::Clock;
use crate::uplink::config::{Config, Error};
use crate::uplink::link::Lost;
use crate::uplink::tls;

use crate::uplink::nats_settings::NatsConfig;

/// Things that a connection may say and nobody has looked at yet; more say nothing new.
const EVENTS: usize = 64;
/// Commands on their way to a connection. More than a window of messages, and more than a transaction's receipts and
/// acknowledgements, so that handing one over never waits.
const COMMANDS: usize = 1024;
/// Where a lost connection is told to look for its next one: nowhere. Refused at once, and then the client ends.
const NOWHERE: &str = "nats://127.0.0.1:0";

/// A connection that is up.
pub(super) struct Dialled {
    pub(super) client: Client,
    pub(super) words: Words,
}

/// What a connection says about itself.
pub(super) struct Words {
    events: mpsc::Receiver<Event>,
    last: Option<String>,
}

/// What concerns the sender.
pub(super) enum Word {
    /// The connection is gone.
    Ended(String),
    /// The server does not let this user publish there.
    MayNotPublish { subject: String },
    /// Nor listen there.
    MayNotListen { subject: String },
}

impl Words {
    /// The next one that matters. Cancel-safe.
    pub(super) async fn next(&mut self) -> Word {
        loop {
            match self.events.recv().await {
                Some(Event::Disconnected | Event::Closed) | None => {
                    return Word::Ended(self.last.take().unwrap_or_else(|| "closed the connection".to_owned()));
                }
                Some(Event::ServerError(error)) => {
                    let text = match error {
                        ServerError::Other(text) => text,
                        ServerError::AuthorizationViolation => "authorization violation".to_owned(),
                        ServerError::SlowConsumer(_) => "slow consumer".to_owned(),
                    };
                    if let Some(subject) = refused(&text, "publish") {
                        return Word::MayNotPublish { subject };
                    }
                    if let Some(subject) = refused(&text, "subscription") {
                        return Word::MayNotListen { subject };
                    }
                    self.last = Some(format!("says: {text}"));
                }
                Some(Event::LameDuckMode) => self.last = Some("is being shut down".to_owned()),
                Some(_) => {}
            }
        }
    }
}

/// The subject in `Permissions Violation for Publish to "subject"`, or `for Subscription`.
fn refused(text: &str, what: &str) -> Option<String> {
    let (before, rest) = text.split_once('"')?;
    let before = before.to_ascii_lowercase();
    let refused = before.strip_prefix("permissions violation for ").is_some_and(|which| which.starts_with(what));
    refused.then(|| rest.split('"').next().unwrap_or_default().to_owned())
}

/// Opens connections to one server. Files are read for each, so that renewed ones are taken up.
pub(super) struct Dialler {
    config: Config,
    clock: Arc<dyn Clock>,
    secrets: Secrets,
}

/// What the files held when they were last good.
#[derive(Clone)]
struct Secrets {
    tls: Option<Arc<rustls::ClientConfig>>,
    password: Option<String>,
    credentials: Option<String>,
    nkey: Option<String>,
}

impl Secrets {
    fn read(config: &Config, clock: &Arc<dyn Clock>) -> Result<Self, Error> {
        let nats = config.nats.clone().unwrap_or_default();
        let mut secrets = Self {
            tls: config.tls.as_ref().map(|tls| tls::load(tls, clock)).transpose()?,
            password: config.password()?,
            credentials: None,
            nkey: None,
        };
        for (setting, path) in nats.files() {
            let hint = "copy it there, readable for this service only";
            let text = std::fs::read_to_string(path).map_err(|source| Error::File {
                setting,
                path: path.to_owned(),
                hint,
                source,
            })?;
            let fail = |problem: String| Error::Content { setting, path: path.to_owned(), problem, hint };
            if setting == "nats.nkey_file" {
                // Shown where it is wrong, not by a server that refuses it.
                let seed = text.trim().to_owned();
                if !(seed.starts_with("SU") && seed.len() == 58) {
                    return Err(fail("it holds no user's seed, which begins with SU and has 58 letters".to_owned()));
                }
                secrets.nkey = Some(seed);
            } else {
                ConnectOptions::with_credentials(&text).map_err(|error| fail(error.to_string()))?;
                secrets.credentials = Some(text);
            }
        }
        Ok(secrets)
    }
}

impl Dialler {
    /// Checks the settings and reads the files they name.
    pub(super) fn new(config: Config, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        let secrets = Secrets::read(&config, &clock)?;
        Ok(Self { config, clock, secrets })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    pub(super) fn nats(&self) -> NatsConfig {
        self.config.nats.clone().unwrap_or_default()
    }

    /// One attempt.
    pub(super) async fn dial(&mut self) -> Result<Dialled, Lost> {
        match Secrets::read(&self.config, &self.clock) {
            Ok(fresh) => self.secrets = fresh,
            Err(error) => tracing::warn!(%error, "the link keeps the certificates and credentials it had"),
        }
        let far_side = self.config.far_side();
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        let (said, events) = mpsc::channel(EVENTS);
        let attempt = async {
            let client = self.options(said)?.connect(&far_side).await.map_err(|error| plain(&error))?;
            // The client connects again by itself, and repeats what it still holds. We want to know, and to begin anew.
            client.set_server_pool(NOWHERE).await.map_err(|error| error.to_string())?;
            Ok::<_, String>(client)
        };
        match tokio::time::timeout(limit, attempt).await {
            Ok(Ok(client)) => Ok(Dialled { client, words: Words { events, last: None } }),
            Ok(Err(reason)) => Err(Lost { reason: format!("{far_side} cannot be reached: {reason}") }),
            Err(_) => Err(Lost { reason: format!("{far_side} gave no answer within {} ms", limit.as_millis()) }),
        }
    }

    fn options(&self, said: mpsc::Sender<Event>) -> Result<ConnectOptions, String> {
        let (config, nats, secrets) = (&self.config, self.nats(), self.secrets.clone());
        let mut options = ConnectOptions::new()
            .name(&config.client_id)
            // Our own limit, over all of it, has the word.
            .connection_timeout(Duration::from_millis(config.connect_timeout_ms).saturating_mul(2))
            .request_timeout(Some(Duration::from_millis(config.connect_timeout_ms)))
            .ping_interval(Duration::from_secs(u64::from(config.keep_alive_s)))
            .custom_inbox_prefix(nats.inbox_prefix)
            .client_capacity(COMMANDS)
            .ignore_discovered_servers()
            .max_reconnects(1)
            .event_callback(move |event| {
                let _ = said.try_send(event);
                std::future::ready(())
            });
        if let Some(tls) = secrets.tls {
            options = options.require_tls(true).tls_client_config((*tls).clone());
        }
        if let Some(text) = secrets.credentials {
            options = options.credentials(&text).map_err(|error| format!("the credentials are bad: {error}"))?;
        }
        if let Some(seed) = secrets.nkey {
            options = options.nkey(seed);
        }
        if let Some(username) = &config.username {
            options = options.user_and_password(username.clone(), secrets.password.unwrap_or_default());
        }
        Ok(options)
    }
}

/// The causes of an error in one line.
fn plain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let more = inner.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_publication_is_known_by_its_subject() {
        let publish = "Permissions Violation for Publish to \"fleet.v1.a.b.c.d\"";
        let subscribe = "Permissions Violation for Subscription to \"x\"";
        assert_eq!(refused(publish, "publish").as_deref(), Some("fleet.v1.a.b.c.d"));
        assert_eq!(refused(subscribe, "subscription").as_deref(), Some("x"));
        assert_eq!((refused(subscribe, "publish"), refused("Stale Connection", "publish")), (None, None));
    }
}
