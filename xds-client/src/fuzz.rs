//! Entries for fuzzing: any bytes are a sequence of events for the state machine, in a world that checks its rules.

use std::time::Duration;

use crate::protocol::Protocol;
use crate::protocol::world::{Event, Judgement, NAMES, Nonsense, the_consumer_ends_with_what_the_server_has};
use crate::{Names, ResourceType, Subscriptions};

/// Long sequences find nothing that short ones do not, and cost time.
const MAX_EVENTS: usize = 256;

/// Plays the events with the incremental protocol.
pub fn delta(bytes: &[u8]) {
    the_consumer_ends_with_what_the_server_has(Protocol::Delta, events(bytes));
}

/// Plays the events with the protocol that sends the whole state.
pub fn sotw(bytes: &[u8]) {
    the_consumer_ends_with_what_the_server_has(Protocol::StateOfTheWorld, events(bytes));
}

fn events(bytes: &[u8]) -> Vec<Event> {
    let mut bytes = bytes.iter().copied();
    std::iter::from_fn(|| event(&mut bytes)).take(MAX_EVENTS).collect()
}

fn event(bytes: &mut impl Iterator<Item = u8>) -> Option<Event> {
    Some(match bytes.next()? % 10 {
        0 | 1 => {
            let (resource_type, choice) = (resource_type(bytes)?, bytes.next()?);
            let name = *pick(&NAMES, choice)?;
            Event::Edit(resource_type, name, (choice / 16 != 0).then_some(choice / 16 % 3))
        }
        2 => Event::Connect,
        3 => Event::Disconnect,
        4 => Event::Upload,
        5 => Event::Download,
        6 => {
            let kinds = [
                Nonsense::Twice,
                Nonsense::UpsertedAndRemoved,
                Nonsense::OfAnotherType,
                Nonsense::OfUnknownType,
            ];
            Event::Nonsense(resource_type(bytes)?, *pick(&kinds, bytes.next()?)?)
        }
        7 => Event::Take,
        8 => {
            let judgement = *pick(&[Judgement::Accept, Judgement::Reject, Judgement::Drop], bytes.next()?)?;
            let (first, second) = (bytes.next()?, bytes.next()?);
            let subscriptions = Subscriptions {
                endpoints: names(first),
                routes: names(first >> 4),
                secrets: names(second),
                extensions: names(second >> 4),
            };
            Event::Judge(judgement, subscriptions)
        }
        _ => Event::Wait(Duration::from_millis(u64::from(bytes.next()?) * 16)),
    })
}

fn resource_type(bytes: &mut impl Iterator<Item = u8>) -> Option<ResourceType> {
    pick(&ResourceType::ALL, bytes.next()?).copied()
}

fn names(bits: u8) -> Names {
    crate::names(
        NAMES.into_iter().enumerate().filter(|(index, _)| bits >> index & 1 == 1).map(|(_, name)| name),
    )
}

fn pick<T>(choices: &[T], byte: u8) -> Option<&T> {
    choices.get(usize::from(byte) % choices.len())
}
