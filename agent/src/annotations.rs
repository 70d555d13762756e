//! What a pod's annotations ask of the agent: what istiod does not know, because a sidecar's injector deals with it.

use std::collections::{BTreeMap, BTreeSet};

use orlop_plan::exclusion::Exclusions;
use serde::Deserialize;

use crate::config::Dns;

/// Overrides of the mesh's proxy configuration, in YAML.
const PROXY_CONFIG: &str = "proxy.istio.io/config";
const DNS_CAPTURE: &str = "ISTIO_META_DNS_CAPTURE";
const DNS_AUTO_ALLOCATE: &str = "ISTIO_META_DNS_AUTO_ALLOCATE";

/// What the annotations of a pod say. Others than those known here are other people's.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(try_from = "BTreeMap<String, String>")]
pub struct Annotations {
    /// What they say of questions to resolvers.
    pub dns: DnsOverride,
    /// What of its traffic is not taken.
    pub exclusions: Exclusions,
    /// What else of `proxy.istio.io/config` there is, which has no effect.
    pub without_effect: Vec<String>,
}

/// What a pod says of questions to resolvers; what it does not say is the node's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct DnsOverride {
    capture: Option<bool>,
    auto_allocate: Option<bool>,
}

impl DnsOverride {
    /// What holds for the pod.
    pub fn over(self, node: Dns) -> Dns {
        Dns {
            capture: self.capture.unwrap_or(node.capture),
            auto_allocate: self.auto_allocate.unwrap_or(node.auto_allocate),
        }
    }
}

impl TryFrom<BTreeMap<String, String>> for Annotations {
    type Error = String;
    fn try_from(raw: BTreeMap<String, String>) -> Result<Self, String> {
        let exclusions = Exclusions::parse(&raw).map_err(|error| error.to_string())?;
        let mut annotations = Self { exclusions, ..Self::default() };
        if let Some(text) = raw.get(PROXY_CONFIG) {
            annotations
                .proxy_config(text)
                .map_err(|reason| format!("annotation {PROXY_CONFIG}: {reason}"))?;
        }
        Ok(annotations)
    }
}

impl Annotations {
    /// The same for a workload that is probed at these ports.
    #[must_use]
    pub fn with_probes(self, ports: BTreeSet<u16>) -> Self {
        Self { exclusions: self.exclusions.with_probes(ports), ..self }
    }

    fn proxy_config(&mut self, text: &str) -> Result<(), String> {
        /// As much of Istio's `ProxyConfig` as is the agent's to do.
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct ProxyConfig {
            #[serde(default)]
            proxy_metadata: BTreeMap<String, String>,
            #[serde(flatten)]
            rest: BTreeMap<String, serde_norway::Value>,
        }
        let ProxyConfig { proxy_metadata, rest } =
            serde_norway::from_str(text).map_err(|error| error.to_string())?;
        for (name, value) in proxy_metadata {
            let switch = || {
                boolean(&value)
                    .ok_or_else(|| format!("proxyMetadata.{name}: {value:?} is neither true nor false"))
            };
            match name.as_str() {
                DNS_CAPTURE => self.dns.capture = Some(switch()?),
                DNS_AUTO_ALLOCATE => self.dns.auto_allocate = Some(switch()?),
                _ => self.without_effect.push(format!("{PROXY_CONFIG}: proxyMetadata.{name}")),
            }
        }
        self.without_effect.extend(rest.into_keys().map(|field| format!("{PROXY_CONFIG}: {field}")));
        Ok(())
    }
}

/// What Go's `strconv.ParseBool` takes, by which Istio reads it.
fn boolean(text: &str) -> Option<bool> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(&str, &str)]) -> Result<Annotations, String> {
        let raw: BTreeMap<_, _> =
            annotations.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        raw.try_into()
    }

    #[test]
    fn a_pod_turns_dns_capture_on_or_off_and_else_has_the_nodes() {
        let on = Dns { capture: true, auto_allocate: true };
        let off = Dns::default();
        let text =
            "proxyMetadata:\n  ISTIO_META_DNS_CAPTURE: \"true\"\n  ISTIO_META_DNS_AUTO_ALLOCATE: \"true\"\n";
        assert_eq!(parse(&[(PROXY_CONFIG, text)]).unwrap().dns.over(off), on);
        let text = "{\"proxyMetadata\": {\"ISTIO_META_DNS_CAPTURE\": \"false\"}}";
        assert_eq!(
            parse(&[(PROXY_CONFIG, text)]).unwrap().dns.over(on),
            Dns { capture: false, auto_allocate: true }
        );
        assert_eq!(parse(&[("example.com/team", "shop")]).unwrap().dns.over(on), on);
    }

    #[test]
    fn what_is_not_to_be_taken_is_read_and_a_mistake_in_it_refused() {
        let ports = "traffic.sidecar.istio.io/excludeOutboundPorts";
        let annotations = parse(&[(ports, "3306")]).unwrap();
        assert!(annotations.exclusions.outbound("10.0.0.1:3306".parse().unwrap()).is_some());
        let error = parse(&[(ports, "mysql")]).unwrap_err();
        assert_eq!(error, format!("annotation {ports}: \"mysql\" is not a port"));
    }

    #[test]
    fn what_has_no_effect_is_known_by_name() {
        let text = "concurrency: 2\nproxyMetadata: { BOOTSTRAP_XDS_AGENT: \"true\" }\n";
        assert_eq!(
            parse(&[(PROXY_CONFIG, text)]).unwrap().without_effect,
            [
                "proxy.istio.io/config: proxyMetadata.BOOTSTRAP_XDS_AGENT",
                "proxy.istio.io/config: concurrency"
            ]
        );
    }

    #[test]
    fn a_value_of_the_wrong_form_is_refused_by_annotation_and_field() {
        let error =
            parse(&[(PROXY_CONFIG, "proxyMetadata: { ISTIO_META_DNS_CAPTURE: \"yes\" }")]).unwrap_err();
        assert_eq!(
            error,
            "annotation proxy.istio.io/config: proxyMetadata.ISTIO_META_DNS_CAPTURE: \"yes\" is neither true nor false"
        );
        let error = parse(&[(PROXY_CONFIG, "proxyMetadata: [")]).unwrap_err();
        assert!(error.starts_with("annotation proxy.istio.io/config: "), "{error}");
    }
}
