//! Matching headers, and changing them.

use orlop_plan::resource::format::{FormatOperator, FormatPart};
use orlop_plan::resource::header::{AppendAction, HeaderFormat, HeaderMatch, HeaderMutations, HeaderSource};
use serde_json::{Value, json};

use crate::support::{header_matcher, header_matcher_refusals, route, route_refusals};

fn mutations(fields: &Value) -> HeaderMutations {
    route(fields).headers.clone()
}

fn add(value: &str) -> Value {
    json!({ "request_headers_to_add": [{ "header": { "key": "x-added", "value": value } }] })
}

fn format(value: &str) -> HeaderFormat {
    mutations(&add(value)).request_add[0].value.clone()
}

#[test]
fn a_header_without_a_condition_must_be_there() {
    let matcher = header_matcher(&json!({ "name": "X-Canary" }));

    assert!(matches!(matcher.matches, HeaderMatch::Present(true)));
    assert!(matches!(&matcher.name, HeaderSource::Name(name) if name == "x-canary"));
}

#[test]
fn pseudo_headers_are_matched_like_headers() {
    let source = |name: &str| header_matcher(&json!({ "name": name, "present_match": true })).name;

    assert_eq!(source(":method"), HeaderSource::Method);
    assert_eq!(source(":path"), HeaderSource::Path);
    assert_eq!(source(":scheme"), HeaderSource::Scheme);
    assert_eq!(source(":authority"), HeaderSource::Authority);
    assert_eq!(source("Host"), HeaderSource::Authority);
}

#[test]
fn a_name_that_no_header_has_is_refused() {
    for name in [":status", "a header", ""] {
        let refusals = header_matcher_refusals(&json!({ "name": name, "present_match": true }));
        assert!(refusals[0].starts_with("name: "), "{refusals:?}");
    }
}

#[test]
fn a_range_has_no_last_value() {
    let matcher = header_matcher(&json!({ "name": "x-n", "range_match": { "start": "-1", "end": "5" } }));

    assert!(matches!(matcher.matches, HeaderMatch::Range { start: -1, end: 5 }));
}

#[test]
fn a_value_without_operators_is_literal() {
    assert!(matches!(format("100%% sure"), HeaderFormat::Literal(value) if value == "100% sure"));
}

#[test]
fn operators_are_taken_apart() {
    let HeaderFormat::Parts(parts) =
        format("from %DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT% as %REQ(X-User?:authority):8%")
    else {
        panic!("literal")
    };

    let user = FormatOperator::RequestHeader {
        name: HeaderSource::Name("x-user".parse().unwrap()),
        otherwise: Some(HeaderSource::Authority),
        max_length: Some(8),
    };
    assert_eq!(
        parts,
        [
            FormatPart::Text("from ".to_owned()),
            FormatPart::Operator(FormatOperator::DownstreamRemoteAddressWithoutPort),
            FormatPart::Text(" as ".to_owned()),
            FormatPart::Operator(user),
        ]
    );
}

#[test]
fn operators_that_are_not_honoured_are_refused_by_name() {
    for (value, part) in [
        ("%START_TIME%", "%START_TIME%"),
        ("%DYNAMIC_METADATA(a:b)%", "%DYNAMIC_METADATA(a:b)%"),
        ("50%", "50%"),
        ("%PROTOCOL%\n", "characters"),
    ] {
        let refusals = route_refusals(&add(value));
        assert!(refusals[0].starts_with("request_headers_to_add[0].header.value: "), "{refusals:?}");
        assert!(refusals[0].contains(part), "{refusals:?}");
    }
}

#[test]
fn both_ways_to_say_that_a_header_is_replaced() {
    let action = |option: Value| {
        let mut option = option;
        option["header"] = json!({ "key": "x-added", "value": "1" });
        mutations(&json!({ "response_headers_to_add": [option] })).response_add[0].append_action
    };

    assert_eq!(action(json!({})), AppendAction::AppendIfExistsOrAdd);
    assert_eq!(action(json!({ "append": false })), AppendAction::OverwriteIfExistsOrAdd);
    assert_eq!(
        action(json!({ "append_action": "OVERWRITE_IF_EXISTS_OR_ADD" })),
        AppendAction::OverwriteIfExistsOrAdd
    );
    assert_eq!(action(json!({ "append_action": "ADD_IF_ABSENT" })), AppendAction::AddIfAbsent);
}

#[test]
fn pseudo_headers_and_host_are_changed_by_rewriting_only() {
    for name in [":path", "Host"] {
        let added = json!({ "request_headers_to_add": [{ "header": { "key": name, "value": "x" } }] });
        let removed = json!({ "request_headers_to_remove": [name] });
        assert!(route_refusals(&added)[0].starts_with("request_headers_to_add[0].header.key: "));
        assert!(route_refusals(&removed)[0].starts_with("request_headers_to_remove[0]: "));
    }
}
