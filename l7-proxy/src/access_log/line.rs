//! One line of an access log.

use std::io::Write;
use std::time::SystemTime;

use jiff::Timestamp;
use orlop_plan::resource::access_log::{AccessLog, JsonFormat, LogFormat};
use orlop_plan::resource::format::FormatPart;

use crate::http::{FormatContext, FormatValue};

/// The name of the workload in lines of JSON.
const WORKLOAD: &str = "orlop_workload";

/// The line, its end with it. Text begins with the workload's name, an object has it as its first member.
pub(super) fn of(log: &AccessLog, context: &FormatContext<'_>, workload: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(512);
    match &log.format {
        LogFormat::Text(parts) => {
            out.extend_from_slice(workload.as_bytes());
            out.push(b' ');
            text(parts, context, log.omit_empty_values, &mut out);
        }
        LogFormat::Json(format) => {
            Json { context, omit_empty: log.omit_empty_values, out: &mut out }.object(format, Some(workload));
            out.push(b'\n');
        }
    }
    out
}

/// As Envoy writes `%START_TIME%`: RFC 3339, in milliseconds.
pub(crate) fn write_time(time: SystemTime, out: &mut Vec<u8>) {
    if let Ok(time) = Timestamp::try_from(time) {
        // Writing to a vector does not fail.
        let _written = write!(out, "{time:.3}");
    }
}

fn text(parts: &[FormatPart], context: &FormatContext<'_>, omit_empty: bool, out: &mut Vec<u8>) {
    for part in parts {
        match part {
            FormatPart::Text(text) => out.extend_from_slice(text.as_bytes()),
            FormatPart::Operator(operator) => match context.value(operator, context.request) {
                FormatValue::Absent if omit_empty => {}
                FormatValue::Absent => out.push(b'-'),
                value => value.write(out),
            },
        }
    }
}

/// Writes values of `json_format`.
struct Json<'a> {
    context: &'a FormatContext<'a>,
    omit_empty: bool,
    out: &'a mut Vec<u8>,
}

impl Json<'_> {
    fn object(&mut self, format: &JsonFormat, workload: Option<&str>) {
        let JsonFormat::Object(fields) = format else { return self.value(format) };
        self.out.push(b'{');
        if let Some(workload) = workload {
            self.string(WORKLOAD.as_bytes());
            self.out.push(b':');
            self.string(workload.as_bytes());
        }
        let mut first = workload.is_none();
        for (key, value) in fields {
            if self.is_omitted(value) {
                continue;
            }
            if !std::mem::take(&mut first) {
                self.out.push(b',');
            }
            self.string(key.as_bytes());
            self.out.push(b':');
            self.value(value);
        }
        self.out.push(b'}');
    }

    fn value(&mut self, format: &JsonFormat) {
        match format {
            JsonFormat::Constant(constant) => self.out.extend_from_slice(constant.as_bytes()),
            JsonFormat::Object(_) => self.object(format, None),
            JsonFormat::List(values) => {
                self.out.push(b'[');
                for (i, value) in values.iter().enumerate() {
                    if i > 0 {
                        self.out.push(b',');
                    }
                    self.value(value);
                }
                self.out.push(b']');
            }
            JsonFormat::Text(parts) => match parts.as_slice() {
                // An operator alone keeps its type.
                [FormatPart::Operator(operator)] => {
                    match self.context.value(operator, self.context.request) {
                        FormatValue::Absent => self.out.extend_from_slice(b"null"),
                        value @ FormatValue::Number(_) => value.write(self.out),
                        FormatValue::Text(text) => self.string(&text),
                    }
                }
                parts => {
                    let mut value = Vec::new();
                    text(parts, self.context, self.omit_empty, &mut value);
                    self.string(&value);
                }
            },
        }
    }

    fn is_omitted(&self, format: &JsonFormat) -> bool {
        let JsonFormat::Text(parts) = format else { return false };
        let [FormatPart::Operator(operator)] = parts.as_slice() else { return false };
        self.omit_empty && matches!(self.context.value(operator, self.context.request), FormatValue::Absent)
    }

    fn string(&mut self, text: &[u8]) {
        // Of a string into a vector, which does not fail.
        let _written = serde_json::to_writer(&mut *self.out, &String::from_utf8_lossy(text));
    }
}
