//! One file: a `DiscoveryResponse` in YAML, JSON or binary form, to resources.

use std::collections::HashSet;
use std::ffi::OsStr;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::Path;
use std::str::Utf8Error;

use envoy_types::pb::envoy::service::discovery::v3::DiscoveryResponse;
use orlop_proto::{DecodeError, Descriptors, DescriptorsError};
use prost::{Message as _, Name as _};
use thiserror::Error;

use crate::resource::name_of;
use crate::{Resource, ResourceType};

/// Why a file cannot be used. Texts name the line and the field.
#[derive(Debug, Error)]
pub(super) enum FileError {
    #[error("cannot be read: {0}")]
    Io(#[from] std::io::Error),
    #[error("is not UTF-8: {0}")]
    Encoding(#[from] Utf8Error),
    #[error("{0}")]
    Yaml(#[from] DecodeError<serde_norway::Error>),
    #[error("{0}")]
    Json(#[from] DecodeError<serde_json::Error>),
    #[error("is no encoded DiscoveryResponse: {0}")]
    Protobuf(#[from] prost::DecodeError),
    #[error("resources[{index}]: '{type_url}' is no type that a sidecar subscribes to")]
    ResourceType { index: usize, type_url: String },
    #[error("resources[{index}]: {fault}")]
    Resource { index: usize, fault: String },
    #[error("resources[{index}]: {resource_type} '{name}' is in the file twice")]
    Twice { index: usize, resource_type: ResourceType, name: String },
    #[error("{0}")]
    Descriptors(#[from] DescriptorsError),
}

/// The form of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
    Protobuf,
}

impl Format {
    /// By the extension; `None` for files that are none of ours, hidden ones included.
    pub(super) fn of(path: &Path) -> Option<Self> {
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        match path.extension().and_then(OsStr::to_str)? {
            _ if hidden => None,
            "yaml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            "pb" => Some(Self::Protobuf),
            _ => None,
        }
    }
}

/// Loads descriptors when the first text needs them and keeps them for the next.
#[derive(Debug, Default)]
pub(super) struct Parser {
    descriptors: Option<Descriptors>,
}

impl Parser {
    /// All resources of a file, or what is wrong with the first that is wrong. A resource's version is a digest
    /// of its bytes: a `version_info` that was forgotten in an edit must not hide the edit.
    pub(super) fn parse(
        &mut self,
        format: Format,
        content: &[u8],
    ) -> Result<Vec<(ResourceType, Resource)>, FileError> {
        let type_url = DiscoveryResponse::type_url();
        let response = match format {
            Format::Yaml => {
                let text = std::str::from_utf8(content)?;
                let yaml = serde_norway::Deserializer::from_str(text);
                DiscoveryResponse::decode(self.descriptors()?.decode(&type_url, yaml)?.value.as_slice())?
            }
            Format::Json => {
                let mut json = serde_json::Deserializer::from_slice(content);
                let any = self.descriptors()?.decode(&type_url, &mut json)?;
                json.end().map_err(|source| DecodeError::Invalid { path: ".".into(), source })?;
                DiscoveryResponse::decode(any.value.as_slice())?
            }
            Format::Protobuf => DiscoveryResponse::decode(content)?,
        };
        let mut names = HashSet::new();
        let resources = response.resources.into_iter().enumerate().map(|(index, body)| {
            let Some(resource_type) = ResourceType::from_type_url(&body.type_url) else {
                return Err(FileError::ResourceType { index, type_url: body.type_url });
            };
            let name = name_of(resource_type, &body).map_err(|fault| FileError::Resource { index, fault })?;
            if !names.insert((resource_type, name.clone())) {
                return Err(FileError::Twice { index, resource_type, name });
            }
            let version = format!("{:016x}", digest(&body.value));
            Ok((resource_type, Resource { name, version, body }))
        });
        resources.collect()
    }

    fn descriptors(&mut self) -> Result<&Descriptors, DescriptorsError> {
        match &mut self.descriptors {
            Some(loaded) => Ok(loaded),
            empty => Ok(empty.insert(Descriptors::load()?)),
        }
    }
}

/// Tells contents apart; the same in every process, so versions mean something to a reader.
pub(super) fn digest(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    bytes.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use envoy_types::pb::google::protobuf::Any;

    use super::*;

    fn parse(format: Format, content: &str) -> Result<Vec<(ResourceType, Resource)>, FileError> {
        Parser::default().parse(format, content.as_bytes())
    }

    #[test]
    fn resources_are_told_apart_by_their_type_and_not_by_the_file() {
        let resources = parse(
            Format::Yaml,
            r#"
version_info: "1"
resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: web
- "@type": type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment
  cluster_name: web
"#,
        )
        .unwrap();

        let found: Vec<_> =
            resources.iter().map(|(resource_type, resource)| (*resource_type, &*resource.name)).collect();
        assert_eq!(found, [(ResourceType::Cluster, "web"), (ResourceType::ClusterLoadAssignment, "web")]);
    }

    #[test]
    fn a_wrong_field_in_yaml_is_named_with_the_line_of_its_resource() {
        let error = parse(
            Format::Yaml,
            r#"resources:
- "@type": type.googleapis.com/envoy.config.cluster.v3.Cluster
  name: web
  conect_timeout: 1s
"#,
        )
        .unwrap_err()
        .to_string();

        assert!(error.starts_with("resources[0]: unrecognized field name 'conect_timeout'"), "{error}");
        assert!(error.contains("line 2"), "{error}");
    }

    #[test]
    fn a_wrong_value_in_json_is_named_with_its_field_and_line() {
        let error = parse(
            Format::Json,
            r#"{"resources": [{
  "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
  "type": "LOGICAL"
}]}"#,
        )
        .unwrap_err()
        .to_string();

        assert!(error.starts_with("resources[0].type: "), "{error}");
        assert!(error.contains("line 3"), "{error}");
    }

    #[test]
    fn text_after_the_json_value_is_refused() {
        assert!(parse(Format::Json, "{} {}").is_err());
    }

    #[test]
    fn a_type_that_a_sidecar_does_not_subscribe_to_is_refused() {
        let error = parse(
            Format::Json,
            r#"{"resources": [{"@type": "type.googleapis.com/envoy.config.core.v3.Node"}]}"#,
        )
        .unwrap_err();

        assert!(matches!(error, FileError::ResourceType { index: 0, .. }), "{error}");
    }

    #[test]
    fn a_resource_without_a_name_is_refused() {
        let error = parse(
            Format::Json,
            r#"{"resources": [{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster"}]}"#,
        )
        .unwrap_err();

        assert_eq!(error.to_string(), "resources[0]: has no name");
    }

    #[test]
    fn a_name_table_needs_no_name_and_there_is_one() {
        let table = r#"{"@type": "type.googleapis.com/istio.networking.nds.v1.NameTable",
            "table": {"web.default": {"ips": ["10.96.0.10"]}}}"#;

        let resources = parse(Format::Json, &format!(r#"{{"resources": [{table}]}}"#)).unwrap();
        let twice = parse(Format::Json, &format!(r#"{{"resources": [{table}, {table}]}}"#)).unwrap_err();

        assert_eq!((resources[0].0, &*resources[0].1.name), (ResourceType::NameTable, ""));
        assert_eq!(twice.to_string(), "resources[1]: name table '' is in the file twice");
    }

    #[test]
    fn a_file_that_was_cut_off_is_refused_in_every_form() {
        let resource = r#"{"@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster", "name": "web"}"#;
        let json = format!(r#"{{"resources": [{resource}]}}"#);
        let cluster =
            Any { type_url: ResourceType::Cluster.type_url().into(), value: vec![10, 3, 119, 101, 98] };
        let binary =
            DiscoveryResponse { resources: vec![cluster], ..DiscoveryResponse::default() }.encode_to_vec();
        let forms =
            [(Format::Json, json.as_bytes()), (Format::Yaml, json.as_bytes()), (Format::Protobuf, &binary)];

        for (format, whole) in forms {
            assert_eq!(Parser::default().parse(format, whole).unwrap().len(), 1, "{format:?}");
            let cut = &whole[..whole.len() - 1];
            assert!(Parser::default().parse(format, cut).is_err(), "{format:?}");
        }
    }

    #[test]
    fn hidden_files_and_other_extensions_are_none_of_ours() {
        assert_eq!(Format::of(Path::new("/xds/cds.yaml")), Some(Format::Yaml));
        assert_eq!(Format::of(Path::new("/xds/.cds.yaml")), None);
        assert_eq!(Format::of(Path::new("/xds/cds.yaml.tmp")), None);
    }
}
