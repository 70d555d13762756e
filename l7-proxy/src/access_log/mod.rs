//! Access logs: what is written of requests and connections that are over.
//!
//! A worker makes the line and queues it; one thread writes what all pods have queued to the agent's own output, so that whoever
//! reads that slowly holds no traffic up. Each pod has room of its own in the queue: what does not fit is dropped and
//! counted, and takes nothing of the others'. A line names the workload that it is of.

mod line;
mod writer;

use orlop_plan::resource::access_log::AccessLog;

use crate::http::FormatContext;
use crate::pod::PodContext;

pub(crate) use line::write_time;
pub(crate) use writer::{LogWriter, PodLog};

/// Writes the lines that `logs` ask for of what `context` says.
pub(crate) fn write(logs: &[AccessLog], context: &FormatContext<'_>, pod: &PodContext) {
    for log in logs {
        let is_of = match log.only_flags.as_deref() {
            None => true,
            Some([]) => !context.flags.is_empty(),
            Some(flags) => context.flags.iter().any(|flag| flags.iter().any(|wanted| wanted == flag.short())),
        };
        if is_of {
            let line = line::of(log, context, pod.log.workload());
            if pod.log.queue(log.stream, line) {
                pod.counters.log_lines.inc();
            } else {
                pod.counters.log_lines_lost.inc();
            }
        }
    }
}
