//! Which access logs are written, and what becomes of the others.

use orlop_plan::resource::access_log::{AccessLog, LogFormat, LogStream};
use orlop_plan::resource::format::{EndOperator, FormatOperator, FormatPart};
use orlop_plan::resource::listener::TerminalFilter;
use orlop_plan::snapshot::{ResourceType, Snapshot};
use serde_json::{Value, json};

use crate::support::{accepted, refused};

const KIND: ResourceType = ResourceType::Listener;

/// A listener whose TCP proxy has this log.
fn listener(log: &Value) -> Value {
    let proxy = json!({
        "@type": "type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
        "cluster": "c", "access_log": [log],
    });
    json!({
        "name": "l", "bind_to_port": false,
        "address": { "socket_address": { "address": "10.0.0.8", "port_value": 80 } },
        "filter_chains": [{ "filters": [{ "name": "tcp", "typed_config": proxy }] }],
    })
}

/// A file, with more fields.
fn file(path: &str, fields: &Value) -> Value {
    let mut config = fields.clone();
    config["@type"] = json!("type.googleapis.com/envoy.extensions.access_loggers.file.v3.FileAccessLog");
    config["path"] = json!(path);
    json!({ "name": "log", "typed_config": config })
}

fn text(format: &str) -> Value {
    json!({ "log_format": { "text_format_source": { "inline_string": format } } })
}

fn logs(snapshot: &Snapshot) -> Vec<AccessLog> {
    let listener = snapshot.listeners().get("l").expect("accepted");
    let TerminalFilter::TcpProxy(proxy) = &listener.filter_chains[0].terminal else { panic!("{listener:?}") };
    proxy.access_logs.clone()
}

/// What is told of a log that is accepted and not written.
fn told(log: &Value) -> Vec<String> {
    let snapshot = accepted(KIND, &listener(log));
    assert_eq!(logs(&snapshot), []);
    snapshot.without_effect().iter().map(|told| told.note.to_string()).collect()
}

const AT: &str = "filter_chains[0].filters[0].typed_config.access_log[0]";

#[test]
fn a_text_goes_where_its_path_says() {
    let snapshot = accepted(KIND, &listener(&file("/dev/stderr", &text("took %DURATION%\n"))));
    let parts = vec![
        FormatPart::Text("took ".to_owned()),
        FormatPart::Operator(FormatOperator::AtTheEnd(EndOperator::Duration)),
        FormatPart::Text("\n".to_owned()),
    ];
    let log = AccessLog {
        stream: LogStream::Stderr,
        only_flags: None,
        format: LogFormat::Text(parts),
        omit_empty_values: false,
    };
    assert_eq!(logs(&snapshot), [log]);
    assert_eq!(snapshot.without_effect(), []);
}

#[test]
fn without_a_format_it_is_envoys() {
    let snapshot = accepted(KIND, &listener(&file("/dev/stdout", &json!({}))));
    let LogFormat::Text(parts) = &logs(&snapshot)[0].format else { panic!("{snapshot:?}") };
    assert_eq!(parts[0], FormatPart::Text("[".to_owned()));
    assert_eq!(parts[1], FormatPart::Operator(FormatOperator::AtTheEnd(EndOperator::StartTime)));
}

#[test]
fn a_log_for_which_something_is_missing_is_told_by_name_and_holds_nothing_up() {
    assert_eq!(
        told(&file("/dev/stdout", &text("%DYNAMIC_METADATA(a)%"))),
        [format!(
            "{AT}.typed_config.log_format.text_format_source.inline_string: the operator %DYNAMIC_METADATA(a)% is not \
             supported; the log is not written"
        )]
    );
    assert_eq!(
        told(&file("/var/log/access", &json!({}))),
        [format!("{AT}.typed_config.path: is neither /dev/stdout nor /dev/stderr; the log is not written")]
    );
    let mut filtered = file("/dev/stdout", &json!({}));
    filtered["filter"] = json!({ "not_health_check_filter": {} });
    assert_eq!(
        told(&filtered),
        [format!("{AT}.filter.not_health_check_filter: is not supported; the log is not written")]
    );
}

#[test]
fn a_format_that_is_none_is_refused() {
    assert_eq!(
        refused(KIND, &listener(&file("/dev/stdout", &text("100%")))),
        [format!(
            "{AT}.typed_config.log_format.text_format_source.inline_string: \"100%\" has a % without its counterpart"
        )]
    );
    let unknown = json!({ "name": "log", "filter": { "response_flag_filter": { "flags": ["XX"] } },
        "typed_config": file("/dev/stdout", &json!({}))["typed_config"] });
    assert_eq!(
        refused(KIND, &listener(&unknown)),
        [format!("{AT}.filter.response_flag_filter.flags[0]: \"XX\" is no response flag")]
    );
}
