//! One entry of LiteLLM's `model_list`: a provider and a candidate.

use std::net::IpAddr;

use super::vendor::{Vendor, guessed, vendor};
use super::yaml::Node;
use super::{Options, Remarks};

/// Where a provider's key comes from. Only for telling providers apart: no key is ever written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    /// None is needed.
    None,
    /// In this variable of the environment.
    Variable(String),
    /// In the file itself.
    Literal(String),
    /// AWS's pair of keys, wherever LiteLLM finds it.
    Aws,
    /// A service account's JSON lies there already.
    Path(String),
}

/// A `[[provider]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Provider {
    pub(super) prefix: String,
    pub(super) kind: &'static str,
    pub(super) base_url: Option<String>,
    pub(super) key: Key,
    pub(super) region: Option<String>,
    pub(super) project: Option<String>,
    pub(super) location: Option<String>,
    pub(super) api_version: Option<String>,
    pub(super) headers: Vec<(String, String)>,
}

/// A price for a million tokens, as decimal text.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Rates {
    pub(super) like: Option<String>,
    pub(super) named: Vec<(&'static str, f64)>,
}

/// A `[[route.candidate]]` and what belongs to it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Deployment {
    pub(super) group: String,
    pub(super) provider: Provider,
    /// As the provider names it; `*` for the star of the group.
    pub(super) model: String,
    pub(super) order: u32,
    pub(super) weight: Option<f64>,
    pub(super) requests_per_minute: Option<f64>,
    pub(super) tokens_per_minute: Option<f64>,
    pub(super) requests_max: Option<u64>,
    pub(super) first_byte_timeout_ms: Option<u64>,
    pub(super) context_tokens: Option<u64>,
    pub(super) lacks: Vec<&'static str>,
    pub(super) tags: Vec<String>,
    pub(super) reach: Option<&'static str>,
    pub(super) rates: Rates,
}

/// Modes of models that no door here asks for.
const OTHER_MODES: [&str; 8] = [
    "image_generation",
    "audio_transcription",
    "audio_speech",
    "rerank",
    "realtime",
    "batch",
    "video_generation",
    "search",
];

/// Reads one entry; none if it cannot be taken, which a remark then says.
pub(super) fn read(entry: &Node, options: &Options<'_>, remarks: &mut Remarks) -> Option<Deployment> {
    let Some(group) = entry.at("model_name").and_then(|name| name.text()).filter(|name| !name.is_empty()) else {
        remarks.add(entry, "an entry of model_list without model_name is left out".to_owned());
        return None;
    };
    let left_out = |why: String| format!("model {group}: left out: {why}");
    let Some(parameters) = entry.at("litellm_params") else {
        remarks.add(entry, left_out("it has no litellm_params".to_owned()));
        return None;
    };
    let information = entry.at("model_info");
    let mode = information.and_then(|information| information.at("mode")).and_then(|mode| mode.text());
    if let Some(mode) = mode.filter(|mode| OTHER_MODES.contains(mode)) {
        remarks.add(entry, left_out(format!("nothing here answers requests of the mode {mode}")));
        return None;
    }
    let text = |key: &str| parameters.at(key).filter(|node| !node.is_null()).and_then(|node| node.text());
    let Some(named) = text("model") else {
        remarks.add(parameters, left_out("litellm_params has no model".to_owned()));
        return None;
    };
    let (prefix, model) = match split(named, text("custom_llm_provider")) {
        Ok(found) => found,
        Err(why) => {
            remarks.add(parameters, left_out(why));
            return None;
        }
    };
    let Some(vendor) = vendor(prefix) else {
        remarks.add(parameters, left_out(format!("there is no kind of provider for {prefix}")));
        return None;
    };
    if !super::is_name(group) || group.matches('*').count() > 4 {
        remarks.add(
            entry,
            "a model_name of over 256 characters, or with others than visible ASCII, is left out".to_owned(),
        );
        return None;
    }
    if !super::is_name(model) {
        remarks.add(parameters, left_out(format!("{named:?} names no model")));
        return None;
    }
    if model.contains('*') && (model.matches('*').count() > 1 || group.matches('*').count() != 1) {
        remarks.add(parameters, left_out("a `*` in the model needs exactly one in model_name".to_owned()));
        return None;
    }
    let provider = match provider(prefix, vendor, parameters, options) {
        Ok(provider) => provider,
        Err(why) => {
            remarks.add(parameters, left_out(why));
            return None;
        }
    };
    let mut deployment = Deployment {
        group: group.to_owned(),
        reach: reach(provider.base_url.as_deref()),
        provider,
        model: cleaned(prefix, model).to_owned(),
        order: 0,
        weight: None,
        requests_per_minute: None,
        tokens_per_minute: None,
        requests_max: None,
        first_byte_timeout_ms: None,
        context_tokens: None,
        lacks: Vec::new(),
        tags: Vec::new(),
        rates: Rates::default(),
    };
    for (key, value) in parameters.entries() {
        parameter(&mut deployment, key, value, remarks);
    }
    for (key, value) in information.map_or(&[][..], |information| information.entries()) {
        detail(&mut deployment, key, value, remarks);
    }
    for (key, value) in entry.entries() {
        match key.as_str() {
            "model_name" | "litellm_params" | "model_info" => {}
            // Some examples have them one level higher than the documentation says.
            "rpm" | "tpm" | "order" | "weight" => parameter(&mut deployment, key, value, remarks),
            _ => remarks.not_taken(value, &format!("model {group}: {key}")),
        }
    }
    Some(deployment)
}

/// Prefix and model.
fn split<'a>(named: &'a str, vendor_named: Option<&'a str>) -> Result<(&'a str, &'a str), String> {
    if let Some(prefix) = vendor_named {
        return Ok((prefix, named.strip_prefix(prefix).and_then(|rest| rest.strip_prefix('/')).unwrap_or(named)));
    }
    match named.split_once('/') {
        Some((prefix, model)) if vendor(prefix).is_some() => Ok((prefix, model)),
        _ => match guessed(named) {
            Some(prefix) => Ok((prefix, named)),
            None if named == "*" => {
                Err("`*` stands for models of any provider; make an entry for each provider".to_owned())
            }
            None => Err(format!("{named:?} does not say whose model it is, or there is no kind of provider for it")),
        },
    }
}

/// Without the words that say by which of a provider's interfaces LiteLLM asks.
fn cleaned<'a>(prefix: &str, model: &'a str) -> &'a str {
    let words: &[&str] = match prefix {
        "bedrock" => &["converse/", "invoke/", "converse_like/"],
        "openai" | "azure" => &["responses/", "chat/"],
        "vertex_ai" => &["gemini/"],
        _ => &[],
    };
    words.iter().find_map(|word| model.strip_prefix(word)).unwrap_or(model)
}

/// A setting that is no secret, from the file or the environment.
fn setting(parameters: &Node, keys: &[&str], options: &Options<'_>) -> Result<Option<String>, String> {
    let Some((key, text)) = keys.iter().find_map(|key| {
        let node = parameters.at(key).filter(|node| !node.is_null())?;
        Some((key, node.text()?))
    }) else {
        return Ok(None);
    };
    match text.strip_prefix("os.environ/") {
        None => Ok(Some(text.to_owned())),
        Some(variable) => match (options.variable)(variable) {
            Some(value) => Ok(Some(value)),
            None => {
                Err(format!("its {key} is in the variable {variable}, which is not set here; set it and import again"))
            }
        },
    }
}

/// Whether it may become a part of an address.
fn plain(key: &str, text: Option<String>) -> Result<Option<String>, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    match text {
        Some(text) if text.is_empty() || !text.chars().all(allowed) => Err(format!("its {key} is {text:?}")),
        text => Ok(text),
    }
}

fn plain_setting(parameters: &Node, key: &str, options: &Options<'_>) -> Result<Option<String>, String> {
    plain(key, setting(parameters, &[key], options)?)
}

fn provider(prefix: &str, vendor: Vendor, parameters: &Node, options: &Options<'_>) -> Result<Provider, String> {
    let mut kind = vendor.kind;
    let base_url = setting(parameters, &["api_base", "base_url"], options)?;
    let base_url = base_url.map(|url| url.trim_end_matches('/').to_owned()).filter(|url| !url.is_empty());
    if let Some(url) = &base_url
        && !(url.starts_with("http://") || url.starts_with("https://"))
    {
        return Err(format!("its api_base {url:?} is no http address"));
    }
    if kind == "openai" && base_url.as_deref().is_some_and(|url| !url.contains("//api.openai.com")) {
        kind = "openai-compatible";
    }
    let base_url = base_url.or_else(|| vendor.base_url.map(str::to_owned));
    if base_url.is_none() && matches!(kind, "azure-openai" | "vllm" | "openai-compatible") {
        return Err(format!("a provider of the kind {kind} needs an api_base"));
    }
    let aws = matches!(kind, "bedrock" | "sagemaker");
    let set = || ["AWS_REGION_NAME", "AWS_REGION"].iter().find_map(|name| (options.variable)(name));
    let region =
        if aws { plain("region", setting(parameters, &["aws_region_name"], options)?.or_else(set))? } else { None };
    if aws && region.is_none() {
        return Err("it needs an aws_region_name, or AWS_REGION must be set here".to_owned());
    }
    let vertex = kind == "vertex";
    let azure = kind == "azure-openai";
    let mut headers = Vec::new();
    for (name, value) in parameters.at("extra_headers").map_or(&[][..], |headers| headers.entries()) {
        if let Some(value) = value.text().filter(|_| is_plain_header(name)) {
            headers.push((name.clone(), value.to_owned()));
        }
    }
    if let Some(organization) = setting(parameters, &["organization"], options)? {
        headers.push(("OpenAI-Organization".to_owned(), organization));
    }
    Ok(Provider {
        prefix: prefix.to_owned(),
        kind,
        base_url,
        key: key(parameters, vendor, kind),
        region,
        project: if vertex { plain_setting(parameters, "vertex_project", options)? } else { None },
        location: if vertex { plain_setting(parameters, "vertex_location", options)? } else { None },
        api_version: if azure { plain_setting(parameters, "api_version", options)? } else { None },
        headers,
    })
}

/// Whether a header is certainly no secret, by its name.
fn is_plain_header(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    !["auth", "key", "token", "secret", "cookie", "credential", "signature"].iter().any(|part| name.contains(part))
}

fn key(parameters: &Node, vendor: Vendor, kind: &str) -> Key {
    if matches!(kind, "bedrock" | "sagemaker") {
        return Key::Aws;
    }
    let found = ["api_key", "vertex_credentials"]
        .iter()
        .find_map(|key| parameters.at(key).filter(|node| !node.is_null())?.text());
    match found {
        Some(text) => match text.strip_prefix("os.environ/") {
            Some(variable) => Key::Variable(variable.to_owned()),
            None if kind == "vertex" && !text.trim_start().starts_with('{') => Key::Path(text.to_owned()),
            None => Key::Literal(text.to_owned()),
        },
        None if kind == "openai-compatible" && vendor.kind == "openai" => Key::None,
        None => vendor.key_variable.map_or(Key::None, |variable| Key::Variable(variable.to_owned())),
    }
}

/// Where an address is, if it is certainly near.
fn reach(base_url: Option<&str>) -> Option<&'static str> {
    let host = base_url?.split_once("//")?.1.split('/').next()?;
    let host = host.rsplit_once('@').map_or(host, |(_, host)| host);
    let host = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => host.split(':').next()?,
    };
    match host.parse::<IpAddr>() {
        Ok(address) if address.is_loopback() || address.is_unspecified() => Some("box"),
        Ok(IpAddr::V4(address)) if address.is_private() || address.is_link_local() => Some("site"),
        Ok(IpAddr::V6(address)) if address.is_unique_local() || address.is_unicast_link_local() => Some("site"),
        Ok(_) => None,
        Err(_) if host == "localhost" => Some("box"),
        Err(_) if host.ends_with(".local") || host.ends_with(".lan") || !host.contains('.') => Some("site"),
        Err(_) => None,
    }
}

fn whole(value: &Node) -> Option<u64> {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a positive number within bounds")]
    value.number().filter(|number| (1.0..=1e15).contains(number)).map(|number| number as u64)
}

fn parameter(deployment: &mut Deployment, key: &str, value: &Node, remarks: &mut Remarks) {
    if value.is_null() {
        return;
    }
    let group = deployment.group.clone();
    match key {
        // Read with the provider.
        "model" | "custom_llm_provider" | "api_key" | "api_base" | "base_url" | "organization" => {}
        // Fields that a provider does not know pass through.
        "drop_params" => {}
        "aws_access_key_id" | "aws_secret_access_key" | "aws_session_token" | "vertex_credentials" => {}
        "aws_region_name" if deployment.provider.region.is_some() => {}
        "vertex_project" | "vertex_location" if deployment.provider.kind == "vertex" => {}
        "api_version" if deployment.provider.kind == "azure-openai" => {}
        "extra_headers" => {
            for (name, value) in value.entries().iter().filter(|(name, _)| !is_plain_header(name)) {
                remarks.add(
                    value,
                    format!(
                        "model {group}: the header {name} may be a secret and is not written; see docs/providers.md"
                    ),
                );
            }
        }
        "weight" => deployment.weight = value.number().filter(|weight| *weight >= 0.0),
        "order" => deployment.order = whole(value).and_then(|order| u32::try_from(order).ok()).unwrap_or(0),
        "rpm" => deployment.requests_per_minute = value.number(),
        "tpm" => deployment.tokens_per_minute = value.number(),
        "max_parallel_requests" => deployment.requests_max = whole(value).filter(|most| u32::try_from(*most).is_ok()),
        "timeout" => deployment.first_byte_timeout_ms = super::milliseconds(value),
        // Both bound the time to the first byte; that of whole answers is the longer one.
        "stream_timeout" => {
            deployment.first_byte_timeout_ms = deployment.first_byte_timeout_ms.or(super::milliseconds(value));
        }
        "tags" => deployment.tags = value.items().iter().filter_map(|tag| tag.text().map(str::to_owned)).collect(),
        _ => price(deployment, key, value, remarks, "litellm_params"),
    }
}

fn detail(deployment: &mut Deployment, key: &str, value: &Node, remarks: &mut Remarks) {
    if value.is_null() {
        return;
    }
    let mut lacks = |need| {
        if value.truth() == Some(false) && !deployment.lacks.contains(&need) {
            deployment.lacks.push(need);
        }
    };
    match key {
        // For LiteLLM's own books.
        "id" | "mode" | "db_model" | "description" | "created_at" | "updated_at" => {}
        "supports_vision" => lacks("images"),
        "supports_function_calling" => lacks("tools"),
        "supports_response_schema" => lacks("structured_output"),
        "supports_reasoning" => lacks("reasoning"),
        "supports_audio_input" => lacks("audio"),
        "supports_pdf_input" => lacks("documents"),
        "max_input_tokens" => deployment.context_tokens = whole(value),
        "max_tokens" | "max_output_tokens" => {}
        "base_model" => deployment.rates.like = value.text().map(str::to_owned),
        _ => price(deployment, key, value, remarks, "model_info"),
    }
}

/// US dollars a token to US dollars a million.
fn price(deployment: &mut Deployment, key: &str, value: &Node, remarks: &mut Remarks, section: &str) {
    let name = match key {
        "input_cost_per_token" => "input",
        "output_cost_per_token" => "output",
        "cache_read_input_token_cost" => "cache_read",
        "cache_creation_input_token_cost" => "cache_write",
        "output_cost_per_reasoning_token" => "reasoning",
        _ => return remarks.not_taken(value, &format!("model {}: {section}.{key}", deployment.group)),
    };
    match value.number().filter(|price| (0.0..1.0).contains(price)) {
        Some(price) => deployment.rates.named.push((name, price * 1e6)),
        None => remarks.add(value, format!("model {}: {key} is no price of a token", deployment.group)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_certainly_near_is() {
        for (url, expected) in [
            ("http://localhost:11434", Some("box")),
            ("http://127.0.0.1", Some("box")),
            ("http://[::1]:8000/v1", Some("box")),
            ("http://10.1.2.3:8000/v1", Some("site")),
            ("http://[fd00::1]/v1", Some("site")),
            ("http://vllm:8000/v1", Some("site")),
            ("http://gpu.plant.local/v1", Some("site")),
            ("https://api.x.ai/v1", None),
            ("https://8.8.8.8", None),
            ("nonsense", None),
        ] {
            assert_eq!(reach(Some(url)), expected, "{url}");
        }
    }

    #[test]
    fn headers_that_may_be_secrets_are_not_plain() {
        assert!(is_plain_header("X-Title") && is_plain_header("HTTP-Referer"));
        for name in ["Authorization", "X-API-Key", "Ocp-Apim-Subscription-Key", "x-auth-token", "Cookie"] {
            assert!(!is_plain_header(name), "{name}");
        }
    }
}
