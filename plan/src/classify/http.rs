//! Where HTTP leads: virtual hosts, and the mode that is said of them.

use std::rc::Rc;
use std::sync::Arc;

use super::chain::ChainAt;
use super::cluster::{Need, hop};
use super::finding::Finding;
use super::mode::{Mode, ModeOf, Subject, mode_of};
use super::virtual_host::{catch_all, host_asks, manager_asks, only_cluster, route_configuration_asks};
use super::{Cause, Path, Reason, Served};
use crate::resource::FieldPath;
use crate::resource::http_connection_manager::HttpConnectionManager;
use crate::resource::route::{RouteConfiguration, VirtualHost};

/// The cluster that stands for a virtual host.
struct Target<'a> {
    cluster: &'a Arc<str>,
    mode: Option<ModeOf>,
    /// The virtual host asks for more than the cluster, and does not get it.
    forgoes: bool,
}

fn resource(routes: &RouteConfiguration) -> String {
    format!("route configuration `{}`", routes.name)
}

fn path_of(host: &VirtualHost) -> FieldPath {
    FieldPath::root().field("virtual_hosts").key(&host.name)
}

fn l7<'a>(
    routes: &'a RouteConfiguration,
    host: &'a VirtualHost,
    why: impl Fn() -> (FieldPath, Cause) + 'a,
) -> Finding<'a> {
    Finding::new(Path::L7Proxy, move || {
        let (field, cause) = why();
        let at = path_of(host);
        let field = if field == FieldPath::root() { at } else { at.field(&field.to_string()) };
        Reason { resource: resource(routes), field, cause }
    })
}

/// Where requests for a virtual host lead.
pub(super) fn host_finding<'a>(
    served: Served<'a>,
    routes: &'a RouteConfiguration,
    host: &'a VirtualHost,
) -> Finding<'a> {
    match target(served, routes, host) {
        Ok(target) => land(served, routes, host, target),
        Err(finding) => *finding,
    }
}

/// Whether requests for a virtual host need the proxy, or are refused.
pub(crate) fn asks(served: Served<'_>, routes: &RouteConfiguration, host: &VirtualHost) -> bool {
    !matches!(host_finding(served, routes, host).path, Path::Kernel | Path::Passthrough)
}

/// All of `hosts` must lead to the same place.
pub(super) fn http_finding<'a>(
    served: Served<'a>,
    at: ChainAt<'a>,
    manager: &'a HttpConnectionManager,
    routes: &'a RouteConfiguration,
    hosts: &[&'a VirtualHost],
) -> Finding<'a> {
    let above = above(at, manager, routes);
    let never = |host: &&VirtualHost| served.modes && mode_of(served, host).mode == Mode::Never;
    if let Some(above) = above
        && (hosts.is_empty() || !hosts.iter().all(never))
    {
        let mode = hosts.first().filter(|_| served.modes).map(|host| mode_of(served, host));
        return Finding { mode, ..Finding::new(Path::L7Proxy, move || above.reason()) };
    }
    let mut found: Option<(&VirtualHost, Target<'a>)> = None;
    for host in hosts {
        let target = match target(served, routes, host) {
            Ok(target) => target,
            Err(finding) => return *finding,
        };
        match &found {
            Some((_, other)) if other.cluster != target.cluster => {
                let (one, other) = (other.cluster, target.cluster);
                let differ = move || {
                    let (one, other) = (Arc::clone(one), Arc::clone(other));
                    (FieldPath::root(), Cause::HostsDiffer { one, other })
                };
                return Finding { mode: target.mode, ..l7(routes, host, differ) };
            }
            Some(_) => {}
            None => found = Some((host, target)),
        }
    }
    let Some((host, target)) = found else {
        return Finding::new(Path::L7Proxy, move || Reason {
            resource: resource(routes),
            field: FieldPath::root().field("virtual_hosts"),
            cause: Cause::VirtualHost { virtual_host: "*".to_owned(), what: "is not there" },
        });
    };
    let mut finding = land(served, routes, host, target);
    if let Some(above) = above {
        finding.forgone.push(Rc::new(move || vec![above.reason()]));
    }
    finding
}

/// What is asked for above the virtual hosts.
#[derive(Clone, Copy)]
struct Above<'a> {
    at: ChainAt<'a>,
    /// Where the routes ask, and not the manager.
    routes: Option<&'a RouteConfiguration>,
    field: &'static str,
    what: &'static str,
}

fn above<'a>(
    at: ChainAt<'a>,
    manager: &'a HttpConnectionManager,
    routes: &'a RouteConfiguration,
) -> Option<Above<'a>> {
    if let Some((field, what)) = manager_asks(manager) {
        return Some(Above { at, routes: None, field, what });
    }
    let (field, what) = route_configuration_asks(routes)?;
    Some(Above { at, routes: Some(routes), field, what })
}

impl Above<'_> {
    fn reason(self) -> Reason {
        let Self { at, routes, field, what } = self;
        match routes {
            None => at.reason(field, what),
            Some(routes) => Reason {
                resource: resource(routes),
                field: FieldPath::root().field(field),
                cause: Cause::VirtualHost { virtual_host: "*".to_owned(), what },
            },
        }
    }
}

fn target<'a>(
    served: Served<'a>,
    routes: &'a RouteConfiguration,
    host: &'a VirtualHost,
) -> Result<Target<'a>, Box<Finding<'a>>> {
    let mode = served.modes.then(|| mode_of(served, host));
    let asked = match only_cluster(host) {
        Ok(cluster) => return Ok(Target { cluster, mode, forgoes: false }),
        Err(asked) => asked,
    };
    let never = mode.as_ref().is_some_and(|mode| mode.mode == Mode::Never);
    match catch_all(host) {
        Some(cluster) if never => Ok(Target { cluster, mode, forgoes: true }),
        _ => {
            let because = move || {
                let (field, cause) = asked.clone();
                let cause = if never { Cause::NoSingleCluster { because: Box::new(cause) } } else { cause };
                (field, cause)
            };
            Err(Box::new(Finding { mode, ..l7(routes, host, because) }))
        }
    }
}

fn land<'a>(
    served: Served<'a>,
    routes: &'a RouteConfiguration,
    host: &'a VirtualHost,
    target: Target<'a>,
) -> Finding<'a> {
    let Target { cluster, mode, forgoes } = target;
    let need = match mode.as_ref().map(|mode| mode.mode) {
        Some(Mode::Never) => Need::Weights,
        Some(Mode::Always | Mode::OnIntent) | None => Need::Http,
    };
    let mut finding = hop(served, cluster, need);
    if let Some(said) = mode.clone().filter(|mode| mode.mode == Mode::Always)
        && matches!(finding.path, Path::Kernel | Path::Passthrough)
    {
        let always = move || {
            let (resource, field) = match said.said_of {
                Subject::Http2 => (format!("cluster `{cluster}`"), "typed_extension_protocol_options"),
                _ => ("node.yaml".to_owned(), "l7"),
            };
            let cause = Cause::Always { said: said.clone() };
            Reason { resource, field: FieldPath::root().field(field), cause }
        };
        finding = Finding { cluster: Some(cluster), ..Finding::new(Path::L7Proxy, always) };
    }
    if forgoes {
        finding.forgone.push(Rc::new(move || {
            let reason = |(field, cause): (FieldPath, Cause)| Reason {
                resource: resource(routes),
                field: path_of(host).field(&field.to_string()),
                cause,
            };
            host_asks(host).into_iter().map(reason).collect()
        }));
    }
    Finding { mode, ..finding }
}
