//! One of something for every resource type.

use crate::ResourceType;

#[derive(Debug)]
pub(super) struct PerType<T> {
    clusters: T,
    endpoints: T,
    listeners: T,
    routes: T,
    secrets: T,
    extensions: T,
    name_table: T,
    proxy_config: T,
}

impl<T> PerType<T> {
    pub(super) fn new(make: impl Fn(ResourceType) -> T) -> Self {
        Self {
            clusters: make(ResourceType::Cluster),
            endpoints: make(ResourceType::ClusterLoadAssignment),
            listeners: make(ResourceType::Listener),
            routes: make(ResourceType::RouteConfiguration),
            secrets: make(ResourceType::Secret),
            extensions: make(ResourceType::ExtensionConfig),
            name_table: make(ResourceType::NameTable),
            proxy_config: make(ResourceType::ProxyConfig),
        }
    }

    pub(super) fn get(&self, resource_type: ResourceType) -> &T {
        match resource_type {
            ResourceType::Cluster => &self.clusters,
            ResourceType::ClusterLoadAssignment => &self.endpoints,
            ResourceType::Listener => &self.listeners,
            ResourceType::RouteConfiguration => &self.routes,
            ResourceType::Secret => &self.secrets,
            ResourceType::ExtensionConfig => &self.extensions,
            ResourceType::NameTable => &self.name_table,
            ResourceType::ProxyConfig => &self.proxy_config,
        }
    }

    pub(super) fn get_mut(&mut self, resource_type: ResourceType) -> &mut T {
        match resource_type {
            ResourceType::Cluster => &mut self.clusters,
            ResourceType::ClusterLoadAssignment => &mut self.endpoints,
            ResourceType::Listener => &mut self.listeners,
            ResourceType::RouteConfiguration => &mut self.routes,
            ResourceType::Secret => &mut self.secrets,
            ResourceType::ExtensionConfig => &mut self.extensions,
            ResourceType::NameTable => &mut self.name_table,
            ResourceType::ProxyConfig => &mut self.proxy_config,
        }
    }
}
