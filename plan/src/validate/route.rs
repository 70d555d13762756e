//! `route.v3.Route`: what it takes, and redirects and direct responses.

use envoy_types::pb::envoy::config::core::v3::{DataSource, data_source};
use envoy_types::pb::envoy::config::route::v3::redirect_action::{
    PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier,
};
use envoy_types::pb::envoy::config::route::v3::{
    DirectResponseAction as ProtoDirectResponse, QueryParameterMatcher as ProtoQueryParameter,
    RedirectAction as ProtoRedirect, Route as Proto, RouteMatch as ProtoMatch, query_parameter_matcher,
    route as oneof, route_match,
};
use http::StatusCode;

use super::at::{At, no_effect, refuse_set};
use super::header::{Mutations, header_matcher};
use super::matcher::string_matcher;
use super::per_filter_config::per_filter_config;
use super::regex::{full_match, substitution};
use super::route_action::route_action;
use super::scalar::{optional_text, per_million, port};
use super::tracing::{decorator as decorator_of, route_tracing};
use crate::resource::header::HeaderMutations;
use crate::resource::route::{
    Action, DirectResponseAction, FilterConfigs, PathMatch, QueryParameterMatcher, RedirectAction,
    RedirectPath, Route, RouteMatch,
};

pub(super) fn route(value: Proto, max_body: usize, at: &At<'_>) -> Option<Route> {
    let Proto {
        name,
        r#match,
        metadata,
        decorator,
        typed_per_filter_config,
        request_headers_to_add,
        request_headers_to_remove,
        response_headers_to_add,
        response_headers_to_remove,
        tracing,
        per_request_buffer_limit_bytes,
        stat_prefix,
        request_body_buffer_limit,
        route_specifiers,
        action,
    } = value;
    no_effect!(at; "has no reader"; metadata);
    let decorator = match decorator {
        None => Some(None),
        Some(value) => decorator_of(value, &at.field("decorator")).map(Some),
    };
    let tracing = match tracing {
        None => Some(None),
        Some(value) => route_tracing(value, &at.field("tracing")).map(|tracing| Some(tracing.into())),
    };
    no_effect!(at; "feeds statistics alone"; stat_prefix);
    let at_match = at.field("match");
    let route_match = at_match.required(r#match).and_then(|value| route_match(value, &at_match));
    let served = at.apart(|| {
        refuse_set!(at; per_request_buffer_limit_bytes, request_body_buffer_limit, route_specifiers);
        let filters = per_filter_config(typed_per_filter_config, at);
        let headers = Mutations {
            request_headers_to_add,
            request_headers_to_remove,
            response_headers_to_add,
            response_headers_to_remove,
        }
        .convert(at);
        let action =
            at.field("action").required(action).and_then(|action| route_action_of(action, max_body, at));
        Some((action?, headers?, filters?))
    });
    let (action, headers, filters) = served?.unwrap_or_else(|fields| {
        at.refuse_route(&fields, &format!("route {name:?}"));
        (Action::Unsupported(fields), HeaderMutations::default(), FilterConfigs::default())
    });
    Some(Route {
        name,
        route_match: route_match?,
        action,
        headers,
        filters,
        decorator: decorator?,
        tracing: tracing?,
    })
}

fn route_action_of(value: oneof::Action, max_body: usize, at: &At<'_>) -> Option<Action> {
    match value {
        oneof::Action::Route(value) => {
            route_action(value, &at.field("route")).map(|action| Action::Route(Box::new(action)))
        }
        oneof::Action::Redirect(value) => redirect(value, &at.field("redirect")).map(Action::Redirect),
        oneof::Action::DirectResponse(value) => {
            direct_response(value, max_body, &at.field("direct_response")).map(Action::DirectResponse)
        }
        oneof::Action::FilterAction(_) => at.field("filter_action").unsupported("is not supported"),
        oneof::Action::NonForwardingAction(_) => {
            at.field("non_forwarding_action").unsupported("is not supported")
        }
    }
}

pub(super) fn route_match(value: ProtoMatch, at: &At<'_>) -> Option<RouteMatch> {
    let ProtoMatch {
        case_sensitive,
        runtime_fraction,
        headers,
        query_parameters,
        cookies,
        grpc,
        tls_context,
        dynamic_metadata,
        filter_state,
        path_specifier,
    } = value;
    refuse_set!(at; cookies, tls_context, dynamic_metadata, filter_state);
    let path = at.field("path_specifier").required(path_specifier).and_then(|path| match path {
        route_match::PathSpecifier::Prefix(prefix) => Some(PathMatch::Prefix(prefix)),
        route_match::PathSpecifier::Path(path) => Some(PathMatch::Exact(path)),
        route_match::PathSpecifier::SafeRegex(regex) => {
            full_match(regex, &at.field("safe_regex")).map(PathMatch::Regex)
        }
        route_match::PathSpecifier::PathSeparatedPrefix(prefix) => {
            if prefix.is_empty() || prefix.ends_with('/') || prefix.contains(['?', '#']) {
                return at.field("path_separated_prefix").refuse("is empty, ends with / or has a ? or #");
            }
            Some(PathMatch::PathSeparatedPrefix(prefix))
        }
        route_match::PathSpecifier::ConnectMatcher(_) => {
            at.field("connect_matcher").refuse("is not supported")
        }
        route_match::PathSpecifier::PathMatchPolicy(extension) => {
            let name = extension.name;
            at.field("path_match_policy").refuse(format!("{name:?} is not supported"))
        }
    });
    let headers = at.field("headers").each(headers, header_matcher);
    let query_parameters = at.field("query_parameters").each(query_parameters, query_parameter);
    let fraction = match runtime_fraction {
        None => Some(None),
        Some(fraction) => per_million(&fraction, &at.field("runtime_fraction")).map(Some),
    };
    Some(RouteMatch {
        path: path?,
        case_sensitive: case_sensitive.is_none_or(|flag| flag.value),
        headers: headers?,
        query_parameters: query_parameters?,
        grpc: grpc.is_some(),
        runtime_fraction_per_million: fraction?,
    })
}

fn query_parameter(value: ProtoQueryParameter, at: &At<'_>) -> Option<QueryParameterMatcher> {
    use query_parameter_matcher::QueryParameterMatchSpecifier;
    let ProtoQueryParameter { name, query_parameter_match_specifier } = value;
    let value = match query_parameter_match_specifier {
        None | Some(QueryParameterMatchSpecifier::PresentMatch(true)) => None,
        Some(QueryParameterMatchSpecifier::PresentMatch(false)) => {
            return at.field("present_match").refuse("false is not supported");
        }
        Some(QueryParameterMatchSpecifier::StringMatch(matcher)) => {
            Some(string_matcher(matcher, &at.field("string_match"))?)
        }
    };
    Some(QueryParameterMatcher { name, value })
}

fn redirect(value: ProtoRedirect, at: &At<'_>) -> Option<RedirectAction> {
    let ProtoRedirect {
        host_redirect,
        port_redirect,
        response_code,
        strip_query,
        scheme_rewrite_specifier,
        path_rewrite_specifier,
    } = value;
    let port = match port_redirect {
        0 => Some(None),
        value => port(value, &at.field("port_redirect")).map(Some),
    };
    let status = match RedirectResponseCode::try_from(response_code) {
        Ok(RedirectResponseCode::MovedPermanently) => Some(StatusCode::MOVED_PERMANENTLY),
        Ok(RedirectResponseCode::Found) => Some(StatusCode::FOUND),
        Ok(RedirectResponseCode::SeeOther) => Some(StatusCode::SEE_OTHER),
        Ok(RedirectResponseCode::TemporaryRedirect) => Some(StatusCode::TEMPORARY_REDIRECT),
        Ok(RedirectResponseCode::PermanentRedirect) => Some(StatusCode::PERMANENT_REDIRECT),
        Err(_) => at.field("response_code").refuse("is unknown"),
    };
    let scheme = match scheme_rewrite_specifier {
        None | Some(SchemeRewriteSpecifier::HttpsRedirect(false)) => None,
        Some(SchemeRewriteSpecifier::HttpsRedirect(true)) => Some("https".to_owned()),
        Some(SchemeRewriteSpecifier::SchemeRedirect(scheme)) => optional_text(scheme),
    };
    let path = match path_rewrite_specifier {
        None => Some(None),
        Some(PathRewriteSpecifier::PathRedirect(path)) => Some(optional_text(path).map(RedirectPath::Full)),
        Some(PathRewriteSpecifier::PrefixRewrite(prefix)) => {
            Some(optional_text(prefix).map(RedirectPath::Prefix))
        }
        Some(PathRewriteSpecifier::RegexRewrite(rewrite)) => {
            substitution(rewrite, &at.field("regex_rewrite"))
                .map(|(pattern, substitution)| Some(RedirectPath::Regex { pattern, substitution }))
        }
        Some(PathRewriteSpecifier::PathRewrite(_)) => {
            at.field("path_rewrite").unsupported("is not supported")
        }
    };
    Some(RedirectAction {
        scheme,
        host: optional_text(host_redirect),
        port: port?,
        path: path?,
        status: status?,
        strip_query,
    })
}

fn direct_response(value: ProtoDirectResponse, max_body: usize, at: &At<'_>) -> Option<DirectResponseAction> {
    let ProtoDirectResponse { status, body, body_format } = value;
    refuse_set!(at; body_format);
    let status = u16::try_from(status)
        .ok()
        .filter(|status| (200..600).contains(status))
        .and_then(|status| StatusCode::from_u16(status).ok())
        .or_else(|| at.field("status").refuse(format!("{status} is not in 200..=599")));
    let at_body = at.field("body");
    let body = match body {
        None => Some(Vec::new()),
        Some(DataSource { watched_directory, specifier }) => {
            refuse_set!(at_body; watched_directory);
            match specifier {
                Some(data_source::Specifier::InlineBytes(bytes)) => Some(bytes),
                Some(data_source::Specifier::InlineString(text)) => Some(text.into_bytes()),
                Some(data_source::Specifier::Filename(_)) => {
                    at_body.field("filename").unsupported("is not supported")
                }
                Some(data_source::Specifier::EnvironmentVariable(_)) => {
                    at_body.field("environment_variable").unsupported("is not supported")
                }
                None => at_body.refuse("is empty"),
            }
        }
    };
    let body = body?;
    if body.len() > max_body {
        return at_body.refuse(format!("has {} bytes; the limit is {max_body}", body.len()));
    }
    Some(DirectResponseAction { status: status?, body })
}
