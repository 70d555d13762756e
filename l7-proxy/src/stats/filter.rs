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
    /// Requests whose tokens are as they have to be.
    JwtAllowed,
    /// Requests whose tokens are not.
    JwtDenied,
    /// Preflights, which have no tokens.
    JwtCorsPreflightBypassed,
    /// What shadow rules leave to no authorizer.
    RbacExtAuthzAllowed,
    /// What they leave to one.
    RbacExtAuthzDenied,
    /// Requests that an authorizer lets pass.
    ExtAuthzOk,
    /// Requests that it does not.
    ExtAuthzDenied,
    /// Requests about which it could not be asked.
    ExtAuthzError,
    /// Those of them that passed.
    ExtAuthzFailureModeAllowed,
    /// Requests about which it was not to be asked.
    ExtAuthzDisabled,
    /// Requests of which it wants changed what cannot be.
    ExtAuthzInvalid,
    /// Requests that are traced because of their number.
    TracingRandomSampling,
    /// Requests that are traced because a proxy before says so.
    TracingServiceForced,
    /// Requests that are traced because the client wants it.
    TracingClientEnabled,
    /// Requests that are not traced.
    TracingNotTraceable,
}

impl FilterStat {
    /// All, in the order of their counters.
    pub(crate) const ALL: [Self; 27] = [
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
        Self::JwtAllowed,
        Self::JwtDenied,
        Self::JwtCorsPreflightBypassed,
        Self::RbacExtAuthzAllowed,
        Self::RbacExtAuthzDenied,
        Self::ExtAuthzOk,
        Self::ExtAuthzDenied,
        Self::ExtAuthzError,
        Self::ExtAuthzFailureModeAllowed,
        Self::ExtAuthzDisabled,
        Self::ExtAuthzInvalid,
        Self::TracingRandomSampling,
        Self::TracingServiceForced,
        Self::TracingClientEnabled,
        Self::TracingNotTraceable,
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
            Self::JwtAllowed => "jwt_authn.allowed",
            Self::JwtDenied => "jwt_authn.denied",
            Self::JwtCorsPreflightBypassed => "jwt_authn.cors_preflight_bypassed",
            Self::RbacExtAuthzAllowed => "rbac.istio_ext_authz_.shadow_allowed",
            Self::RbacExtAuthzDenied => "rbac.istio_ext_authz_.shadow_denied",
            Self::ExtAuthzOk => "ext_authz.ok",
            Self::ExtAuthzDenied => "ext_authz.denied",
            Self::ExtAuthzError => "ext_authz.error",
            Self::ExtAuthzFailureModeAllowed => "ext_authz.failure_mode_allowed",
            Self::ExtAuthzDisabled => "ext_authz.disabled",
            Self::ExtAuthzInvalid => "ext_authz.invalid",
            Self::TracingRandomSampling => "tracing.random_sampling",
            Self::TracingServiceForced => "tracing.service_forced",
            Self::TracingClientEnabled => "tracing.client_enabled",
            Self::TracingNotTraceable => "tracing.not_traceable",
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
            (ShadowPrefix::ExtAuthz, true) => Self::RbacExtAuthzAllowed,
            (ShadowPrefix::ExtAuthz, false) => Self::RbacExtAuthzDenied,
        }
    }
}

/// A counter of a local rate limit's, behind `<stat_prefix>.http_local_rate_limit.`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum LimitStat {
    /// Requests for which the bucket was asked.
    Enabled,
    /// Requests for which it had a token.
    Ok,
    /// Requests for which it had none.
    RateLimited,
    /// Those of them that were stopped.
    Enforced,
}

impl LimitStat {
    /// All, in the order of their counters.
    pub(crate) const ALL: [Self; 4] = [Self::Enabled, Self::Ok, Self::RateLimited, Self::Enforced];

    /// As Envoy writes it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Ok => "ok",
            Self::RateLimited => "rate_limited",
            Self::Enforced => "enforced",
        }
    }
}
