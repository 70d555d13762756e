//! URI templates (`UriTemplateMatchConfig`), as Envoy reads them: segments that are literal, `*` or `**`, and at the end a
//! literal suffix. A template becomes the expression for the whole path that Envoy makes of it.

use envoy_types::pb::envoy::config::core::v3::TypedExtensionConfig;
use envoy_types::pb::envoy::extensions::path::r#match::uri_template::v3::UriTemplateMatchConfig;
use prost::Name;
use regex::Regex;

use super::at::{At, no_effect};
use super::decode::Extension;

/// What one segment of a path may consist of: RFC 3986's `pchar` without `*`.
const SEGMENT: &str = r"[A-Za-z0-9\-._~%!$&'()+,;:@=]+";
/// What several may.
const SEGMENTS: &str = r"[A-Za-z0-9\-._~%!$&'()+,;:@=/]*";
/// The longest template, in bytes.
const LONGEST_TEMPLATE: usize = 8 << 10;

pub(super) fn uri_template(value: TypedExtensionConfig, at: &At<'_>) -> Option<Regex> {
    let TypedExtensionConfig { name, typed_config } = value;
    no_effect!(at; "is named in errors alone"; name);
    let at = at.field("typed_config");
    let extension = Extension::open(at.required(typed_config)?, &at)?;
    if extension.type_name() != UriTemplateMatchConfig::full_name() {
        return extension.refuse("template of paths", &name, &at);
    }
    let UriTemplateMatchConfig { path_template } = extension.message(&at)?;
    let at = at.field("path_template");
    if path_template.len() > LONGEST_TEMPLATE {
        return at.refuse(format!("is longer than {LONGEST_TEMPLATE} bytes"));
    }
    match expression(&path_template) {
        Ok(expression) => Regex::new(&expression).ok().or_else(|| at.refuse("is too large")),
        Err(reason) => at.refuse(format!("{path_template:?} {reason}")),
    }
}

fn expression(template: &str) -> Result<String, &'static str> {
    let segments = template.strip_prefix('/').ok_or("does not begin with a slash")?;
    let mut expression = String::from(r"\A");
    let mut several = false;
    let mut rest = segments.split('/').peekable();
    while let Some(segment) = rest.next() {
        expression.push('/');
        let literal = match segment.strip_prefix('*') {
            None => segment,
            Some(_) if several => return Err("has an operator behind `**`"),
            Some(one) => {
                several = one.starts_with('*');
                expression.push_str(if several { SEGMENTS } else { SEGMENT });
                let suffix = one.strip_prefix('*').unwrap_or(one);
                if !suffix.is_empty() && rest.peek().is_some() {
                    return Err("has more behind the suffix of an operator");
                }
                suffix
            }
        };
        if segment.is_empty() && rest.peek().is_some() {
            return Err("has an empty segment");
        }
        if !literal.bytes().all(is_literal) {
            return Err("has characters that no segment has, or variables, which are not supported");
        }
        expression.push_str(&regex::escape(literal));
    }
    expression.push_str(r"\z");
    Ok(expression)
}

fn is_literal(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~%!$&'()+,;:@=".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn takes(template: &str, path: &str) -> bool {
        Regex::new(&expression(template).unwrap()).unwrap().is_match(path)
    }

    #[test]
    fn a_star_takes_one_segment_and_two_take_any_number() {
        for (template, path, taken) in [
            ("/a/*/c", "/a/b/c", true),
            ("/a/*/c", "/a/b/b/c", false),
            ("/a/*/c", "/a//c", false),
            ("/a/**", "/a/", true),
            ("/a/**", "/a/b/c", true),
            ("/a/**", "/a", false),
            ("/*/b/**/c", "/a/b/x/y/c", true),
            ("/*/b/**/c", "/a/b/c", false),
            ("/a/*.json", "/a/b.json", true),
            ("/a/*.json", "/a/bxjson", false),
            ("/a/", "/a/", true),
            ("/a/*", "/a/b=c", true),
            ("/a/*", "/a/b*c", false),
        ] {
            assert_eq!(takes(template, path), taken, "{template} {path}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for template in ["", "a", "/a//b", "/**/*", "/**/a/**", "/*a/b", "/{name}", "/a b", "/a*"] {
            assert!(expression(template).is_err(), "{template}");
        }
    }
}
