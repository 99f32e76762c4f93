//! What the sections about prices, limits and kept answers get wrong.

use std::collections::{BTreeSet, HashSet};
use std::path::Path;

use super::review::at;
use super::{Config, Diagnosis, Loaded, Review, nearest};
use crate::cache;
use crate::catalog::Catalog;
use crate::flows::answer::LEVELS;
use crate::price::{self, Builder, LocalPrices, Prices};
use crate::provider;
use crate::quota::{self, WhenUnknown};

/// Looks at all of it; tables of prices are read as the gateway would. `routes` has the names of routes.
pub(super) fn spending(loaded: &Loaded, catalog: &Catalog, routes: &[String], review: &mut Review) {
    quotas(loaded, catalog, review);
    unlent(&loaded.config, review);
    kept(loaded, routes, review);
    embedder(loaded, catalog, review);
    if let Some(prices) = prices(loaded, review) {
        unpriced(&loaded.config, &prices, review);
    }
}

/// The prices, as far as they can be read.
fn prices(loaded: &Loaded, review: &mut Review) -> Option<Prices> {
    let config = &loaded.config.prices;
    if let Err(error) = LocalPrices::new(&config.local) {
        review.errors.push(of_price(loaded, &error));
    }
    let mut builder = match Builder::new(config) {
        Ok(builder) => builder,
        Err(error) => {
            review.errors.push(of_price(loaded, &error));
            return None;
        }
    };
    let mut whole = true;
    type Add = fn(&mut Builder, &[u8]) -> Result<price::Read, price::Error>;
    let tables: [(&str, Option<&Path>, Add); 2] = [
        ("prices.litellm_file", config.litellm_file.as_deref(), Builder::add_litellm),
        ("prices.models_dev_file", config.models_dev_file.as_deref(), Builder::add_models_dev),
    ];
    for (key, file, add) in tables {
        let Some(file) = file else { continue };
        let found = match std::fs::read(file) {
            Err(error) => {
                Err((format!("failed to open {}: {error}", file.display()), "docs/prices.md says how to get it"))
            }
            Ok(text) => match add(&mut builder, &text) {
                Ok(read) if read.taken + read.known_before == 0 => {
                    Err((format!("{} has no price in it", file.display()), "is this the table that the key names?"))
                }
                Ok(_) => Ok(()),
                Err(error) => {
                    let cause = std::error::Error::source(&error).map_or(error.to_string(), ToString::to_string);
                    Err((format!("{}: {cause}", file.display()), "take the file as it was downloaded"))
                }
            },
        };
        if let Err((message, hint)) = found {
            whole = false;
            review.errors.push(at(loaded, key, &message, Some(hint.to_owned())));
        }
    }
    for (number, own) in config.model.iter().enumerate() {
        let named = price::provider_name(&own.provider);
        let providers = &loaded.config.provider;
        let goes_by = |provider: &provider::Config| {
            [provider.name.as_str(), provider.kind.as_str()].into_iter().any(|name| price::provider_name(name) == named)
        };
        if !providers.iter().any(goes_by) {
            let message = format!("no provider has the name or kind {}", own.provider);
            let names = providers.iter().map(|provider| provider.name.as_str());
            let hint = match nearest(&own.provider, names) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "this price is never used".to_owned(),
            };
            review.problems.push(at(loaded, &format!("prices.model[{number}].provider"), &message, Some(hint)));
        }
    }
    let (prices, remarks) = builder.build();
    review.remarks.extend(remarks);
    whole.then_some(prices)
}

fn of_price(loaded: &Loaded, error: &price::Error) -> Diagnosis {
    match error {
        price::Error::Setting { path, why } => {
            let place = path.split(' ').next().unwrap_or(path);
            at(loaded, place, &format!("{path}: {why}"), None)
        }
        _ => at(loaded, "prices", error, None),
    }
}

fn quotas(loaded: &Loaded, catalog: &Catalog, review: &mut Review) {
    let quota = &loaded.config.quota;
    if let Err((key, problem)) = quota.check() {
        let path = match key {
            "limit" => format!("quota.limit[{}]", first_wrong(quota)),
            key => format!("quota.{key}"),
        };
        review.errors.push(at(loaded, &path, &format!("{key} {problem}"), None));
        return;
    }
    let asked = loaded.config.route.iter().flat_map(|route| &route.models).map(String::as_str);
    let here = catalog.models().map(|model| model.manifest.model.name.as_str());
    let answering = answering(&loaded.config);
    let models: BTreeSet<&str> = asked.chain(here).chain(answering.iter().copied()).collect();
    let has_patterns = models.iter().any(|model| model.contains('*'));
    for (number, limit) in quota.limit.iter().enumerate() {
        let path = format!("quota.limit[{number}]");
        if !LEVELS.contains(&limit.level.as_str()) {
            let message = format!("nothing is counted at the level {}; this limit would never hold", limit.level);
            let hint = match nearest(&limit.level, LEVELS) {
                Some(near) => format!("did you mean `{near}`?"),
                None => format!("use {}", LEVELS.join(", ")),
            };
            review.errors.push(at(loaded, &format!("{path}.level"), &message, Some(hint)));
        }
        if let Some(name) = limit.name.as_deref().filter(|_| limit.level == "model")
            && !has_patterns
            && !models.contains(name)
        {
            let message = format!("no route has the model {name}");
            let hint = match nearest(name, models.iter().copied()) {
                Some(near) => format!("did you mean `{near}`? limits go by the model that is asked"),
                None => "limits go by the model that is asked, and by the name that callers use".to_owned(),
            };
            review.problems.push(at(loaded, &format!("{path}.name"), &message, Some(hint)));
        }
        let by_name = loaded.config.route.iter().find(|route| {
            limit.level == "model" && route.models.iter().any(|model| limit.name.as_ref() == Some(model))
        });
        if let (Some(route), Some(name)) = (by_name, limit.name.as_deref())
            && !answering.contains(name)
        {
            review.remarks.push(format!(
                "a limit of the model {name} holds for requests by that name only: no candidate of the route {} is called so",
                route.name
            ));
        }
    }
}

/// The models that candidates ask, as their providers know them; patterns as they stand.
fn answering(config: &Config) -> BTreeSet<&str> {
    let mut models = BTreeSet::new();
    for route in &config.route {
        for candidate in &route.candidate {
            let provider = config.provider.iter().find(|provider| provider.name == candidate.provider);
            let names = match &candidate.model {
                Some(model) => std::slice::from_ref(model),
                None => &route.models[..],
            };
            for model in names {
                models.insert(provider.and_then(|provider| provider.upstream_model(model)).unwrap_or(model));
            }
        }
    }
    models
}

/// The first limit without which those before it are right.
fn first_wrong(quota: &quota::Config) -> usize {
    let is_right = |many: usize| quota::Config { limit: quota.limit[..many].to_vec(), ..quota.clone() }.check().is_ok();
    let (mut right, mut wrong) = (0, quota.limit.len());
    while wrong - right > 1 {
        let middle = right.midpoint(wrong);
        if is_right(middle) { right = middle } else { wrong = middle }
    }
    wrong.saturating_sub(1)
}

fn kept(loaded: &Loaded, routes: &[String], review: &mut Review) {
    let cache = &loaded.config.cache;
    review.remarks.extend(cache.remarks());
    if let Err(error) = cache.check() {
        let policy = |key: &str| {
            let number = cache.policy.iter().position(|policy| policy.check().is_err()).unwrap_or(0);
            format!("cache.policy[{number}].{key}")
        };
        let path = match &error {
            cache::ConfigError::Entries(_) => "cache.semantic.max_entries".to_owned(),
            cache::ConfigError::Rescored(_) => "cache.semantic.rescored".to_owned(),
            cache::ConfigError::Policies(_) => "cache.policy".to_owned(),
            cache::ConfigError::Threshold(_) => policy("threshold"),
            cache::ConfigError::Ttl => policy("ttl_s"),
            cache::ConfigError::LeftOut(_) | cache::ConfigError::Question(_) => policy("leave_out"),
        };
        review.errors.push(at(loaded, &path, &error, None));
    }
    for (number, policy) in cache.policy.iter().enumerate() {
        for (place, name) in policy.routes.iter().enumerate() {
            if routes.contains(name) {
                continue;
            }
            let hint = match nearest(name, routes.iter().map(String::as_str)) {
                Some(near) => format!("did you mean `{near}`?"),
                None => "leave `routes` out for all of them".to_owned(),
            };
            let path = format!("cache.policy[{number}].routes[{place}]");
            review.problems.push(at(loaded, &path, &format!("there is no route {name}"), Some(hint)));
        }
    }
}

/// The model that makes vectors of requests, where answers are found by what a request means.
fn embedder(loaded: &Loaded, catalog: &Catalog, review: &mut Review) {
    let semantic = &loaded.config.cache.semantic;
    if semantic.max_entries == 0 {
        return;
    }
    let (path, name) = ("cache.semantic.model", semantic.model.as_str());
    let known = || catalog.models().map(|model| model.manifest.model.name.as_str());
    if name.is_empty() {
        let message = format!("max_entries is {}, and nothing makes vectors of texts", semantic.max_entries);
        let hint = "set `model` to a model of this box that embeds texts (docs/local-llm.md)".to_owned();
        review.errors.push(at(loaded, path, &message, Some(hint)));
    } else if !known().any(|known| known == name) {
        let folder = loaded.config.catalog.folder.display();
        let hint = match nearest(name, known()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("put it into {folder}, or leave max_entries at 0"),
        };
        review.problems.push(at(loaded, path, &format!("there is no model {name} in {folder}"), Some(hint)));
    }
}

/// Limits that wait for leases which cannot come.
fn unlent(config: &Config, review: &mut Review) {
    let Some(limit) = config.quota.limit.iter().find(|limit| !limit.leased.is_empty()) else { return };
    let missing = match &config.cloud {
        None => "there is no [cloud] that leases could come from",
        Some(_) if config.sync.leases_per_minute == 0 => "sync.leases_per_minute is 0",
        Some(_) => return,
    };
    let level = &limit.level;
    review.remarks.push(format!("a limit of a {level} is leased, and {missing}: its requests are refused"));
}

/// Models whose requests a budget in dollars would refuse.
fn unpriced(config: &Config, prices: &Prices, review: &mut Review) {
    let counts_money =
        config.quota.limit.iter().any(|limit| limit.usd_per_day.is_some() || limit.usd_per_month.is_some());
    if !counts_money || config.quota.when_unknown == WhenUnknown::Admit {
        return;
    }
    let mut told = HashSet::new();
    for route in &config.route {
        for candidate in &route.candidate {
            let Some(provider) = config.provider.iter().find(|provider| provider.name == candidate.provider) else {
                continue;
            };
            let model = candidate.model.as_deref().or(route.models.first().map(String::as_str)).unwrap_or("*");
            let model = provider.upstream_model(model).unwrap_or(model);
            let names = [provider.name.as_str(), provider.kind.as_str()];
            if !model.contains('*') && prices.find_any(&names, model).is_none() && told.insert((names[0], model)) {
                review.remarks.push(format!(
                    "no price is known for {}/{model}: a limit in dollars refuses its requests (quota.when_unknown); add a [[prices.model]] or a table",
                    provider.name
                ));
            }
        }
    }
}
