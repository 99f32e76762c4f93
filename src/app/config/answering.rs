//! What the sections about questions to language models get wrong: providers, routes, and who may take them.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use super::review::at;
use super::spending::spending;
use super::{Diagnosis, Loaded, Review, nearest};
use crate::app::scripts;
use crate::base::{Clock, SystemClock};
use crate::catalog::Catalog;
use crate::provider::{self, Kind, Providers};
use crate::route::{self, CandidateConfig, LOCAL, RouteConfig};

/// Looks at everything that a question to a model would meet. Asks nobody.
pub(super) fn answering(loaded: &Loaded, catalog: &Catalog, review: &mut Review) {
    let config = &loaded.config;
    settings(loaded, review);
    providers(loaded, review);
    routes(loaded, catalog, review);
    let names = names(loaded, catalog);
    scopes(loaded, &names, review);
    spending(loaded, catalog, &names, review);
    if config.route.is_empty() && !config.provider.is_empty() {
        review.remarks.push("there is a [[provider]] and no [[route]]: nobody is asked".to_owned());
    }
}

/// Sections whose settings have bounds and nothing else.
fn settings(loaded: &Loaded, review: &mut Review) {
    let config = &loaded.config;
    let checked = [
        ("answer", config.answer.check()),
        ("generate", config.generate.check()),
        ("http.llm", config.http.llm.check()),
        ("ledger", config.ledger.check()),
    ];
    for (section, outcome) in checked {
        if let Err((key, problem)) = outcome {
            review.errors.push(at(loaded, &format!("{section}.{key}"), &format!("{key} {problem}"), None));
        }
    }
    if let Err(error) = config.routing.check() {
        review.errors.push(of_route(loaded, 0, &error));
    }
}

/// Opens each provider as the gateway would: settings, key, authorities.
fn providers(loaded: &Loaded, review: &mut Review) {
    let all = &loaded.config.provider;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::new());
    let examined = Providers::examine(all, &clock);
    for (number, (provider, outcome)) in all.iter().zip(examined).enumerate() {
        let path = format!("provider[{number}]");
        if provider.name.as_str() == LOCAL {
            let message = "`local` stands for this box in routes, and is no name of a provider";
            review.errors.push(at(loaded, &format!("{path}.name"), &message, Some("take another name".to_owned())));
        }
        if all[..number].iter().any(|other| other.name == provider.name) {
            let message = format!("two providers are called {}", provider.name);
            let hint = "names must differ: routes go by them".to_owned();
            review.errors.push(at(loaded, &format!("{path}.name"), &message, Some(hint)));
        }
        review.remarks.extend(provider.remarks());
        for model in &provider.models {
            let file = model.oip().and_then(|oip| oip.tokenizer_config.as_deref());
            if let Some(Err(problem)) = file.map(scripts::one) {
                let hint = "the tokenizer_config.json that lies beside the model's weights, readable for the service";
                let message = format!("model {}: oip.tokenizer_config: {problem}", model.name());
                review.errors.push(at(loaded, &format!("{path}.models"), &message, Some(hint.to_owned())));
            }
        }
        if let Err(error) = outcome {
            review.errors.push(of_provider(loaded, &path, &error));
        } else if let Some(credential) = &provider.credential {
            let name = &provider.name;
            review.remarks.push(format!(
                "provider {name}: its key is the credential {credential}, which is there only when systemd starts the gateway"
            ));
        }
    }
}

fn of_provider(loaded: &Loaded, path: &str, error: &provider::Error) -> Diagnosis {
    match error {
        provider::Error::Setting { setting, problem, .. } => {
            let key = setting.split(' ').next().unwrap_or(setting);
            let hint = match *setting {
                "key_file" => Some("write the key into a file and name it: key_file = \"/etc/forebay/NAME.key\""),
                "base_url" => Some("such as base_url = \"http://HOST:PORT\""),
                _ => None,
            };
            let hint = hint.filter(|_| problem.starts_with("is missing")).map(str::to_owned);
            at(loaded, &format!("{path}.{key}"), &format!("{setting} {problem}"), hint)
        }
        provider::Error::File { setting, path: file, source, .. } => {
            let message = format!("failed to open {}: {source}", file.display());
            let hint = match *setting {
                "ca_file" => "put the PEM file there, readable for the service",
                _ => "write the key into it, and nothing else, readable for the service only",
            };
            at(loaded, &format!("{path}.{setting}"), &message, Some(hint.to_owned()))
        }
        provider::Error::Content { setting, path: file, problem, .. } => {
            at(loaded, &format!("{path}.{setting}"), &format!("{}: {problem}", file.display()), None)
        }
        provider::Error::Twice { .. } => at(loaded, path, error, None),
    }
}

fn routes(loaded: &Loaded, catalog: &Catalog, review: &mut Review) {
    let config = &loaded.config;
    let mut answered: BTreeMap<&str, &RouteConfig> = BTreeMap::new();
    for (number, route) in config.route.iter().enumerate() {
        let path = format!("route[{number}]");
        if let Err(error) = route.check() {
            review.errors.push(of_route(loaded, number, &error));
        }
        if config.route[..number].iter().any(|other| other.name == route.name) {
            let message = format!("two routes are called {}", route.name);
            let hint = "names must differ: keys, records and metrics go by them".to_owned();
            review.errors.push(at(loaded, &format!("{path}.name"), &message, Some(hint)));
        }
        for (place, model) in route.models.iter().enumerate() {
            if let Some(earlier) = answered.get(model.as_str()) {
                let message =
                    format!("{model} never comes here: route {} has it and takes every request", earlier.name);
                let hint = format!("give {} a `when`, put this route before it, or take the name out", earlier.name);
                review.problems.push(at(loaded, &format!("{path}.models[{place}]"), &message, Some(hint)));
            } else if route.when == route::When::default() {
                answered.insert(model, route);
            }
        }
        for (place, candidate) in route.candidate.iter().enumerate() {
            let path = format!("{path}.candidate[{place}]");
            asked(loaded, catalog, &path, route, candidate, review);
        }
    }
    if config.route.len() > 1000 {
        let message = format!("there are {} routes, the most is 1000", config.route.len());
        review.errors.push(at(loaded, "route", &message, None));
    }
    let watches = |route: &&RouteConfig| {
        let by_link = |when: &route::When| !when.links.is_empty();
        by_link(&route.when) || route.candidate.iter().any(|one| one.links.is_some() || by_link(&one.when))
    };
    if config.cloud.is_none()
        && let Some(route) = config.route.iter().find(watches)
    {
        review
            .remarks
            .push(format!("route {}: nobody watches the link without a [cloud]; it counts as up", route.name));
    }
}

/// Where a route's error stands.
fn of_route(loaded: &Loaded, number: usize, error: &route::Error) -> Diagnosis {
    let (path, message) = match error {
        route::Error::Settings { key, what } => (format!("routing.{key}"), format!("{key}: {what}")),
        route::Error::Route { key, what, .. } => {
            let path = match key.strip_prefix("candidate ").and_then(|rest| rest.split_once(": ")) {
                Some((place, key)) => {
                    let place: usize = place.parse().unwrap_or(1);
                    format!("route[{number}].candidate[{}].{key}", place.saturating_sub(1))
                }
                None => format!("route[{number}].{key}"),
            };
            (path, format!("{key}: {what}"))
        }
        route::Error::TooMany(_) => ("route".to_owned(), error.to_string()),
    };
    at(loaded, &path, &message, None)
}

/// Whether somebody is there whom a candidate names, with that model.
fn asked(
    loaded: &Loaded,
    catalog: &Catalog,
    path: &str,
    route: &RouteConfig,
    candidate: &CandidateConfig,
    review: &mut Review,
) {
    let wanted: Vec<&str> = match &candidate.model {
        Some(model) => vec![model.as_str()],
        None => route.models.iter().map(String::as_str).collect(),
    };
    let wanted: Vec<_> = wanted.into_iter().filter(|model| !model.contains('*')).collect();
    let name = candidate.provider.as_str();
    if name == LOCAL {
        for model in wanted.into_iter().filter(|model| catalog.model(model, None).is_none()) {
            let known: Vec<_> = catalog.models().map(|model| model.manifest.model.name.as_str()).collect();
            let folder = loaded.config.catalog.folder.display();
            let hint = match nearest(model, known.iter().copied()) {
                Some(near) if near != model => format!("did you mean `{near}`?"),
                _ => format!("put it into {folder}/{model}/<version>/ with its manifest.toml"),
            };
            let message = format!("no usable model {model} in {folder}; this candidate would not answer");
            review.problems.push(at(loaded, &format!("{path}.model"), &message, Some(hint)));
        }
        return;
    }
    let providers = &loaded.config.provider;
    let Some(provider) = providers.iter().find(|provider| provider.name == candidate.provider) else {
        let names = providers.iter().map(|provider| provider.name.as_str()).chain([LOCAL]);
        let hint = match nearest(name, names) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add a [[provider]] with name = \"{name}\", or use `local` for a model on this box"),
        };
        let message = format!("there is no provider {name}");
        review.errors.push(at(loaded, &format!("{path}.provider"), &message, Some(hint)));
        return;
    };
    for model in wanted.into_iter().filter(|model| provider.upstream_model(model).is_none()) {
        let known = provider.models.iter().map(provider::Model::name);
        let hint = match nearest(model, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("add it to `models` of provider {name}, or leave `models` out there to allow any"),
        };
        let message = format!("provider {name} has no model {model}; this candidate would not answer");
        review.problems.push(at(loaded, &format!("{path}.model"), &message, Some(hint)));
    }
    if candidate.reach.is_none()
        && candidate.links.is_none()
        && let Some(near) = nearer(provider)
    {
        let route = &route.name;
        review.remarks.push(format!(
            "route {route}: {name} is {near}, and counts as the cloud, so it is not asked while the link is down: set its `reach`"
        ));
    }
}

/// Where a provider is that is not in the cloud, as far as its address says so.
fn nearer(provider: &provider::Config) -> Option<&'static str> {
    let host = match &provider.base_url {
        Some(url) => url.split_once("://")?.1.split(['/', '?']).next()?.to_owned(),
        None if provider.kind == Kind::Ollama => "127.0.0.1".to_owned(),
        None => return None,
    };
    let plain = match host.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => host.split(':').next()?,
    };
    if plain == "localhost" {
        return Some("on this machine (reach = \"box\")");
    }
    match plain.parse::<IpAddr>().ok()? {
        address if address.is_loopback() => Some("on this machine (reach = \"box\")"),
        IpAddr::V4(address) if address.is_private() || address.is_link_local() => Some("near (reach = \"site\")"),
        IpAddr::V6(address) if address.is_unique_local() => Some("near (reach = \"site\")"),
        _ => None,
    }
}

/// Names of routes: those of the configuration, and those that models of this box get of their own.
fn names(loaded: &Loaded, catalog: &Catalog) -> Vec<String> {
    let own = loaded.config.route.iter().map(|route| route.name.to_string());
    own.chain(catalog.models().map(|model| format!("{LOCAL}-{}", model.manifest.model.name))).collect()
}

/// Identities that may use only what is not there.
fn scopes(loaded: &Loaded, names: &[String], review: &mut Review) {
    let config = &loaded.config;
    if config.route.is_empty() {
        return;
    }
    for (number, identity) in config.access.identity.iter().enumerate() {
        for (place, pattern) in identity.routes.iter().flatten().enumerate() {
            if names.iter().any(|name| pattern.matches(name)) {
                continue;
            }
            let message = format!("{} may take {}, and no route is called so", identity.name, pattern.as_str());
            let hint = match nearest(pattern.as_str(), names.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "leave `routes` out for all of them".to_owned(),
            };
            let path = format!("access.identity[{number}].routes[{place}]");
            review.problems.push(at(loaded, &path, &message, Some(hint)));
        }
    }
}
