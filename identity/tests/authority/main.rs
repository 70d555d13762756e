//! What becomes of an authority's answers, good and bad. A real istiod answers in the tests of the whole agent.

#![expect(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test fails by panicking")]

mod bad_answers;
mod files;
mod mesh;
mod server;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use orlop_identity::{Credential, Shown, SpiffeId, State, Subscription, TokenSource};
use tokio::time::timeout;

use mesh::{Mesh, Wanted};
use server::{Answer, Asked, Authority};

const DAY: Duration = Duration::from_hours(24);

fn id(account: &str) -> SpiffeId {
    SpiffeId::new("cluster.local", "shop", account)
}

/// Signs whatever it is asked for.
fn good(mesh: Mesh, lifetime: Duration) -> impl Fn(&Asked) -> Answer {
    move |asked| {
        let wanted = Wanted::of(asked.impersonated.as_ref().unwrap_or(&asked.uri), lifetime);
        Ok(vec![mesh.sign(&wanted, &asked.key), mesh.root.clone()])
    }
}

fn workload(token: PathBuf) -> Credential {
    Credential::WorkloadToken(token)
}

/// Waits for the state to be so.
async fn state(subscription: &Subscription, wanted: impl FnMut(&State) -> bool) -> State {
    let mut receiver = subscription.state();
    let Ok(found) = timeout(Duration::from_mins(1), receiver.wait_for(wanted)).await else {
        panic!("{:?}", subscription.state().borrow());
    };
    found.unwrap().clone()
}

async fn issued(subscription: &Subscription) -> State {
    state(subscription, |state| state.identity.is_some()).await
}

#[tokio::test]
async fn a_workload_gets_its_certificate_by_its_own_token() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    let root = mesh.root.clone();
    authority.answer(good(mesh, DAY));
    let mut identities = authority.identities();

    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "its-token\n")));
    let State { identity, roots, last_error, .. } = issued(&subscription).await;

    let identity = identity.unwrap();
    assert_eq!((&identity.id, last_error), (&id("cart"), None));
    assert!(identity.remaining(SystemTime::now()) > Duration::from_hours(23));
    assert_eq!(*roots, [server::der(&root)]);
    let [asked] = &authority.asked()[..] else { panic!("one question") };
    assert_eq!((&*asked.authorization, &*asked.cluster), ("Bearer its-token", "cluster-1"));
    assert_eq!((&*asked.uri, &asked.impersonated), ("spiffe://cluster.local/ns/shop/sa/cart", &None));
    assert_eq!(asked.lifetime, DAY);
}

#[tokio::test]
async fn a_node_asks_for_its_workloads_with_a_token_of_its_own() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, DAY));
    let mut identities = authority.identities();

    let token = authority.file("token", "the-nodes");
    let subscription = identities.subscribe(id("cart"), Credential::NodeToken(token, None));
    issued(&subscription).await;

    let [asked] = &authority.asked()[..] else { panic!("one question") };
    assert_eq!(asked.authorization, "Bearer the-nodes");
    assert_eq!(asked.impersonated.as_deref(), Some("spiffe://cluster.local/ns/shop/sa/cart"));
}

/// As the API server gives tokens, or does not.
#[derive(Debug)]
struct ApiServer(Result<&'static str, &'static str>);

impl TokenSource for ApiServer {
    fn token(&self) -> Pin<Box<dyn Future<Output = Result<String, String>> + Send + '_>> {
        Box::pin(async { self.0.map(str::to_owned).map_err(str::to_owned) })
    }
}

/// Trusts no node.
fn of_workloads_alone(mesh: Mesh) -> impl Fn(&Asked) -> Answer {
    let sign = good(mesh, DAY);
    move |asked| match asked.impersonated {
        Some(_) => Err((16, "the node is not trusted")),
        None => sign(asked),
    }
}

#[tokio::test]
async fn where_the_authority_does_not_trust_the_node_the_workloads_own_token_is_shown() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(of_workloads_alone(mesh));
    let mut identities = authority.identities();

    let own: Arc<dyn TokenSource> = Arc::new(ApiServer(Ok("the-pods")));
    let token = authority.file("token", "the-nodes");
    let subscription = identities.subscribe(id("cart"), Credential::NodeToken(token, Some(own)));
    let state = issued(&subscription).await;

    let because = "the node is not trusted".to_owned();
    assert_eq!((state.shown, state.attempts), (Some(Shown::OwnToken { because }), 1));
    let asked: Vec<_> = authority.asked().into_iter().map(|asked| asked.authorization).collect();
    assert_eq!(asked, ["Bearer the-nodes", "Bearer the-pods"]);
}

#[tokio::test]
async fn where_there_is_no_token_of_the_workloads_own_both_reasons_are_said() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(of_workloads_alone(mesh));
    let mut identities = authority.identities();

    let own: Arc<dyn TokenSource> = Arc::new(ApiServer(Err("forbidden")));
    let token = authority.file("token", "the-nodes");
    let subscription = identities.subscribe(id("cart"), Credential::NodeToken(token, Some(own)));
    let problem = state(&subscription, |state| state.last_error.is_some()).await.last_error.unwrap();

    assert!(problem.contains("does not take the node's token (the node is not trusted)"), "{problem}");
    assert!(problem.ends_with("there is none of the workload's own: forbidden"), "{problem}");
}

#[tokio::test]
async fn workloads_of_an_account_share_a_certificate_and_accounts_do_not() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, DAY));
    let mut identities = authority.identities();
    let token = authority.file("token", "token");
    let subscriptions =
        ["cart", "cart", "pay"].map(|account| identities.subscribe(id(account), workload(token.clone())));

    let mut serials = Vec::new();
    for subscription in &subscriptions {
        serials.push(issued(subscription).await.identity.unwrap().serial_number.clone());
    }

    assert_eq!(authority.asked().len(), 2);
    assert_eq!(serials[0], serials[1]);
    assert_ne!(serials[1], serials[2]);
}

#[tokio::test]
async fn many_first_certificates_are_asked_for_beside_each_other_up_to_a_bound() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, DAY));
    let mut identities = authority.identities();
    let token = authority.file("token", "token");
    let subscribe = |n: usize| identities.subscribe(id(&format!("account-{n}")), workload(token.clone()));
    let subscriptions: Vec<_> = (0..100).map(subscribe).collect();

    let mut keys = BTreeSet::new();
    for subscription in &subscriptions {
        keys.insert(issued(subscription).await.identity.unwrap().serial_number.clone());
    }

    assert_eq!(keys.len(), 100);
    assert_eq!(authority.most_at_once(), 16);
}

#[tokio::test]
async fn a_certificate_is_replaced_before_half_of_its_life_and_there_is_never_none() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, Duration::from_secs(6)));
    let mut identities = authority.identities();
    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "token")));
    let first = issued(&subscription).await.identity.unwrap();

    let second = state(&subscription, |state| {
        state.identity.as_ref().expect("never none").serial_number != first.serial_number
    });
    let second = second.await.identity.unwrap();

    assert!(first.remaining(SystemTime::now()) > Duration::ZERO);
    assert!(second.not_after > first.not_after);
    let asked = authority.asked();
    assert_ne!(asked[0].key, asked[1].key);
}

#[tokio::test]
async fn an_authority_that_fails_is_asked_again_and_the_last_certificate_stays() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "down for maintenance"))).await;
    let mut identities = authority.identities();
    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "token")));

    let failed = state(&subscription, |state| state.attempts >= 2 && state.last_error.is_some()).await;
    let error = failed.last_error.unwrap();
    assert!(error.contains("Unavailable: down for maintenance"), "{error}");
    authority.answer(good(mesh, Duration::from_secs(6)));
    let first = issued(&subscription).await;
    assert_eq!(first.last_error, None);
    authority.answer(|_| Err((14, "down again")));
    let failed = state(&subscription, |state| state.last_error.is_some()).await;

    assert_eq!(failed.identity.unwrap().serial_number, first.identity.unwrap().serial_number);
}

#[tokio::test]
async fn an_authority_that_is_not_there_is_named() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    let root = authority.dir.path().join("root.pem");
    let options = orlop_identity::AuthorityOptions {
        // Nobody can listen there.
        address: "127.0.0.1:0".to_owned(),
        root_certificate: root,
        cluster: String::new(),
        lifetime: DAY,
    };
    let mut identities = orlop_identity::Identities::start(options).unwrap();

    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "token")));

    let error = state(&subscription, |state| state.last_error.is_some()).await.last_error.unwrap();
    assert!(error.contains("the certificate authority 127.0.0.1:0: "), "{error}");
}

#[tokio::test]
async fn a_token_is_read_again_for_every_question_and_anothers_is_tried() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, DAY));
    let mut identities = authority.identities();
    let missing = authority.dir.path().join("missing");

    let subscription = identities.subscribe(id("cart"), workload(missing.clone()));
    let error = state(&subscription, |state| state.last_error.is_some()).await.last_error.unwrap();
    assert!(error.starts_with(&format!("cannot read {}: ", missing.display())), "{error}");
    let _other = identities.subscribe(id("cart"), workload(authority.file("token", "token")));

    issued(&subscription).await;
}

#[tokio::test]
async fn while_the_mesh_changes_its_root_both_are_trusted_by_everybody() {
    let (old, new) = (Mesh::new("old"), Mesh::new("new"));
    let roots = [server::der(&old.root), server::der(&new.root)];
    let authority = Authority::start(&old, |_| Err((14, "not yet"))).await;
    authority.answer(good(old, DAY));
    let mut identities = authority.identities();
    let token = authority.file("token", "token");
    let before = identities.subscribe(id("cart"), workload(token.clone()));
    issued(&before).await;

    authority.answer(good(new, DAY));
    let after = identities.subscribe(id("pay"), workload(token));
    issued(&after).await;

    for subscription in [before, after] {
        let trusted = state(&subscription, |state| state.roots.len() == 2).await.roots;
        assert_eq!(*trusted, roots);
    }
}

#[tokio::test]
async fn nobody_is_asked_for_an_account_without_workloads() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(good(mesh, Duration::from_secs(2)));
    let mut identities = authority.identities();
    let token = authority.file("token", "token");
    let gone = identities.subscribe(id("gone"), workload(token.clone()));
    issued(&gone).await;
    drop(gone);
    let stays = identities.subscribe(id("stays"), workload(token));

    state(&stays, |state| state.attempts == 3).await;

    let asked = authority.asked();
    assert_eq!(asked.iter().filter(|asked| asked.uri == id("gone").as_str()).count(), 1);
}
