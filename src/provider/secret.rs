//! Texts that are keys themselves, where a file's name or a plain setting should stand.

/// How the keys of the makers here begin.
const BEGINNINGS: [&str; 15] = [
    "sk-",
    "sk_",
    "gsk_",
    "hf_",
    "AIza",
    "AKIA",
    "ASIA",
    "ABSK",
    "bedrock-api-key-",
    "ya29.",
    "xai-",
    "r8_",
    "nvapi-",
    "fb-",
    "Bearer ",
];
/// No maker's keys are shorter.
const SHORTEST: usize = 12;
/// Parts of the names of headers that carry one.
const WORDS: [&str; 7] = ["auth", "token", "secret", "password", "api-key", "apikey", "subscription-key"];

/// Whether `text` is most likely a key: so that it is refused, and never shown.
pub fn looks_like_key(text: &str) -> bool {
    text.len() >= SHORTEST && !text.contains('/') && BEGINNINGS.iter().any(|beginning| text.starts_with(beginning))
}

/// Whether a header of this name carries a key.
pub(super) fn carries_key(header: &str) -> bool {
    let header = header.to_ascii_lowercase().replace('_', "-");
    WORDS.iter().any(|word| header.contains(word))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_told_from_names_of_files_and_models() {
        for key in [
            "sk-proj-0123456789abcdef",
            "sk-ant-api03-abcdefgh",
            "gsk_0123456789",
            "AIzaSyA0123456789",
            "Bearer abcdef",
        ] {
            assert!(looks_like_key(key), "{key}");
        }
        for other in [
            "/etc/forebay/sk-openai.key",
            "openai.key",
            "gpt-4o",
            "sk-small",
            "sklearn-classifier",
            "keys/sk-0123456789ab",
        ] {
            assert!(!looks_like_key(other), "{other}");
        }
    }

    #[test]
    fn headers_that_carry_a_key_are_known_by_their_names() {
        for header in
            ["Helicone-Auth", "Ocp-Apim-Subscription-Key", "X-Auth-Token", "my_api_key", "cf-aig-authorization"]
        {
            assert!(carries_key(header), "{header}");
        }
        for header in ["OpenAI-Organization", "HTTP-Referer", "X-Title", "anthropic-beta", "x-monkey"] {
            assert!(!carries_key(header), "{header}");
        }
    }
}
