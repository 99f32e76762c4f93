//! What a client sends.

use std::sync::Arc;

use bytes::Bytes;

use super::codec::{
    Delivery, Frame, Packet, PacketId, PacketRef, ProtocolVersion, PublishRef, QoS, ReasonCode, SubAck, UnsubAck,
};
use super::connection::{Connection, End, Event, Known};
use crate::broker::{
    Acknowledged, Acknowledgement, Leaving, Options, Publication, Qos, ReplyKind, Subscribe, Subscribed, Verdict,
};

/// What follows after a packet.
pub(super) enum Step {
    /// The next packet.
    Next,
    /// The next packet once `waiting` is done.
    Wait,
    /// Something for the whole task.
    Event(Event),
}

impl Step {
    pub(super) fn fault(reason: ReasonCode) -> Self {
        Self::Event(Event::End(End::Fault(reason)))
    }
}

pub(super) fn qos(qos: QoS) -> Qos {
    match qos {
        QoS::AtMostOnce => Qos::AtMostOnce,
        QoS::AtLeastOnce => Qos::AtLeastOnce,
        QoS::ExactlyOnce => Qos::ExactlyOnce,
    }
}

impl Connection {
    pub(super) fn handle(&mut self, frame: Frame<'_>) -> Step {
        match self.decoder.read(frame) {
            Ok(PacketRef::Publish(publish)) => self.publish(&publish),
            Ok(PacketRef::Other(packet)) => self.other(packet),
            Err(error) => Step::fault(error.reason_code()),
        }
    }

    fn other(&mut self, packet: Packet) -> Step {
        use Acknowledgement as A;
        match packet {
            Packet::PubAck(ack) => return self.acknowledged(ack.packet_id, A::Puback),
            Packet::PubComp(ack) => return self.acknowledged(ack.packet_id, A::Pubcomp),
            Packet::PubRec(ack) => {
                let how = if ack.reason.is_error() { A::PubrecRefused } else { A::Pubrec };
                return self.acknowledged(ack.packet_id, how);
            }
            Packet::PubRel(ack) => self.link.pubrel(ack.packet_id.get()),
            Packet::PingReq => self.send(&Packet::PingResp),
            Packet::Subscribe(subscribe) => return Step::Event(Event::Subscribe(subscribe)),
            Packet::Unsubscribe(unsubscribe) => return Step::Event(Event::Unsubscribe(unsubscribe)),
            Packet::Disconnect(disconnect) => {
                let expiry_s = disconnect.properties.session_expiry_interval_secs;
                // A session that was to end with its connection cannot be prolonged [MQTT-3.14.2.2.2].
                if expiry_s.is_some_and(|expiry_s| expiry_s > 0) && !self.settings.may_outlive {
                    return Step::fault(ReasonCode::ProtocolError);
                }
                let how = if disconnect.reason == ReasonCode::Success { Leaving::Normal } else { Leaving::WithWill };
                return Step::Event(Event::End(End::Left(how, expiry_s)));
            }
            // No extended authentication was agreed on in CONNECT; the others the decoder has refused already.
            Packet::Auth(_)
            | Packet::Connect(_)
            | Packet::ConnAck(_)
            | Packet::Publish(_)
            | Packet::SubAck(_)
            | Packet::UnsubAck(_)
            | Packet::PingResp => return Step::fault(ReasonCode::ProtocolError),
        }
        Step::Next
    }

    fn acknowledged(&mut self, packet_id: PacketId, how: Acknowledgement) -> Step {
        match self.link.acknowledged(packet_id.get(), how) {
            Acknowledged::Wrong => return Step::fault(ReasonCode::ProtocolError),
            Acknowledged::Unknown if how == Acknowledgement::Pubrec => {
                let v5 = self.settings.version == ProtocolVersion::V5;
                let reason = if v5 { ReasonCode::PacketIdentifierNotFound } else { ReasonCode::Success };
                self.send(&Packet::PubRel(super::codec::Ack::new(packet_id, reason)));
            }
            Acknowledged::Taken | Acknowledged::Unknown => {}
        }
        Step::Next
    }

    fn publish(&mut self, publish: &PublishRef<'_>) -> Step {
        let packet_id = publish.delivery.packet_id().map_or(0, std::num::NonZero::get);
        let resolved;
        let name = match publish.properties.topic_alias {
            None => publish.topic,
            Some(alias) => match self.resolve_alias(alias.get(), publish.topic) {
                Some(name) => {
                    resolved = name;
                    &*resolved
                }
                None => return Step::fault(ReasonCode::TopicAliasInvalid),
            },
        };
        if !self.topics.contains_key(name) {
            let Some(topic) = self.link.topic(name) else { return self.turn_down(publish, packet_id, Verdict::Topic) };
            if self.topics.len() >= self.shared.config.cached_topics {
                self.topics.clear();
            }
            let allowed = self.principal.may_publish(name);
            self.topics.insert(name.into(), Known { topic, allowed });
        }
        let Some(Known { topic, allowed }) = self.topics.get_mut(name) else { return Step::Next };
        if !*allowed {
            self.shared.metrics.denied.inc();
            return self.turn_down(publish, packet_id, Verdict::NotAuthorized);
        }
        let forwarded = publish.properties.forwarded();
        let properties = if forwarded.is_empty() {
            Bytes::new()
        } else {
            let mut bytes = Vec::with_capacity(forwarded.len());
            forwarded.put(&mut bytes);
            bytes.into()
        };
        let publication = Publication {
            payload: Bytes::copy_from_slice(publish.payload),
            qos: qos(publish.delivery.qos()),
            retain: publish.retain,
            packet_id,
            expiry_s: publish.properties.message_expiry_interval_secs,
            properties,
            waits: self.settings.version == ProtocolVersion::V311,
        };
        self.waiting = self.link.publish(topic, publication);
        if publish.delivery != Delivery::AtMostOnce && self.exceeds_receive_maximum() {
            return Step::fault(ReasonCode::ReceiveMaximumExceeded);
        }
        if self.waiting.is_some() { Step::Wait } else { Step::Next }
    }

    /// MQTT 5 clients were told the bound. MQTT 3.1.1 clients are kept waiting instead.
    fn exceeds_receive_maximum(&self) -> bool {
        let most = usize::from(self.shared.broker.receive_maximum());
        self.settings.version == ProtocolVersion::V5 && (self.link.unanswered() > most || self.link.held() > most)
    }

    fn turn_down(&mut self, publish: &PublishRef<'_>, packet_id: u16, verdict: Verdict) -> Step {
        match publish.delivery {
            Delivery::AtMostOnce => {}
            Delivery::AtLeastOnce(_) => self.link.reply(ReplyKind::Puback, packet_id, verdict),
            Delivery::ExactlyOnce(_) => self.link.reply(ReplyKind::Pubrec, packet_id, verdict),
        }
        Step::Next
    }

    fn resolve_alias(&mut self, alias: u16, topic: &str) -> Option<Box<str>> {
        let at = usize::from(alias).checked_sub(1)?;
        if at >= usize::from(self.shared.config.topic_alias_maximum) {
            return None;
        }
        if topic.is_empty() {
            return self.aliases.get(at)?.clone();
        }
        if self.aliases.len() <= at {
            self.aliases.resize(at + 1, None);
        }
        self.aliases[at] = Some(topic.into());
        Some(topic.into())
    }

    /// False if the subscriptions could not be kept.
    pub(super) async fn subscribe(&mut self, subscribe: super::codec::Subscribe) -> bool {
        let id = subscribe.properties.subscription_id.map(super::codec::SubscriptionId::value);
        let (mut reasons, mut wanted) = (Vec::new(), Vec::new());
        for request in subscribe.subscriptions {
            if !self.principal.may_subscribe(&request.filter) {
                self.shared.metrics.denied.inc();
                reasons.push(Some(ReasonCode::NotAuthorized));
                continue;
            }
            let options = Options {
                qos: qos(request.qos),
                no_local: request.no_local,
                retain_as_published: request.retain_as_published,
                retain_handling: request.retain_handling as u8,
                id,
            };
            reasons.push(None);
            wanted.push(Subscribe { filter: request.filter.into(), options });
        }
        let (outcomes, replay) = match self.link.subscribe(wanted).await {
            Ok(subscribed) => subscribed,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "a subscription is not kept");
                return false;
            }
        };
        let mut outcomes = outcomes.into_iter();
        let mut granted = || match outcomes.next() {
            Some(Subscribed::At(Qos::AtMostOnce)) => ReasonCode::Success,
            Some(Subscribed::At(Qos::AtLeastOnce)) => ReasonCode::GrantedQos1,
            Some(Subscribed::At(Qos::ExactlyOnce)) => ReasonCode::GrantedQos2,
            Some(Subscribed::Malformed) => ReasonCode::TopicFilterInvalid,
            Some(Subscribed::TooMany) | None => ReasonCode::QuotaExceeded,
        };
        let reasons = reasons.into_iter().map(|reason| reason.unwrap_or_else(&mut granted)).collect();
        self.send(&Packet::SubAck(SubAck {
            packet_id: subscribe.packet_id,
            properties: super::codec::AckProperties::default(),
            reasons,
        }));
        self.link.replay(replay);
        true
    }

    /// False if the change could not be kept.
    pub(super) async fn unsubscribe(&mut self, unsubscribe: super::codec::Unsubscribe) -> bool {
        let filters: Vec<Arc<str>> = unsubscribe.filters.into_iter().map(Arc::from).collect();
        let known = match self.link.unsubscribe(filters).await {
            Ok(known) => known,
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "an unsubscription is not kept");
                return false;
            }
        };
        let reason = |known| if known { ReasonCode::Success } else { ReasonCode::NoSubscriptionExisted };
        self.send(&Packet::UnsubAck(UnsubAck {
            packet_id: unsubscribe.packet_id,
            properties: super::codec::AckProperties::default(),
            reasons: known.into_iter().map(reason).collect(),
        }));
        true
    }
}
