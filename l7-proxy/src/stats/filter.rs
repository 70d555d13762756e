//! What HTTP filters count for a connection manager, by Envoy's names.

use orlop_plan::resource::rbac::ShadowPrefix;

/// A counter of a filter's, behind `http.<stat_prefix>.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FilterStat {
    /// Requests that the rules of an RBAC filter let pass.
    RbacAllowed,
    /// Requests that they do not.
    RbacDenied,
    /// Requests that shadow rules would let pass.
    RbacShadowAllowed,
    /// Requests that they would not.
    RbacShadowDenied,
    /// The same of Istio's dry run of policies that allow.
    RbacDryRunAllowAllowed,
    /// Those that it would deny.
    RbacDryRunAllowDenied,
    /// The same of Istio's dry run of policies that deny.
    RbacDryRunDenyAllowed,
    /// Those that it would deny.
    RbacDryRunDenyDenied,
    /// Requests that were delayed.
    FaultDelaysInjected,
    /// Requests that were answered with a fault.
    FaultAbortsInjected,
    /// Requests of pages whose origin is allowed.
    CorsOriginValid,
    /// Requests of pages whose origin is not.
    CorsOriginInvalid,
}

impl FilterStat {
    /// All, in the order of their counters.
    pub(crate) const ALL: [Self; 12] = [
        Self::RbacAllowed,
        Self::RbacDenied,
        Self::RbacShadowAllowed,
        Self::RbacShadowDenied,
        Self::RbacDryRunAllowAllowed,
        Self::RbacDryRunAllowDenied,
        Self::RbacDryRunDenyAllowed,
        Self::RbacDryRunDenyDenied,
        Self::FaultDelaysInjected,
        Self::FaultAbortsInjected,
        Self::CorsOriginValid,
        Self::CorsOriginInvalid,
    ];

    /// As Envoy writes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::RbacAllowed => "rbac.allowed",
            Self::RbacDenied => "rbac.denied",
            Self::RbacShadowAllowed => "rbac.shadow_allowed",
            Self::RbacShadowDenied => "rbac.shadow_denied",
            Self::RbacDryRunAllowAllowed => "rbac.istio_dry_run_allow_.shadow_allowed",
            Self::RbacDryRunAllowDenied => "rbac.istio_dry_run_allow_.shadow_denied",
            Self::RbacDryRunDenyAllowed => "rbac.istio_dry_run_deny_.shadow_allowed",
            Self::RbacDryRunDenyDenied => "rbac.istio_dry_run_deny_.shadow_denied",
            Self::FaultDelaysInjected => "fault.delays_injected",
            Self::FaultAbortsInjected => "fault.aborts_injected",
            Self::CorsOriginValid => "cors.origin_valid",
            Self::CorsOriginInvalid => "cors.origin_invalid",
        }
    }

    /// What a dry run came to.
    pub(crate) const fn of_shadow(prefix: ShadowPrefix, allowed: bool) -> Self {
        match (prefix, allowed) {
            (ShadowPrefix::None, true) => Self::RbacShadowAllowed,
            (ShadowPrefix::None, false) => Self::RbacShadowDenied,
            (ShadowPrefix::DryRunAllow, true) => Self::RbacDryRunAllowAllowed,
            (ShadowPrefix::DryRunAllow, false) => Self::RbacDryRunAllowDenied,
            (ShadowPrefix::DryRunDeny, true) => Self::RbacDryRunDenyAllowed,
            (ShadowPrefix::DryRunDeny, false) => Self::RbacDryRunDenyDenied,
        }
    }
}
