//! A request's query parameters.

use regex::{Regex, RegexBuilder};

/// A compiled expression that is larger is refused.
const LARGEST_REGEX: usize = 1 << 20;

/// In order; a name that is given twice counts the first time, as for Envoy.
#[derive(Debug)]
pub(super) struct Query(Vec<(String, String)>);

impl Query {
    pub(super) fn parse(query: Option<&str>) -> Self {
        Self(form_urlencoded::parse(query.unwrap_or_default().as_bytes()).into_owned().collect())
    }

    /// The value; empty where the name stands alone.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Whether it is there, with any value.
    pub(super) fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    /// Whether anything is there.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The expression under `name`, to be found anywhere in a text.
    pub(super) fn regex(&self, name: &str) -> Result<Option<Regex>, regex::Error> {
        self.get(name).map(bounded).transpose()
    }

    /// The expression under `name`, to match a text as a whole.
    pub(super) fn full_regex(&self, name: &str) -> Result<Option<Regex>, regex::Error> {
        let Some(pattern) = self.get(name) else { return Ok(None) };
        // Checked by itself first: `)(` must not become an expression by what stands around it.
        bounded(pattern)?;
        bounded(&format!("^(?:{pattern})$")).map(Some)
    }
}

fn bounded(pattern: &str) -> Result<Regex, regex::Error> {
    RegexBuilder::new(pattern).size_limit(LARGEST_REGEX).build()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_of_equal_names_counts_and_a_name_may_stand_alone() {
        let query = Query::parse(Some("include_eds&name_regex=a%7Cb&name_regex=c"));
        assert!(query.has("include_eds"));
        assert_eq!(query.get("name_regex"), Some("a|b"));
        assert!(!query.has("mask"));
    }

    #[test]
    fn a_full_expression_matches_the_whole_text_only() {
        let query = Query::parse(Some("a=x%7Cy&b=)("));
        let regex = query.full_regex("a").unwrap().unwrap();
        assert!(regex.is_match("x") && regex.is_match("y") && !regex.is_match("xy"));
        assert!(query.full_regex("b").is_err());
    }

    #[test]
    fn an_expression_that_explodes_is_refused() {
        let query = Query::parse(Some("a=(x{100}){100}{100}"));
        assert!(query.regex("a").is_err());
    }
}
