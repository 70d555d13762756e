//! Why a workload's connections do not go as its configuration says.

use std::fmt;

use super::identity::WorkloadIdentity;
use super::workload::Enrolled;

/// Why a workload's connections do not go as its configuration says. In words by `Display`.
pub(crate) enum NotCarried<'a> {
    /// It is not enrolled, or the kernel did not take its plan.
    Because(&'a str),
    /// No complete configuration has come.
    Unconfigured(&'a Enrolled),
    /// It should have a certificate and has none that is valid.
    Unidentified(&'a WorkloadIdentity),
}

impl NotCarried<'_> {
    /// Somebody wants it carried, and it never got so far.
    pub(crate) const LEFT_ALONE: &'static str = "NotCarried";

    /// In one word, as events of pods have it.
    pub(crate) fn reason(&self) -> &'static str {
        match self {
            Self::Because(_) => Self::LEFT_ALONE,
            Self::Unconfigured(_) => "NotConfigured",
            Self::Unidentified(_) => "NoCertificate",
        }
    }
}

impl fmt::Display for NotCarried<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Because(reason) => f.write_str(reason),
            Self::Unconfigured(enrolled) => {
                f.write_str("no complete configuration has come yet")?;
                enrolled.xds().last_error.map_or(Ok(()), |error| write!(f, ": {error}"))
            }
            Self::Unidentified(identity) => {
                f.write_str("there is no valid certificate for it")?;
                identity.problem().map_or(Ok(()), |error| write!(f, ": {error}"))
            }
        }
    }
}
