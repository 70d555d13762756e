//! Why there is no stream.

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use thiserror::Error;
use tonic::Status;

use super::tls::TlsError;

#[derive(Debug, Error)]
pub(super) enum OpenError {
    /// The control plane, or the way to it.
    #[error("{:?}: {}", .0.code(), .0.message())]
    Stream(#[source] Box<Status>),
    #[error("no answer to the first request within {} s", .0.as_secs_f32())]
    Silent(Duration),
    #[error("cannot read {}", file.display())]
    File { file: PathBuf, source: std::io::Error },
    #[error("{} holds no token", file.display())]
    NoToken { file: PathBuf },
    #[error("no connection can be made with {}", list(files))]
    Certificates { files: Vec<PathBuf>, source: TlsError },
    #[error("the node has no certificate for the workload yet")]
    NoCertificate,
    #[error("no fresh connection")]
    Connect(#[source] tonic::transport::Error),
}

impl From<Status> for OpenError {
    fn from(status: Status) -> Self {
        Self::Stream(Box::new(status))
    }
}

fn list(files: &[PathBuf]) -> String {
    let files: Vec<_> = files.iter().map(|file| file.display().to_string()).collect();
    files.join(", ")
}

impl OpenError {
    /// The control plane has too many streams to open.
    pub(super) fn is_refusal_of_pace(&self) -> bool {
        matches!(self, Self::Stream(status) if status.code() == tonic::Code::ResourceExhausted)
    }

    /// This and whatever caused it: a refused connection hides behind two general errors.
    pub(super) fn describe(&self) -> String {
        let mut text = self.to_string();
        let mut source = match self {
            // The status says itself what it is.
            Self::Stream(status) => status.source(),
            other => other.source(),
        };
        while let Some(cause) = source {
            let cause_text = cause.to_string();
            if !text.ends_with(&cause_text) {
                text = format!("{text}: {cause_text}");
            }
            source = cause.source();
        }
        text
    }
}
