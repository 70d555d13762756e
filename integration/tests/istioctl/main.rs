//! Istio's command line reads Orlop's answers as it reads a real Envoy's, with the same configuration from the same istiod.

mod difference;
mod proxy_config;
mod proxy_status;
mod sidecars;
