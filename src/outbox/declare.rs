//! Losses first: a ledger entry that says what was lost does not wait for the rows in front of it.

use rusqlite::{Connection, OptionalExtension};

use super::batch::{Batch, BatchId};
use super::error::Error;
use super::pick::{Candidate, gap_of};
use super::queue::Outbox;
use super::rows::gap_holds;
use super::stream::Class;
use crate::store;

impl Outbox {
    /// The next ledger entry that says that rows were lost and that is not in flight, alone in its batch; alarms' streams
    /// first. Entries that only skip numbers travel with the rows around them.
    pub async fn next_declaration(&self, in_flight: &[BatchId]) -> Result<Option<Batch>, Error> {
        let mut candidates = self.candidates(in_flight);
        {
            let streams = self.state.lock();
            candidates.retain(|candidate| streams.all[candidate.stream.at].entries > 0);
        }
        if candidates.is_empty() {
            return Ok(None);
        }
        candidates.sort_by_key(|candidate| candidate.key.class != Class::Alarm);
        let read = move |connection: &Connection| first_loss(connection, candidates);
        let Some((Candidate { stream, key, .. }, gap)) = self.reader.read(read).await? else { return Ok(None) };
        let (first, last) = (gap.first, gap.last);
        let epoch = key.epoch.unwrap_or(self.epoch);
        let id = BatchId { stream, first, last };
        Ok(Some(Batch { id, stream: key, epoch, first, last, rows: Vec::new(), gaps: vec![gap] }))
    }

    /// Grows with every loss that is entered into the ledger.
    pub fn losses(&self) -> u64 {
        self.state.losses.load(std::sync::atomic::Ordering::Acquire)
    }
}

fn first_loss(
    connection: &Connection,
    candidates: Vec<Candidate>,
) -> Result<Option<(Candidate, super::batch::Gap)>, store::Error> {
    let mut statement = connection.prepare_cached(concat!(
        "SELECT first, last, count, reason, wall_ms FROM outbox_gap
         WHERE stream_no = ?1 AND last >= ?2 AND first <= ?3 AND count > 0 AND ",
        gap_holds!(),
        " ORDER BY first LIMIT 1"
    ))?;
    for candidate in candidates {
        let part = (candidate.stream.no, candidate.from.cast_signed(), candidate.last.cast_signed());
        let gap = statement.query_row(part, |row| Ok(gap_of(row, &candidate))).optional()?;
        if let Some(gap) = gap {
            return Ok(Some((candidate, gap?)));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use crate::base::Seq;
    use crate::outbox::fixture::{bodies, gaps, open};
    use crate::outbox::{Class, GapReason};

    #[tokio::test]
    async fn a_loss_is_told_before_the_rows_in_front_of_it_alarms_first_and_only_once() {
        let folder = tempfile::tempdir().unwrap();
        let bench = open(&folder);
        let (raw, alarms) = (bench.stream("press", Class::Raw), bench.stream("press", Class::Alarm));
        bench.append(raw, &["1", "2", "3", "4", "5"]).await;
        bench.append(alarms, &["1", "2"]).await;
        assert_eq!(bench.outbox.next_declaration(&[]).await.unwrap(), None);
        let before = bench.outbox.losses();
        bench.outbox.give_up(raw, Seq(4), GapReason::Unsendable).await.unwrap();
        bench.outbox.give_up(alarms, Seq(2), GapReason::Unsendable).await.unwrap();
        assert!(bench.outbox.losses() > before);
        let first = bench.outbox.next_declaration(&[]).await.unwrap().unwrap();
        assert_eq!((first.stream.class, gaps(&first)), (Class::Alarm, vec![(2, 2, 1, "unsendable")]));
        let second = bench.outbox.next_declaration(&[first.id]).await.unwrap().unwrap();
        assert_eq!((second.stream.class, gaps(&second)), (Class::Raw, vec![(4, 4, 1, "unsendable")]));
        let told = [first.id, second.id];
        assert_eq!(bench.outbox.next_declaration(&told).await.unwrap(), None);
        bench.delete(&second).await;
        bench.delete(&first).await;
        let mut rows = Vec::new();
        while let Some(batch) = bench.next().await {
            assert_eq!(gaps(&batch), [], "told already");
            rows.extend(bodies(&batch).into_iter().map(str::to_owned));
            bench.delete(&batch).await;
        }
        assert_eq!(rows, ["1", "1", "2", "3", "5"]);
    }
}
