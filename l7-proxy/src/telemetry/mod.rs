//! Istio's metrics of requests and connections, and how the two ends of a request learn about each other.
//!
//! In: what became of a stream, noted as it passes ([`StreamInfo`](crate::http)). Out: series by what they are kept apart by
//! ([`Dimensions`]), one set for each worker and pod, added up when somebody asks. What is said of the workload itself is
//! the agent's to add.

mod dimensions;
mod grpc_frames;
mod histogram;
mod peer_exchange;
mod peer_metadata;
mod series;

pub use self::dimensions::{Destination, Dimensions, Peer, Protocol};
pub use self::histogram::{BOUNDS, HistogramStats};
pub use self::peer_metadata::PeerMetadata;
pub use self::series::SeriesStats;

pub(crate) use self::grpc_frames::GrpcFrames;
pub(crate) use self::peer_exchange::{PeerExchange, Said, Told};
pub(crate) use self::series::{Observed, Published, Series, SeriesCounters};
