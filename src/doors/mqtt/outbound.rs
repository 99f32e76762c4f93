//! What a client is sent.

use std::collections::HashMap;
use std::num::NonZeroU16;
use std::sync::Arc;

use smallvec::SmallVec;

use super::codec::{
    Ack, Delivery, ForwardedProperties, OutgoingPublish, Packet, ProtocolVersion, ReasonCode, SubscriptionId,
};
use super::connection::{End, Settings, packet_id};
use super::listen::Shared;
use super::reasons::{Answer, answer};
use crate::broker::{Ids, Link, Message, Outgoing, Qos, Reply, ReplyKind};

/// Appends `packets` to `out`. An end means: write what is there, then close.
pub(super) fn encode_all(
    packets: &mut Vec<Outgoing>,
    out: &mut Vec<u8>,
    link: &mut Link,
    aliases: &mut Aliases,
    settings: &Settings,
    shared: &Shared,
) -> Option<End> {
    let mut end = None;
    for packet in packets.drain(..) {
        match packet {
            Outgoing::Publish { message, qos, packet_id: number, dup, retain, ids } => {
                let delivery = match qos {
                    Qos::AtMostOnce => Delivery::AtMostOnce,
                    Qos::AtLeastOnce => Delivery::AtLeastOnce(packet_id(number)),
                    Qos::ExactlyOnce => Delivery::ExactlyOnce(packet_id(number)),
                };
                let flags = Flags { delivery, dup, retain };
                if !encode_publish(&message, &flags, &ids, out, aliases, settings, shared) {
                    shared.metrics.too_large.inc();
                    link.undeliverable(number, qos);
                }
            }
            Outgoing::Pubrel { packet_id: number } => {
                append(&Packet::PubRel(Ack::success(packet_id(number))), settings.version, out);
            }
            Outgoing::Reply(reply) => end = end.or(encode_reply(reply, out, settings, shared)),
        }
    }
    end
}

/// Numbers that stand for topics towards a client that takes them. The first topics get one and keep it.
#[derive(Default)]
pub(super) struct Aliases {
    numbers: HashMap<Arc<str>, NonZeroU16>,
}

impl Aliases {
    /// The number for `topic`, and whether the client has learnt it.
    fn of(&self, topic: &Arc<str>, most: u16) -> (Option<NonZeroU16>, bool) {
        if most == 0 {
            return (None, false);
        }
        if let Some(number) = self.numbers.get(topic) {
            return (Some(*number), true);
        }
        let next = u16::try_from(self.numbers.len() + 1).ok().filter(|&next| next <= most);
        (next.and_then(NonZeroU16::new), false)
    }

    fn learn(&mut self, topic: &Arc<str>) {
        if let Some(number) = u16::try_from(self.numbers.len() + 1).ok().and_then(NonZeroU16::new) {
            self.numbers.insert(topic.clone(), number);
        }
    }
}

struct Flags {
    delivery: Delivery,
    dup: bool,
    retain: bool,
}

/// False if the client cannot take a packet of this size.
fn encode_publish(
    message: &Message,
    flags: &Flags,
    ids: &Ids,
    out: &mut Vec<u8>,
    aliases: &mut Aliases,
    settings: &Settings,
    shared: &Shared,
) -> bool {
    let ids: SmallVec<[SubscriptionId; 4]> =
        ids.iter().flat_map(|ids| ids.iter()).filter_map(|&id| SubscriptionId::new(id)).collect();
    let left_s = message.expires_at.map(|at| {
        let left = at.saturating_sub(shared.clock.since_boot());
        // Rounded up, so that a message just in time does not arrive with 0 seconds left.
        u32::try_from(left.as_millis().div_ceil(1000)).unwrap_or(u32::MAX)
    });
    let forwarded = if message.properties.is_empty() {
        ForwardedProperties::default()
    } else {
        ForwardedProperties::parse(&message.properties).unwrap_or_default()
    };
    let Flags { delivery, dup, retain } = *flags;
    let (topic_alias, named) = aliases.of(&message.topic, settings.topic_alias_maximum);
    let mut publish = OutgoingPublish {
        dup,
        topic_alias,
        retain,
        message_expiry_interval_secs: left_s,
        subscription_ids: &ids,
        forwarded,
        ..OutgoingPublish::new(&message.topic, delivery, &message.payload)
    };
    let limit = settings.packet_bytes;
    if limit < u32::MAX && publish.encoded_len(settings.version) > limit as usize {
        return false;
    }
    if named {
        publish.topic = "";
    } else if topic_alias.is_some() {
        aliases.learn(&message.topic);
    }
    publish.encode(settings.version, out).is_ok()
}

fn encode_reply(reply: Reply, out: &mut Vec<u8>, settings: &Settings, shared: &Shared) -> Option<End> {
    let reason = match answer(settings.version, reply.verdict) {
        Answer::Close(refusal) => return Some(End::Refused(refusal)),
        Answer::Swallow => {
            shared.metrics.unreadable.inc();
            ReasonCode::Success
        }
        Answer::Say(reason) => reason,
    };
    let number = packet_id(reply.packet_id);
    if reason == ReasonCode::Success {
        // The hot path: four bytes.
        let first = match reply.kind {
            ReplyKind::Puback => 0x40,
            ReplyKind::Pubrec => 0x50,
            ReplyKind::Pubcomp => 0x70,
        };
        let [high, low] = reply.packet_id.to_be_bytes();
        out.extend_from_slice(&[first, 2, high, low]);
        return None;
    }
    let ack = Ack::new(number, reason);
    let packet = match reply.kind {
        ReplyKind::Puback => Packet::PubAck(ack),
        ReplyKind::Pubrec => Packet::PubRec(ack),
        ReplyKind::Pubcomp => {
            // PUBCOMP knows only "found" and "not found": a release that is not on disk ends the connection.
            if reason != ReasonCode::PacketIdentifierNotFound {
                return Some(End::Unavailable);
            }
            Packet::PubComp(ack)
        }
    };
    append(&packet, settings.version, out);
    None
}

fn append(packet: &Packet, version: ProtocolVersion, out: &mut Vec<u8>) {
    if let Err(error) = packet.encode(version, out) {
        tracing::error!(error = &error as &dyn std::error::Error, "a packet could not be written");
    }
}
