//! How much the log says, asked and changed while the gateway runs.

use std::sync::{Mutex, MutexGuard, PoisonError};

use tracing::level_filters::LevelFilter;

type Change = Box<dyn Fn(LevelFilter) -> Result<(), String> + Send + Sync>;

/// The log's level.
pub struct Logging {
    change: Change,
    now: Mutex<LevelFilter>,
}

impl Logging {
    /// At `now`; `change` makes another one count, or says why not.
    pub fn new(now: LevelFilter, change: Change) -> Self {
        Self { change, now: Mutex::new(now) }
    }

    /// What is logged now: this and what is graver.
    pub fn level(&self) -> LevelFilter {
        *self.now()
    }

    /// `choose` makes a new level of the one that counts now, which counts for the whole process from then on. `who` is
    /// named in the log.
    pub fn change(
        &self,
        who: &str,
        choose: impl FnOnce(LevelFilter) -> Result<LevelFilter, String>,
    ) -> Result<(), String> {
        let mut now = self.now();
        let wanted = choose(*now)?;
        if wanted != *now {
            // Before it is quieter, and after it is louder: one of the two is seen, also where the log is for errors alone.
            let (from, to) = (now.to_string(), wanted.to_string());
            tracing::warn!(identity.name = who, from, to, "the log's level is being changed");
            (self.change)(wanted)?;
            *now = wanted;
        }
        Ok(())
    }

    fn now(&self) -> MutexGuard<'_, LevelFilter> {
        // A change that panics has not changed it here.
        self.now.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn a_level_counts_only_if_it_could_be_set() {
        let seen: Arc<Mutex<Vec<LevelFilter>>> = Arc::default();
        let told = Arc::clone(&seen);
        let logging = Logging::new(
            LevelFilter::INFO,
            Box::new(move |level| {
                told.lock().unwrap().push(level);
                if level == LevelFilter::TRACE { Err("too loud".to_owned()) } else { Ok(()) }
            }),
        );
        logging.change("a", |_| Ok(LevelFilter::DEBUG)).unwrap();
        logging.change("a", Ok).unwrap();
        assert_eq!(logging.change("a", |_| Ok(LevelFilter::TRACE)), Err("too loud".to_owned()));
        assert_eq!(logging.change("a", |_| Err("no".to_owned())), Err("no".to_owned()));
        assert_eq!(logging.level(), LevelFilter::DEBUG);
        assert_eq!(*seen.lock().unwrap(), [LevelFilter::DEBUG, LevelFilter::TRACE]);
    }
}
