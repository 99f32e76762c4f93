//! Opening a connection: name, TCP, TLS, CONNECT and CONNACK within one time limit.

use std::sync::Arc;
use std::time::Duration;

use rumqttc::{Transport, v5};

use crate::base::Clock;

use super::config::{Config, Error, Protocol};
use super::link::Lost;
use super::probe::refuses_v5;
use super::session::{Client, Ended, EventLoop, Heard};
use super::tls;

/// More requests than there are packet ids, so that none ever waits. The channel takes no memory in advance.
const REQUESTS: usize = 65_600;
/// Packet ids in use at once. Wider than any window, so that answers out of order never make two messages meet on one.
const PACKET_IDS: u16 = 256;

/// What differs between the sender and the receiver.
#[derive(Debug, Clone)]
pub(super) struct Role {
    /// The broker keeps the session for this long after the connection ends; 0 for a fresh one each time.
    pub(super) session_expiry_s: u32,
    /// Unacknowledged deliveries that we take at once (MQTT 5).
    pub(super) receive_maximum: Option<u16>,
}

/// A connection that said CONNACK.
pub(super) struct Dialled {
    pub(super) client: Client,
    pub(super) eventloop: EventLoop,
    /// Largest packet that the broker takes.
    pub(super) max_packet_bytes: u32,
}

/// Opens connections of one role to one broker.
pub(super) struct Dialler {
    config: Config,
    role: Role,
    clock: Arc<dyn Clock>,
    tls: Option<Arc<rustls::ClientConfig>>,
    password: Option<String>,
}

impl Dialler {
    /// Checks the settings and reads the files they name.
    pub(super) fn new(config: Config, role: Role, clock: Arc<dyn Clock>) -> Result<Self, Error> {
        config.check()?;
        let tls = config.tls.as_ref().map(|tls| tls::load(tls, &clock)).transpose()?;
        let password = config.password()?;
        Ok(Self { config, role, clock, tls, password })
    }

    pub(super) fn config(&self) -> &Config {
        &self.config
    }

    /// Renewed certificates and passwords are taken up; while a new file is bad, the last good one stays.
    fn read_again(&mut self) {
        let tls = self.config.tls.as_ref().map(|tls| tls::load(tls, &self.clock)).transpose();
        let fresh = tls.and_then(|tls| Ok((tls, self.config.password()?)));
        match fresh {
            Ok((tls, password)) => (self.tls, self.password) = (tls, password),
            Err(error) => tracing::warn!(%error, "the link keeps the certificates and password it had"),
        }
    }

    /// One attempt.
    pub(super) async fn dial(&mut self) -> Result<Dialled, Lost> {
        self.read_again();
        let first = match self.attempt(self.config.protocol).await {
            Ok(dialled) => return Ok(dialled),
            Err(ended) => ended,
        };
        let only_v3 = match &first {
            Some(ended) if ended.refuses_v5() => true,
            Some(ended) if ended.may_refuse_v5() => refuses_v5(&self.config, self.tls.clone()).await,
            _ => false,
        };
        if only_v3 {
            tracing::warn!(
                broker = self.config.far_side(),
                "the broker refuses MQTT 5; with 3.1.1 it cannot say that it throws a message away"
            );
            return self.attempt(Protocol::V3).await.map_err(|ended| self.lost(ended.as_ref()));
        }
        Err(self.lost(first.as_ref()))
    }

    /// `None`: it took too long.
    async fn attempt(&self, protocol: Protocol) -> Result<Dialled, Option<Ended>> {
        let (client, mut eventloop) = match protocol {
            Protocol::V5 => self.session_v5(),
            Protocol::V3 => self.session_v3(),
        };
        let limit = Duration::from_millis(self.config.connect_timeout_ms);
        match tokio::time::timeout(limit, eventloop.poll()).await {
            Err(_) => Err(None),
            Ok(Err(ended)) => Err(Some(ended)),
            Ok(Ok(Heard::Connected { max_packet_bytes })) => {
                eventloop.calm_keep_alive(Duration::from_secs(u64::from(self.config.keep_alive_s)));
                let max_packet_bytes =
                    max_packet_bytes.unwrap_or(self.config.max_packet_bytes).min(self.config.max_packet_bytes);
                Ok(Dialled { client, eventloop, max_packet_bytes })
            }
            Ok(Ok(_)) => Err(None),
        }
    }

    fn session_v5(&self) -> (Client, EventLoop) {
        let config = &self.config;
        let mut options = v5::MqttOptions::new(&config.client_id, &config.host, config.port);
        options
            .set_keep_alive(Duration::from_secs(u64::from(config.keep_alive_s)))
            .set_connection_timeout(config.connect_timeout_ms.div_ceil(1000))
            .set_clean_start(self.role.session_expiry_s == 0)
            .set_session_expiry_interval((self.role.session_expiry_s > 0).then_some(self.role.session_expiry_s))
            .set_receive_maximum(self.role.receive_maximum)
            .set_max_packet_size(Some(config.max_packet_bytes))
            .set_outgoing_inflight_upper_limit(PACKET_IDS)
            .set_manual_acks(true)
            .set_transport(self.transport())
            .set_network_options(network_options());
        if let Some(username) = &config.username {
            options.set_credentials(username, self.password.as_deref().unwrap_or_default());
        }
        let (client, eventloop) = v5::AsyncClient::new(options, REQUESTS);
        (Client::V5(client), EventLoop::V5(Box::new(eventloop)))
    }

    fn session_v3(&self) -> (Client, EventLoop) {
        let config = &self.config;
        let mut options = rumqttc::MqttOptions::new(&config.client_id, &config.host, config.port);
        let max_packet_bytes = usize::try_from(config.max_packet_bytes).unwrap_or(usize::MAX);
        options
            .set_keep_alive(Duration::from_secs(u64::from(config.keep_alive_s)))
            .set_clean_session(self.role.session_expiry_s == 0)
            .set_max_packet_size(max_packet_bytes, max_packet_bytes)
            .set_inflight(PACKET_IDS)
            .set_manual_acks(true)
            .set_transport(self.transport());
        if let Some(username) = &config.username {
            options.set_credentials(username, self.password.as_deref().unwrap_or_default());
        }
        let (client, mut eventloop) = rumqttc::AsyncClient::new(options, REQUESTS);
        let mut network = network_options();
        network.set_connection_timeout(config.connect_timeout_ms.div_ceil(1000));
        eventloop.set_network_options(network);
        (Client::V3(client), EventLoop::V3(Box::new(eventloop)))
    }

    fn transport(&self) -> Transport {
        match &self.tls {
            None => Transport::Tcp,
            Some(tls) => Transport::tls_with_config(rumqttc::TlsConfiguration::Rustls(tls.clone())),
        }
    }

    fn lost(&self, ended: Option<&Ended>) -> Lost {
        let reason = match ended {
            Some(ended) => ended.reason(),
            None => format!("gave no answer within {} ms", self.config.connect_timeout_ms),
        };
        Lost { reason: format!("{} {reason}", self.config.far_side()) }
    }
}

fn network_options() -> rumqttc::NetworkOptions {
    let mut options = rumqttc::NetworkOptions::new();
    // One write is one message here; waiting for more costs a round trip.
    options.set_tcp_nodelay(true);
    options
}
