//! Settings from the environment: `FOREBAY__HTTP__ADDRESS=0.0.0.0:80` overrides `[http] address`.

use toml::{Table, Value};

use super::{Config, Diagnosis, nearest};

const PREFIX: &str = "FOREBAY__";

/// Variables that begin with `FOREBAY__`, sorted, so that the outcome does not depend on the environment's order.
#[derive(Debug, Clone, Default)]
pub struct Overrides(Vec<(String, String)>);

impl Overrides {
    /// Picks them out of the environment.
    pub fn from_environment(variables: impl IntoIterator<Item = (String, String)>) -> Self {
        let mut picked: Vec<_> = variables.into_iter().filter(|(name, _)| name.starts_with(PREFIX)).collect();
        picked.sort();
        Self(picked)
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Reads `text` with them on top.
    pub fn apply(&self, text: &str) -> Result<Config, Diagnosis> {
        let mut whole: Table =
            toml::from_str(text).map_err(|error| Diagnosis::of_toml("configuration", text, &error))?;
        for (name, value) in &self.0 {
            let path = name[PREFIX.len()..].to_ascii_lowercase();
            let keys: Vec<_> = path.split("__").collect();
            set(&mut whole, &keys, value)
                .map_err(|problem| Diagnosis::whole(&format!("environment variable {name}"), problem, None))?;
        }
        Config::deserialize_table(whole).map_err(|error| {
            let names: Vec<_> = self.0.iter().map(|(name, _)| name.as_str()).collect();
            Diagnosis::of_toml(&format!("environment ({})", names.join(", ")), "", &error)
        })
    }
}

impl Config {
    fn deserialize_table(table: Table) -> Result<Self, toml::de::Error> {
        <Self as serde::Deserialize>::deserialize(table)
    }
}

fn set(table: &mut Table, keys: &[&str], value: &str) -> Result<(), String> {
    match keys {
        [] | [""] => Err("names no setting; write FOREBAY__SECTION__KEY".to_owned()),
        [key] => {
            table.insert((*key).to_owned(), read(value));
            Ok(())
        }
        [section, rest @ ..] => {
            let known: Vec<_> = table.keys().cloned().collect();
            match table.entry((*section).to_owned()).or_insert_with(|| Value::Table(Table::new())) {
                Value::Table(inner) => set(inner, rest, value),
                _ => {
                    let near = nearest(section, known.iter().map(String::as_str));
                    let hint = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                    Err(format!("`{section}` is no table{hint}"))
                }
            }
        }
    }
}

/// As TOML reads it where it can, otherwise as text.
fn read(value: &str) -> Value {
    let line = format!("value = {value}");
    let parsed = toml::from_str::<Table>(&line).ok().filter(|table| table.len() == 1);
    parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| Value::String(value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn overrides(pairs: &[(&str, &str)]) -> Overrides {
        Overrides::from_environment(pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())))
    }

    #[test]
    fn a_variable_beats_the_file() {
        let text = "[gateway]\nname = \"a\"\n[http]\naddress = \"127.0.0.1:80\"\n";
        let given = [("FOREBAY__HTTP__ADDRESS", "127.0.0.1:9090"), ("FOREBAY__STORE__READERS", "3"), ("HOME", "/")];
        let config = overrides(&given).apply(text).unwrap();
        assert_eq!(config.http.address.port(), 9090);
        assert_eq!(config.store.readers, 3);
    }

    #[test]
    fn a_wrong_variable_is_named() {
        let text = "[gateway]\nname = \"a\"\n";
        let said = overrides(&[("FOREBAY__HTTP__ADRESS", "x")]).apply(text).unwrap_err().to_string();
        assert!(said.contains("FOREBAY__HTTP__ADRESS") && said.contains("did you mean `address`?"), "{said}");
        let said = overrides(&[("FOREBAY__STORE__READERS", "many")]).apply(text).unwrap_err().to_string();
        assert!(said.contains("FOREBAY__STORE__READERS") && said.contains("expected usize"), "{said}");
    }
}
