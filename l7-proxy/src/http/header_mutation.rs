//! Header operations of routes: Envoy's `HeaderParser`. On each level removals come before additions.

use http::{HeaderMap, HeaderName, HeaderValue};
use orlop_plan::resource::header::{AppendAction, HeaderMutations, HeaderTarget, HeaderValueOption};

use super::format::FormatContext;
use super::head::RequestHead;

/// The levels that apply to one request, the most specific first: weighted cluster, route, virtual host, route
/// configuration.
#[derive(Debug, Clone, Copy)]
pub(crate) struct MutationLevels<'a> {
    levels: [Option<&'a HeaderMutations>; 4],
    /// `most_specific_header_mutations_wins`: the most specific level comes last.
    most_specific_wins: bool,
}

impl<'a> MutationLevels<'a> {
    /// Levels without operations cost nothing later.
    pub(crate) fn new(levels: [Option<&'a HeaderMutations>; 4], most_specific_wins: bool) -> Self {
        Self { levels: levels.map(|level| level.filter(|level| !level.is_empty())), most_specific_wins }
    }

    fn in_order(&self) -> impl Iterator<Item = &'a HeaderMutations> {
        let count = self.levels.len();
        let levels = self.levels;
        let reversed = self.most_specific_wins;
        (0..count)
            .filter_map(move |at| levels.get(if reversed { count - 1 - at } else { at }).copied().flatten())
    }

    /// Applies the operations on requests.
    pub(crate) fn apply_to_request(&self, head: &mut RequestHead, context: &FormatContext<'_>) {
        for level in self.in_order() {
            for name in &level.request_remove {
                head.headers.remove(name);
            }
            for option in &level.request_add {
                let Some(value) = value_of(option, context, Some(head)) else { continue };
                match &option.name {
                    HeaderTarget::Name(name) => set(&mut head.headers, name, value, option.append_action),
                    HeaderTarget::Authority => overwrite(&mut head.authority, &value, option.append_action),
                    HeaderTarget::Path => overwrite(&mut head.path, &value, option.append_action),
                }
            }
        }
    }

    /// Applies the operations on responses.
    pub(crate) fn apply_to_response(&self, headers: &mut HeaderMap, context: &FormatContext<'_>) {
        for level in self.in_order() {
            for name in &level.response_remove {
                headers.remove(name);
            }
            for option in &level.response_add {
                if let HeaderTarget::Name(name) = &option.name
                    && let Some(value) = value_of(option, context, context.request)
                {
                    set(headers, name, value, option.append_action);
                }
            }
        }
    }

    /// Whether responses are left alone.
    pub(crate) fn leaves_responses(&self) -> bool {
        self.levels
            .iter()
            .flatten()
            .all(|level| level.response_add.is_empty() && level.response_remove.is_empty())
    }
}

fn value_of(
    option: &HeaderValueOption,
    context: &FormatContext<'_>,
    request: Option<&RequestHead>,
) -> Option<HeaderValue> {
    let value = context.format(&option.value, request)?;
    (option.keep_empty_value || !value.is_empty()).then_some(value)
}

/// Does to a header what is asked for.
pub(super) fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue, action: AppendAction) {
    match action {
        AppendAction::AppendIfExistsOrAdd => {
            headers.append(name, value);
        }
        AppendAction::AddIfAbsent => {
            headers.entry(name).or_insert(value);
        }
        AppendAction::OverwriteIfExistsOrAdd => {
            headers.insert(name, value);
        }
        AppendAction::OverwriteIfExists => {
            if headers.contains_key(name) {
                headers.insert(name, value);
            }
        }
    }
}

/// A pseudo-header has one value, so that whatever does not keep an existing one replaces it.
pub(super) fn overwrite(target: &mut String, value: &HeaderValue, action: AppendAction) {
    if (action != AppendAction::AddIfAbsent || target.is_empty())
        && let Ok(value) = value.to_str()
    {
        target.clear();
        target.push_str(value);
    }
}
