//! Addresses, and a control plane that is not there.

use std::time::Duration;

use super::*;
use crate::{Restored, WorkloadNode};

fn grpc(address: &str, options: GrpcOptions) -> Result<Grpc, ClientError> {
    Grpc::new(address, Protocol::Delta, None, options)
}

#[tokio::test]
async fn an_address_without_a_port_is_refused() {
    for address in ["istiod", "istiod:", "istiod:port", "two words:1"] {
        let refused = grpc(address, GrpcOptions::default());
        assert!(matches!(refused, Err(ClientError::Address { .. })), "{address}");
    }
    assert!(grpc("istiod.istio-system.svc:15010", GrpcOptions::default()).is_ok());
    assert!(grpc("[::1]:15010", GrpcOptions::default()).is_ok());
}

#[tokio::test]
async fn a_control_plane_that_is_not_there_is_tried_again_and_the_reason_is_known() {
    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let brief = Duration::from_millis(1);
    let backoff = BackoffBounds { initial: brief, max: brief, stable: brief };
    let grpc = grpc(&closed.to_string(), GrpcOptions { backoff, ..GrpcOptions::default() }).unwrap();

    let stream = grpc.open(WorkloadNode::default().into(), Restored::default());

    let mut status = stream.watch_status();
    let status = status.wait_for(|status| status.attempts > 1).await.unwrap();
    assert_eq!(status.connected_since, None);
    let error = status.last_error.as_deref().unwrap();
    assert!(error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_token_that_cannot_be_read_is_named() {
    let grpc = grpc("127.0.0.1:1", GrpcOptions::default()).unwrap();
    let file = tempfile::tempdir().unwrap().path().join("token");
    let credentials = Credentials::Token { file: file.clone() };

    let stream =
        grpc.open(WorkloadNode { credentials, ..WorkloadNode::default() }.into(), Restored::default());

    let mut status = stream.watch_status();
    let status = status.wait_for(|status| status.last_error.is_some()).await.unwrap();
    let error = status.last_error.as_deref().unwrap();
    assert!(error.starts_with(&format!("cannot read {}: No such file", file.display())), "{error}");
}
