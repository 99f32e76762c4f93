//! One MQTT connection, 5.0 or 3.1.1, behind one set of words. `rumqttc` keeps its own list of unanswered messages and
//! repeats them on its next connection; nothing here uses that: a connection is made, ends with its first error and
//! is dropped.

use std::time::Duration;

use bytes::Bytes;
use rumqttc::v5::mqttbytes::v5::{self as mqtt5, PubAckReason};
use rumqttc::{Outgoing, Packet, mqttbytes, v5};

use super::link::Answer;

/// Where requests go in. Never waits: the channel behind it holds more than the packet ids there are.
pub(super) enum Client {
    V5(v5::AsyncClient),
    V3(rumqttc::AsyncClient),
}

/// What has to be polled for anything to happen.
pub(super) enum EventLoop {
    V5(Box<v5::EventLoop>),
    V3(Box<rumqttc::EventLoop>),
}

/// What a poll brought.
pub(super) enum Heard {
    /// CONNACK. The broker's limit for one packet, if it names one.
    Connected {
        max_packet_bytes: Option<u32>,
    },
    /// A publication went to the socket under this packet id; they leave in the order of their requests.
    Sent(u16),
    /// The broker answered the publication with this packet id.
    Answered(u16, Answer),
    /// The broker publishes to us.
    Delivered {
        topic: String,
        payload: Bytes,
        correlation: Option<Bytes>,
        answer_wanted: bool,
        packet_id: u16,
    },
    /// The broker's answer to SUBSCRIBE: `Err` names the first refusal.
    Subscribed(Result<(), String>),
    /// Our DISCONNECT went out.
    Disconnected,
    Other,
}

/// The connection ended, or never began.
pub(super) enum Ended {
    V5(v5::ConnectionError),
    V3(rumqttc::ConnectionError),
}

/// The request channel was full or closed: the connection is no longer served.
pub(super) struct Unserved;

impl Client {
    /// Under MQTT 5 an answer may be asked for: where to, and by which name.
    pub(super) fn publish(&self, topic: &str, payload: &Bytes, answer: Option<(&str, Bytes)>) -> Result<(), Unserved> {
        match self {
            Self::V5(client) => {
                let qos = v5::mqttbytes::QoS::AtLeastOnce;
                let Some((response_topic, correlation)) = answer else {
                    return client.try_publish(topic, qos, false, payload.clone()).map_err(|_| Unserved);
                };
                let properties = mqtt5::PublishProperties {
                    response_topic: Some(response_topic.to_owned()),
                    correlation_data: Some(correlation),
                    ..mqtt5::PublishProperties::default()
                };
                let publish = client.try_publish_with_properties(topic, qos, false, payload.clone(), properties);
                publish.map_err(|_| Unserved)
            }
            Self::V3(client) => {
                client.try_publish(topic, mqttbytes::QoS::AtLeastOnce, false, payload.as_ref()).map_err(|_| Unserved)
            }
        }
    }

    pub(super) fn subscribe(&self, filters: &[String]) -> Result<(), Unserved> {
        match self {
            Self::V5(client) => {
                let filter = |filter: &String| mqtt5::Filter::new(filter.clone(), v5::mqttbytes::QoS::AtLeastOnce);
                client.try_subscribe_many(filters.iter().map(filter)).map_err(|_| Unserved)
            }
            Self::V3(client) => {
                let filter =
                    |filter: &String| mqttbytes::v4::SubscribeFilter::new(filter.clone(), mqttbytes::QoS::AtLeastOnce);
                client.try_subscribe_many(filters.iter().map(filter)).map_err(|_| Unserved)
            }
        }
    }

    /// PUBACK for a delivery. Deliveries of QoS 0 (packet id 0) have none.
    pub(super) fn acknowledge(&self, packet_id: u16) -> Result<(), Unserved> {
        if packet_id == 0 {
            return Ok(());
        }
        match self {
            Self::V5(client) => {
                let mut publish = mqtt5::Publish::new("", v5::mqttbytes::QoS::AtLeastOnce, Bytes::new(), None);
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| Unserved)
            }
            Self::V3(client) => {
                let mut publish = mqttbytes::v4::Publish::new("", mqttbytes::QoS::AtLeastOnce, Vec::new());
                publish.pkid = packet_id;
                client.try_ack(&publish).map_err(|_| Unserved)
            }
        }
    }

    pub(super) fn disconnect(&self) -> Result<(), Unserved> {
        match self {
            Self::V5(client) => client.try_disconnect().map_err(|_| Unserved),
            Self::V3(client) => client.try_disconnect().map_err(|_| Unserved),
        }
    }
}

impl EventLoop {
    /// The next event. Not cancel-safe: a poll that is dropped may have taken a request and not written it.
    pub(super) async fn poll(&mut self) -> Result<Heard, Ended> {
        match self {
            Self::V5(eventloop) => eventloop.poll().await.map(heard_v5).map_err(Ended::V5),
            Self::V3(eventloop) => eventloop.poll().await.map(heard_v3).map_err(Ended::V3),
        }
    }

    /// A broker may ask for a keep-alive of 0 ("none"), which this client would take as "ping without pause".
    pub(super) fn calm_keep_alive(&mut self, keep_alive: Duration) {
        if let Self::V5(eventloop) = self
            && eventloop.options.keep_alive() < keep_alive
            && eventloop.options.keep_alive() < Duration::from_secs(5)
        {
            eventloop.options.set_keep_alive(keep_alive);
        }
    }

    /// Events that were read before the error came.
    pub(super) fn rest(&mut self) -> Vec<Heard> {
        match self {
            Self::V5(eventloop) => eventloop.state.events.drain(..).map(heard_v5).collect(),
            Self::V3(eventloop) => eventloop.state.events.drain(..).map(heard_v3).collect(),
        }
    }
}

fn heard_v5(event: v5::Event) -> Heard {
    match event {
        v5::Event::Incoming(packet) => match packet {
            mqtt5::Packet::ConnAck(connack) => {
                Heard::Connected { max_packet_bytes: connack.properties.and_then(|all| all.max_packet_size) }
            }
            mqtt5::Packet::PubAck(puback) => {
                let told = puback.properties.and_then(|all| all.reason_string);
                Heard::Answered(puback.pkid, answer(puback.reason, told))
            }
            // Aliases are not offered, so a topic is always there; bytes that are no UTF-8 match no filter of ours.
            mqtt5::Packet::Publish(publish) => Heard::Delivered {
                topic: String::from_utf8_lossy(&publish.topic).into_owned(),
                payload: publish.payload,
                answer_wanted: publish.properties.as_ref().is_some_and(|all| all.response_topic.is_some()),
                correlation: publish.properties.and_then(|all| all.correlation_data),
                packet_id: publish.pkid,
            },
            mqtt5::Packet::SubAck(suback) => {
                let refused =
                    suback.return_codes.iter().find(|code| !matches!(code, mqtt5::SubscribeReasonCode::Success(_)));
                Heard::Subscribed(refused.map_or(Ok(()), |code| Err(words(&format!("{code:?}")))))
            }
            _ => Heard::Other,
        },
        v5::Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
    }
}

fn heard_v3(event: rumqttc::Event) -> Heard {
    match event {
        rumqttc::Event::Incoming(packet) => match packet {
            Packet::ConnAck(_) => Heard::Connected { max_packet_bytes: None },
            // 3.1.1 has no reasons: an answer is an acknowledgement.
            Packet::PubAck(puback) => Heard::Answered(puback.pkid, Answer::Acknowledged),
            Packet::Publish(publish) => {
                let (topic, payload, packet_id) = (publish.topic, publish.payload, publish.pkid);
                Heard::Delivered { topic, payload, correlation: None, answer_wanted: false, packet_id }
            }
            Packet::SubAck(suback) => {
                let refused = suback.return_codes.contains(&mqttbytes::v4::SubscribeReasonCode::Failure);
                Heard::Subscribed(if refused { Err("not authorized or not a filter".to_owned()) } else { Ok(()) })
            }
            _ => Heard::Other,
        },
        rumqttc::Event::Outgoing(outgoing) => heard_outgoing(&outgoing),
    }
}

fn heard_outgoing(outgoing: &Outgoing) -> Heard {
    match outgoing {
        Outgoing::Publish(packet_id) => Heard::Sent(*packet_id),
        Outgoing::Disconnect => Heard::Disconnected,
        _ => Heard::Other,
    }
}

fn answer(reason: PubAckReason, told: Option<String>) -> Answer {
    match reason {
        PubAckReason::Success => Answer::Acknowledged,
        PubAckReason::NoMatchingSubscribers => Answer::NoSubscriber,
        other => {
            let reason = words(&format!("{other:?}"));
            Answer::Refused { reason: told.map_or(reason.clone(), |told| format!("{reason} ({told})")) }
        }
    }
}

/// `QuotaExceeded` as people write it: `quota exceeded`.
pub(super) fn words(variant: &str) -> String {
    let mut out = String::with_capacity(variant.len() + 4);
    for (at, c) in variant.char_indices() {
        if c.is_ascii_uppercase() && at > 0 {
            out.push(' ');
        }
        out.push(c.to_ascii_lowercase());
    }
    out
}

impl Ended {
    /// What happened, to read after the name of the far side.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::V5(error) => reason_v5(error),
            Self::V3(error) => reason_v3(error),
        }
    }

    /// True if the broker said that it does not speak 5.0.
    pub(super) fn refuses_v5(&self) -> bool {
        use v5::mqttbytes::v5::ConnectReturnCode::{RefusedProtocolVersion, UnsupportedProtocolVersion};
        let Self::V5(v5::ConnectionError::ConnectionRefused(code)) = self else { return false };
        matches!(code, RefusedProtocolVersion | UnsupportedProtocolVersion)
    }

    /// True if it ended where a 3.1.1 broker's short CONNACK would have come, which the 5.0 parser cannot read.
    pub(super) fn may_refuse_v5(&self) -> bool {
        let Self::V5(error) = self else { return false };
        matches!(
            error,
            v5::ConnectionError::Timeout(_)
                | v5::ConnectionError::NotConnAck(_)
                | v5::ConnectionError::MqttState(
                    v5::StateError::ConnectionAborted | v5::StateError::Deserialization(_)
                )
        )
    }
}

fn reason_v5(error: &v5::ConnectionError) -> String {
    use v5::{ConnectionError, StateError};
    match error {
        ConnectionError::Io(error) => format!("cannot be reached: {error}"),
        ConnectionError::Tls(error) => reason_tls(error),
        ConnectionError::Timeout(_) => "gave no answer in time".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("refused the connection: {}", words(&format!("{code:?}"))),
        ConnectionError::NotConnAck(_) => "does not speak MQTT".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "does not answer pings".to_owned(),
        ConnectionError::MqttState(StateError::ServerDisconnect { reason_code, reason_string }) => {
            let told = reason_string.as_ref().map_or(String::new(), |told| format!(" ({told})"));
            format!("ended the connection: {}{told}", words(&format!("{reason_code:?}")))
        }
        ConnectionError::MqttState(StateError::Deserialization(mqttbytes)) => {
            format!("lost the connection: {mqttbytes}")
        }
        other => format!("lost the connection: {other}"),
    }
}

fn reason_v3(error: &rumqttc::ConnectionError) -> String {
    use rumqttc::{ConnectionError, StateError};
    match error {
        ConnectionError::Io(error) => format!("cannot be reached: {error}"),
        ConnectionError::Tls(error) => reason_tls(error),
        ConnectionError::NetworkTimeout | ConnectionError::FlushTimeout => "gave no answer in time".to_owned(),
        ConnectionError::ConnectionRefused(code) => format!("refused the connection: {}", words(&format!("{code:?}"))),
        ConnectionError::NotConnAck(_) => "does not speak MQTT".to_owned(),
        ConnectionError::MqttState(StateError::ConnectionAborted) => "closed the connection".to_owned(),
        ConnectionError::MqttState(StateError::AwaitPingResp) => "does not answer pings".to_owned(),
        other => format!("lost the connection: {other}"),
    }
}

fn reason_tls(error: &rumqttc::TlsError) -> String {
    let told = error.to_string();
    let hint = if told.contains("UnknownIssuer") || told.contains("BadSignature") {
        ": tls.ca_file is not of the authority that signed its certificate"
    } else if told.contains("not valid for name") {
        ": its certificate is for another name; see tls.server_name"
    } else {
        ""
    };
    format!("failed the TLS handshake ({told}){hint}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_success_is_an_acknowledgement() {
        assert_eq!(answer(PubAckReason::Success, None), Answer::Acknowledged);
        assert_eq!(answer(PubAckReason::NoMatchingSubscribers, None), Answer::NoSubscriber);
        let refused = answer(PubAckReason::QuotaExceeded, Some("10 GB".to_owned()));
        assert_eq!(refused, Answer::Refused { reason: "quota exceeded (10 GB)".to_owned() });
    }
}
