//! Certificates from files, which somebody else replaces.

use std::fs;

use orlop_identity::{Credential, State, Subscription};
use rcgen::KeyPair;

use super::mesh::{Mesh, Wanted};
use super::server::Authority;
use super::{DAY, id, issued, state};

struct Scene {
    mesh: Mesh,
    authority: Authority,
}

impl Scene {
    async fn new() -> Self {
        let mesh = Mesh::new("root");
        Self { authority: Authority::start(&mesh, |_| Err((14, "nobody asks"))).await, mesh }
    }

    fn write(&self, account: &str) -> KeyPair {
        let key = KeyPair::generate().unwrap();
        let certificate = self.mesh.sign(&Wanted::of(id(account).as_str(), DAY), &key);
        self.authority.file("chain.pem", &certificate);
        self.authority.file("key.pem", &key.serialize_pem());
        key
    }

    fn credential(&self) -> Credential {
        let file = |name| self.authority.dir.path().join(name);
        Credential::Files { certificate: file("chain.pem"), key: file("key.pem") }
    }
}

async fn error(subscription: &Subscription) -> String {
    state(subscription, |state| state.last_error.is_some()).await.last_error.unwrap()
}

#[tokio::test]
async fn a_certificate_in_files_is_taken_and_nobody_is_asked() {
    let scene = Scene::new().await;
    scene.write("cart");
    let mut identities = scene.authority.identities();

    let subscription = identities.subscribe(id("cart"), scene.credential());

    let State { identity, roots, .. } = issued(&subscription).await;
    assert_eq!(identity.unwrap().id, id("cart"));
    assert_eq!(*roots, [super::server::der(&scene.mesh.root)]);
    assert!(scene.authority.asked().is_empty());
}

#[tokio::test]
async fn a_replaced_certificate_is_taken_once_its_key_is_there_too() {
    let scene = Scene::new().await;
    scene.write("cart");
    let mut identities = scene.authority.identities();
    let subscription = identities.subscribe(id("cart"), scene.credential());
    let first = issued(&subscription).await.identity.unwrap();

    let next = KeyPair::generate().unwrap();
    let certificate = scene.mesh.sign(&Wanted::of(id("cart").as_str(), DAY), &next);
    scene.authority.file("chain.pem", &certificate);
    let said = error(&subscription).await;
    assert!(said.contains("chain.pem is not taken: it is not for the key"), "{said}");
    assert!(!said.contains("PRIVATE"), "{said}");
    scene.authority.file("key.pem", &next.serialize_pem());

    let second = state(&subscription, |state| {
        state.identity.as_ref().expect("the old one stays").serial_number != first.serial_number
    });
    assert_eq!(second.await.last_error, None);
}

#[tokio::test]
async fn files_that_are_missing_broken_or_somebody_elses_are_named() {
    let scene = Scene::new().await;
    let mut identities = scene.authority.identities();
    let mut said = async || error(&identities.subscribe(id("cart"), scene.credential())).await;

    let path = |name: &str| scene.authority.dir.path().join(name).display().to_string();
    let missing = said().await;
    assert!(missing.starts_with(&format!("cannot read {}: No such file", path("chain.pem"))), "{missing}");
    scene.write("pay");
    let other = said().await;
    assert!(other.contains("it is for spiffe://cluster.local/ns/shop/sa/pay, not for "), "{other}");
    fs::write(path("key.pem"), "secret of somebody").unwrap();
    assert_eq!(said().await, format!("{} holds no private key in PEM", path("key.pem")));
    fs::write(path("chain.pem"), "").unwrap();
    assert_eq!(said().await, format!("{} holds no certificates in PEM", path("chain.pem")));
}
