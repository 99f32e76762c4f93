//! What a JetStream says to a publication.

use serde::Deserialize;

use crate::uplink::link::Answer;

use crate::uplink::nats_settings::NatsConfig;

/// "message size exceeds maximum allowed" (the stream's limit).
const MESSAGE_TOO_LARGE: u32 = 10054;

/// The JSON of a PubAck: what took the message, or why nothing did.
#[derive(Debug, Deserialize)]
struct PubAck {
    #[serde(default)]
    stream: String,
    /// 0 until a stream has taken the message.
    #[serde(default)]
    seq: u64,
    domain: Option<String>,
    error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Refusal {
    #[serde(default)]
    pub(super) code: u32,
    #[serde(default)]
    err_code: u32,
    #[serde(default)]
    pub(super) description: String,
}

/// The answer in a reply that is no status message. A repeated message (`"duplicate":true`) counts like the first:
/// the stream has it. `max_message_bytes` is the stream's own limit, if it is known.
pub(super) fn read(payload: &[u8], wanted: &NatsConfig, max_message_bytes: Option<usize>) -> Answer {
    let refused = |reason: String| Answer::Refused { reason };
    let ack: PubAck = match serde_json::from_slice(payload) {
        Ok(ack) => ack,
        Err(error) => return refused(format!("the answer is not of a JetStream ({error})")),
    };
    if let Some(Refusal { code, err_code, description }) = ack.error {
        return match max_message_bytes {
            Some(max_payload_bytes) if err_code == MESSAGE_TOO_LARGE => Answer::TooLarge { max_payload_bytes },
            _ => refused(format!("{description} ({code}, {err_code})")),
        };
    }
    if ack.stream != wanted.stream.as_str() || ack.seq == 0 {
        return refused(format!("stream {:?} took it instead of {}", ack.stream, wanted.stream));
    }
    match (&wanted.domain, &ack.domain) {
        (Some(wanted), Some(domain)) if wanted.as_str() != domain => {
            refused(format!("domain {domain:?} took it instead of {wanted}"))
        }
        _ => Answer::Acknowledged,
    }
}

/// What of a stream's description matters here.
#[derive(Debug, Deserialize)]
pub(super) struct StreamInfo {
    config: Option<StreamConfig>,
    pub(super) error: Option<Refusal>,
}

#[derive(Debug, Deserialize)]
struct StreamConfig {
    #[serde(default)]
    storage: String,
    #[serde(default)]
    max_msg_size: i64,
    #[serde(default)]
    no_ack: bool,
}

impl StreamInfo {
    /// The stream's limit for one message if it has one; an error if its answers would not mean "kept".
    pub(super) fn check(&self) -> Result<Option<usize>, String> {
        if let Some(error) = &self.error {
            return Err(match error.code {
                404 => "it does not exist: `forebay collect --nats HOST:PORT --create-stream` makes it".to_owned(),
                _ => error.description.clone(),
            });
        }
        let config = self.config.as_ref().ok_or("its description holds no configuration")?;
        if config.storage != "file" {
            return Err(format!("it keeps in {}, so an answer would not mean that a disk has it", config.storage));
        }
        if config.no_ack {
            return Err("it gives no answers (no_ack)".to_owned());
        }
        Ok(usize::try_from(config.max_msg_size).ok().filter(|most| *most > 0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Name;

    #[test]
    fn only_the_expected_streams_answer_acknowledges() {
        let wanted = NatsConfig::default();
        let answer = |text: &str| read(text.as_bytes(), &wanted, None);
        assert_eq!(answer(r#"{"stream":"FLEET","seq":7}"#), Answer::Acknowledged);
        assert_eq!(answer(r#"{"stream":"FLEET","seq":7,"duplicate":true,"domain":"hub"}"#), Answer::Acknowledged);
        for other in [
            r#"{"stream":"OTHER","seq":7}"#,
            r#"{"stream":"FLEET","seq":0}"#,
            r#"{"stream":"FLEET"}"#,
            r#"{"error":{"code":503,"err_code":10077,"description":"maximum bytes exceeded"},"stream":"FLEET","seq":0}"#,
            "+ACK",
            "",
        ] {
            assert!(matches!(answer(other), Answer::Refused { .. }), "{other}");
        }
        let there = NatsConfig { domain: Some(Name::new("hub").unwrap()), ..wanted };
        let answer = |text: &str| read(text.as_bytes(), &there, None);
        assert_eq!(answer(r#"{"stream":"FLEET","seq":7,"domain":"hub"}"#), Answer::Acknowledged);
        let leaf = answer(r#"{"stream":"FLEET","seq":7,"domain":"leaf"}"#);
        assert_eq!(leaf, Answer::Refused { reason: "domain \"leaf\" took it instead of hub".to_owned() });
    }

    #[test]
    fn a_stream_that_forgets_is_refused() {
        let check = |text: &str| serde_json::from_str::<StreamInfo>(text).unwrap().check();
        assert_eq!(check(r#"{"config":{"storage":"file","max_msg_size":-1}}"#), Ok(None));
        assert_eq!(check(r#"{"config":{"storage":"file","max_msg_size":9000}}"#), Ok(Some(9000)));
        assert!(check(r#"{"config":{"storage":"memory"}}"#).unwrap_err().contains("keeps in memory"));
        assert!(check(r#"{"config":{"storage":"file","no_ack":true}}"#).unwrap_err().contains("no answers"));
        assert!(check(r#"{"error":{"code":404}}"#).unwrap_err().contains("does not exist"));
    }
}
