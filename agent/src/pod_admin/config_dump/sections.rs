//! The sections of a dump, each a message of `envoy.admin.v3`, in Envoy's order. An element becomes JSON when it is
//! written.

use orlop_plan::resource::cluster::Cluster;
use orlop_plan::resource::http_connection_manager::RouteSpecifier;
use orlop_plan::resource::listener::{Listener, TerminalFilter};
use orlop_plan::snapshot::ResourceType;
use orlop_proto::Descriptors;
use regex::Regex;
use serde_json::{Map, Value as Json, json};

use super::Wanted;
use super::endpoints::endpoint_config;
use crate::pod_admin::envoy_json::{address, timestamp};
use crate::pod_admin::secrets::{NodeSecret, without_key};
use crate::pod_admin::view::{Resources, Source, StoredResource};

/// The repeated fields, which `?resource=` may name.
pub(super) const FIELDS: [&str; 11] = [
    "static_clusters",
    "dynamic_active_clusters",
    "dynamic_warming_clusters",
    "ecds_filters",
    "dynamic_endpoint_configs",
    "static_listeners",
    "dynamic_listeners",
    "static_route_configs",
    "dynamic_route_configs",
    "dynamic_active_secrets",
    "dynamic_warming_secrets",
];

const HTTP_CONNECTION_MANAGER: &str =
    "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
const ROUTE_CONFIGURATION: &str = "type.googleapis.com/envoy.config.route.v3.RouteConfiguration";

/// One message of the dump.
pub(super) struct Section<'a> {
    pub(super) message: &'static str,
    /// Its fields that are not repeated.
    pub(super) fields: Vec<(&'static str, Json)>,
    pub(super) lists: Vec<List<'a>>,
}

impl Section<'_> {
    fn is_empty(&self) -> bool {
        self.lists.iter().all(|list| list.items.is_empty())
    }
}

/// One repeated field.
pub(super) struct List<'a> {
    pub(super) field: &'static str,
    /// The message of its elements.
    pub(super) element: &'static str,
    pub(super) items: Vec<Item<'a>>,
}

/// Makes one element.
pub(super) type Item<'a> = Box<dyn Fn() -> Json + 'a>;

pub(super) fn sections<'a>(
    resources: &'a Resources,
    descriptors: &'a Descriptors,
    node: &Json,
    wanted: &Wanted,
) -> Vec<Section<'a>> {
    let printer = Printer { resources, descriptors };
    let names = Names(wanted.names.as_ref());
    let mut sections = vec![bootstrap(node), printer.clusters(&names)];
    // Envoy has this section where there is something for it.
    sections.extend(Some(printer.extensions(&names)).filter(|section| !section.is_empty()));
    if wanted.endpoints {
        sections.push(printer.endpoints(&names));
    }
    sections.extend([printer.listeners(&names), printer.routes(&names), printer.secrets(&names)]);
    sections
}

/// What a sidecar's own file says: who it is, and where it answers.
fn bootstrap(node: &Json) -> Section<'static> {
    let admin = json!({ "address": address(crate::pod_admin::ADDRESS) });
    Section {
        message: "BootstrapConfigDump",
        fields: vec![("bootstrap", json!({ "node": node, "admin": admin }))],
        lists: Vec::new(),
    }
}

/// Which names are wanted.
struct Names<'a>(Option<&'a Regex>);

impl Names<'_> {
    fn want(&self, name: &str) -> bool {
        self.0.is_none_or(|regex| regex.is_match(name))
    }
}

#[derive(Clone, Copy)]
struct Printer<'a> {
    resources: &'a Resources,
    descriptors: &'a Descriptors,
}

impl<'a> Printer<'a> {
    fn clusters(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::Cluster;
        let (mut active, mut warming): (Vec<Item<'_>>, Vec<Item<'_>>) = (Vec::new(), Vec::new());
        for stored in self.resources.clusters.iter().filter(|stored| names.want(&stored.name)) {
            let held = self.resources.is_held(KIND, &stored.name);
            let item: Item<'_> = Box::new(move || {
                self.with_error(KIND, &stored.name, self.state(KIND, "cluster", &stored.source))
            });
            if held { warming.push(item) } else { active.push(item) }
        }
        warming.extend(self.only_refused(KIND, names, &self.resources.clusters));
        let list = |field, items| List { field, element: "ClustersConfigDump.DynamicCluster", items };
        Section {
            message: "ClustersConfigDump",
            fields: self.version(KIND),
            lists: vec![list("dynamic_active_clusters", active), list("dynamic_warming_clusters", warming)],
        }
    }

    fn endpoints(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::Cluster;
        let served = self.resources.clusters.iter();
        let served = served.filter(|s| names.want(&s.name) && !self.resources.is_held(KIND, &s.name));
        let item = |stored: &'a StoredResource<Cluster>| -> Item<'a> {
            Box::new(move || {
                let (name, config) = endpoint_config(self.resources, self.descriptors, stored);
                self.with_error(ResourceType::ClusterLoadAssignment, name, config)
            })
        };
        Section {
            message: "EndpointsConfigDump",
            fields: Vec::new(),
            lists: vec![List {
                field: "dynamic_endpoint_configs",
                element: "EndpointsConfigDump.DynamicEndpointConfig",
                items: served.map(item).collect(),
            }],
        }
    }

    fn listeners(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::Listener;
        let accepted = self.resources.listeners.iter().filter(|stored| names.want(&stored.name));
        let item = |stored: &'a StoredResource<Listener>| -> Item<'a> {
            Box::new(move || {
                let held = self.resources.is_held(KIND, &stored.name);
                let state = if held { "warming_state" } else { "active_state" };
                let mut listener = Map::new();
                listener.insert("name".to_owned(), (*stored.name).into());
                listener.insert(state.to_owned(), self.state(KIND, "listener", &stored.source).into());
                self.with_error(KIND, &stored.name, listener)
            })
        };
        let mut items: Vec<_> = accepted.map(item).collect();
        items.extend(self.only_refused(KIND, names, &self.resources.listeners));
        Section {
            message: "ListenersConfigDump",
            fields: self.version(KIND),
            lists: vec![List {
                field: "dynamic_listeners",
                element: "ListenersConfigDump.DynamicListener",
                items,
            }],
        }
    }

    fn routes(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::RouteConfiguration;
        let accepted = self.resources.routes.iter().filter(|stored| names.want(&stored.name));
        let item = |stored: &'a StoredResource<_>| -> Item<'a> {
            Box::new(move || {
                self.with_error(KIND, &stored.name, self.state(KIND, "route_config", &stored.source))
            })
        };
        let mut dynamic: Vec<_> = accepted.map(item).collect();
        dynamic.extend(self.only_refused(KIND, names, &self.resources.routes));
        let inline = self.resources.listeners.iter().filter(|stored| has_inline_routes(&stored.resource));
        let inline = inline.flat_map(|stored| self.inline_routes(stored));
        let inline = inline.filter(|json| {
            let name = json.pointer("/route_config/name").and_then(Json::as_str);
            names.want(name.unwrap_or_default())
        });
        let once = |json: Json| -> Item<'a> { Box::new(move || json.clone()) };
        Section {
            message: "RoutesConfigDump",
            fields: Vec::new(),
            lists: vec![
                List {
                    field: "static_route_configs",
                    element: "RoutesConfigDump.StaticRouteConfig",
                    items: inline.map(once).collect(),
                },
                List {
                    field: "dynamic_route_configs",
                    element: "RoutesConfigDump.DynamicRouteConfig",
                    items: dynamic,
                },
            ],
        }
    }

    fn extensions(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::ExtensionConfig;
        let accepted = self.resources.extensions.iter().filter(|stored| names.want(&stored.name));
        let item = |stored: &'a StoredResource<_>| -> Item<'a> {
            Box::new(move || {
                self.with_error(KIND, &stored.name, self.state(KIND, "ecds_filter", &stored.source))
            })
        };
        let mut items: Vec<_> = accepted.map(item).collect();
        items.extend(self.only_refused(KIND, names, &self.resources.extensions));
        Section {
            message: "EcdsConfigDump",
            fields: Vec::new(),
            lists: vec![List { field: "ecds_filters", element: "EcdsConfigDump.EcdsFilterConfig", items }],
        }
    }

    /// What is secret in a secret is not printed, see [`Descriptors::print`].
    fn secrets(self, names: &Names<'_>) -> Section<'a> {
        const KIND: ResourceType = ResourceType::Secret;
        let accepted = self.resources.secrets.iter().filter(|stored| names.want(&stored.name));
        let item = |stored: &'a StoredResource<_>| -> Item<'a> {
            Box::new(move || {
                let mut secret = self.state(KIND, "secret", &stored.source);
                secret.insert("name".to_owned(), (*stored.name).into());
                self.with_error(KIND, &stored.name, secret)
            })
        };
        let provided =
            self.resources.node_secrets.iter().filter(|provided| names.want(&provided.secret.name));
        let provided = provided.map(|NodeSecret { secret, last_updated }| -> Item<'a> {
            Box::new(move || {
                let printed = self.descriptors.print(KIND.type_url(), &without_key(secret));
                json!({ "name": &*secret.name, "last_updated": timestamp(*last_updated), "secret": printed })
            })
        });
        let list = |field, items| List { field, element: "SecretsConfigDump.DynamicSecret", items };
        Section {
            message: "SecretsConfigDump",
            fields: Vec::new(),
            lists: vec![
                list("dynamic_active_secrets", provided.chain(accepted.map(item)).collect()),
                list("dynamic_warming_secrets", self.only_refused(KIND, names, &self.resources.secrets)),
            ],
        }
    }

    /// Envoy calls the routes static that are part of a listener.
    fn inline_routes(self, stored: &StoredResource<Listener>) -> Vec<Json> {
        let Source { bytes, last_updated, .. } = &stored.source;
        let mut listener = self.descriptors.print(ResourceType::Listener.type_url(), &bytes.bytes());
        let mut chains: Vec<Json> = Vec::new();
        if let Some(Json::Array(listed)) = listener.get_mut("filter_chains").map(Json::take) {
            chains.extend(listed);
        }
        chains.extend(listener.get_mut("default_filter_chain").map(Json::take));
        let filters =
            chains.iter_mut().filter_map(|chain| chain.get_mut("filters")?.as_array_mut()).flatten();
        let managers = filters.filter_map(|filter| filter.get_mut("typed_config"));
        let managers = managers
            .filter(|config| config.get("@type").and_then(Json::as_str) == Some(HTTP_CONNECTION_MANAGER));
        managers
            .filter_map(|manager| {
                let Json::Object(mut route_config) = manager.get_mut("route_config")?.take() else {
                    return None;
                };
                route_config.insert("@type".to_owned(), ROUTE_CONFIGURATION.into());
                let mut element = Map::from_iter([("route_config".to_owned(), route_config.into())]);
                element.extend(last_updated.map(|time| ("last_updated".to_owned(), timestamp(time).into())));
                Some(element.into())
            })
            .collect()
    }

    /// `version_info`, `last_updated` and the resource under the name that the message has for it.
    fn state(self, kind: ResourceType, field: &str, source: &Source) -> Map<String, Json> {
        let Source { bytes, version, last_updated } = source;
        let mut state = Map::new();
        if !version.is_empty() {
            state.insert("version_info".to_owned(), version.clone().into());
        }
        state.insert(field.to_owned(), self.descriptors.print(kind.type_url(), &bytes.bytes()));
        state.extend(last_updated.map(|time| ("last_updated".to_owned(), timestamp(time).into())));
        state
    }

    /// Adds `error_state` where the newest version was refused.
    fn with_error(self, kind: ResourceType, name: &str, mut element: Map<String, Json>) -> Json {
        if let Some(refused) = self.resources.refused(kind, name) {
            let mut error = Map::from_iter([("details".to_owned(), refused.reason.clone().into())]);
            if !refused.version.is_empty() {
                error.insert("version_info".to_owned(), refused.version.clone().into());
            }
            element.insert("error_state".to_owned(), error.into());
        }
        element.into()
    }

    /// Resources of which no version was ever accepted: nothing but the error. The reason names the resource.
    fn only_refused<T>(
        self,
        kind: ResourceType,
        names: &Names<'_>,
        accepted: &[StoredResource<T>],
    ) -> Vec<Item<'a>> {
        let accepted = |name: &str| accepted.binary_search_by(|stored| (*stored.name).cmp(name)).is_ok();
        let refused = self.resources.refused.iter().filter(|refused| {
            refused.resource_type == kind && names.want(&refused.name) && !accepted(&refused.name)
        });
        refused
            .map(|refused| -> Item<'a> {
                Box::new(move || {
                    let mut element = Map::new();
                    if matches!(kind, ResourceType::Listener | ResourceType::Secret) {
                        element.insert("name".to_owned(), refused.name.clone().into());
                    }
                    self.with_error(kind, &refused.name, element)
                })
            })
            .collect()
    }

    /// The version of the newest response of a type.
    fn version(self, kind: ResourceType) -> Vec<(&'static str, Json)> {
        let version = self.resources.stream.types.get(&kind).map(|status| status.version.as_str());
        version.filter(|v| !v.is_empty()).map(|v| ("version_info", v.into())).into_iter().collect()
    }
}

fn has_inline_routes(listener: &Listener) -> bool {
    listener.filter_chains.iter().chain(&listener.default_filter_chain).any(|chain| match &chain.terminal {
        TerminalFilter::HttpConnectionManager(manager) => matches!(manager.routes, RouteSpecifier::Inline(_)),
        TerminalFilter::TcpProxy(_) => false,
    })
}
