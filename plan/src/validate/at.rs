//! Where validation stands in a resource, and what it found there.

use std::borrow::Cow;
use std::cell::RefCell;

use orlop_proto::Descriptors;

use crate::resource::{FieldError, FieldNote, FieldPath, RefusedRoute};

/// What was found in one resource.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Why the resource is refused.
    problems: Vec<Problem>,
    /// Why routes of a resource that is accepted are refused by themselves.
    pub(crate) refused_routes: Vec<RefusedRoute>,
    /// What is accepted and has no effect yet.
    pub(crate) notes: Vec<FieldNote>,
    /// What is accepted and has no effect by its nature; listed only where somebody asks.
    pub(crate) no_effect: Option<Vec<FieldNote>>,
    /// Once a `TypedStruct` had to be read by them.
    descriptors: Option<Descriptors>,
}

#[derive(Debug)]
struct Problem {
    error: FieldError,
    /// Whether Envoy would honour it.
    unsupported: bool,
}

impl Findings {
    /// With what has no effect by its nature, too.
    pub(crate) fn listing_everything() -> Self {
        Self { no_effect: Some(Vec::new()), ..Self::default() }
    }

    /// Why the resource is refused; nothing where it is not. With it goes whatever would have been refused by itself.
    pub(crate) fn take_problems(&mut self) -> Vec<FieldError> {
        let mut all: Vec<_> = self.problems.drain(..).map(|problem| problem.error).collect();
        if !all.is_empty() {
            all.extend(self.refused_routes.drain(..).map(|refused| refused.error));
        }
        all
    }
}

/// A place in a resource. The findings of all places of one resource come together.
#[derive(Clone)]
pub(super) struct At<'p> {
    path: FieldPath,
    findings: &'p RefCell<Findings>,
}

impl<'p> At<'p> {
    pub(super) fn root(findings: &'p RefCell<Findings>) -> Self {
        Self { path: FieldPath::root(), findings }
    }

    pub(super) fn field(&self, name: &str) -> Self {
        Self { path: self.path.field(name), findings: self.findings }
    }

    pub(super) fn index(&self, index: usize) -> Self {
        Self { path: self.path.index(index), findings: self.findings }
    }

    pub(super) fn key(&self, key: &str) -> Self {
        Self { path: self.path.key(key), findings: self.findings }
    }

    /// Records a problem that is one for Envoy as well; `None`, so that a conversion can end with it.
    pub(super) fn refuse<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.problem(reason.into(), false)
    }

    /// Records that what Envoy would honour is not.
    pub(super) fn unsupported<T>(&self, reason: impl Into<String>) -> Option<T> {
        self.problem(reason.into(), true)
    }

    fn problem<T>(&self, reason: String, unsupported: bool) -> Option<T> {
        let error = FieldError { path: self.path.clone(), reason };
        self.findings.borrow_mut().problems.push(Problem { error, unsupported });
        None
    }

    /// What `convert` makes of a part of the resource. Where it refuses nothing but what Envoy would honour, that is not
    /// the resource's problem: it comes back, with paths from here.
    pub(super) fn apart<T>(&self, convert: impl FnOnce() -> Option<T>) -> Option<Result<T, Vec<FieldError>>> {
        let before = self.findings.borrow().problems.len();
        let converted = convert();
        let problems = &mut self.findings.borrow_mut().problems;
        let own = problems.get(before..).unwrap_or_default();
        if own.is_empty() || own.iter().any(|problem| !problem.unsupported) {
            return converted.map(Ok);
        }
        let below = |problem: Problem| FieldError {
            path: problem.error.path.below(&self.path),
            reason: problem.error.reason,
        };
        Some(Err(problems.drain(before..).map(below).collect()))
    }

    /// Records that a route is refused by itself, for these fields of it.
    pub(super) fn refuse_route(&self, fields: &[FieldError], route: &str) {
        let refused = fields.iter().map(|FieldError { path, reason }| RefusedRoute {
            error: FieldError { path: path.under(&self.path), reason: reason.clone() },
            route: route.to_owned(),
        });
        self.findings.borrow_mut().refused_routes.extend(refused);
    }

    /// Records that what was set here on purpose is accepted and has no effect yet.
    pub(super) fn not_yet(&self, reason: &'static str) {
        self.not_yet_below(&FieldPath::root(), reason);
    }

    /// The same of a field that is seen from here.
    pub(super) fn not_yet_below(&self, field: &FieldPath, reason: impl Into<Cow<'static, str>>) {
        let note = FieldNote { path: field.under(&self.path), reason: reason.into() };
        self.findings.borrow_mut().notes.push(note);
    }

    /// Records that what is set here has no effect by its nature. Costs nothing where nobody asks.
    pub(super) fn no_effect(&self, reason: &'static str) {
        if let Some(no_effect) = &mut self.findings.borrow_mut().no_effect {
            no_effect.push(FieldNote { path: self.path.clone(), reason: reason.into() });
        }
    }

    /// What messages are made of. Loaded once for a resource, and only for one that needs it: it takes its time and room.
    pub(super) fn descriptors(&self) -> Option<Descriptors> {
        let known = &mut self.findings.borrow_mut().descriptors;
        if known.is_none() {
            *known = Descriptors::load().ok();
        }
        known.clone()
    }

    /// Whether somebody asks for what has no effect.
    pub(super) fn lists_no_effect(&self) -> bool {
        self.findings.borrow().no_effect.is_some()
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
        // A new list: to collect in place would keep the room of the messages, many times that of what they become.
        let mut converted = Vec::with_capacity(elements.len());
        let mut complete = true;
        for (i, element) in elements.into_iter().enumerate() {
            match convert(element, &self.index(i)) {
                Some(element) => converted.push(element),
                None => complete = false,
            }
        }
        complete.then_some(converted)
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
            let _: Option<()> = $at.field(stringify!($field)).unsupported("is not supported");
        })+
    };
}
pub(super) use refuse_set;

/// Says why these fields have no effect by their nature: `no_effect!(at; "counts nothing"; first, second)`.
macro_rules! no_effect {
    ($at:expr; $reason:literal; $($field:ident),+ $(,)?) => {
        if $at.lists_no_effect() {
            $(if $crate::validate::at::is_set(&$field) {
                $at.field(stringify!($field)).no_effect($reason);
            })+
        }
    };
}
pub(super) use no_effect;
