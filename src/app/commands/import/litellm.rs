//! LiteLLM's `config.yaml`: groups of deployments become routes, the router's settings theirs.

use std::collections::HashSet;

use super::deployment::{self, Deployment, Key, Provider};
use super::write::{Candidate, File, Price, Route};
use super::yaml::Node;
use super::{Options, Remarks};
use crate::base::Name;

/// Candidates that a route may have.
const CANDIDATES_MAX: usize = 64;

/// What the router's settings say of all routes.
#[derive(Debug, Default)]
struct Settings {
    strategy: Option<&'static str>,
    retries: Option<u32>,
    timeout_ms: Option<u64>,
    filters_tags: bool,
    /// For each kind: groups and those who stand in, in their order.
    fallbacks: Vec<(Fallback, String, Vec<String>)>,
    aliases: Vec<(String, String)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fallback {
    General,
    ContextWindow,
    ContentPolicy,
}

/// Reads the file into what is written.
pub(super) fn read(root: &Node, options: &Options<'_>, remarks: &mut Remarks) -> File {
    let mut file = File::default();
    let mut settings = Settings::default();
    // The router's own section goes before the library's.
    for section in ["litellm_settings", "router_settings"] {
        for (key, value) in root.at(section).map_or(&[][..], |section| section.entries()) {
            settings.read(section, key, value, &mut file, remarks);
        }
    }
    for (key, value) in root.entries() {
        match key.as_str() {
            "model_list" | "litellm_settings" | "router_settings" => {}
            // Only read for settings that are no secrets.
            "environment_variables" => {}
            "general_settings" => general(value, remarks),
            _ => remarks.not_taken(value, key),
        }
    }
    let variables = root.at("environment_variables");
    let set_here = |variable: &str| Some(variables?.at(variable)?.text()?.to_owned());
    let variable = |name: &str| set_here(name).or_else(|| (options.variable)(name));
    let options = Options { variable: &variable, ..*options };
    let deployments: Vec<_> = root
        .at("model_list")
        .map_or(&[][..], |list| list.items())
        .iter()
        .filter_map(|entry| deployment::read(entry, &options, remarks))
        .collect();
    if deployments.is_empty() {
        remarks.add(root, "there is no deployment in model_list that could be taken".to_owned());
    }
    for deployment in &deployments {
        file.add_provider(&deployment.provider, &options, remarks);
        file.add_price(deployment);
    }
    settings.routes(&deployments, &mut file, root, remarks);
    file
}

impl Settings {
    fn read(&mut self, section: &str, key: &str, value: &Node, file: &mut File, remarks: &mut Remarks) {
        if value.is_null() {
            return;
        }
        let count = || {
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within bounds")]
            value.number().filter(|number| (0.0..=1e6).contains(number)).map(|number| number as u32)
        };
        match key {
            "routing_strategy" => self.strategy = strategy(value, remarks),
            "num_retries" => self.retries = count(),
            "timeout" | "request_timeout" => self.timeout_ms = super::milliseconds(value),
            "enable_tag_filtering" => self.filters_tags = value.truth() == Some(true),
            "fallbacks" => self.add_fallbacks(Fallback::General, value, remarks),
            "context_window_fallbacks" => self.add_fallbacks(Fallback::ContextWindow, value, remarks),
            "content_policy_fallbacks" => self.add_fallbacks(Fallback::ContentPolicy, value, remarks),
            "default_fallbacks" => {
                let groups = value.items().iter().filter_map(|item| item.text().map(str::to_owned)).collect();
                self.fallbacks.push((Fallback::General, "*".to_owned(), groups));
            }
            "model_group_alias" => {
                for (alias, group) in value.entries() {
                    let group = group.text().or_else(|| group.at("model")?.text());
                    if let Some(group) = group {
                        self.aliases.push((alias.clone(), group.to_owned()));
                    }
                }
            }
            "allowed_fails" => {
                file.breaker_failures = count().map(|fails| (fails + 1).min(1_000_000));
                remarks.add(value, "allowed_fails counts failures in a minute there and in a row here".to_owned());
            }
            "cooldown_time" => file.breaker_open_ms = super::milliseconds(value),
            "max_budget" => file.budget_usd = value.number().filter(|dollars| (0.0..=9e6).contains(dollars)),
            "budget_duration" => match value.text() {
                Some("1d" | "24h") => file.budget_monthly = Some(false),
                Some("1mo" | "30d") => {
                    file.budget_monthly = Some(true);
                    remarks.add(value, "the budget's thirty days have become a calendar month".to_owned());
                }
                _ => remarks
                    .add(value, "budgets here are for a calendar day or month; max_budget is not taken".to_owned()),
            },
            "cache" if value.truth() == Some(true) => {
                remarks.add(value, "the cache is off until a route has one: docs/cache.md".to_owned());
            }
            // Nothing to do: fields that a provider does not know pass through, and nobody is told anything.
            "drop_params" | "telemetry" | "set_verbose" | "cache" => {}
            _ => remarks.not_taken(value, &format!("{section}.{key}")),
        }
    }

    fn add_fallbacks(&mut self, kind: Fallback, value: &Node, remarks: &mut Remarks) {
        for item in value.items() {
            for (group, others) in item.entries() {
                let mut names = Vec::new();
                for other in others.items() {
                    match other.text().or_else(|| other.at("model")?.text()) {
                        Some(name) => names.push(name.to_owned()),
                        None => remarks.add(other, format!("a fallback of {group} that names no model is left out")),
                    }
                    if other.at("messages").is_some() {
                        remarks.add(other, format!("the fallbacks of {group} get the caller's own messages"));
                    }
                }
                self.fallbacks.push((kind, group.clone(), names));
            }
        }
    }

    fn routes(&self, deployments: &[Deployment], file: &mut File, root: &Node, remarks: &mut Remarks) {
        let mut groups: Vec<&str> = Vec::new();
        for deployment in deployments {
            if !groups.contains(&deployment.group.as_str()) {
                groups.push(&deployment.group);
            }
        }
        let mut names = HashSet::new();
        for group in &groups {
            let own: Vec<_> = deployments.iter().filter(|deployment| deployment.group == *group).collect();
            let mut route =
                Route { name: route_name(group, &mut names), models: vec![(*group).to_owned()], ..Route::default() };
            for (alias, to) in &self.aliases {
                if to == group && !group.contains('*') && super::is_name(alias) && route.models.len() < 256 {
                    route.models.push(alias.clone());
                }
            }
            route.strategy = if own.len() > 1 { Some(self.strategy.unwrap_or("weights")) } else { None };
            route.timeout_ms = self.timeout_ms;
            for deployment in &own {
                self.add_candidate(&mut route, deployment, &own, 0, file);
            }
            let own_count = route.candidates.len();
            self.add_standins(&mut route, group, deployments, file, root, remarks);
            self.set_attempts(&mut route, own_count);
            if route.too_many {
                remarks.add(
                    root,
                    format!("model {group}: only the first {CANDIDATES_MAX} deployments and stand-ins are taken"),
                );
            }
            file.routes.push(route);
        }
        for (alias, to) in self.aliases.iter().filter(|(_, to)| !groups.contains(&to.as_str()) || to.contains('*')) {
            remarks.add(
                root,
                format!("the alias {alias} is left out: there is no group {to} that a name could stand for"),
            );
        }
    }

    fn set_attempts(&self, route: &mut Route, own: usize) {
        let Some(retries) = self.retries else { return };
        let all = u32::try_from(route.candidates.len()).unwrap_or(u32::MAX);
        // As often within the group as there, and each that stands in once.
        let standins = all - u32::try_from(own).unwrap_or(all);
        route.attempts_max = Some((retries + 1 + standins).clamp(1, 64));
        route.same_candidate_max = (own == 1 && retries > 0).then_some(retries.min(63));
    }

    /// Those of other groups, each group a tier of its own behind the ones before.
    fn add_standins(
        &self,
        route: &mut Route,
        group: &str,
        deployments: &[Deployment],
        file: &mut File,
        root: &Node,
        remarks: &mut Remarks,
    ) {
        let named: Vec<_> = self.fallbacks.iter().filter(|(_, of, _)| of == group).collect();
        // As there: who has fallbacks of their own does not get the general ones.
        let general = named.iter().any(|(kind, _, _)| *kind == Fallback::General);
        let all = self.fallbacks.iter().filter(|(_, of, _)| of == "*" && group != "*" && !general);
        for (kind, _, others) in named.into_iter().chain(all) {
            match kind {
                Fallback::General => {}
                Fallback::ContextWindow => remarks.add(
                    root,
                    format!(
                        "model {group}: those who stand in for prompts that are too long are asked after other failures, too; \
                         give the first ones their context_tokens and nobody has to refuse first"
                    ),
                ),
                Fallback::ContentPolicy => route.after_content_refused = true,
            }
            for other in others.iter().filter(|other| *other != group) {
                let found: Vec<_> = deployments.iter().filter(|deployment| deployment.group == *other).collect();
                if found.is_empty() || other.contains('*') {
                    remarks
                        .add(root, format!("model {group}: its fallback {other} is left out: no group has that name"));
                    continue;
                }
                let tier = route.candidates.iter().map(|candidate| candidate.tier).max().unwrap_or(0).saturating_add(1);
                for deployment in &found {
                    self.add_candidate(route, deployment, &found, tier, file);
                }
            }
        }
    }

    fn add_candidate(&self, route: &mut Route, deployment: &Deployment, group: &[&Deployment], tier: u32, file: &File) {
        let lowest = group.iter().map(|one| one.order).min().unwrap_or(0);
        let weights = group.len() > 1 && matches!(self.strategy, None | Some("weights"));
        let candidate = Candidate {
            provider: file.name_of(&deployment.provider).to_owned(),
            // A name that callers may use, too, needs no other; a star always stands for the route's.
            model: deployment.model.clone(),
            tier: tier.saturating_add(deployment.order - lowest),
            weight: if weights { weight(deployment, group) } else { None },
            reach: deployment.reach,
            context_tokens: deployment.context_tokens,
            lacks: deployment.lacks.clone(),
            requests_max: deployment.requests_max,
            first_byte_timeout_ms: deployment.first_byte_timeout_ms,
            tags: if self.filters_tags { deployment.tags.clone() } else { Vec::new() },
        };
        let same = |one: &Candidate| {
            (&one.provider, &one.model, &one.tags) == (&candidate.provider, &candidate.model, &candidate.tags)
        };
        match route.candidates.iter().position(same) {
            // Twice the same is twice the share; standing in for oneself is nothing.
            Some(at) if route.candidates[at].tier == candidate.tier => {
                let one = &mut route.candidates[at];
                let weight = one.weight.unwrap_or(1).saturating_add(candidate.weight.unwrap_or(1));
                one.weight = Some(weight.min(1_000_000));
            }
            Some(_) => {}
            None if route.candidates.len() < CANDIDATES_MAX => route.candidates.push(candidate),
            None => route.too_many = true,
        }
    }
}

/// As LiteLLM's shuffle has it: by `weight` if one has it, else by `rpm`, else by `tpm`.
fn weight(deployment: &Deployment, group: &[&Deployment]) -> Option<u32> {
    type Share = fn(&Deployment) -> Option<f64>;
    let shares: [Share; 3] = [|one| one.weight, |one| one.requests_per_minute, |one| one.tokens_per_minute];
    let share = shares.into_iter().find(|share| group.iter().any(|one| share(one).is_some()))?;
    let most = group.iter().filter_map(|one| share(one)).fold(0.0, f64::max);
    if most <= 0.0 {
        return Some(1);
    }
    // Thousandths of the largest keep the proportion of fractions, such as 0.9 and 0.1.
    let scale = if group.iter().all(|one| share(one).is_none_or(|share| share.fract() == 0.0 && share <= 1e6)) {
        1.0
    } else {
        1000.0 / most
    };
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to a million")]
    share(deployment).map_or(Some(0), |share| Some((share * scale).round() as u32))
}

fn strategy(value: &Node, remarks: &mut Remarks) -> Option<&'static str> {
    match value.text()? {
        "simple-shuffle" => Some("weights"),
        "least-busy" => Some("busy"),
        "latency-based-routing" => Some("latency"),
        "cost-based-routing" => Some("cost"),
        word @ ("usage-based-routing" | "usage-based-routing-v2") => {
            remarks.add(
                value,
                format!("{word} has become `busy`: the fewest requests now, not the fewest tokens this minute"),
            );
            Some("busy")
        }
        other => {
            remarks.add(
                value,
                format!("there is no strategy like {other}; routes with several candidates have `weights`"),
            );
            None
        }
    }
}

fn general(section: &Node, remarks: &mut Remarks) {
    for (key, value) in section.entries() {
        match key.as_str() {
            "master_key" => remarks.add(
                value,
                "the master key is not taken: `forebay key` makes one for the operator, and one for each app"
                    .to_owned(),
            ),
            // Everything is in the gateway's own state folder.
            "database_url" | "store_model_in_db" | "database_connection_pool_limit" => {}
            key if key.starts_with("proxy_batch") || key.starts_with("proxy_budget") => {}
            key => remarks.not_taken(value, &format!("general_settings.{key}")),
        }
    }
}

/// A name for a route that no other has.
fn route_name(group: &str, names: &mut HashSet<String>) -> String {
    let base = plain_name(&group.replace('*', "all"));
    let mut name = base.clone();
    let mut number = 2;
    while !names.insert(name.clone()) {
        name = numbered(&base, number);
        number += 1;
    }
    name
}

/// As near to `text` as a name may be.
pub(super) fn plain_name(text: &str) -> String {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let name: String = text.chars().map(|c| if allowed(c) { c } else { '-' }).collect();
    let name = name.trim_start_matches('.');
    let name: String = name.chars().take(60).collect();
    if Name::new(&name).is_ok() { name } else { "route".to_owned() }
}

pub(super) fn numbered(base: &str, number: u32) -> String {
    let kept: String = base.chars().take(55).collect();
    format!("{kept}-{number}")
}

impl File {
    fn add_provider(&mut self, provider: &Provider, options: &Options<'_>, remarks: &mut Remarks) {
        if self.providers.iter().any(|(_, known, _)| known == provider) {
            return;
        }
        let base = plain_name(&provider.prefix);
        let taken = |name: &str| self.providers.iter().any(|(known, _, _)| known == name);
        let name = if taken(&base) || base == "local" {
            (2..).map(|number| numbered(&base, number)).find(|name| !taken(name)).expect("numbers do not end")
        } else {
            base
        };
        let folder = options.keys.trim_end_matches('/');
        let key_file = match &provider.key {
            Key::None => None,
            Key::Path(path) => Some(path.clone()),
            Key::Aws => {
                let path = format!("{folder}/{name}-credentials");
                remarks.general(format!(
                    "provider {name}: write an AWS credentials file (aws_access_key_id and aws_secret_access_key under [default]) to {path}"
                ));
                Some(path)
            }
            Key::Variable(variable) if provider.kind == "vertex" => {
                let path = format!("{folder}/{name}.json");
                remarks.general(format!(
                    "provider {name}: copy the service account's JSON that ${variable} has or names to {path}"
                ));
                Some(path)
            }
            Key::Variable(variable) => {
                let path = format!("{folder}/{}", plain_name(&variable.to_ascii_lowercase().replace('_', "-")));
                remarks.general(format!("provider {name}: write what ${variable} has into {path}"));
                Some(path)
            }
            Key::Literal(_) => {
                let path = format!("{folder}/{name}-key");
                remarks.general(format!(
                    "provider {name}: its key stands in the file that was imported; write it into {path}, and make a new one, \
                     since many may have read that file"
                ));
                Some(path)
            }
        };
        self.providers.push((name, provider.clone(), key_file));
    }

    fn name_of(&self, provider: &Provider) -> &str {
        let found = self.providers.iter().find(|(_, known, _)| known == provider);
        found.map(|(name, _, _)| name.as_str()).expect("every deployment's provider was added")
    }

    fn add_price(&mut self, deployment: &Deployment) {
        let rates = &deployment.rates;
        if deployment.model.contains('*') || (rates.named.is_empty() && rates.like.is_none()) {
            return;
        }
        let price = Price {
            provider: self.name_of(&deployment.provider).to_owned(),
            model: deployment.model.clone(),
            // Azure's deployments are priced as what they deploy.
            like: rates.like.as_ref().filter(|_| rates.named.is_empty()).map(|model| match model.contains('/') {
                true => model.clone(),
                false => format!("{}/{model}", if deployment.provider.prefix == "azure" { "azure" } else { "openai" }),
            }),
            rates: rates.named.clone(),
        };
        if !self.prices.iter().any(|known| (&known.provider, &known.model) == (&price.provider, &price.model)) {
            self.prices.push(price);
        }
    }
}
