//! Istio's resources of security: each edit is seen in the traffic.

use anyhow::Result;
use orlop_integration::{Call, Cluster};
use serde_json::json;

use crate::scene::{STRICT, Scene, client, is_from, server, service, with_header, with_path};

const NOT_THE_ADMIN: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{to: [{operation: {paths: ['/admin/*'], methods: [GET]}}]}]
";

const CLIENT_ALONE: &str = "
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: client}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/security/sa/client]}}]}]
";

/// A key whose other half is gone, and what it has signed.
const RSA: &str = "j9YNsgiVAWGE6szh8Y2Il9UL7k4Say9rJ4Wm3GZndbYaMIIYDou9lpMilVj2TPUmNhWI9uKTW45dXgT6m9ncAcWcu7tJ7ncVYN5kV7m6-eVfFM5gU_ngHtesGmsSMENRDBKCzVCiXmHSNToyoZZIbHF3DuT8ARv-txtRWY8LYpTIqNsSBjyOUZ1X0fwH9k4LRaUa5v5WYPZ8BQblFI8dz3jufCsaUjeuWWljq0knuVz-edGor-Ngi_JFbTHpIzz7rFEBZIOJFmiiEAao-43b-da9s_1OP1XXtij9zcS2XIkDYPcWIfT1C_SPoqeIqYjbhkXTgq_5k8fDu7Rp0StmFw";
const TOKEN: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJvbmVAZXhhbXBsZSIsInN1YiI6ImJ5LXJzYSJ9.HcjUGrD7okUegNtzrb7Y9EtpFjqHDTHN8ztirkDUNqTn44A3nZn0cSSjfrKoP6aWTdiuKL4fxOOlYG5inxNStj_wpz-wSAYhMMm3GSrqbDixIGF6X771TY4dVf0D19HtuoFrlUjnkonBwU1NrrLfWJJ656o9bSmJ0l2oshc8xqqJCT8hYFch4gwNrwmnINaMa_GdgkL5H4TDh2qwHgppbVJXVYuBf11i7-lrHYT5zL4AmElH-w_lX60TsAv-KxArK8Ux75HzxZ9megBLyso3stJcYol9yqrQ46RqunvL5NTZMzo9nh0S3t24Ob23WMtx6IQx3OrhEaUWdyMeAz6ITA";
const TOKENS: &str = r#"
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: web}}
  jwtRules:
    - issuer: one@example
      jwks: '{"keys": [{"kty": "RSA", "kid": "rsa", "n": "@RSA@", "e": "AQAB"}]}'
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: tokens}
spec:
  selector: {matchLabels: {app: web}}
  action: DENY
  rules: [{from: [{source: {notRequestPrincipals: ['*']}}]}]
"#;

pub(crate) fn edits_take_effect(cluster: &Cluster) -> Result<()> {
    let scene = Scene::enrolled(cluster, "security")?;
    let outside = Scene::plain(cluster, "security-outside")?;
    let mut known = client("client", 1);
    known["spec"]["serviceAccountName"] = json!("client");
    scene.add(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "client"}}),
        known,
        client("stranger", 1),
        server("web", "web", "v1", 2),
        service("web", &json!({"app": "web"})),
    ])?;
    outside.add(&[client("visitor", 1)])?;
    scene.ready()?;
    outside.ready()?;
    let web = scene.to("web")?;
    for name in ["client", "stranger"] {
        scene.eventually("everybody to be let in", name, &web, |reply| is_from(reply, "web"))?;
    }
    authorization_policy(&scene, &web)?;
    peer_authentication(&scene, &outside, &web)?;
    request_authentication(&scene, &web)
}

fn authorization_policy(scene: &Scene<'_>, web: &Call) -> Result<()> {
    scene.apply(NOT_THE_ADMIN)?;
    let admin = with_path(web.clone(), "/admin/users");
    scene.eventually("what is for the admin to be denied", "client", &admin, |reply| reply.status == 403)?;
    scene.eventually("the rest to be let in", "client", web, |reply| is_from(reply, "web"))?;
    scene.clear("authorizationpolicy")?;
    scene.apply(CLIENT_ALONE)?;
    scene.eventually("the stranger to be denied", "stranger", web, |reply| reply.status == 403)?;
    scene.eventually("the client to be let in", "client", web, |reply| is_from(reply, "web"))?;
    scene.clear("authorizationpolicy")?;
    scene.eventually("the stranger to be let in again", "stranger", web, |reply| is_from(reply, "web"))
}

fn peer_authentication(scene: &Scene<'_>, outside: &Scene<'_>, web: &Call) -> Result<()> {
    outside.eventually("plaintext to be let in", "visitor", web, |reply| is_from(reply, "web"))?;
    scene.apply(STRICT)?;
    outside.eventually("plaintext to be refused", "visitor", web, |reply| reply.error.is_some())?;
    scene.eventually("peers to be let in", "client", web, |reply| is_from(reply, "web"))?;
    scene.clear("peerauthentication")?;
    outside.eventually("plaintext to be let in again", "visitor", web, |reply| is_from(reply, "web"))
}

fn request_authentication(scene: &Scene<'_>, web: &Call) -> Result<()> {
    scene.apply(&TOKENS.replace("@RSA@", RSA))?;
    let bearer = |token: &str| with_header(web.clone(), "authorization", &format!("Bearer {token}"));
    scene.eventually("requests without a token to be denied", "client", web, |reply| reply.status == 403)?;
    let forged = TOKEN.replace("HcjUGrD7", "HcjUGrD8");
    scene.eventually("a forged token to be refused", "client", &bearer(&forged), |reply| {
        reply.status == 401
    })?;
    scene.eventually("the token to be honoured", "client", &bearer(TOKEN), |reply| is_from(reply, "web"))?;
    scene.clear("requestauthentication,authorizationpolicy")
}
