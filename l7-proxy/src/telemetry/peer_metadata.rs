//! What a workload says of itself, as Istio's proxies tell each other.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use prost::Message;
use prost_types::value::Kind;
use prost_types::{Struct, Value};

/// Envoy pads and does not ask for padding.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);
/// The longest description that is read, in base64.
const LONGEST: usize = 8 * 1024;

/// A workload's description. What is empty is not known.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct PeerMetadata {
    /// `NAME`: of the pod.
    pub name: String,
    /// `NAMESPACE`
    pub namespace: String,
    /// `WORKLOAD_NAME`
    pub workload: String,
    /// `CLUSTER_ID`
    pub cluster: String,
    /// `LABELS`: `service.istio.io/canonical-name`
    pub canonical_service: String,
    /// `LABELS`: `service.istio.io/canonical-revision`
    pub canonical_revision: String,
    /// `LABELS`: `app`
    pub app: String,
    /// `LABELS`: `version`
    pub version: String,
}

impl PeerMetadata {
    /// The value of `x-envoy-peer-metadata`: a `Struct` with its fields sorted, in base64.
    pub fn encode(&self) -> String {
        let labels = fields([
            ("app", &self.app),
            ("service.istio.io/canonical-name", &self.canonical_service),
            ("service.istio.io/canonical-revision", &self.canonical_revision),
            ("version", &self.version),
        ]);
        let mut whole = fields([
            ("CLUSTER_ID", &self.cluster),
            ("NAME", &self.name),
            ("NAMESPACE", &self.namespace),
            ("WORKLOAD_NAME", &self.workload),
        ]);
        whole.fields.insert("LABELS".to_owned(), Value { kind: Some(Kind::StructValue(labels)) });
        STANDARD.encode(whole.encode_to_vec())
    }

    /// Reads such a value; `None` where it is none.
    pub fn decode(value: &[u8]) -> Option<Self> {
        let value = value.get(..LONGEST).is_none().then_some(value)?;
        let whole = Struct::decode(LENIENT.decode(value).ok()?.as_slice()).ok()?;
        let nothing = Struct::default();
        let labels = match whole.fields.get("LABELS") {
            Some(Value { kind: Some(Kind::StructValue(labels)) }) => labels,
            _ => &nothing,
        };
        Some(Self {
            name: text(&whole, &["NAME"]),
            namespace: text(&whole, &["NAMESPACE"]),
            workload: text(&whole, &["WORKLOAD_NAME"]),
            cluster: text(&whole, &["CLUSTER_ID"]),
            canonical_service: text(labels, &["service.istio.io/canonical-name"]),
            canonical_revision: text(labels, &["service.istio.io/canonical-revision"]),
            app: text(labels, &["app.kubernetes.io/name", "app"]),
            version: text(labels, &["app.kubernetes.io/version", "version"]),
        })
    }
}

fn fields<const N: usize>(pairs: [(&str, &String); N]) -> Struct {
    let known = pairs.into_iter().filter(|(_, text)| !text.is_empty());
    let value = |text: &String| Value { kind: Some(Kind::StringValue(text.clone())) };
    Struct { fields: known.map(|(key, text)| (key.to_owned(), value(text))).collect() }
}

/// The first of these keys that there is.
fn text(fields: &Struct, keys: &[&str]) -> String {
    let value = |key: &&str| match &fields.fields.get(*key)?.kind {
        Some(Kind::StringValue(text)) => Some(text.clone()),
        _ => None,
    };
    keys.iter().find_map(value).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reviews() -> PeerMetadata {
        PeerMetadata {
            name: "reviews-v2-1".to_owned(),
            namespace: "shop".to_owned(),
            workload: "reviews-v2".to_owned(),
            cluster: "Kubernetes".to_owned(),
            canonical_service: "reviews".to_owned(),
            canonical_revision: "v2".to_owned(),
            app: "reviews".to_owned(),
            version: "v2".to_owned(),
        }
    }

    #[test]
    fn a_description_is_read_as_it_was_told_with_and_without_padding() {
        let told = reviews().encode();
        assert_eq!(PeerMetadata::decode(told.as_bytes()), Some(reviews()));
        assert_eq!(PeerMetadata::decode(told.trim_end_matches('=').as_bytes()), Some(reviews()));
    }

    #[test]
    fn it_is_told_in_the_same_bytes_every_time() {
        assert_eq!(reviews().encode(), reviews().encode());
    }

    #[test]
    fn what_is_no_description_is_none() {
        let long = STANDARD.encode(vec![0; LONGEST]);
        for value in ["%", "AAAA", long.as_str()] {
            assert_eq!(PeerMetadata::decode(value.as_bytes()), None, "{}", value.len());
        }
    }
}
