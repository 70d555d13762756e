//! Access logs: that one is asked for, and by which logger.

use envoy_types::pb::envoy::config::accesslog::v3::{AccessLog, access_log};

use super::at::{At, no_effect};
use super::decode::Extension;

/// Loggers that istiod's providers use.
const KNOWN: [&str; 4] = [
    "envoy.extensions.access_loggers.file.v3.FileAccessLog",
    "envoy.extensions.access_loggers.stream.v3.StdoutAccessLog",
    "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
];

/// The names of the loggers. What they write and when is theirs.
pub(super) fn access_logs(values: Vec<AccessLog>, at: &At<'_>) -> Option<Vec<String>> {
    at.each(values, |value, at| {
        let AccessLog { name, filter, config_type } = value;
        no_effect!(at; "says which requests a log is of, and no access log is written"; filter);
        let at_config = at.field("typed_config");
        let access_log::ConfigType::TypedConfig(any) = at_config.required(config_type)?;
        let extension = Extension::open(any, &at_config)?;
        if KNOWN.contains(&extension.type_name()) {
            at.not_yet("no access log is written");
            return Some(if name.is_empty() { extension.type_name().to_owned() } else { name });
        }
        extension.refuse("access logger", &name, &at_config)
    })
}
