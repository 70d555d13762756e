//! The file's format: a header, and one protobuf message behind it.
//!
//! A resource is written once however many workloads have it, and so is a list of resources. The header tells a file that
//! another version wrote, one that was cut off, and one whose bytes have changed from each other.

use std::collections::HashMap;
use std::io::{self, Seek, Write};
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

/// Writes a file piece by piece, so that no more than one resource of it is in memory. What goes wrong is said at the end.
#[derive(Debug)]
pub struct Writer<W> {
    out: W,
    /// Of the message so far.
    len: u64,
    crc: crc32fast::Hasher,
    outcome: io::Result<()>,
    /// By the address of the bytes, which all workloads with equal resources share.
    resources: HashMap<(ResourceType, usize), u32>,
    /// By what is in them.
    lists: HashMap<List, u32>,
    /// By the identity of the stores, which those of many workloads share.
    stores: HashMap<(ResourceType, usize), u32>,
    workload: Option<Workload>,
}

impl<W: Write> Writer<W> {
    /// For the configuration that came from this control plane. `out` is empty.
    pub fn new(out: W, control_plane: &str) -> Self {
        let (resources, lists, stores) = (HashMap::new(), HashMap::new(), HashMap::new());
        let (crc, outcome) = (crc32fast::Hasher::new(), Ok(()));
        let mut this = Self { out, len: 0, crc, outcome, resources, lists, stores, workload: None };
        // The header's place.
        this.write(&[0; HEADER]);
        this.append(&File { control_plane: control_plane.to_owned(), ..File::default() });
        this
    }

    /// The workload that what follows belongs to.
    pub fn workload(&mut self, node_id: &str) {
        let next = Workload { node_id: node_id.to_owned(), lists: Vec::new() };
        if let Some(workload) = self.workload.replace(next) {
            self.append(&File { workloads: vec![workload], ..File::default() });
        }
    }

    /// All resources of one type of the workload, be it none. The bytes, and the store where it has an identity, stay
    /// alive until [`finish`](Self::finish).
    pub fn resources<'a>(
        &mut self,
        kind: ResourceType,
        store: Option<usize>,
        resources: impl Iterator<Item = (&'a Arc<str>, &'a str, &'a Packed)>,
    ) {
        let known = store.and_then(|store| self.stores.get(&(kind, store)).copied());
        let at = known.unwrap_or_else(|| self.list(kind, resources));
        if let Some(store) = store {
            self.stores.insert((kind, store), at);
        }
        if let Some(workload) = &mut self.workload {
            workload.lists.push(at);
        }
    }

    /// Where the list of these resources is, which are written where they are not there yet.
    fn list<'a>(
        &mut self,
        kind: ResourceType,
        resources: impl Iterator<Item = (&'a Arc<str>, &'a str, &'a Packed)>,
    ) -> u32 {
        let mut list = List::default();
        for (name, version, body) in resources {
            let next = index(self.resources.len());
            let at = *self.resources.entry((kind, body.identity())).or_insert(next);
            list.resources.push(at);
            if at == next {
                let saved = Saved {
                    type_url: kind.type_url().to_owned(),
                    name: name.to_string(),
                    version: version.to_owned(),
                    body: body.bytes(),
                };
                self.append(&File { resources: vec![saved], ..File::default() });
            }
        }
        list.resources.sort_unstable();
        let next = index(self.lists.len());
        let at = *self.lists.entry(list.clone()).or_insert(next);
        if at == next {
            self.append(&File { lists: vec![list], ..File::default() });
        }
        at
    }

    /// Adds to the message. Protobuf's repeated fields may come in pieces.
    fn append(&mut self, piece: &File) {
        let bytes = piece.encode_to_vec();
        self.len += bytes.len() as u64;
        self.crc.update(&bytes);
        self.write(&bytes);
    }

    fn write(&mut self, bytes: &[u8]) {
        if self.outcome.is_ok() {
            self.outcome = self.out.write_all(bytes);
        }
    }
}

impl<W: Write + Seek> Writer<W> {
    /// The whole file.
    pub fn finish(mut self) -> io::Result<W> {
        if let Some(workload) = self.workload.take() {
            self.append(&File { workloads: vec![workload], ..File::default() });
        }
        self.outcome?;
        let mut header = Vec::with_capacity(HEADER);
        header.put_slice(MAGIC);
        header.put_u32_le(FORMAT);
        header.put_u64_le(self.len);
        header.put_u32_le(self.crc.finalize());
        self.out.rewind()?;
        self.out.write_all(&header)?;
        Ok(self.out)
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
    use std::io::Cursor;

    use super::*;

    fn three_workloads_with_one_cluster() -> Vec<u8> {
        let (name, body): (Arc<str>, _) = ("web".into(), Packed::new(b"bytes of a cluster"));
        let mut writer = Writer::new(Cursor::new(Vec::new()), "istiod:15010");
        for (node_id, store) in [("a", Some(1)), ("b", None), ("c", Some(1))] {
            writer.workload(&format!("sidecar~10.0.0.1~{node_id}.x~x.svc"));
            writer.resources(ResourceType::Cluster, store, std::iter::once((&name, "7", &body)));
        }
        writer.finish().unwrap().into_inner()
    }

    #[test]
    fn what_was_written_is_read() {
        let contents = Contents::parse(&three_workloads_with_one_cluster()).unwrap();

        assert_eq!(contents.control_plane(), "istiod:15010");
        for node_id in ["a", "b", "c"] {
            let saved = contents.workload(&format!("sidecar~10.0.0.1~{node_id}.x~x.svc")).unwrap();
            let (kind, clusters) = &saved[0];
            assert_eq!((*kind, clusters.len()), (ResourceType::Cluster, 1));
            assert_eq!((clusters[0].name.as_str(), clusters[0].version.as_str()), ("web", "7"));
            assert_eq!(clusters[0].body.value, b"bytes of a cluster");
        }
        assert!(contents.workload("sidecar~10.0.0.1~d.x~x.svc").is_none());
    }

    #[test]
    fn a_resource_and_a_list_of_several_workloads_are_written_once() {
        let contents = Contents::parse(&three_workloads_with_one_cluster()).unwrap();

        assert_eq!((contents.file.resources.len(), contents.file.lists.len()), (1, 1));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let good = three_workloads_with_one_cluster();
        for at in 0..good.len() {
            let mut bytes = good.clone();
            bytes[at] ^= 0x10;
            assert!(Contents::parse(&bytes).is_err(), "byte {at}");
        }
    }

    #[test]
    fn every_truncation_is_noticed() {
        let good = three_workloads_with_one_cluster();
        for len in 0..good.len() {
            assert!(Contents::parse(&good[..len]).is_err(), "{len} bytes");
        }
    }

    #[test]
    fn a_file_of_another_version_says_so() {
        let mut bytes = three_workloads_with_one_cluster();
        bytes[8] = 9;
        assert_eq!(Contents::parse(&bytes).unwrap_err(), FormatError::Version { found: 9 });
    }
}
