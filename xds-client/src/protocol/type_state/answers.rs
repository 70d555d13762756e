//! What the server is told of its responses, and when: the consumer's verdict, in their order.

use std::sync::Arc;
use std::time::Instant;

use super::TypeState;
use crate::protocol::pending::{Outstanding, Unanswered};
use crate::protocol::wire::Request;
use crate::protocol::{Protocol, delta};
use crate::shared::Held;

impl TypeState {
    /// The consumer judged the batch.
    pub(in crate::protocol) fn settle(&mut self, rejected: Option<&str>, now: Instant) -> Vec<Request> {
        let Some(Outstanding { digests, responses }) = self.outstanding.take() else {
            return Vec::new();
        };
        let mut edits = Vec::with_capacity(digests.len());
        for (name, digest) in digests {
            if !self.held.contains_key(&name) {
                continue;
            }
            if rejected.is_some() {
                edits.push((name, Some(Held { version: Arc::default(), digest: None })));
                continue;
            }
            if self.pending.upserted.get(&name).map(|pending| pending.digest) == Some(digest)
                && let Some(again) = self.pending.upserted.remove(&name)
            {
                self.set_deadline(Arc::clone(&name), again.deadline);
            }
            let Some(held) = self.held.get(&name) else { continue };
            edits.push((name, Some(Held { digest: Some(digest), ..held.clone() })));
        }
        self.hold(edits);
        self.answer_all(responses, rejected, now)
    }

    /// Answers responses that left the consumer nothing to judge, once those before them are answered.
    pub(in crate::protocol) fn settle_empty(&mut self, now: Instant) -> Vec<Request> {
        if self.outstanding.is_some() || self.has_batch() {
            return Vec::new();
        }
        let responses = std::mem::take(&mut self.pending.responses);
        self.answer_all(responses, None, now)
    }

    /// Judged responses become answers: at once, or when a refusal has waited long enough.
    fn answer_all(
        &mut self,
        responses: Vec<Unanswered>,
        rejected: Option<&str>,
        now: Instant,
    ) -> Vec<Request> {
        for response in responses {
            let fault = response.fault.or_else(|| rejected.map(str::to_owned));
            match fault {
                None => self.refusals.accepted(),
                Some(_) => self.refusals.refused(now),
            }
            self.due.push(Unanswered { fault, ..response });
        }
        self.answers_due(now)
    }

    /// When the answers that wait are due.
    pub(in crate::protocol) fn answers_at(&self) -> Option<Instant> {
        self.refusals.until().filter(|_| !self.due.is_empty())
    }

    /// Answers that do not have to wait any longer.
    pub(in crate::protocol) fn answers_due(&mut self, now: Instant) -> Vec<Request> {
        match self.refusals.until() {
            Some(until) if now < until => Vec::new(),
            _ => self.answer_now(),
        }
    }

    pub(super) fn answer_now(&mut self) -> Vec<Request> {
        self.refusals.released();
        let due = std::mem::take(&mut self.due);
        let mut requests: Vec<_> = due.into_iter().filter_map(|response| self.answer(response)).collect();
        // The answer to the last response is the one that counts at the server. It did not name what has to come again.
        if !requests.is_empty() && !self.owes_answer() {
            let let_go = std::mem::take(&mut self.let_go);
            if let_go.iter().any(|name| self.is_wanted(name)) {
                requests.push(self.progress.subscribe(self.resource_type, self.wanted_names()));
            }
        }
        requests
    }

    fn answer(&mut self, response: Unanswered) -> Option<Request> {
        let Unanswered { nonce, version, fault: rejected } = response;
        match &rejected {
            None => self.status.acked = self.status.acked.saturating_add(1),
            Some(detail) => {
                self.status.nacked = self.status.nacked.saturating_add(1);
                self.status.last_nack = Some(detail.clone());
            }
        }
        // Without a nonce there is nothing that an answer could be to.
        (!nonce.is_empty()).then(|| match self.protocol {
            Protocol::Delta => delta::answer(self.resource_type, nonce, rejected),
            Protocol::StateOfTheWorld => {
                let mut names = self.wanted_names();
                names.retain(|name| !self.let_go.contains(name.as_str()));
                self.progress.answer(self.resource_type, names, version, nonce, rejected)
            }
        })
    }

    /// Whether the server waits for an answer.
    pub(super) fn owes_answer(&self) -> bool {
        let outstanding = self.outstanding.iter().flat_map(|outstanding| &outstanding.responses);
        outstanding.chain(&self.pending.responses).chain(&self.due).any(|response| !response.nonce.is_empty())
    }
}
