//! A real Envoy as the oracle: the same istiod configuration and the same requests through it and through Orlop.
//! Equal must be status, body, the chosen server and what it saw, and every header that the configuration names.

mod access_logs;
mod authorization;
mod conformance;
mod doors;
mod ext_authz;
mod failures;
mod filters;
mod floods;
mod grpc_web;
mod hashing;
mod malformed;
mod mirrors;
mod mutual_tls;
mod names;
mod outliers;
mod rate_limits;
mod routes;
mod tokens;
mod traces;
mod warm_up;
mod ways;
