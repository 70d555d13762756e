//! What a real istiod sent to one sidecar, checked in as it came: `tests/captures/<name>/NNN-TYPE.pb`, each one a
//! `DeltaDiscoveryResponse`. The `config.yaml` beside them is what istiod was given.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use envoy_types::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use orlop_plan::compile::{Plans, WorkloadFacts};
use orlop_plan::resource::ResourceError;
use orlop_plan::snapshot::{Changes, Interner, Resource, ResourceType, Snapshot};
use prost::Message;

pub(crate) struct Capture {
    pub(crate) snapshot: Snapshot,
    pub(crate) errors: Vec<ResourceError>,
}

pub(crate) fn responses(name: &str) -> Vec<DeltaDiscoveryResponse> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/captures").join(name);
    let mut files: Vec<_> = fs::read_dir(&directory)
        .unwrap_or_else(|error| panic!("{}: {error}", directory.display()))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "pb"))
        .collect();
    files.sort();
    files
        .iter()
        .map(|file| DeltaDiscoveryResponse::decode(fs::read(file).unwrap().as_slice()).unwrap())
        .collect()
}

pub(crate) fn load(name: &str, interner: &mut Interner) -> Capture {
    let mut capture = Capture { snapshot: Snapshot::new(), errors: Vec::new() };
    for response in responses(name) {
        let kind = ResourceType::from_type_url(&response.type_url).unwrap();
        let upserts = response.resources.into_iter().map(|resource| Resource {
            name: resource.name,
            version: resource.version,
            body: resource.resource.unwrap(),
        });
        let upserts: Vec<_> = upserts.collect();
        let removed = &response.removed_resources;
        let outcome = capture.snapshot.apply(interner, kind, &upserts, removed, SystemTime::UNIX_EPOCH);
        capture.errors.extend(outcome.errors);
    }
    capture
}

pub(crate) fn plans(capture: &Capture, interner: &mut Interner) -> Plans {
    let addresses = vec!["10.77.0.1".parse().unwrap()];
    let mut plans = Plans::new(WorkloadFacts { addresses, ..WorkloadFacts::default() });
    plans.update(interner, &capture.snapshot, &Changes::all(&capture.snapshot));
    plans
}
