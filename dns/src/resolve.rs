//! What becomes of a query: pure, so that it can be tested and fuzzed without a socket.

use crate::answer::{self, Carrier};
use crate::names::Names;
use crate::question::Question;

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Resolution {
    /// This is the answer.
    Answer(Vec<u8>),
    /// Whoever was asked has to answer it.
    Forward,
    /// It is dropped.
    Malformed,
}

/// Answers a query from the names, if it is theirs.
pub fn resolve(names: &Names, query: &[u8], carrier: Carrier) -> Resolution {
    let question = match Question::parse(query) {
        Ok(Question::Address(question)) => question,
        Ok(Question::Other) => return Resolution::Forward,
        Err(_) => return Resolution::Malformed,
    };
    let name = question.query.name().to_lowercase().to_ascii();
    let Some(found) = names.find(name.strip_suffix('.').unwrap_or(&name)) else {
        return Resolution::Forward;
    };
    // A question that could be read can be repeated in an answer; if not, it is its fault.
    answer::found(&question, &found, carrier).map_or(Resolution::Malformed, Resolution::Answer)
}
