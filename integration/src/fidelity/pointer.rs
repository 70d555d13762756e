//! Places in a message's JSON form, and their paths as errors write them.

use std::fmt;

use serde_json::{Map, Value};

#[derive(Debug, Clone)]
enum Segment {
    Field(String),
    Index(usize),
    Key(String),
}

/// A place in a resource.
#[derive(Debug, Clone, Default)]
pub(super) struct Pointer(Vec<Segment>);

impl Pointer {
    pub(super) fn field(&self, name: &str) -> Self {
        self.with(Segment::Field(name.to_owned()))
    }

    pub(super) fn index(&self, index: usize) -> Self {
        self.with(Segment::Index(index))
    }

    pub(super) fn key(&self, key: &str) -> Self {
        self.with(Segment::Key(key.to_owned()))
    }

    fn with(&self, segment: Segment) -> Self {
        let mut segments = self.0.clone();
        segments.push(segment);
        Self(segments)
    }

    /// The value here.
    pub(super) fn get<'v>(&self, root: &'v Value) -> Option<&'v Value> {
        self.0.iter().try_fold(root, |value, segment| match segment {
            Segment::Field(name) | Segment::Key(name) => value.get(name),
            Segment::Index(index) => value.get(index),
        })
    }

    /// The object here.
    pub(super) fn object<'v>(&self, root: &'v mut Value) -> Option<&'v mut Map<String, Value>> {
        let value = self.0.iter().try_fold(root, |value, segment| match segment {
            Segment::Field(name) | Segment::Key(name) => value.get_mut(name),
            Segment::Index(index) => value.get_mut(index),
        });
        value?.as_object_mut()
    }
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, segment) in self.0.iter().enumerate() {
            match segment {
                Segment::Field(name) if i == 0 => f.write_str(name)?,
                Segment::Field(name) => write!(f, ".{name}")?,
                Segment::Index(index) => write!(f, "[{index}]")?,
                Segment::Key(key) => write!(f, "[{key:?}]")?,
            }
        }
        Ok(())
    }
}
