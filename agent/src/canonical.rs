//! What Istio calls a workload and its version, by the labels of its pod: the rule is the injector's, and one for labels that
//! pods get and metrics that tell of them.

use std::collections::BTreeMap;

/// The label of the canonical service.
pub(crate) const NAME: &str = "service.istio.io/canonical-name";
/// The label of its revision.
pub(crate) const REVISION: &str = "service.istio.io/canonical-revision";

const APP: [&str; 2] = ["app.kubernetes.io/name", "app"];
const VERSION: [&str; 2] = ["app.kubernetes.io/version", "version"];
/// The revision of what says none.
pub(crate) const LATEST: &str = "latest";

type Labels = BTreeMap<String, String>;

/// The canonical service, where labels say one.
pub(crate) fn service(labels: &Labels) -> Option<String> {
    labels.get(NAME).cloned().or_else(|| app(labels))
}

/// The canonical revision.
pub(crate) fn revision(labels: &Labels) -> String {
    labels.get(REVISION).cloned().or_else(|| version(labels)).unwrap_or_else(|| LATEST.to_owned())
}

/// The application.
pub(crate) fn app(labels: &Labels) -> Option<String> {
    first(labels, APP)
}

/// Its version.
pub(crate) fn version(labels: &Labels) -> Option<String> {
    first(labels, VERSION)
}

fn first(labels: &Labels, keys: [&str; 2]) -> Option<String> {
    keys.iter().find_map(|key| labels.get(*key)).cloned()
}
