//! Secrets on their way to the proxy: what the node provides, and what the control plane sends.

use std::sync::Arc;

use envoy_types::pb::envoy::config::cluster::v3::Cluster;
use envoy_types::pb::envoy::config::core::v3::{TransportSocket, transport_socket};
use envoy_types::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, SdsSecretConfig, Secret as ProtoSecret,
    UpstreamTlsContext, common_tls_context, secret,
};
use orlop_plan::resource::secret::{Secret, SecretContent};
use orlop_plan::resource::tls::SecretSource;

use crate::build::{World, ads, any, eds_cluster};

fn authorities(name: &str) -> Arc<Secret> {
    Arc::new(Secret::trusted_ca(name, vec![vec![0x30].into()]))
}

#[test]
fn what_the_node_provides_goes_to_the_proxy_and_the_next_takes_its_place() {
    let mut world = World::default();
    let (first, next) = (authorities("ROOTCA"), authorities("ROOTCA"));
    let source = SecretSource::Node("ROOTCA".into());
    world.provide(&first);
    let plans = world.compile(None);
    assert!(Arc::ptr_eq(&plans.proxy().secrets[&source], &first));

    world.provide(&next);
    let mut after = plans.clone();
    let updated = after.update(&mut world.interner, &world.snapshot, &world.changes);
    assert!(updated.proxy, "the proxy is told");
    assert!(Arc::ptr_eq(&after.proxy().secrets[&source], &next));
    assert!(Arc::ptr_eq(&plans.proxy().secrets[&source], &first), "plans do not change");
}

/// A cluster that asks the control plane for its authorities.
fn cluster() -> Cluster {
    let validation = SdsSecretConfig { name: "kubernetes://root".to_owned(), sds_config: ads() };
    let context = UpstreamTlsContext {
        common_tls_context: Some(CommonTlsContext {
            validation_context_type: Some(
                common_tls_context::ValidationContextType::ValidationContextSdsSecretConfig(validation),
            ),
            ..CommonTlsContext::default()
        }),
        ..UpstreamTlsContext::default()
    };
    Cluster {
        transport_socket: Some(TransportSocket {
            name: "envoy.transport_sockets.tls".to_owned(),
            config_type: Some(transport_socket::ConfigType::TypedConfig(any(&context))),
        }),
        ..eds_cluster("a")
    }
}

fn sent() -> ProtoSecret {
    ProtoSecret {
        name: "kubernetes://root".to_owned(),
        r#type: Some(secret::Type::ValidationContext(CertificateValidationContext::default())),
    }
}

#[test]
fn a_secret_of_the_control_plane_stays_while_something_names_it() {
    let mut world = World::default();
    let source = SecretSource::ControlPlane("kubernetes://root".into());
    world.clusters(&[cluster()]);
    world.deliver(&[("kubernetes://root", sent())], &[]);
    let plans = world.compile(None);
    assert!(matches!(plans.proxy().secrets[&source].content, SecretContent::ValidationContext(_)));

    world.deliver::<ProtoSecret>(&[], &["kubernetes://root"]);
    let plans = world.compile(Some(&plans));
    assert!(plans.proxy().secrets.contains_key(&source), "it is still named");

    world.deliver::<ProtoSecret>(&[("kubernetes://root", sent())], &[]);
    let plans = world.compile(Some(&plans));
    world.deliver::<Cluster>(&[], &["a"]);
    assert!(world.compile(Some(&plans)).proxy().secrets.is_empty(), "nothing names it");
}
