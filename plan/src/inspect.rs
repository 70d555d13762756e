//! What becomes of one resource when it is validated by itself: for documentation that is made of the code.

use std::cell::RefCell;
use std::fmt::Debug;

use orlop_proto::ResourceType;

use crate::resource::{FieldNote, RefusedRoute, ResourceError};
use crate::validate;

/// What became of a resource.
#[derive(Debug)]
pub struct Inspection {
    /// The typed resource as `Debug` prints it. What it is printed the same for is the same to everything that reads it.
    pub typed: Result<String, ResourceError>,
    /// Why routes of an accepted resource are refused by themselves.
    pub refused_routes: Vec<RefusedRoute>,
    /// What is accepted and has no effect yet.
    pub not_yet: Vec<FieldNote>,
    /// What is accepted and has no effect by its nature.
    pub no_effect: Vec<FieldNote>,
}

/// Validates a resource and says what became of its fields.
pub fn inspect(resource_type: ResourceType, bytes: &[u8]) -> Inspection {
    let findings = RefCell::new(validate::Findings::listing_everything());
    let typed = match resource_type {
        ResourceType::Cluster => print(validate::cluster(bytes, &findings)),
        ResourceType::ClusterLoadAssignment => print(validate::load_assignment(bytes, &findings)),
        ResourceType::Listener => print(validate::listener(bytes, &findings)),
        ResourceType::RouteConfiguration => print(validate::route_configuration(bytes, &findings)),
        ResourceType::Secret => print(validate::secret(bytes, &findings)),
        ResourceType::ExtensionConfig => print(validate::extension_config(bytes, &findings)),
        ResourceType::NameTable => print(validate::name_table(bytes, &findings)),
        ResourceType::ProxyConfig => print(validate::proxy_config(bytes, &findings)),
    };
    let validate::Findings { notes, no_effect, refused_routes, .. } = findings.into_inner();
    Inspection { typed, refused_routes, not_yet: notes, no_effect: no_effect.unwrap_or_default() }
}

fn print<T: Debug>(typed: Result<T, ResourceError>) -> Result<String, ResourceError> {
    typed.map(|resource| format!("{resource:?}"))
}
