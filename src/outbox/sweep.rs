//! What time alone makes due: rows that waited too long, and limits that one transaction could not reach.

use std::sync::Arc;

use rusqlite::{Connection, OptionalExtension};

use super::error::Error;
use super::evict::{self, Age};
use super::packs;
use super::queue::Outbox;
use super::size::integer;
use crate::store::{self, Tx};

impl Outbox {
    /// Lets rows go that have waited longer than their class allows, and brings classes below limits that were lowered.
    /// Call it every few seconds. Works in steps, so that readings are not kept waiting.
    pub async fn sweep(&self) -> Result<(), Error> {
        loop {
            let due = self.expired_streams().await?;
            let over_bytes = {
                let streams = self.state.lock();
                evict::is_over(&streams).then(|| streams.bytes())
            };
            if due.is_empty() && over_bytes.is_none() {
                return Ok(());
            }
            let (state, stamp) = (Arc::clone(&self.state), self.clock.stamp());
            // Joining is enough for the limits: the end of the transaction looks at them.
            let work = move |tx: &Tx<'_>| evict::expire(tx, &mut state.join(tx), &due, &stamp);
            let more = self.writer.commit_from_reserve(work).await?;
            let shrunk = over_bytes.is_some_and(|bytes| self.state.lock().bytes() < bytes);
            if !more && !shrunk {
                return Ok(());
            }
        }
    }

    /// Streams whose oldest row has waited too long.
    async fn expired_streams(&self) -> Result<Vec<usize>, Error> {
        let waiting: Vec<(usize, i64, u64)> = {
            let streams = self.state.lock();
            let mortal = |(_, stream): &(usize, &super::state::Stream)| {
                stream.rows > 0 && streams.quota.class(stream.key.class).ttl.is_some()
            };
            let waiting = streams.all.iter().enumerate().filter(mortal);
            waiting.map(|(at, stream)| (at, stream.no, stream.settled + 1)).collect()
        };
        if waiting.is_empty() {
            return Ok(Vec::new());
        }
        let heads = self.reader.read(move |connection| oldest(connection, &waiting)).await?;
        let streams = self.state.lock();
        let stamp = self.clock.stamp();
        let now_ms = streams.uptime.now_ms(stamp.boot_ms);
        let is_due = |(at, age): &(usize, Age)| {
            let ttl = streams.quota.class(streams.all[*at].key.class).ttl;
            ttl.is_some_and(|ttl| streams.uptime.is_over(*age, ttl, now_ms))
        };
        Ok(heads.into_iter().filter(is_due).map(|(at, _)| at).collect())
    }
}

fn oldest(connection: &Connection, waiting: &[(usize, i64, u64)]) -> Result<Vec<(usize, Age)>, store::Error> {
    let mut statement = connection.prepare_cached(
        "SELECT boot_no, boot_ms FROM outbox_row WHERE stream_no = ?1 AND seq >= ?2 ORDER BY seq LIMIT 1",
    )?;
    let mut blocks = connection.prepare_cached(&packs::heads_sql())?;
    let mut heads = Vec::new();
    for &(at, no, from) in waiting {
        let age = statement.query_row((no, from.cast_signed()), |row| {
            Ok((integer(row.get_ref(0)?).unwrap_or(0), integer(row.get_ref(1)?).unwrap_or(0)))
        });
        let block = packs::heads(&mut blocks, no, from, 1)?.first().map(|block| block.age);
        heads.extend(age.optional()?.into_iter().chain(block).min().map(|age| (at, age)));
    }
    Ok(heads)
}

#[cfg(test)]
mod tests {
    use crate::outbox::fixture::{bodies, gaps, key, open_at, open_with};
    use crate::outbox::{Class, ClassConfig, Config, PackConfig, Policy};
    use std::time::Duration;

    fn mortal(ttl_s: u64) -> Config {
        Config { raw: ClassConfig { ttl_s: Some(ttl_s), ..ClassConfig::default() }, ..Config::default() }
    }

    #[tokio::test]
    async fn rows_that_waited_too_long_become_one_ledger_entry_whatever_the_wall_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_with(&folder, &mortal(60));
        let (raw, verdicts) = (bench.stream("press", Class::Raw), bench.stream("press", Class::Verdict));
        for n in 0..10 {
            bench.append(raw, &[&n.to_string()]).await;
            bench.append(verdicts, &["v"]).await;
            bench.clock.advance(Duration::from_secs(10));
        }
        // Somebody sets the clock a year ahead: nothing is older for that.
        bench.clock.set_wall_ms(1_731_000_000_000);
        bench.outbox.sweep().await.unwrap();
        let depth = bench.outbox.depth();
        assert_eq!(depth, [(key("press", Class::Raw), 6), (key("press", Class::Verdict), 10)]);
        let batch = loop {
            let batch = bench.next().await.unwrap();
            if batch.stream.class == Class::Raw {
                break batch;
            }
            bench.delete(&batch).await;
        };
        assert_eq!((gaps(&batch), bodies(&batch)), (vec![(1, 4, 4, "expired")], vec!["4", "5", "6", "7", "8", "9"]));
    }

    #[tokio::test]
    async fn rows_of_earlier_boots_age_by_the_time_the_box_is_on() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open_at(&folder, &mortal(3600), Duration::from_secs(5000));
        let raw = bench.stream("press", Class::Raw);
        bench.append(raw, &["old"]).await;
        bench.clock.advance(Duration::from_secs(1800));
        bench.append(raw, &["young"]).await;
        bench.outbox.close().unwrap();
        bench.store.close();
        // The machine starts again: its time since boot begins anew.
        let bench = open_at(&folder, &mortal(3600), Duration::from_secs(10));
        bench.outbox.sweep().await.unwrap();
        assert_eq!(bench.outbox.depth()[0].1, 2, "1810 s at most");
        bench.clock.advance(Duration::from_secs(1900));
        bench.outbox.sweep().await.unwrap();
        assert_eq!(bench.outbox.depth()[0].1, 1);
        assert_eq!(bodies(&bench.next().await.unwrap()), ["young"]);
    }

    #[tokio::test]
    async fn a_limit_that_was_lowered_is_reached_without_a_new_row() {
        let folder = tempfile::tempdir().unwrap();
        let pack = PackConfig { after_s: 0, ..PackConfig::default() };
        let bench = open_with(&folder, &Config { pack: pack.clone(), ..Config::default() });
        let raw = bench.stream("press", Class::Raw);
        let body = "x".repeat(2000);
        for _ in 0..40 {
            bench.append(raw, &[body.as_str(); 50]).await;
        }
        bench.outbox.close().unwrap();
        bench.store.close();
        let raw = ClassConfig { share_percent: Some(10), policy: Some(Policy::DropOldest), ttl_s: None };
        let bench = open_with(&folder, &Config { max_bytes: Some(10_000_000), pack, raw, ..Config::default() });
        bench.outbox.sweep().await.unwrap();
        let usage = bench.outbox.usage()[3];
        assert!(usage.bytes <= 1_000_000 && usage.bytes > 900_000, "{usage:?}");
        let gap = bench.next().await.unwrap().gaps[0].clone();
        assert_eq!((gap.first.0, gap.count), (1, 2000 - usage.rows));
    }
}
