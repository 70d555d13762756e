//! What a pod's admin page has for Prometheus.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};

use crate::Pod;

const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 15000);

/// One line of a metric.
#[derive(Debug, Clone)]
pub struct Sample {
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its value; all are whole numbers.
    pub value: u64,
}

impl Sample {
    /// Fails on the first of these labels that has another value.
    pub fn expect(&self, expected: &[(&str, &str)]) -> Result<()> {
        for (label, value) in expected {
            let found = self.labels.get(*label).map(String::as_str);
            anyhow::ensure!(found == Some(*value), "{label} is not {value} in {:#?}", self.labels);
        }
        Ok(())
    }
}

/// The samples of one metric in a pod that is carried.
pub fn samples(pod: &Pod, metric: &str) -> Result<Vec<Sample>> {
    let metrics = pod.http(ADMIN).path("/stats/prometheus").send()?.body;
    let lines = metrics.lines().filter_map(|line| line.strip_prefix(metric)?.strip_prefix('{'));
    lines
        .map(|line| {
            let (labels, value) = line.rsplit_once("} ").context("labels and a value")?;
            let label = |label: &str| {
                let (name, value) = label.split_once('=').context("a label has a value")?;
                Ok((name.to_owned(), value.trim_matches('"').to_owned()))
            };
            Ok(Sample { labels: labels.split(',').map(label).collect::<Result<_>>()?, value: value.parse()? })
        })
        .collect()
}

/// The sum of a metric's samples.
pub fn sum(pod: &Pod, metric: &str) -> Result<u64> {
    Ok(samples(pod, metric)?.iter().map(|sample| sample.value).sum())
}
