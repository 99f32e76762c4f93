//! What a model on this box costs: the time of its cores, and their energy.

use super::Error;
use super::config::LocalConfig;

/// Most of any of the settings: 10,000 USD an hour or a kilowatt-hour, 10,000 W a core.
const MAX: f64 = 10_000.0;

/// Prices of this box.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalPrices {
    micro_usd_per_cpu_hour: Option<u64>,
    micro_usd_per_kwh: Option<u64>,
    milliwatts_per_core: Option<u64>,
}

/// What a request used here.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalUse {
    /// Time of cores, all threads together, in microseconds.
    pub cpu_us: u64,
}

/// What that comes to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LocalCost {
    /// 10^-12 US dollars; none if no price is set, or energy has a price and is not known.
    pub pico_usd: Option<u64>,
    /// Microwatt-hours, from the time of the cores; none if nobody said what a busy core draws.
    pub energy_uwh: Option<u64>,
}

impl LocalPrices {
    /// Checks and keeps `[prices.local]`.
    ///
    /// # Errors
    /// [`Error::Setting`] for one that is not a number from 0 to 10,000.
    pub fn new(config: &LocalConfig) -> Result<Self, Error> {
        let of = |name: &str, value: Option<f64>, scale: f64| match value {
            None => Ok(None),
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 10^10")]
            Some(value) if (0.0..=MAX).contains(&value) => Ok(Some((value * scale).round() as u64)),
            Some(value) => Err(Error::Setting {
                path: format!("prices.local.{name}"),
                why: format!("{value} is not from 0 to 10,000"),
            }),
        };
        Ok(Self {
            micro_usd_per_cpu_hour: of("usd_per_cpu_hour", config.usd_per_cpu_hour, 1e6)?,
            micro_usd_per_kwh: of("usd_per_kwh", config.usd_per_kwh, 1e6)?,
            milliwatts_per_core: of("watts_per_core", config.watts_per_core, 1e3)?,
        })
    }

    /// The cost and energy of `used`. Halves are rounded up.
    pub fn cost(&self, used: &LocalUse) -> LocalCost {
        // 1 mW for 1 us is 1 nJ, and 1 uWh is 3.6 mJ.
        let energy_uwh = self.milliwatts_per_core.map(|power| share(used.cpu_us, power, 3_600_000));
        // An hour has 3.6 * 10^9 us, a micro-USD 10^6 pico-USD.
        let time = self.micro_usd_per_cpu_hour.map(|price| share(used.cpu_us, price, 3_600));
        let energy = self.micro_usd_per_kwh.map(|price| energy_uwh.map(|energy| share(energy, price, 1_000)));
        let pico_usd = match (time, energy) {
            (None, None) | (_, Some(None)) => None,
            (Some(time), None) => Some(time),
            (time, Some(Some(energy))) => Some(time.unwrap_or(0).saturating_add(energy)),
        };
        LocalCost { pico_usd, energy_uwh }
    }
}

/// `a * b / divisor`, to the nearest whole number, at most `u64::MAX`.
fn share(a: u64, b: u64, divisor: u64) -> u64 {
    let exact = u128::from(a) * u128::from(b) + u128::from(divisor / 2);
    u64::try_from(exact / u128::from(divisor)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prices(toml: &str) -> LocalPrices {
        LocalPrices::new(&toml::from_str(toml).unwrap()).unwrap()
    }

    #[test]
    fn an_hour_of_a_core_costs_its_price_and_its_energy() {
        let prices = prices("usd_per_cpu_hour = 0.04\nusd_per_kwh = 0.30\nwatts_per_core = 6");
        let cost = prices.cost(&LocalUse { cpu_us: 3_600_000_000 });
        assert_eq!(cost.energy_uwh, Some(6_000_000), "6 Wh");
        assert_eq!(cost.pico_usd, Some(40_000_000_000 + 1_800_000_000), "4 cents, and 6 Wh at 30 cents a kWh");
    }

    #[test]
    fn what_is_not_set_is_unknown_and_not_free() {
        let used = LocalUse { cpu_us: 1_000_000 };
        assert_eq!(prices("").cost(&used), LocalCost::default());
        assert_eq!(prices("watts_per_core = 3.6").cost(&used), LocalCost { pico_usd: None, energy_uwh: Some(1_000) });
        let unmeasured = prices("usd_per_cpu_hour = 1\nusd_per_kwh = 0.3").cost(&used);
        assert_eq!(unmeasured.pico_usd, None, "a part is missing");
        assert_eq!(prices("usd_per_cpu_hour = 0").cost(&used).pico_usd, Some(0), "an operator's own 0 is a price");
    }

    #[test]
    fn impossible_numbers_are_refused_or_held_at_the_end() {
        for wrong in ["usd_per_kwh = -1", "watts_per_core = nan", "usd_per_cpu_hour = 1e9"] {
            let error = LocalPrices::new(&toml::from_str(wrong).unwrap()).unwrap_err().to_string();
            assert!(error.contains("prices.local.") && error.contains("10,000"), "{error}");
        }
        let prices = prices("usd_per_cpu_hour = 10000\nusd_per_kwh = 10000\nwatts_per_core = 10000");
        assert_eq!(prices.cost(&LocalUse { cpu_us: u64::MAX }).pico_usd, Some(u64::MAX));
    }
}
