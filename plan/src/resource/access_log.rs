//! `accesslog.v3.AccessLog`: what is written of each request or connection, and where to.

use super::format::FormatPart;

/// A log that is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessLog {
    /// `path`, or the kind of logger.
    pub stream: LogStream,
    /// `filter`: the response flags of which one has to be set, none for any; `None` writes of everything.
    pub only_flags: Option<Vec<String>>,
    /// How.
    pub format: LogFormat,
    /// `omit_empty_values`: what is not there is left out, in the place of `-` or `null`.
    pub omit_empty_values: bool,
}

/// Where lines go: to what the agent itself prints to, since a pod without a sidecar has nothing of the kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogStream {
    /// `/dev/stdout`
    Stdout,
    /// `/dev/stderr`
    Stderr,
}

/// `SubstitutionFormatString`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LogFormat {
    /// `text_format_source`, its end of line with it.
    Text(Vec<FormatPart>),
    /// `json_format`, of which one line is made.
    Json(JsonFormat),
}

/// A value of `json_format`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum JsonFormat {
    /// A string, its operators parsed. One that is an operator alone has its type: a number, or `null`.
    Text(Vec<FormatPart>),
    /// A number, a boolean or `null`, as JSON writes it.
    Constant(String),
    /// In order.
    List(Vec<JsonFormat>),
    /// By key.
    Object(Vec<(String, JsonFormat)>),
}
