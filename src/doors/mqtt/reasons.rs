//! What the broker says, in the reason codes of MQTT.

use super::codec::{ProtocolVersion, ReasonCode};
use crate::access::Denied;
use crate::base::Refusal;
use crate::broker::{Closing, Error, Verdict};

/// What to do with a verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    Say(ReasonCode),
    /// MQTT 3.1.1 has no word for a refusal: silence, and the connection ends, so that the client sends again.
    Close(Refusal),
    /// MQTT 3.1.1 and a payload that nobody will ever read: acknowledged and counted, or it would come for ever.
    Swallow,
}

pub(super) fn answer(version: ProtocolVersion, verdict: Verdict) -> Answer {
    if version == ProtocolVersion::V311 {
        return match verdict {
            Verdict::Refused(Refusal::Payload) => Answer::Swallow,
            Verdict::Refused(refusal) => Answer::Close(refusal),
            Verdict::Kept | Verdict::NoSubscribers | Verdict::UnknownId | Verdict::NotAuthorized | Verdict::Topic => {
                Answer::Say(ReasonCode::Success)
            }
        };
    }
    Answer::Say(match verdict {
        Verdict::Kept => ReasonCode::Success,
        Verdict::NoSubscribers => ReasonCode::NoMatchingSubscribers,
        Verdict::UnknownId => ReasonCode::PacketIdentifierNotFound,
        Verdict::NotAuthorized => ReasonCode::NotAuthorized,
        Verdict::Topic => ReasonCode::TopicNameInvalid,
        Verdict::Refused(Refusal::Full) => ReasonCode::QuotaExceeded,
        Verdict::Refused(Refusal::Payload) => ReasonCode::PayloadFormatInvalid,
        Verdict::Refused(Refusal::Disk | Refusal::Dropped) => ReasonCode::ImplementationSpecificError,
    })
}

pub(super) fn closing(why: Closing) -> ReasonCode {
    match why {
        Closing::TakenOver => ReasonCode::SessionTakenOver,
        Closing::Overflow => ReasonCode::QuotaExceeded,
        Closing::Shutdown => ReasonCode::ServerShuttingDown,
    }
}

pub(super) fn denied(why: Denied) -> ReasonCode {
    match why {
        Denied::Key => ReasonCode::BadUserNameOrPassword,
        Denied::Anonymous
        | Denied::Certificate
        | Denied::NotYet
        | Denied::Expired
        | Denied::Revoked
        | Denied::Suspended => ReasonCode::NotAuthorized,
    }
}

pub(super) fn connect_error(error: &Error) -> ReasonCode {
    match error {
        Error::Keep { .. } | Error::Load(_) | Error::Gone { .. } | Error::Salvage { .. } => {
            ReasonCode::ServerUnavailable
        }
        Error::Sessions { .. } => ReasonCode::QuotaExceeded,
        Error::Owner { .. } => ReasonCode::ClientIdentifierNotValid,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_never_an_acknowledgement_but_for_payloads_nobody_can_read() {
        for refusal in [Refusal::Disk, Refusal::Dropped, Refusal::Full] {
            assert_eq!(answer(ProtocolVersion::V311, Verdict::Refused(refusal)), Answer::Close(refusal));
            let Answer::Say(reason) = answer(ProtocolVersion::V5, Verdict::Refused(refusal)) else { panic!() };
            assert!(reason.is_error());
        }
        assert_eq!(answer(ProtocolVersion::V311, Verdict::Refused(Refusal::Payload)), Answer::Swallow);
    }
}
