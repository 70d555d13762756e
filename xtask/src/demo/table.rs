//! What the demo prints.

use std::io::IsTerminal;

use orlop_integration::agent::Explanation;

use super::traffic::{Latency, Outcome, Traffic};

const TRAFFIC: usize = 31;
const PATH: usize = 11;
const ANSWERED: usize = 28;
const KERNEL: usize = 15;
const PROXY: usize = 21;

const DESTINATION: usize = 16;
const REASON: usize = 110;

pub(super) const LEGEND: &str = "\
Paths    kernel       the endpoint is chosen at connect, then nothing stands in between
         tcp, l7      through the node's proxy, which relays bytes (tcp) or speaks HTTP (l7); both ends see true addresses
         passthrough  left exactly as the application asked for it
         blocked      refused at connect
Counted  by the kernel's programs and by the proxy while the traffic ran; a path that left the wrong trace fails the demo
Latency  of a round trip on an open connection (blocked: of the refusal), in turns with a direct one from a pod outside
         the mesh
";

/// Title and column heads.
pub(super) fn heading(istiod: bool) -> String {
    let control_plane = if istiod { "a real istiod" } else { "a directory of xDS files" };
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let heads = format!(
        "{:TRAFFIC$} {:PATH$} {:ANSWERED$} {:KERNEL$} {:PROXY$} {:>7} {:>7} {:>7} {:>6}",
        "TRAFFIC",
        "PATH",
        "ANSWERED BY",
        "KERNEL COUNTED",
        "PROXY COUNTED",
        "p50 µs",
        "p99 µs",
        "direct",
        "ratio"
    );
    format!(
        "\n{}   control plane: {control_plane}, Linux {}, {cores} cores\n\n{}",
        paint("1", "Orlop"),
        kernel.trim(),
        paint("2", &heads)
    )
}

/// One kind of traffic.
pub(super) fn row(traffic: &Traffic, outcome: &Outcome) -> String {
    let answered: Vec<_> = outcome.answered.iter().map(|(who, share)| answer(who, *share)).collect();
    let kernel: Vec<_> = outcome.kernel.iter().map(|(what, n)| format!("{n} {what}")).collect();
    let proxy = match (outcome.proxy_connections, outcome.proxy_requests) {
        (0, 0) => "nothing".to_owned(),
        (connections, 0) => format!("{connections} connections"),
        (connections, requests) => format!("{requests} requests on {connections}"),
    };
    let path = &outcome.explanation.path;
    let colour = match path.as_str() {
        "kernel" => "1;32",
        "tcp" => "1;36",
        "l7" => "1;35",
        "passthrough" => "1;34",
        _ => "1;31",
    };
    let Latency { p50, p99 } = outcome.latency;
    let direct = outcome.direct.map_or_else(|| format!("{:>7}", "–"), |direct| against(p50, direct.p50));
    format!(
        "{:TRAFFIC$} {} {:ANSWERED$} {:KERNEL$} {proxy:PROXY$} {p50:>7} {p99:>7} {direct}",
        traffic.name,
        paint(colour, &format!("{path:PATH$}")),
        answered.join(", "),
        kernel.join(", "),
    )
}

fn answer(who: &str, share: u32) -> String {
    // What is no pod's name is a status or an error's text.
    let who = match who.parse::<u16>() {
        Ok(status) => format!("the proxy itself: {status}"),
        Err(_) if who.contains("refused") => "nobody: refused".to_owned(),
        Err(_) => who.to_owned(),
    };
    if share == 100 { who } else { format!("{who} {share} %") }
}

#[expect(clippy::cast_precision_loss, reason = "microseconds of a round trip are far below 2^52")]
fn against(p50: u64, direct: u64) -> String {
    format!("{direct:>7} {:>5.2}×", p50 as f64 / direct.max(1) as f64)
}

/// Why each path was taken, as `orlop explain` says: once for each destination.
pub(super) fn reasons(outcomes: &[(&Traffic, Outcome)]) -> String {
    let mut lines = vec![String::new(), paint("2", "WHY, as `orlop explain client DESTINATION` says")];
    for (i, (traffic, outcome)) in outcomes.iter().enumerate() {
        if outcomes.iter().take(i).any(|(earlier, _)| earlier.to == traffic.to) {
            continue;
        }
        let Explanation { reason, resource, field, .. } = &outcome.explanation;
        let text = wrap(reason).into_iter().chain([paint("2", &place(resource, field))]);
        let firsts = std::iter::once(traffic.to).chain(std::iter::repeat(""));
        lines.extend(firsts.zip(text).map(|(first, line)| format!("{first:DESTINATION$} {line}")));
    }
    lines.push(String::new());
    lines.join("\n")
}

fn place(resource: &str, field: &str) -> String {
    if field.is_empty() { format!("in {resource}") } else { format!("in {resource}, {field}") }
}

/// Lines of words, none longer than fits beside the destination unless a single word is.
fn wrap(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => word.clone_into(line),
            Some(line) if line.len() + word.len() < REASON => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// For a terminal only.
fn paint(code: &str, text: &str) -> String {
    if std::io::stdout().is_terminal() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
}
