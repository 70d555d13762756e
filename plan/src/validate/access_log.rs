//! Access logs: which are written, of what, how, and where to.
//!
//! A log that Envoy would write and the proxy does not, for its filter, format or file, holds nothing else up: it is noted as
//! accepted without effect.

use envoy_types::pb::envoy::config::accesslog::v3::access_log_filter::FilterSpecifier;
use envoy_types::pb::envoy::config::accesslog::v3::{
    AccessLog as Proto, AccessLogFilter, ResponseFlagFilter, access_log,
};
use envoy_types::pb::envoy::config::core::v3::substitution_format_string::Format;
use envoy_types::pb::envoy::config::core::v3::{
    DataSource, JsonFormatOptions, SubstitutionFormatString, data_source,
};
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::FileAccessLog;
use envoy_types::pb::envoy::extensions::access_loggers::file::v3::file_access_log::AccessLogFormat;
use envoy_types::pb::envoy::extensions::access_loggers::stream::v3::{
    StderrAccessLog, StdoutAccessLog, stderr_access_log, stdout_access_log,
};
use envoy_types::pb::google::protobuf::value::Kind;
use envoy_types::pb::google::protobuf::{Struct, Value};
use prost::Name;

use super::at::{At, no_effect, refuse_set};
use super::decode::Extension;
use super::format::format_parts;
use crate::resource::FieldError;
use crate::resource::access_log::{AccessLog, JsonFormat, LogFormat, LogStream};

/// Other loggers of istiod's providers.
const NOT_WRITTEN: [&str; 2] = [
    "envoy.extensions.access_loggers.grpc.v3.HttpGrpcAccessLogConfig",
    "envoy.extensions.access_loggers.open_telemetry.v3.OpenTelemetryAccessLogConfig",
];
/// Envoy's format where none is given.
const DEFAULT_FORMAT: &str = "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" \
     %RESPONSE_CODE% %RESPONSE_FLAGS% %BYTES_RECEIVED% %BYTES_SENT% %DURATION% \
     %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% \"%REQ(X-FORWARDED-FOR)%\" \"%REQ(USER-AGENT)%\" \
     \"%REQ(X-REQUEST-ID)%\" \"%REQ(:AUTHORITY)%\" \"%UPSTREAM_HOST%\"\n";
/// Envoy's response flags.
const FLAGS: [&str; 30] = [
    "LH", "UH", "UT", "LR", "UR", "UF", "UC", "UO", "NR", "DI", "FI", "RL", "UAEX", "RLSE", "DC", "URX",
    "SI", "IH", "DPE", "UMSDR", "RFCF", "NFCF", "DT", "UPE", "NC", "OM", "DF", "DO", "DR", "UDO",
];

/// Those that are written.
pub(super) fn access_logs(values: Vec<Proto>, at: &At<'_>) -> Option<Vec<AccessLog>> {
    let logs = at.each(values, access_log)?;
    Some(logs.into_iter().flatten().collect())
}

/// `None` inside for one that is noted.
fn access_log(value: Proto, at: &At<'_>) -> Option<Option<AccessLog>> {
    let Proto { name, filter, config_type } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at_config = at.field("typed_config");
    let access_log::ConfigType::TypedConfig(any) = at_config.required(config_type)?;
    let extension = Extension::open(any, &at_config)?;
    if NOT_WRITTEN.contains(&extension.type_name()) {
        at_config.not_yet("lines are written to the agent's output alone, not sent to a service");
        return Some(None);
    }
    if !written().iter().any(|logger| logger == extension.type_name()) {
        return extension.refuse("access logger", &name, &at_config);
    }
    let converted = at.apart(|| {
        let only_flags = match filter {
            None => Some(None),
            Some(filter) => only_flags(filter, &at.field("filter")).map(Some),
        };
        let (stream, (format, omit_empty_values)) = logger(&extension, &at_config)?;
        Some(AccessLog { stream, only_flags: only_flags?, format, omit_empty_values })
    });
    match converted? {
        Ok(log) => Some(Some(log)),
        Err(problems) => {
            for FieldError { path, reason } in problems {
                at.not_yet_below(&path, format!("{reason}; the log is not written"));
            }
            Some(None)
        }
    }
}

fn written() -> [String; 3] {
    [FileAccessLog::full_name(), StdoutAccessLog::full_name(), StderrAccessLog::full_name()]
}

fn logger(extension: &Extension, at: &At<'_>) -> Option<(LogStream, (LogFormat, bool))> {
    let (stream, format) = match extension.type_name() {
        known if known == StdoutAccessLog::full_name() => {
            let StdoutAccessLog { access_log_format } = extension.message(at)?;
            let format =
                access_log_format.map(|stdout_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogStream::Stdout, format)
        }
        known if known == StderrAccessLog::full_name() => {
            let StderrAccessLog { access_log_format } = extension.message(at)?;
            let format =
                access_log_format.map(|stderr_access_log::AccessLogFormat::LogFormat(format)| format);
            (LogStream::Stderr, format)
        }
        _ => return file(extension.message(at)?, at),
    };
    Some((stream, log_format(format, &at.field("log_format"))?))
}

fn only_flags(value: AccessLogFilter, at: &At<'_>) -> Option<Vec<String>> {
    let AccessLogFilter { filter_specifier } = value;
    let unsupported = |field: &str| at.field(field).unsupported("is not supported");
    match at.field("filter_specifier").required(filter_specifier)? {
        FilterSpecifier::ResponseFlagFilter(ResponseFlagFilter { flags }) => {
            let at = at.field("response_flag_filter").field("flags");
            at.each(flags, |flag: String, at| {
                let is_known = FLAGS.contains(&flag.as_str());
                if is_known { Some(flag) } else { at.refuse(format!("{flag:?} is no response flag")) }
            })
        }
        FilterSpecifier::StatusCodeFilter(_) => unsupported("status_code_filter"),
        FilterSpecifier::DurationFilter(_) => unsupported("duration_filter"),
        FilterSpecifier::NotHealthCheckFilter(_) => unsupported("not_health_check_filter"),
        FilterSpecifier::TraceableFilter(_) => unsupported("traceable_filter"),
        FilterSpecifier::RuntimeFilter(_) => unsupported("runtime_filter"),
        FilterSpecifier::AndFilter(_) => unsupported("and_filter"),
        FilterSpecifier::OrFilter(_) => unsupported("or_filter"),
        FilterSpecifier::HeaderFilter(_) => unsupported("header_filter"),
        FilterSpecifier::GrpcStatusFilter(_) => unsupported("grpc_status_filter"),
        FilterSpecifier::ExtensionFilter(_) => unsupported("extension_filter"),
        FilterSpecifier::MetadataFilter(_) => unsupported("metadata_filter"),
        FilterSpecifier::LogTypeFilter(_) => unsupported("log_type_filter"),
    }
}

fn file(value: FileAccessLog, at: &At<'_>) -> Option<(LogStream, (LogFormat, bool))> {
    let FileAccessLog { path, access_log_format } = value;
    let stream = match path.as_str() {
        "/dev/stdout" => Some(LogStream::Stdout),
        "/dev/stderr" => Some(LogStream::Stderr),
        // A file of the pod, which has no container that it would be in.
        _ => at.field("path").unsupported("is neither /dev/stdout nor /dev/stderr"),
    };
    let format = match access_log_format {
        None => log_format(None, at),
        Some(AccessLogFormat::Format(text)) => {
            text_format(&text, &at.field("format")).map(|format| (format, false))
        }
        Some(AccessLogFormat::JsonFormat(_)) => at.field("json_format").unsupported("is not supported"),
        Some(AccessLogFormat::TypedJsonFormat(fields)) => {
            json_object(fields, &at.field("typed_json_format")).map(|format| (LogFormat::Json(format), false))
        }
        Some(AccessLogFormat::LogFormat(format)) => log_format(Some(format), &at.field("log_format")),
    };
    Some((stream?, format?))
}

/// The format, and whether what is empty is left out.
fn log_format(value: Option<SubstitutionFormatString>, at: &At<'_>) -> Option<(LogFormat, bool)> {
    let Some(value) = value else { return text_format(DEFAULT_FORMAT, at).map(|format| (format, false)) };
    let SubstitutionFormatString { omit_empty_values, content_type, formatters, json_format_options, format } =
        value;
    no_effect!(at; "is of answers, and this is a log"; content_type);
    // They bring operators of their own, which are refused by name where they are used.
    no_effect!(at; "brings operators, which are refused where they are used"; formatters);
    if let Some(JsonFormatOptions { sort_properties }) = json_format_options {
        no_effect!(at.field("json_format_options"); "what is written is sorted in any case"; sort_properties);
    }
    let format = match at.field("format").required(format)? {
        Format::TextFormat(text) => text_format(&text, &at.field("text_format")),
        Format::TextFormatSource(source) => text_source(source, &at.field("text_format_source")),
        Format::JsonFormat(fields) => json_object(fields, &at.field("json_format")).map(LogFormat::Json),
    };
    Some((format?, omit_empty_values))
}

fn text_source(value: DataSource, at: &At<'_>) -> Option<LogFormat> {
    let DataSource { watched_directory, specifier } = value;
    refuse_set!(at; watched_directory);
    match at.field("specifier").required(specifier)? {
        data_source::Specifier::InlineString(text) => text_format(&text, &at.field("inline_string")),
        data_source::Specifier::InlineBytes(bytes) => {
            let at = at.field("inline_bytes");
            match String::from_utf8(bytes) {
                Ok(text) => text_format(&text, &at),
                Err(_) => at.refuse("is not text"),
            }
        }
        data_source::Specifier::Filename(_) => at.field("filename").unsupported("is not supported"),
        data_source::Specifier::EnvironmentVariable(_) => {
            at.field("environment_variable").unsupported("is not supported")
        }
    }
}

fn text_format(text: &str, at: &At<'_>) -> Option<LogFormat> {
    format_parts(text, at).map(LogFormat::Text)
}

fn json_object(value: Struct, at: &At<'_>) -> Option<JsonFormat> {
    let mut fields: Vec<_> = value.fields.into_iter().collect();
    fields.sort_unstable_by(|(one, _), (other, _)| one.cmp(other));
    let mut parsed = Vec::with_capacity(fields.len());
    let mut complete = true;
    for (key, value) in fields {
        match json_value(value, &at.key(&key)) {
            Some(value) => parsed.push((key, value)),
            None => complete = false,
        }
    }
    complete.then_some(JsonFormat::Object(parsed))
}

fn json_value(value: Value, at: &At<'_>) -> Option<JsonFormat> {
    match value.kind {
        None | Some(Kind::NullValue(_)) => Some(JsonFormat::Constant("null".to_owned())),
        Some(Kind::NumberValue(number)) if !number.is_finite() => at.refuse("is no number of JSON"),
        Some(Kind::NumberValue(number)) => Some(JsonFormat::Constant(number.to_string())),
        Some(Kind::BoolValue(flag)) => Some(JsonFormat::Constant(flag.to_string())),
        Some(Kind::StringValue(text)) => format_parts(&text, at).map(JsonFormat::Text),
        Some(Kind::StructValue(fields)) => json_object(fields, at),
        Some(Kind::ListValue(list)) => at.each(list.values, json_value).map(JsonFormat::List),
    }
}
