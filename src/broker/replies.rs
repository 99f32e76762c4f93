//! Answers to one connection's publishes, in the order in which the publishes came.

use std::collections::VecDeque;

use crate::base::Refusal;

/// Which packet answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// To a QoS 1 PUBLISH.
    Puback,
    /// To a QoS 2 PUBLISH.
    Pubrec,
    /// To a PUBREL.
    Pubcomp,
}

/// What it says. The door chooses the reason code.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Every holder has it on disk, or nobody has to.
    Kept,
    /// Nobody subscribes and no stream takes it.
    NoSubscribers,
    /// PUBREL for a packet id that is not held.
    UnknownId,
    /// The identity may not publish here.
    NotAuthorized,
    /// The topic name is malformed.
    Topic,
    /// A holder refused.
    Refused(Refusal),
}

/// One answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reply {
    /// Which packet.
    pub kind: ReplyKind,
    /// To which packet id.
    pub packet_id: u16,
    /// What it says.
    pub verdict: Verdict,
}

#[derive(Debug)]
struct Pending {
    kind: ReplyKind,
    packet_id: u16,
    verdict: Option<Verdict>,
}

/// Names one place in the line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket(u64);

/// The line of answers of one connection. Its length is bounded by the Receive Maximum.
#[derive(Debug, Default)]
pub(super) struct Replies {
    first: u64,
    line: VecDeque<Pending>,
}

impl Replies {
    /// Takes a place; the answer comes later.
    pub(super) fn open(&mut self, kind: ReplyKind, packet_id: u16) -> Ticket {
        let ticket = Ticket(self.first + self.line.len() as u64);
        self.line.push_back(Pending { kind, packet_id, verdict: None });
        ticket
    }

    /// Takes a place and answers at once.
    pub(super) fn answer(&mut self, reply: Reply) {
        let Reply { kind, packet_id, verdict } = reply;
        self.line.push_back(Pending { kind, packet_id, verdict: Some(verdict) });
    }

    /// Answers. True if the line can move.
    pub(super) fn settle(&mut self, ticket: Ticket, verdict: Verdict) -> bool {
        let at = ticket.0.checked_sub(self.first).and_then(|at| usize::try_from(at).ok());
        if let Some(pending) = at.and_then(|at| self.line.get_mut(at)) {
            pending.verdict.get_or_insert(verdict);
        }
        at == Some(0)
    }

    /// The next answer, if everything before it has been answered.
    pub(super) fn next(&mut self) -> Option<Reply> {
        let Pending { kind, packet_id, verdict } = self.line.front()?;
        let reply = Reply { kind: *kind, packet_id: *packet_id, verdict: (*verdict)? };
        self.line.pop_front();
        self.first += 1;
        Some(reply)
    }

    /// Publishes that wait for an answer, or behind one that does.
    pub(super) fn unanswered(&self) -> usize {
        match self.line.front() {
            Some(Pending { verdict: None, .. }) => self.line.len(),
            _ => 0,
        }
    }

    /// Gives memory back when nobody waits.
    pub(super) fn rest(&mut self) {
        if self.line.is_empty() && self.line.capacity() > 32 {
            self.line.shrink_to(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_leave_in_the_order_of_the_publishes() {
        let mut replies = Replies::default();
        let first = replies.open(ReplyKind::Puback, 5);
        let second = replies.open(ReplyKind::Pubrec, 3);
        replies.answer(Reply { kind: ReplyKind::Puback, packet_id: 9, verdict: Verdict::NoSubscribers });
        assert!(!replies.settle(second, Verdict::Kept));
        assert_eq!(replies.next(), None);
        assert!(replies.settle(first, Verdict::Refused(Refusal::Disk)));
        let order: Vec<u16> = std::iter::from_fn(|| replies.next()).map(|reply| reply.packet_id).collect();
        assert_eq!(order, [5, 3, 9]);
    }

    #[test]
    fn a_late_answer_to_a_gone_place_changes_nothing() {
        let mut replies = Replies::default();
        let gone = replies.open(ReplyKind::Puback, 1);
        replies.settle(gone, Verdict::Kept);
        replies.next();
        let here = replies.open(ReplyKind::Puback, 2);
        assert!(!replies.settle(gone, Verdict::UnknownId));
        assert_eq!(replies.next(), None);
        replies.settle(here, Verdict::Kept);
        assert_eq!(replies.next().unwrap().packet_id, 2);
    }
}
