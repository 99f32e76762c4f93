//! MQTT 3.1.1 and 5.0 packets as bytes, in both directions.
//!
//! What it is: the syntax of the two specifications and nothing else. [`Decoder`] cuts packets out of a read buffer
//! and refuses what breaks a syntax rule, with the reason code to send; [`Packet::encode`] and [`OutgoingPublish`]
//! append packets to a write buffer. PUBLISH, the hot path, is read as a [`PublishRef`] that borrows the read buffer,
//! so a payload is copied once: into the subscriber's frame.
//!
//! What it never does: no sockets, no clock, no session state. Packet identifiers in flight, topic aliases, quotas,
//! empty client identifiers, receive maximum and the answer to a fault belong to the session.
//!
//! Limits: a packet larger than the decoder's limit is refused from its fixed header, before it is buffered; what a
//! packet makes the decoder allocate is proportional to its bytes.
//!
//! Sources: OASIS MQTT 3.1.1 (2014) and OASIS MQTT 5.0 (2019); `[MQTT-x.y.z-n]` names their normative statements.

mod ack;
mod connack;
mod connect;
mod decoder;
mod disconnect;
mod fault;
mod packet;
mod property;
mod publish;
mod publish_encode;
mod reason;
mod shared_publish;
mod subscribe;
mod topic;
mod unsubscribe;
mod wire;

#[cfg(test)]
mod refusals;
#[cfg(test)]
mod round_trips;
#[cfg(test)]
mod strategies;
#[cfg(test)]
mod vectors;

pub use ack::{Ack, AckProperties};
pub use connack::{ConnAck, ConnAckProperties};
pub use connect::{Connect, ConnectProperties, Will, WillProperties};
pub use decoder::{Decoder, Frame, PacketRef};
pub use disconnect::{Auth, AuthProperties, Disconnect, DisconnectProperties};
pub use fault::{DecodeError, EncodeError, Fault};
pub use packet::{Packet, PacketId, PacketKind, Peer, ProtocolVersion, QoS};
pub use property::{SubscriptionId, UserProperties};
pub use publish::{Delivery, ForwardedProperties, Publish, PublishProperties, PublishPropertiesRef, PublishRef};
pub use publish_encode::OutgoingPublish;
pub use reason::ReasonCode;
pub use shared_publish::{SharedDelivery, SharedPublish};
pub use subscribe::{RetainHandling, SubAck, Subscribe, SubscribeProperties, SubscriptionRequest};
pub use topic::{TopicFault, TopicFilter, validate_filter, validate_topic_name};
pub use unsubscribe::{UnsubAck, Unsubscribe};
