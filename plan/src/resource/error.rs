//! What is wrong with a resource, and where.

use std::borrow::Cow;
use std::fmt;

/// Where in a resource: `filter_chains[0].filters[1].typed_config.http_filters[2]`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FieldPath(String);

impl FieldPath {
    /// The path of the resource itself.
    pub fn root() -> Self {
        Self::default()
    }

    /// The path of a field of the message at this path.
    #[must_use]
    pub fn field(&self, name: &str) -> Self {
        if self.0.is_empty() { Self(name.to_owned()) } else { Self(format!("{}.{name}", self.0)) }
    }

    /// The path of one element of the repeated field at this path.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        Self(format!("{}[{index}]", self.0))
    }

    /// The name of the last field on the path.
    pub fn last(&self) -> &str {
        // A key may have dots in it.
        let field = match self.0.strip_suffix("\"]").and_then(|path| path.rfind("[\"")) {
            Some(key) => self.0.get(..key).unwrap_or_default(),
            None => &self.0,
        };
        let last = field.rsplit('.').next().unwrap_or_default();
        last.split('[').next().unwrap_or_default()
    }

    /// This path as it is seen from a message above it.
    #[must_use]
    pub(crate) fn below(&self, ancestor: &Self) -> Self {
        let rest = self.0.strip_prefix(&ancestor.0).unwrap_or(&self.0);
        Self(rest.strip_prefix('.').unwrap_or(rest).to_owned())
    }

    /// This path, which is seen from a message, from where that message is seen.
    #[must_use]
    pub(crate) fn under(&self, ancestor: &Self) -> Self {
        if self.0.is_empty() { ancestor.clone() } else { ancestor.field(&self.0) }
    }

    /// The path of one value of the map field at this path.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        Self(format!("{}[{key:?}]", self.0))
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One field that keeps a resource from being served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldError {
    /// Where.
    pub path: FieldPath,
    /// What is wrong, and what would be right.
    pub reason: String,
}

impl std::error::Error for FieldError {}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason } = self;
        if path.0.is_empty() { f.write_str(reason) } else { write!(f, "{path}: {reason}") }
    }
}

/// One field that is accepted without the effect that Envoy would give it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FieldNote {
    /// Where.
    pub path: FieldPath,
    /// What does not happen, or why nothing has to.
    pub reason: Cow<'static, str>,
}

impl fmt::Display for FieldNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, reason } = self;
        write!(f, "{path}: {reason}")
    }
}

/// A field for which a route of an accepted resource is refused: it answers 503.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedRoute {
    /// Where, and why.
    pub error: FieldError,
    /// The route, or the virtual host whose routes are all refused.
    pub route: String,
}

impl fmt::Display for RefusedRoute {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { error, route } = self;
        write!(f, "{error}; {route} answers 503")
    }
}

/// A resource that is refused, with every offending field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResourceError {
    /// The resource's name.
    pub name: String,
    /// At least one.
    pub fields: Vec<FieldError>,
}

impl std::error::Error for ResourceError {}

impl fmt::Display for ResourceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.name)?;
        for (i, field) in self.fields.iter().enumerate() {
            if i > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{field}")?;
        }
        Ok(())
    }
}
