//! Which field of every message is honoured, refused or without effect: found by trying, not by declaration.
//!
//! [`probe`](Table::probe) sets every field of every message that the validators look into, with every enum value, every
//! arm of a `oneof` and every type of an extension, on an example that is accepted, and looks at what becomes of it. A
//! field that is accepted, changes nothing and has no reason for that beside its validator is an error. Out comes a
//! [`Table`], which is printed as `docs/xds.md` and against which the tests hold what istiod sends.

mod capture;
mod check;
mod examples;
mod markdown;
mod places;
mod pointer;
mod probe;
mod table;
mod values;

pub use capture::{Captured, capture};
pub use check::Seen;
pub use table::{Entry, Fate, Table};
