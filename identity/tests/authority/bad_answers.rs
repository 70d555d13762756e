//! Answers that are not taken, and what the status says of each.

use std::time::{Duration, SystemTime};

use rcgen::KeyPair;

use super::mesh::{Mesh, Wanted};
use super::server::{Answer, Asked, Authority};
use super::{DAY, id, issued, state, workload};

/// What the status says of an authority that answers so. The next good answer mends it.
async fn refusal(bad: impl Fn(&Mesh, &Asked, &Wanted) -> Vec<String> + Send + 'static) -> String {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    let good = move |mesh: &Mesh, asked: &Asked| -> Answer {
        Ok(vec![mesh.sign(&Wanted::of(&asked.uri, DAY), &asked.key), mesh.root.clone()])
    };
    let first = std::sync::atomic::AtomicBool::new(true);
    authority.answer(move |asked| {
        if first.swap(false, std::sync::atomic::Ordering::SeqCst) {
            return Ok(bad(&mesh, asked, &Wanted::of(&asked.uri, DAY)));
        }
        good(&mesh, asked)
    });
    let mut identities = authority.identities();
    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "token")));
    let refused = state(&subscription, |state| state.last_error.is_some()).await;
    assert!(refused.identity.is_none() && refused.roots.is_empty());
    assert_eq!(issued(&subscription).await.last_error, None);
    refused.last_error.unwrap()
}

fn assert_says(error: &str, expected: &str) {
    assert!(error.starts_with("the answer of the certificate authority 127.0.0.1:"), "{error}");
    assert!(error.contains(&format!(" is not taken: {expected}")), "{error}");
}

#[tokio::test]
async fn garbage() {
    assert_says(
        &refusal(|_, _, _| vec!["garbage".into(), "more".into()]).await,
        "element 0 is not certificates",
    );
    assert_says(&refusal(|_, _, _| Vec::new()).await, "no certificate");
    let no_x509 = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let error = refusal(move |mesh, _, _| vec![no_x509.into(), mesh.root.clone()]).await;
    assert_says(&error, "certificate 0 is not X.509");
}

#[tokio::test]
async fn a_certificate_without_a_root() {
    let error = refusal(|mesh, asked, wanted| vec![mesh.sign(wanted, &asked.key)]).await;
    assert_says(&error, "no certificate");
}

#[tokio::test]
async fn a_chain_without_end() {
    let error = refusal(|mesh, asked, wanted| {
        let mut chain = vec![mesh.sign(wanted, &asked.key)];
        chain.resize(40, mesh.root.clone());
        chain
    });
    assert_says(&error.await, "40 certificates, and at most 16 are taken");
    let error = refusal(|mesh, asked, wanted| {
        vec![mesh.sign(wanted, &asked.key), mesh.root.repeat(40), mesh.root.clone()]
    });
    assert_says(&error.await, "41 certificates, and at most 16 are taken");
}

#[tokio::test]
async fn an_answer_that_is_too_large() {
    let error = refusal(|mesh, asked, wanted| {
        vec![mesh.sign(wanted, &asked.key), "x".repeat(1 << 20), mesh.root.clone()]
    });
    let error = error.await;
    assert!(error.contains("OutOfRange"), "{error}");
}

#[tokio::test]
async fn somebody_elses_key() {
    let error = refusal(|mesh, _, wanted| {
        let key = KeyPair::generate().unwrap();
        vec![mesh.sign(wanted, &key), mesh.root.clone()]
    });
    assert_says(&error.await, "it is not for the key that it was asked for");
}

#[tokio::test]
async fn somebody_elses_name() {
    let error = refusal(|mesh, asked, wanted| {
        let uri = "spiffe://cluster.local/ns/shop/sa/pay".to_owned();
        vec![mesh.sign(&Wanted { uri, ..wanted.clone() }, &asked.key), mesh.root.clone()]
    });
    let expected =
        "it is for spiffe://cluster.local/ns/shop/sa/pay, not for spiffe://cluster.local/ns/shop/sa/cart";
    assert_says(&error.await, expected);
}

#[tokio::test]
async fn another_trust_domain() {
    let error = refusal(|mesh, asked, wanted| {
        let uri = wanted.uri.replace("cluster.local", "elsewhere");
        vec![mesh.sign(&Wanted { uri, ..wanted.clone() }, &asked.key), mesh.root.clone()]
    });
    assert_says(&error.await, "it is for spiffe://elsewhere/ns/shop/sa/cart, not for ");
}

#[tokio::test]
async fn one_that_has_expired_or_is_not_yet_valid() {
    let hour = Duration::from_hours(1);
    let error = refusal(move |mesh, asked, wanted| {
        let not_after = SystemTime::now() - hour;
        let wanted = Wanted { not_before: not_after - hour, not_after, ..wanted.clone() };
        vec![mesh.sign(&wanted, &asked.key), mesh.root.clone()]
    });
    assert_says(&error.await, "it expired 36");
    let error = refusal(move |mesh, asked, wanted| {
        let wanted = Wanted { not_before: SystemTime::now() + hour, ..wanted.clone() };
        vec![mesh.sign(&wanted, &asked.key), mesh.root.clone()]
    });
    assert_says(&error.await, "it is valid in 35");
}

#[tokio::test]
async fn a_chain_in_the_wrong_order() {
    let error = refusal(|mesh, asked, wanted| {
        let (middle, middle_certificate) = mesh.below("middle");
        let (low, low_certificate) = middle.below("low");
        vec![low.sign(wanted, &asked.key), middle_certificate, low_certificate, mesh.root.clone()]
    });
    assert_says(&error.await, "certificate 1 of the chain is not the issuer of the one before it");
}

#[tokio::test]
async fn a_root_that_does_not_vouch_for_it() {
    let error = refusal(|_, asked, wanted| {
        let (signer, other) = (Mesh::new("signer"), Mesh::new("other"));
        vec![signer.sign(wanted, &asked.key), other.root]
    });
    assert_says(&error.await, "the roots that came with it do not vouch for it (UnknownIssuer)");
}

#[tokio::test]
async fn an_authority_below_another_is_fine() {
    let mesh = Mesh::new("root");
    let authority = Authority::start(&mesh, |_| Err((14, "not yet"))).await;
    authority.answer(move |asked| {
        let (middle, middle_certificate) = mesh.below("middle");
        let leaf = middle.sign(&Wanted::of(&asked.uri, DAY), &asked.key);
        Ok(vec![leaf, middle_certificate, mesh.root.clone()])
    });
    let mut identities = authority.identities();

    let subscription = identities.subscribe(id("cart"), workload(authority.file("token", "token")));

    issued(&subscription).await;
}
