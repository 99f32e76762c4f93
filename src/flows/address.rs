//! The topic of a batch: who sends it, what it is.

use crate::base::Name;

use super::batch::Batch;

/// First two levels of every topic.
const TOPIC_ROOT: &str = "fleet/v1";

/// Whose batches a topic carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Address {
    /// The customer or site.
    pub tenant: Name,
    /// The gateway.
    pub gateway: Name,
    /// The class of the stream.
    pub class: Name,
    /// The stream.
    pub stream: Name,
}

impl Address {
    /// `fleet/v1/{tenant}/{gateway}/{class}/{stream}`.
    pub fn topic(&self) -> String {
        format!("{TOPIC_ROOT}/{}/{}/{}/{}", self.tenant, self.gateway, self.class, self.stream)
    }

    /// `fleet/v1/{tenant}/{gateway}/receipt`: where receivers confirm what they keep.
    pub fn receipts(tenant: &Name, gateway: &Name) -> String {
        format!("{TOPIC_ROOT}/{tenant}/{gateway}/receipt")
    }

    /// `fleet/v1/{tenant}/{gateway}/request`: where the cloud asks for something.
    pub fn requests(tenant: &Name, gateway: &Name) -> String {
        format!("{TOPIC_ROOT}/{tenant}/{gateway}/request")
    }

    /// `fleet/v1/{tenant}/{gateway}/response`: where the gateway answers that.
    pub fn responses(tenant: &Name, gateway: &Name) -> String {
        format!("{TOPIC_ROOT}/{tenant}/{gateway}/response")
    }

    /// Reads a topic back; `None` if it is not one of ours.
    pub fn parse(topic: &str) -> Option<Self> {
        let mut levels = topic.strip_prefix(TOPIC_ROOT)?.strip_prefix('/')?.split('/');
        let mut name = || Name::new(levels.next()?).ok();
        let address = Self { tenant: name()?, gateway: name()?, class: name()?, stream: name()? };
        levels.next().is_none().then_some(address)
    }

    /// The filter for everything that a tenant's gateways send; of every tenant without one.
    pub fn filter(tenant: Option<&Name>) -> String {
        format!("{TOPIC_ROOT}/{}/+/+/+", tenant.map_or("+", Name::as_str))
    }

    /// True if the batch says the same about itself as the topic that it came on.
    pub fn is_of(&self, batch: &Batch) -> bool {
        self.gateway == batch.gateway && self.class == batch.class && self.stream == batch.stream
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_topic_reads_back_and_strangers_do_not() {
        let address = Address {
            tenant: Name::new("acme").unwrap(),
            gateway: Name::new("press-7").unwrap(),
            class: Name::new("raw").unwrap(),
            stream: Name::new("temperature").unwrap(),
        };
        assert_eq!(address.topic(), "fleet/v1/acme/press-7/raw/temperature");
        assert_eq!(Address::parse(&address.topic()), Some(address));
        for stranger in ["fleet/v1/a/b/c", "fleet/v1/a/b/c/d/e", "fleet/v2/a/b/c/d", "fleet/v1/a//c/d", "x", ""] {
            assert_eq!(Address::parse(stranger), None, "{stranger}");
        }
    }
}
