//! What of a workload's traffic is not to be taken at all: the annotations by which a pod keeps traffic from its sidecar,
//! and the ports at which the kubelet probes it.
//!
//! istiod does not know them; an injected sidecar has them carried out by its init container, as rules of iptables
//! (`tools/istio-iptables` in Istio). The order of those rules is the order here.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

/// What says that some traffic is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Annotation {
    /// The address is in one of these ranges.
    ExcludeOutboundRanges,
    /// The address is in none of these ranges, and the port not among those that are taken for any address.
    IncludeOutboundRanges,
    /// It goes to one of these ports.
    ExcludeOutboundPorts,
    /// Taken whatever the address; excludes nothing by itself.
    IncludeOutboundPorts,
    /// It comes in at one of these ports.
    ExcludeInboundPorts,
    /// It comes in at none of these ports.
    IncludeInboundPorts,
}

impl Annotation {
    const ALL: [Self; 6] = [
        Self::ExcludeOutboundRanges,
        Self::IncludeOutboundRanges,
        Self::ExcludeOutboundPorts,
        Self::IncludeOutboundPorts,
        Self::ExcludeInboundPorts,
        Self::IncludeInboundPorts,
    ];

    /// Its name on a pod.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ExcludeOutboundRanges => "traffic.sidecar.istio.io/excludeOutboundIPRanges",
            Self::IncludeOutboundRanges => "traffic.sidecar.istio.io/includeOutboundIPRanges",
            Self::ExcludeOutboundPorts => "traffic.sidecar.istio.io/excludeOutboundPorts",
            Self::IncludeOutboundPorts => "traffic.sidecar.istio.io/includeOutboundPorts",
            Self::ExcludeInboundPorts => "traffic.sidecar.istio.io/excludeInboundPorts",
            Self::IncludeInboundPorts => "traffic.sidecar.istio.io/includeInboundPorts",
        }
    }
}

impl fmt::Display for Annotation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// An annotation whose value is not what it must be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("annotation {annotation}: {entry:?} {reason}")]
pub struct ExclusionError {
    /// Which.
    pub annotation: Annotation,
    /// The entry of its list.
    pub entry: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

/// What of a workload's traffic is not taken. The default is that all of it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Exclusions {
    exclude_outbound_ranges: Vec<IpNet>,
    /// `None` is everywhere.
    include_outbound_ranges: Option<Vec<IpNet>>,
    exclude_outbound_ports: BTreeSet<u16>,
    include_outbound_ports: BTreeSet<u16>,
    exclude_inbound_ports: BTreeSet<u16>,
    /// `None` is every port.
    include_inbound_ports: Option<BTreeSet<u16>>,
    probed_ports: BTreeSet<u16>,
}

/// Whether traffic to a range or port is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Taken {
    /// It is, although the rest may not be.
    Yes,
    /// It is not.
    No,
}

impl Exclusions {
    /// Reads a pod's annotations; those of other names are other people's.
    pub fn parse(annotations: &BTreeMap<String, String>) -> Result<Self, ExclusionError> {
        let mut this = Self::default();
        for annotation in Annotation::ALL {
            let Some(value) = annotations.get(annotation.name()) else { continue };
            let list = List { annotation, value };
            match annotation {
                Annotation::ExcludeOutboundRanges => this.exclude_outbound_ranges = list.ranges()?,
                Annotation::IncludeOutboundRanges => {
                    this.include_outbound_ranges = list.unless_all(List::ranges)?;
                }
                Annotation::ExcludeOutboundPorts => this.exclude_outbound_ports = list.ports()?,
                Annotation::IncludeOutboundPorts => this.include_outbound_ports = list.ports()?,
                Annotation::ExcludeInboundPorts => this.exclude_inbound_ports = list.ports()?,
                Annotation::IncludeInboundPorts => {
                    this.include_inbound_ports = list.unless_all(List::ports)?;
                }
            }
        }
        Ok(this)
    }

    /// The same, where the kubelet's probes at these ports are not taken either.
    #[must_use]
    pub fn with_probes(self, ports: BTreeSet<u16>) -> Self {
        Self { probed_ports: ports, ..self }
    }

    /// Whether there are any but of the kubelet's probes.
    pub fn exclude_something(&self) -> bool {
        let Self { probed_ports, .. } = self;
        *self != Self::default().with_probes(probed_ports.clone())
    }

    /// The ports at which the kubelet probes the workload.
    pub fn probed_ports(&self) -> impl Iterator<Item = u16> {
        self.probed_ports.iter().copied()
    }

    /// What keeps a connection of the workload from being taken.
    pub fn outbound(&self, to: SocketAddr) -> Option<Annotation> {
        let within = |ranges: &[IpNet]| ranges.iter().any(|range| range.contains(&to.ip()));
        if self.exclude_outbound_ports.contains(&to.port()) {
            return Some(Annotation::ExcludeOutboundPorts);
        }
        if within(&self.exclude_outbound_ranges) {
            return Some(Annotation::ExcludeOutboundRanges);
        }
        let included = self.include_outbound_ports.contains(&to.port())
            || self.include_outbound_ranges.as_deref().is_none_or(within);
        (!included).then_some(Annotation::IncludeOutboundRanges)
    }

    /// What keeps a connection to the workload from being taken.
    pub fn inbound(&self, port: u16) -> Option<Annotation> {
        match &self.include_inbound_ports {
            // As Istio has it, what is excluded counts only where everything else is included.
            Some(ports) => (!ports.contains(&port)).then_some(Annotation::IncludeInboundPorts),
            None => self.exclude_inbound_ports.contains(&port).then_some(Annotation::ExcludeInboundPorts),
        }
    }

    /// Outbound ranges for a table in which the longest prefix wins, each with what holds for it.
    pub fn ranges(&self) -> impl Iterator<Item = (IpNet, Taken)> {
        let excluded = |range: &IpNet| self.exclude_outbound_ranges.iter().any(|outer| outer.contains(range));
        let ranges = self.exclude_outbound_ranges.iter().chain(self.include_outbound_ranges.iter().flatten());
        let unique: BTreeSet<IpNet> = ranges.copied().collect();
        unique.into_iter().map(move |range| (range, if excluded(&range) { Taken::No } else { Taken::Yes }))
    }

    /// Outbound ports that something is said of.
    pub fn outbound_ports(&self) -> impl Iterator<Item = (u16, Taken)> {
        let excluded = self.exclude_outbound_ports.iter().map(|port| (*port, Taken::No));
        let included = self.include_outbound_ports.difference(&self.exclude_outbound_ports);
        excluded.chain(included.map(|port| (*port, Taken::Yes)))
    }

    /// Inbound ports that something is said of.
    pub fn inbound_ports(&self) -> impl Iterator<Item = (u16, Taken)> {
        let included = self.include_inbound_ports.iter().flatten().map(|port| (*port, Taken::Yes));
        let all = self.include_inbound_ports.is_none();
        let excluded = self.exclude_inbound_ports.iter().filter(move |_| all);
        included.chain(excluded.map(|port| (*port, Taken::No)))
    }

    /// Whether outbound traffic of which nothing is said is taken.
    pub fn takes_outbound(&self) -> bool {
        self.include_outbound_ranges.is_none()
    }

    /// Whether inbound traffic of which nothing is said is taken.
    pub fn takes_inbound(&self) -> bool {
        self.include_inbound_ports.is_none()
    }
}

/// A list as it is written: entries between commas, or `*`.
#[derive(Clone, Copy)]
struct List<'a> {
    annotation: Annotation,
    value: &'a str,
}

impl List<'_> {
    fn unless_all<T>(
        self,
        parse: fn(Self) -> Result<T, ExclusionError>,
    ) -> Result<Option<T>, ExclusionError> {
        if self.value.trim() == "*" { Ok(None) } else { parse(self).map(Some) }
    }

    fn ports(self) -> Result<BTreeSet<u16>, ExclusionError> {
        self.entries("is not a port", |entry| entry.parse().ok().filter(|port| *port != 0))
    }

    fn ranges(self) -> Result<Vec<IpNet>, ExclusionError> {
        self.entries("is not an address range in CIDR form", |entry| {
            let range = entry.parse().ok().or_else(|| entry.parse::<IpAddr>().ok().map(IpNet::from))?;
            Some(range.trunc())
        })
    }

    fn entries<T, C: FromIterator<T>>(
        self,
        reason: &'static str,
        parse: impl Fn(&str) -> Option<T>,
    ) -> Result<C, ExclusionError> {
        let entries = self.value.split(',').map(str::trim).filter(|entry| !entry.is_empty());
        let wrong =
            |entry: &str| ExclusionError { annotation: self.annotation, entry: entry.to_owned(), reason };
        entries.map(|entry| parse(entry).ok_or_else(|| wrong(entry))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(annotations: &[(Annotation, &str)]) -> Result<Exclusions, ExclusionError> {
        let annotations = annotations.iter().map(|(name, value)| (name.to_string(), (*value).to_owned()));
        Exclusions::parse(&annotations.collect())
    }

    fn outbound(exclusions: &Exclusions, to: &str) -> Option<Annotation> {
        exclusions.outbound(to.parse().unwrap())
    }

    #[test]
    fn without_annotations_everything_is_taken() {
        let none = parse(&[]).unwrap();
        assert_eq!(outbound(&none, "10.0.0.1:80"), None);
        assert_eq!(none.inbound(80), None);
        assert_eq!((none.ranges().count(), none.outbound_ports().count()), (0, 0));
    }

    #[test]
    fn an_excluded_range_or_port_is_not_taken_and_wins_over_an_included_one() {
        let some = parse(&[
            (Annotation::ExcludeOutboundRanges, "10.1.0.0/16, fd00::/8,192.0.2.1"),
            (Annotation::IncludeOutboundRanges, "10.0.0.0/8,10.1.2.0/24"),
            (Annotation::ExcludeOutboundPorts, "3306"),
            (Annotation::IncludeOutboundPorts, "3306,8080"),
        ])
        .unwrap();
        for (to, expected) in [
            ("10.2.0.1:80", None),
            ("10.1.2.3:80", Some(Annotation::ExcludeOutboundRanges)),
            ("192.0.2.1:8080", Some(Annotation::ExcludeOutboundRanges)),
            ("[fd00::1]:80", Some(Annotation::ExcludeOutboundRanges)),
            ("10.2.0.1:3306", Some(Annotation::ExcludeOutboundPorts)),
            ("8.8.8.8:80", Some(Annotation::IncludeOutboundRanges)),
            ("8.8.8.8:8080", None),
        ] {
            assert_eq!(outbound(&some, to), expected, "{to}");
        }
    }

    #[test]
    fn the_longest_prefix_says_what_the_lists_say() {
        let some = parse(&[
            (Annotation::ExcludeOutboundRanges, "10.1.0.0/16,10.3.0.0/16"),
            (Annotation::IncludeOutboundRanges, "10.0.0.0/8,10.1.2.0/24,10.3.0.0/16"),
        ])
        .unwrap();
        for ip in ["10.0.0.1", "10.1.0.1", "10.1.2.1", "10.3.0.1", "11.0.0.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let longest = some
                .ranges()
                .filter(|(range, _)| range.contains(&ip))
                .max_by_key(|(range, _)| range.prefix_len());
            let by_table = longest.map_or(some.takes_outbound(), |(_, taken)| taken == Taken::Yes);
            assert_eq!(by_table, some.outbound(SocketAddr::new(ip, 80)).is_none(), "{ip}");
        }
    }

    #[test]
    fn an_empty_list_of_what_is_included_takes_nothing() {
        let nothing =
            parse(&[(Annotation::IncludeOutboundRanges, ""), (Annotation::IncludeInboundPorts, "")]).unwrap();
        assert_eq!(outbound(&nothing, "10.0.0.1:80"), Some(Annotation::IncludeOutboundRanges));
        assert_eq!(nothing.inbound(80), Some(Annotation::IncludeInboundPorts));
    }

    #[test]
    fn inbound_ports_are_excluded_from_all_or_included_among_none() {
        let all_but =
            parse(&[(Annotation::IncludeInboundPorts, "*"), (Annotation::ExcludeInboundPorts, "22, 81")]);
        let all_but = all_but.unwrap();
        assert_eq!((all_but.inbound(22), all_but.inbound(80)), (Some(Annotation::ExcludeInboundPorts), None));
        let only =
            parse(&[(Annotation::IncludeInboundPorts, "80"), (Annotation::ExcludeInboundPorts, "80,81")]);
        let only = only.unwrap();
        assert_eq!((only.inbound(80), only.inbound(81)), (None, Some(Annotation::IncludeInboundPorts)));
        assert_eq!(only.inbound_ports().collect::<Vec<_>>(), [(80, Taken::Yes)]);
    }

    #[test]
    fn what_is_no_port_or_range_is_refused_by_annotation_and_entry() {
        for (annotation, value, entry) in [
            (Annotation::ExcludeOutboundPorts, "80,http", "http"),
            (Annotation::ExcludeOutboundPorts, "0", "0"),
            (Annotation::ExcludeInboundPorts, "65536", "65536"),
            (Annotation::ExcludeInboundPorts, "*", "*"),
            (Annotation::ExcludeOutboundRanges, "10.0.0.0/33", "10.0.0.0/33"),
            (Annotation::IncludeOutboundRanges, "10.0.0.0/8,*", "*"),
        ] {
            let error = parse(&[(annotation, value)]).unwrap_err();
            assert_eq!((error.annotation, error.entry.as_str()), (annotation, entry), "{value}");
            assert!(error.to_string().starts_with("annotation traffic.sidecar.istio.io/"), "{error}");
        }
    }
}
