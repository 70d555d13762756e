//! Tokens of the pods' own service accounts, for an authority that does not trust the node's.
//!
//! Nothing is kept: each is asked for when a certificate is, is for the authority alone, is bound to its pod, and is over in ten
//! minutes.

use std::pin::Pin;
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{BoundObjectReference, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::{Api, Client};
use orlop_identity::TokenSource;

use crate::config::Workload;

/// For whom they are.
const AUDIENCE: &str = "istio-ca";
/// The shortest that the API server gives, in seconds.
const LIFETIME: i64 = 600;

/// Asks the API server for tokens of pods (`TokenRequest`).
#[derive(Clone)]
pub(crate) struct PodTokens(Client);

/// For one pod.
struct PodToken {
    accounts: Api<ServiceAccount>,
    account: String,
    pod: String,
}

impl PodTokens {
    pub(super) fn new(client: Client) -> Self {
        Self(client)
    }

    /// Where the pod's own come from.
    pub(crate) fn of(&self, pod: &Workload) -> Arc<dyn TokenSource> {
        Arc::new(PodToken {
            accounts: Api::namespaced(self.0.clone(), &pod.namespace),
            account: pod.service_account.clone(),
            pod: pod.name.clone(),
        })
    }
}

impl PodToken {
    async fn ask(&self) -> Result<String, kube::Error> {
        let pod = BoundObjectReference {
            api_version: Some("v1".to_owned()),
            kind: Some("Pod".to_owned()),
            name: Some(self.pod.clone()),
            uid: None,
        };
        let spec = TokenRequestSpec {
            audiences: vec![AUDIENCE.to_owned()],
            bound_object_ref: Some(pod),
            expiration_seconds: Some(LIFETIME),
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let answer =
            self.accounts.create_token_request(&self.account, &PostParams::default(), &request).await?;
        Ok(answer.status.map(|status| status.token).unwrap_or_default())
    }
}

impl TokenSource for PodToken {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async {
            self.ask().await.map_err(|error| {
                format!("the API server gives none for pod {}: {:#}", self.pod, anyhow::Error::from(error))
            })
        })
    }
}

impl std::fmt::Debug for PodToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PodToken({}, {})", self.account, self.pod)
    }
}
