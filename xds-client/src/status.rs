//! What can be known about a stream from outside.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::SystemTime;

use serde::Serialize;

use crate::ResourceType;

/// A snapshot of one workload's stream.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct StreamStatus {
    /// Since when the control plane answers; `None` while it does not.
    pub connected_since: Option<SystemTime>,
    /// Attempts to connect since the control plane answered last, or since the start.
    pub attempts: u64,
    /// Why the stream last ended or failed to open.
    pub last_error: Option<String>,
    /// How often the stream moved to a fresh connection before the control plane would have closed the old one.
    pub renewals: u64,
    /// Responses that were dropped, of types that had not been asked for.
    pub unasked: u64,
    /// By type, once anything was received of it.
    pub types: BTreeMap<ResourceType, TypeStatus>,
    /// Files that cannot be used as they are; only with a directory as the control plane.
    pub files: Vec<FileProblem>,
}

/// A snapshot of one type on a stream.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct TypeStatus {
    /// The system version of the last response.
    pub version: String,
    /// The nonce of the last response.
    pub nonce: String,
    /// Resources that the consumer was given and that were not removed since.
    pub resources: usize,
    /// Responses that came, over all connections.
    pub received: u64,
    /// Responses that were accepted, over all connections.
    pub acked: u64,
    /// Responses that were rejected, over all connections.
    pub nacked: u64,
    /// Resources that were removed because the control plane did not prolong their time to live.
    pub expired: u64,
    /// What was wrong with the last response that was rejected.
    pub last_nack: Option<String>,
}

/// A file that was not read as it stands. What it held before, if anything, remains in force.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct FileProblem {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, with line or field.
    pub error: String,
}
