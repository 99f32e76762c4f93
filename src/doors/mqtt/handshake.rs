//! From a socket to a session: CONNECT, who is it, CONNACK.

use std::io;
use std::net::SocketAddr;
use std::num::{NonZeroU16, NonZeroU32};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::codec::{
    ConnAck, Connect, Decoder, Delivery, Packet, PacketRef, ProtocolVersion, Publish, PublishProperties, ReasonCode,
};
use super::connection::{Connection, Stream};
use super::listen::Shared;
use super::reasons;
use crate::access::{Denied, Principal};
use crate::broker::{self, Hello, Message, Welcome};

/// A CONNECT is bounded more tightly than later packets: nobody has said yet who it is.
const CONNECT_BYTES: usize = 64 * 1024;

/// Who is at the other end, as far as the socket tells.
pub(super) struct Peer {
    pub(super) address: SocketAddr,
    /// The leaf of a verified client certificate.
    pub(super) certificate: Option<Arc<[u8]>>,
}

/// Why there is no connection. Logged at debug level: strangers must not fill the log.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    Decode(#[from] super::codec::DecodeError),
    #[error("failed to accept the client: {0:?}")]
    Refused(ReasonCode),
}

/// Reads CONNECT and answers it.
pub(super) async fn accept(mut stream: Stream, peer: Peer, shared: &Arc<Shared>) -> Result<Connection, Failure> {
    let mut decoder = Decoder::from_client(shared.config.packet_bytes.min(CONNECT_BYTES));
    let mut buffer = Vec::new();
    let connect = match read_connect(&mut stream, &mut decoder, &mut buffer).await {
        Ok(connect) => connect,
        Err(Failure::Decode(error)) => {
            let version = decoder.version().or(error.refusal_version());
            if let Some(version) = version {
                refuse(&mut stream, version, error.reason_code()).await;
            }
            return Err(error.into());
        }
        Err(failure) => return Err(failure),
    };
    decoder.limit_packets_to(shared.config.packet_bytes);
    let version = connect.version;
    match admit(&connect, &peer, shared).await {
        Ok((welcome, principal, assigned)) => {
            let ack = acceptance(&connect, &welcome, assigned, shared);
            let mut unsent = Vec::new();
            Packet::ConnAck(ack.into()).encode(version, &mut unsent).map_err(io::Error::other)?;
            // Not even the answer fits into what the client takes [MQTT-3.2.2-15].
            if connect.properties.maximum_packet_size_bytes.is_some_and(|most| unsent.len() > most.get() as usize) {
                return Err(Failure::Refused(ReasonCode::PacketTooLarge));
            }
            let keep_alive_s = keep_alive_s(&connect, shared);
            let settings = super::connection::Settings {
                version,
                keep_alive_s,
                packet_bytes: connect.properties.maximum_packet_size_bytes.map_or(u32::MAX, NonZeroU32::get),
                topic_alias_maximum: connect
                    .properties
                    .topic_alias_maximum
                    .unwrap_or(0)
                    .min(shared.config.topic_alias_maximum),
                may_outlive: welcome.expiry_s > 0,
            };
            let shared = shared.clone();
            Ok(Connection::new(stream, decoder, welcome.link, principal, settings, shared, buffer, unsent))
        }
        Err(reason) => {
            refuse(&mut stream, version, reason).await;
            Err(Failure::Refused(reason))
        }
    }
}

async fn read_connect(stream: &mut Stream, decoder: &mut Decoder, buffer: &mut Vec<u8>) -> Result<Connect, Failure> {
    loop {
        if let Some(frame) = decoder.frame(buffer)? {
            let used = frame.packet_bytes();
            let packet = decoder.read(frame)?;
            let PacketRef::Other(Packet::Connect(connect)) = packet else {
                return Err(Failure::Refused(ReasonCode::ProtocolError));
            };
            buffer.drain(..used);
            return Ok(*connect);
        }
        let more = decoder.packet_bytes(buffer)?.unwrap_or(0).saturating_sub(buffer.len()).max(128);
        buffer.reserve_exact(more);
        if stream.read_buf(buffer).await? == 0 {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
    }
}

async fn refuse(stream: &mut Stream, version: ProtocolVersion, reason: ReasonCode) {
    let mut out = Vec::new();
    if Packet::ConnAck(ConnAck::refused(reason).into()).encode(version, &mut out).is_ok() {
        // The client may be gone; it is told as well as it can be.
        let _ = stream.write_all(&out).await;
        let _ = stream.shutdown().await;
    }
}

fn keep_alive_s(connect: &Connect, shared: &Shared) -> u16 {
    let (asked, most) = (connect.keep_alive_secs, shared.config.keep_alive_max_s);
    let capped = connect.version == ProtocolVersion::V5 && most > 0 && (asked == 0 || asked > most);
    if capped { most } else { asked }
}

fn identify(connect: &Connect, peer: &Peer, shared: &Shared) -> Result<Principal, Denied> {
    let access = &shared.access;
    let named = connect.user_name.as_deref();
    let password = connect.password.as_deref().unwrap_or_default();
    if let Some(certificate) = &peer.certificate {
        match (access.certificate(certificate), named) {
            (Err(_), Some(name)) => return access.password(name, password),
            (answer, _) => return answer,
        }
    }
    match named {
        Some(name) => access.password(name, password),
        None => access.anonymous(peer.address),
    }
}

async fn admit(
    connect: &Connect,
    peer: &Peer,
    shared: &Arc<Shared>,
) -> Result<(Welcome, Principal, Option<String>), ReasonCode> {
    if connect.properties.authentication_method.is_some() {
        return Err(ReasonCode::BadAuthenticationMethod);
    }
    let principal = identify(connect, peer, shared).map_err(reasons::denied)?;
    let v5 = connect.version == ProtocolVersion::V5;
    let assigned = if !connect.client_id.is_empty() {
        None
    } else if v5 || connect.clean_start {
        let number = shared.assigned.fetch_add(1, Ordering::Relaxed);
        Some(format!("auto-{:x}-{number:x}", shared.clock.wall_ms()))
    } else {
        return Err(ReasonCode::ClientIdentifierNotValid);
    };
    let client = assigned.as_deref().unwrap_or(&connect.client_id);
    let principal = principal.with_client_id(client);
    let will = match &connect.will {
        None => None,
        Some(will) if !principal.may_publish(&will.topic) => {
            shared.metrics.denied.inc();
            return Err(ReasonCode::NotAuthorized);
        }
        Some(will) => Some(convert_will(will)),
    };
    let expiry_s = match (v5, connect.clean_start) {
        (true, _) => connect.properties.session_expiry_interval_secs.unwrap_or(0),
        (false, true) => 0,
        (false, false) => u32::MAX,
    };
    let hello = Hello {
        client: client.into(),
        owner: principal.name().into(),
        clean_start: connect.clean_start,
        expiry_s,
        will,
        receive_maximum: connect.properties.receive_maximum.map_or(u16::MAX, NonZeroU16::get),
    };
    let welcome = shared.broker.connect(hello).await.map_err(|error| {
        tracing::warn!(error = &error as &dyn std::error::Error, "a client is refused");
        reasons::connect_error(&error)
    })?;
    Ok((welcome, principal, assigned))
}

fn convert_will(will: &super::codec::Will) -> broker::Will {
    let properties = &will.properties;
    let mut message =
        Message::new(&will.topic, bytes::Bytes::copy_from_slice(&will.payload), super::inbound::qos(will.qos));
    message.retain = will.retain;
    message.properties = forwarded(PublishProperties {
        payload_is_utf8: properties.payload_is_utf8,
        content_type: properties.content_type.clone(),
        response_topic: properties.response_topic.clone(),
        correlation_data: properties.correlation_data.clone(),
        user_properties: properties.user_properties.clone(),
        ..PublishProperties::default()
    });
    broker::Will {
        message: Arc::new(message),
        delay_s: properties.will_delay_interval_secs.unwrap_or(0),
        expiry_s: properties.message_expiry_interval_secs,
    }
}

/// The bytes of properties as a PUBLISH carries them: written and read back, which a will is rare enough for.
fn forwarded(properties: PublishProperties) -> bytes::Bytes {
    let publish = Publish { properties, ..Publish::new("t", Delivery::AtMostOnce, bytes::Bytes::new()) };
    let mut wire = Vec::new();
    let mut out = Vec::new();
    if Packet::Publish(Box::new(publish)).encode(ProtocolVersion::V5, &mut wire).is_ok() {
        let mut decoder = Decoder::from_server(ProtocolVersion::V5, usize::MAX);
        if let Ok(Some(frame)) = decoder.frame(&wire)
            && let Ok(PacketRef::Publish(publish)) = decoder.read(frame)
        {
            publish.properties.forwarded().put(&mut out);
        }
    }
    out.into()
}

fn acceptance(connect: &Connect, welcome: &Welcome, assigned: Option<String>, shared: &Shared) -> ConnAck {
    let mut ack = ConnAck::accepted(welcome.session_present);
    let asked = connect.properties.session_expiry_interval_secs.unwrap_or(0);
    ack.properties.session_expiry_interval_secs = (welcome.expiry_s != asked).then_some(welcome.expiry_s);
    ack.properties.receive_maximum = NonZeroU16::new(shared.broker.receive_maximum());
    let packet_bytes = u32::try_from(shared.config.packet_bytes).ok().and_then(NonZeroU32::new);
    ack.properties.maximum_packet_size_bytes = packet_bytes;
    ack.properties.assigned_client_identifier = assigned;
    ack.properties.topic_alias_maximum = Some(shared.config.topic_alias_maximum);
    let keep_alive_s = keep_alive_s(connect, shared);
    ack.properties.server_keep_alive_secs = (keep_alive_s != connect.keep_alive_secs).then_some(keep_alive_s);
    ack
}
