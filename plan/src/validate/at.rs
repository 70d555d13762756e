//! Where validation stands in a resource, and what it found there.

use std::cell::RefCell;

use crate::resource::{FieldError, FieldPath};

/// A place in a resource. Problems of all places of one resource come together.
#[derive(Clone)]
pub(super) struct At<'p> {
    path: FieldPath,
    problems: &'p RefCell<Vec<FieldError>>,
}

impl<'p> At<'p> {
    pub(super) fn root(problems: &'p RefCell<Vec<FieldError>>) -> Self {
        Self { path: FieldPath::root(), problems }
    }

    pub(super) fn field(&self, name: &str) -> Self {
        Self { path: self.path.field(name), problems: self.problems }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self { path: self.path.index(index), problems: self.problems }
    }

    pub(super) fn key(&self, key: &str) -> Self {
        Self { path: self.path.key(key), problems: self.problems }
    }

    /// Records a problem; `None`, so that a conversion can end with it.
    pub(super) fn refuse<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.problems.borrow_mut().push(FieldError { path: self.path.clone(), reason: reason.into() });
        None
    }

    /// The value of a field that must be set.
    pub(super) fn required<T>(&self, value: Option<T>) -> Option<T> {
        value.or_else(|| self.refuse("is required"))
    }

    /// Converts every element of a repeated field, so that every element's problems are found.
    pub(super) fn each<M, T>(
        &self,
        elements: Vec<M>,
        convert: impl Fn(M, &Self) -> Option<T>,
    ) -> Option<Vec<T>> {
        let converted: Vec<Option<T>> =
            elements.into_iter().enumerate().map(|(i, element)| convert(element, &self.index(i))).collect();
        converted.into_iter().collect()
    }
}

/// Whether a field has another value than the one that it has when left out.
pub(super) fn is_set<T: Default + PartialEq>(value: &T) -> bool {
    *value != T::default()
}

/// Refuses every one of these fields that is set: `refuse_set!(at; first, second)` for variables named as the fields are.
macro_rules! refuse_set {
    ($at:expr; $($field:ident),+ $(,)?) => {
        $(if $crate::validate::at::is_set(&$field) {
            let _: Option<()> = $at.field(stringify!($field)).refuse("is not supported");
        })+
    };
}
pub(super) use refuse_set;
