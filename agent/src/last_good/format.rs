//! The file's format: a header, and one protobuf message behind it.
//!
//! A resource is written once however many workloads have it, and so is a list of resources. The header tells a file that
//! another version wrote, one that was cut off, and one whose bytes have changed from each other.

use std::collections::HashMap;
use std::sync::Arc;

use envoy_types::pb::google::protobuf::Any;
use orlop_plan::snapshot::{Packed, Resource, ResourceType};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use thiserror::Error;

const MAGIC: &[u8; 8] = b"orlop-lg";
/// Rises whenever the message or its meaning changes.
const FORMAT: u32 = 1;
/// Magic, format, length of the message (`u64`), its CRC-32; little-endian.
const HEADER: usize = 8 + 4 + 8 + 4;

/// Why bytes are not a saved configuration.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FormatError {
    /// Something else altogether.
    #[error("it is not a saved configuration")]
    Foreign,
    /// An older or newer agent wrote it.
    #[error("it has format {found}, this agent reads format {FORMAT}")]
    Version {
        /// As it stands in the file.
        found: u32,
    },
    /// The end is missing, or something was added.
    #[error("it has {found} bytes where its header says {expected}")]
    Length {
        /// Bytes behind the header.
        found: u64,
        /// What the header says.
        expected: u64,
    },
    /// A byte has changed.
    #[error("its checksum is wrong")]
    Checksum,
    /// The checksum is right and yet it does not hold together: the agent that wrote it is at fault.
    #[error("it does not hold together: {0}")]
    Inconsistent(String),
}

#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "1")]
    control_plane: String,
    #[prost(message, repeated, tag = "2")]
    resources: Vec<Saved>,
    #[prost(message, repeated, tag = "3")]
    lists: Vec<List>,
    #[prost(message, repeated, tag = "4")]
    workloads: Vec<Workload>,
}

#[derive(Clone, PartialEq, Message)]
struct Saved {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(string, tag = "3")]
    version: String,
    #[prost(bytes = "vec", tag = "4")]
    body: Vec<u8>,
}

/// Resources of one type, by their place in the file.
#[derive(Clone, PartialEq, Eq, Hash, Message)]
struct List {
    #[prost(uint32, repeated, tag = "1")]
    resources: Vec<u32>,
}

#[derive(Clone, PartialEq, Message)]
struct Workload {
    #[prost(string, tag = "1")]
    node_id: String,
    #[prost(uint32, repeated, tag = "2")]
    lists: Vec<u32>,
}

/// Collects what is to be saved.
#[derive(Debug)]
pub struct Writer {
    file: File,
    /// By the address of the bytes, which all workloads with equal resources share.
    resources: HashMap<(ResourceType, usize), u32>,
    lists: HashMap<List, u32>,
}

impl Writer {
    /// For the configuration that came from this control plane.
    pub fn new(control_plane: &str) -> Self {
        let file = File { control_plane: control_plane.to_owned(), ..File::default() };
        Self { file, resources: HashMap::new(), lists: HashMap::new() }
    }

    /// The workload that what follows belongs to.
    pub fn workload(&mut self, node_id: &str) {
        self.file.workloads.push(Workload { node_id: node_id.to_owned(), lists: Vec::new() });
    }

    /// All resources of one type of the workload, be it none. The bytes stay alive until [`finish`](Self::finish).
    pub fn resources<'a>(
        &mut self,
        kind: ResourceType,
        resources: impl Iterator<Item = (&'a Arc<str>, &'a str, &'a Packed)>,
    ) {
        let mut list = List::default();
        for (name, version, body) in resources {
            let next = index(self.file.resources.len());
            list.resources.push(*self.resources.entry((kind, body.identity())).or_insert_with(|| {
                self.file.resources.push(Saved {
                    type_url: kind.type_url().to_owned(),
                    name: name.to_string(),
                    version: version.to_owned(),
                    body: body.bytes(),
                });
                next
            }));
        }
        list.resources.sort_unstable();
        let next = index(self.file.lists.len());
        let at = *self.lists.entry(list).or_insert_with_key(|list| {
            self.file.lists.push(list.clone());
            next
        });
        if let Some(workload) = self.file.workloads.last_mut() {
            workload.lists.push(at);
        }
    }

    /// The file's bytes.
    pub fn finish(self) -> Vec<u8> {
        let body = self.file.encode_to_vec();
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.put_slice(MAGIC);
        bytes.put_u32_le(FORMAT);
        bytes.put_u64_le(body.len() as u64);
        bytes.put_u32_le(crc32fast::hash(&body));
        bytes.put_slice(&body);
        bytes
    }
}

fn index(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// A file that was read.
#[derive(Debug, Default)]
pub struct Contents {
    file: File,
}

impl Contents {
    /// Reads a file's bytes.
    pub fn parse(mut bytes: &[u8]) -> Result<Self, FormatError> {
        if bytes.len() < HEADER || !bytes.starts_with(MAGIC) {
            return Err(FormatError::Foreign);
        }
        bytes.advance(MAGIC.len());
        let found = bytes.get_u32_le();
        if found != FORMAT {
            return Err(FormatError::Version { found });
        }
        let (expected, checksum) = (bytes.get_u64_le(), bytes.get_u32_le());
        let found = bytes.len() as u64;
        if found != expected {
            return Err(FormatError::Length { found, expected });
        }
        if crc32fast::hash(bytes) != checksum {
            return Err(FormatError::Checksum);
        }
        let file = File::decode(bytes).map_err(|error| FormatError::Inconsistent(error.to_string()))?;
        let known = |lists: &[u32], len: usize| lists.iter().all(|at| (*at as usize) < len);
        if !file.lists.iter().all(|list| known(&list.resources, file.resources.len()))
            || !file.workloads.iter().all(|workload| known(&workload.lists, file.lists.len()))
        {
            return Err(FormatError::Inconsistent(
                "a workload names a resource that is not there".to_owned(),
            ));
        }
        Ok(Self { file })
    }

    /// Where the configuration came from.
    pub fn control_plane(&self) -> &str {
        &self.file.control_plane
    }

    /// How many workloads it holds.
    pub fn workloads(&self) -> usize {
        self.file.workloads.len()
    }

    /// What the workload with this node id had, type by type. `None` if it is not among the saved ones.
    pub fn workload(&self, node_id: &str) -> Option<Vec<(ResourceType, Vec<Resource>)>> {
        let workload = self.file.workloads.iter().find(|workload| workload.node_id == node_id)?;
        let lists = workload.lists.iter().filter_map(|at| self.file.lists.get(*at as usize));
        let mut by_type: Vec<(ResourceType, Vec<Resource>)> =
            ResourceType::ALL.into_iter().map(|kind| (kind, Vec::new())).collect();
        for at in lists.flat_map(|list| &list.resources) {
            let Some(saved) = self.file.resources.get(*at as usize) else { continue };
            if let Some((kind, list)) = by_type.iter_mut().find(|(kind, _)| kind.type_url() == saved.type_url)
            {
                list.push(saved.resource(*kind));
            }
        }
        Some(by_type)
    }
}

impl Saved {
    fn resource(&self, kind: ResourceType) -> Resource {
        Resource {
            name: self.name.clone(),
            version: self.version.clone(),
            body: Any { type_url: kind.type_url().to_owned(), value: self.body.clone() },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_workloads_with_one_cluster() -> Vec<u8> {
        let (name, body): (Arc<str>, _) = ("web".into(), Packed::new(b"bytes of a cluster"));
        let mut writer = Writer::new("istiod:15010");
        for node_id in ["sidecar~10.0.0.1~a.x~x.svc", "sidecar~10.0.0.2~b.x~x.svc"] {
            writer.workload(node_id);
            writer.resources(ResourceType::Cluster, std::iter::once((&name, "7", &body)));
        }
        writer.finish()
    }

    #[test]
    fn what_was_written_is_read() {
        let contents = Contents::parse(&two_workloads_with_one_cluster()).unwrap();

        assert_eq!(contents.control_plane(), "istiod:15010");
        let saved = contents.workload("sidecar~10.0.0.2~b.x~x.svc").unwrap();
        let (kind, clusters) = &saved[0];
        assert_eq!((*kind, clusters.len()), (ResourceType::Cluster, 1));
        assert_eq!((clusters[0].name.as_str(), clusters[0].version.as_str()), ("web", "7"));
        assert_eq!(clusters[0].body.value, b"bytes of a cluster");
        assert!(contents.workload("sidecar~10.0.0.3~c.x~x.svc").is_none());
    }

    #[test]
    fn a_resource_and_a_list_of_several_workloads_are_written_once() {
        let contents = Contents::parse(&two_workloads_with_one_cluster()).unwrap();

        assert_eq!((contents.file.resources.len(), contents.file.lists.len()), (1, 1));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = two_workloads_with_one_cluster();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(Contents::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let good = two_workloads_with_one_cluster();
        for len in 0..good.len() {
            assert!(Contents::parse(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_file_of_another_version_says_so() {
        let mut bytes = two_workloads_with_one_cluster();
        bytes[8] = 9;
        assert_eq!(Contents::parse(&bytes).unwrap_err(), FormatError::Version { found: 9 });
    }
}
