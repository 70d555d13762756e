//! `docs/benchmarks.md`: what was measured, how, and what it says. The tables are rewritten with every run; the notes at
//! the end are a person's and stay.

use std::fmt::Write;

use super::{Results, noise, times};
use crate::bench::goals::judge;
use crate::bench::placement::Placement;
use crate::bench::summary::{CPU, Group, P50, P95, P99, RPS, groups};

/// What begins the part that a person writes.
const NOTES: &str = "## Notes";

/// The whole page, with the notes of the `previous` one.
pub(super) fn page(results: &Results, previous: &str) -> String {
    let machine = &results.machine;
    let mut text = format!(
        "# Benchmarks

`cargo xtask bench --write-docs` on {date}, commit {commit}.

{processors} × {processor}, {memory} GiB, Linux {kernel}. {versions}.
{placement} {rounds} turns of {seconds} s each.

![Requests a second relative to the direct path](benchmarks.svg)
",
        date = machine.date,
        commit = machine.commit,
        processors = machine.processors,
        processor = machine.processor,
        memory = machine.memory_gib,
        kernel = machine.kernel,
        versions = machine.versions.join(", "),
        placement = sentence(results.placement),
        rounds = results.rows.iter().map(|row| row.run).max().unwrap_or_default(),
        seconds = results.seconds,
    );
    for group in groups(&results.rows) {
        section(&mut text, &group);
    }
    if let Some(memory) = &results.memory {
        let _ = write!(text, "\n## G: memory\n\n{memory}.\n");
    }
    text.push_str(METHOD);
    text.push_str(previous.find(NOTES).and_then(|start| previous.get(start..)).unwrap_or("## Notes\n"));
    text
}

fn section(text: &mut String, group: &Group<'_>) {
    let _ = write!(
        text,
        "\n## {}

| | requests/s | relative to direct | p50 µs | p95 µs | p99 µs | CPU µs a request | failed |
|---|--:|--:|--:|--:|--:|--:|--:|
",
        group.heading()
    );
    for subject in group.subjects() {
        let median = |figure| group.figure(subject, figure).map_or(f64::NAN, |spread| spread.median);
        let _ = writeln!(
            text,
            "| {subject} | {:.0} | {} | {:.1} | {:.1} | {:.1} | {:.1} | {} |",
            median(RPS),
            group.to_direct(subject, RPS).map(times).unwrap_or_default(),
            median(P50),
            median(P95),
            median(P99),
            median(CPU),
            group.failed(subject),
        );
    }
    let _ = writeln!(text, "\nNoise: {}.\n", noise(group));
    for goal in judge(group) {
        let _ = writeln!(
            text,
            "- {}: {}, goal {}: **{}**",
            goal.ratio,
            times(goal.measured),
            goal.bound,
            goal.verdict
        );
    }
}

fn sentence(placement: Placement) -> &'static str {
    match placement {
        Placement::Pinned => {
            "Load and backend share the first processor; whoever stands between them has the second one alone."
        }
        Placement::Free => {
            "Nothing is pinned: the scheduler spreads load, backend and proxies over the processors."
        }
    }
}

const METHOD: &str = "
## Method

All subjects are up during the whole run and take turns: every one once a round, in alternating order (A B B A). A figure
is the median of the turns; a ratio is the median of the ratios within each round; in parentheses is the whole range. No
turn is left out. The direct path takes part twice, and when its second part is not within 3 % of its first, in requests
and in latency, the machine was too noisy and there is no verdict.

- **Work.** A closed loop over HTTP/1.1: one request outstanding on each connection, answers with a body of 1 KB. Load and
  backend are one thread each. Status, length and every byte of every answer are checked; *failed* counts what was not
  right, warm-up included.
- **direct**: pod to pod, two network namespaces on one bridge. **orlop-kernel**: the pod asks for a service address and the
  agent's eBPF programs choose the endpoint; **orlop-kernel-10k**: the same among 10 000 services, each asked in turn.
  **orlop-l7**: the service's routes match a header, so the agent's shared proxy carries the requests, with one worker.
- **nginx** (one worker) and **haproxy** (one thread) listen on the client's loopback and keep connections to the backend
  open. **envoy-pair**: two Envoys, concurrency 1 each, beside client and server, with Istio's REDIRECT rules, statistics
  on, plain HTTP, a static configuration with the same two routes: less work than sidecars under istiod have. In the L4
  cells, haproxy and the Envoys proxy TCP.
- **CPU** is the time that all processors of the machine worked (`/proc/stat`, softirq included), over the right answers.
- Pinned, a proxy works beside load and backend, not in their time: where these two are what limits the requests (cell A),
  a proxy's cost shows in the latency of one connection and in the CPU column, not in requests. The two Envoys share the
  one proxy processor.
- Latency is that of a saturated closed loop: compare it between subjects, not with a service level.

";
