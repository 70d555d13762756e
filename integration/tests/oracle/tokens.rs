//! `RequestAuthentication`, and policies by what tokens say.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Result, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use orlop_integration::istio::document;
use orlop_integration::{Call, Reply};
use ring::hmac;
use ring::rand::SystemRandom;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, KeyPair as _,
};
use serde_json::{Value, json};

use crate::doors::Doors;
use crate::ways::assert_none;

/// A key whose other half is gone, and what it has signed.
const RSA: &str = "j9YNsgiVAWGE6szh8Y2Il9UL7k4Say9rJ4Wm3GZndbYaMIIYDou9lpMilVj2TPUmNhWI9uKTW45dXgT6m9ncAcWcu7tJ7ncVYN5kV7m6-eVfFM5gU_ngHtesGmsSMENRDBKCzVCiXmHSNToyoZZIbHF3DuT8ARv-txtRWY8LYpTIqNsSBjyOUZ1X0fwH9k4LRaUa5v5WYPZ8BQblFI8dz3jufCsaUjeuWWljq0knuVz-edGor-Ngi_JFbTHpIzz7rFEBZIOJFmiiEAao-43b-da9s_1OP1XXtij9zcS2XIkDYPcWIfT1C_SPoqeIqYjbhkXTgq_5k8fDu7Rp0StmFw";
const SIGNED_BY_RS256: &str = "eyJhbGciOiJSUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJvbmVAZXhhbXBsZSIsInN1YiI6ImJ5LXJzYSJ9.HcjUGrD7okUegNtzrb7Y9EtpFjqHDTHN8ztirkDUNqTn44A3nZn0cSSjfrKoP6aWTdiuKL4fxOOlYG5inxNStj_wpz-wSAYhMMm3GSrqbDixIGF6X771TY4dVf0D19HtuoFrlUjnkonBwU1NrrLfWJJ656o9bSmJ0l2oshc8xqqJCT8hYFch4gwNrwmnINaMa_GdgkL5H4TDh2qwHgppbVJXVYuBf11i7-lrHYT5zL4AmElH-w_lX60TsAv-KxArK8Ux75HzxZ9megBLyso3stJcYol9yqrQ46RqunvL5NTZMzo9nh0S3t24Ob23WMtx6IQx3OrhEaUWdyMeAz6ITA";
const SIGNED_BY_PS256: &str = "eyJhbGciOiJQUzI1NiIsImtpZCI6InJzYSJ9.eyJpc3MiOiJvbmVAZXhhbXBsZSIsInN1YiI6ImJ5LXBzcyJ9.YkSnriqD2OwtYwL2DgLcNjXHEy4Szt0gZ_8nERhSFspZXc9NjfiUX6GxeGsimxfM-4-Lg9KEg8x22qTw2811qWd7hK2EDLqqVpwCpCkcm2s3m7fR4RnhPC8Wp8hSEYuluC5GnboGSVd2PsRtrVMiX_GwRlmarDMDbuBE0atZO7kchoboF7s7VqsjY_HHivIaQnc9XvY0lrnICTqDJlx996iSFenxfikt-h6jHVsJtD71520BQl1YE4DwhdtePz9t2ngMOf_i2XkW_XOQf7_sMIzaCRiXMApDea9ZdGwdPJsgqb9PJ-4ls7CNvmjHRRZX4aLfS_en0Slb-67123W6aw";

/// Signs tokens.
struct Issuer {
    p256: EcdsaKeyPair,
    p384: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    random: SystemRandom,
}

impl Issuer {
    fn new() -> Result<Self> {
        let random = SystemRandom::new();
        let ecdsa = |algorithm: &'static EcdsaSigningAlgorithm| {
            let key = EcdsaKeyPair::generate_pkcs8(algorithm, &random).map_err(|_| anyhow!("no key"))?;
            EcdsaKeyPair::from_pkcs8(algorithm, key.as_ref(), &random).map_err(|error| anyhow!("{error}"))
        };
        let (p256, p384) =
            (ecdsa(&ECDSA_P256_SHA256_FIXED_SIGNING)?, ecdsa(&ECDSA_P384_SHA384_FIXED_SIGNING)?);
        let key = Ed25519KeyPair::generate_pkcs8(&random).map_err(|_| anyhow!("no key"))?;
        let ed25519 = Ed25519KeyPair::from_pkcs8(key.as_ref()).map_err(|error| anyhow!("{error}"))?;
        Ok(Self { p256, p384, ed25519, random })
    }

    fn jwks(&self) -> String {
        let point = |key: &EcdsaKeyPair, length: usize| {
            let point = key.public_key().as_ref().split_at(1).1.to_vec();
            let (x, y) = point.split_at(length);
            (URL_SAFE_NO_PAD.encode(x), URL_SAFE_NO_PAD.encode(y))
        };
        let ((x, y), (x384, y384)) = (point(&self.p256, 32), point(&self.p384, 48));
        json!({"keys": [
            {"kty": "RSA", "kid": "rsa", "n": RSA, "e": "AQAB"},
            {"kty": "EC", "kid": "ec", "crv": "P-256", "alg": "ES256", "x": x, "y": y},
            {"kty": "EC", "kid": "ec384", "crv": "P-384", "x": x384, "y": y384},
            {"kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(self.ed25519.public_key())},
            {"kty": "oct", "kid": "oct", "k": URL_SAFE_NO_PAD.encode("shared")},
        ]})
        .to_string()
    }

    fn sign(&self, header: &Value, payload: &Value) -> Result<String> {
        let encode = |part: &Value| URL_SAFE_NO_PAD.encode(part.to_string());
        let signed = format!("{}.{}", encode(header), encode(payload));
        let ecdsa = |key: &EcdsaKeyPair| {
            let signature = key.sign(&self.random, signed.as_bytes());
            signature.map(|signature| signature.as_ref().to_vec()).map_err(|_| anyhow!("not signed"))
        };
        let signature = match header.get("alg").and_then(Value::as_str) {
            Some("ES384") => ecdsa(&self.p384)?,
            Some("EdDSA") => self.ed25519.sign(signed.as_bytes()).as_ref().to_vec(),
            Some("HS256") => {
                hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, b"shared"), signed.as_bytes()).as_ref().to_vec()
            }
            _ => ecdsa(&self.p256)?,
        };
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }

    /// A good one, with these claims.
    fn token(&self, claims: &Value) -> Result<String> {
        self.sign(&json!({"alg": "ES256", "kid": "ec"}), claims)
    }
}

fn config(issuer: &Issuer) -> String {
    let claim = |header: &str, claim: &str| json!({"header": header, "claim": claim});
    let authentication = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "RequestAuthentication",
        "metadata": {"name": "tokens", "namespace": "default"},
        "spec": {"jwtRules": [
            {"issuer": "one@example", "jwks": issuer.jwks(), "outputPayloadToHeader": "x-payload",
             "outputClaimToHeaders": [
                claim("x-sub", "sub"), claim("x-number", "number"), claim("x-flag", "flag"),
                claim("x-nested", "a.b"), claim("x-fraction", "fraction"), claim("x-negative", "negative"), claim("x-groups", "groups"), claim("x-object", "object"),
             ]},
            {"issuer": "two@example", "jwks": issuer.jwks(), "audiences": ["aud-1", "https://aud-2/"],
             "forwardOriginalToken": true, "fromHeaders": [{"name": "x-token", "prefix": "Token "}],
             "fromParams": ["token"], "fromCookies": ["session"]},
        ]},
    });
    let when = |path: &str, key: &str, values: &[&str]| json!({"to": [{"operation": {"paths": [path]}}], "when": [{"key": key, "values": values}]});
    let principals = |path: &str, principals: &[&str]| json!({"to": [{"operation": {"paths": [path]}}], "from": [{"source": {"requestPrincipals": principals}}]});
    let policy = json!({
        "apiVersion": "security.istio.io/v1",
        "kind": "AuthorizationPolicy",
        "metadata": {"name": "by-token", "namespace": "default"},
        "spec": {"rules": [
            {"to": [{"operation": {"paths": ["/", "/open"]}}]},
            principals("/principal", &["one@example/sub-1"]),
            principals("/principals", &["*/sub-1"]),
            principals("/any", &["*"]),
            when("/groups", "request.auth.claims[groups]", &["admin"]),
            when("/prefix", "request.auth.claims[groups]", &["adm*"]),
            when("/nested", "request.auth.claims[a][b]", &["c"]),
            when("/scope", "request.auth.claims[scope]", &["write"]),
            when("/audience", "request.auth.audiences", &["aud-1"]),
            when("/presenter", "request.auth.presenter", &["azp-1"]),
            json!({"to": [{"operation": {"paths": ["/not"]}}],
                   "when": [{"key": "request.auth.claims[groups]", "notValues": ["admin"]}]}),
        ]},
    });
    document(&authentication) + &document(&policy)
}

/// What is compared: the answer, or what of the request reached the application.
fn outcome(reply: &Reply) -> (u16, String, BTreeMap<String, String>) {
    let Ok(echo) = reply.echo() else {
        let headers = reply.headers.iter().filter(|(name, _)| *name == "www-authenticate");
        return (reply.status, reply.body.clone(), headers.map(|(k, v)| (k.clone(), v.clone())).collect());
    };
    let seen = ["authorization", "x-payload", "x-token", "cookie", "x-sub", "x-number", "x-flag", "x-nested"];
    let seen = seen.iter().chain(&["x-fraction", "x-negative", "x-groups", "x-object"]);
    let headers = seen.filter_map(|name| Some(((*name).to_owned(), echo.headers.get(*name)?.clone())));
    (reply.status, echo.path, headers.collect())
}

fn compare(doors: &Doors, calls: &[(String, Call, u16)]) -> Result<()> {
    let mut differences = Vec::new();
    for (name, call, expected) in calls {
        // Each door has its own address, and both are asked for the same name.
        let [by_orlop, by_envoy] = doors.ask(call)?.map(|reply| outcome(&reply));
        if by_orlop != by_envoy || by_orlop.0 != *expected {
            differences.push(format!("{name}: {expected}\n  Orlop: {by_orlop:?}\n  Envoy: {by_envoy:?}"));
        }
    }
    assert_none(&differences);
    Ok(())
}

fn with(doors: &Doors, path: &str, headers: &[(&str, &str)]) -> Call {
    let mut call = Call { path: path.to_owned(), ..doors.request() };
    call.headers.extend(headers.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
    call
}

#[test]
fn tokens_are_judged_as_envoy_judges_them() -> Result<()> {
    let issuer = Issuer::new()?;
    let doors = Doors::open(|_| config(&issuer))?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    let mut calls = Vec::new();
    let mut add = |name: &str, call: Call, status| calls.push((name.to_owned(), call, status));
    let bearer = |token: &str| with(&doors, "/", &[("authorization", &format!("Bearer {token}"))]);

    add("no token", with(&doors, "/", &[]), 200);
    add("headers that only tokens may set", with(&doors, "/", &[("x-sub", "me"), ("x-payload", "me")]), 200);
    for (name, token) in [("RS256", SIGNED_BY_RS256), ("PS256", SIGNED_BY_PS256)] {
        add(name, bearer(token), 200);
        add(
            &format!("{name}, another signature"),
            bearer(&format!("{}AAAA", token.split_at(token.len() - 4).0)),
            401,
        );
    }
    let claims = json!({"iss": "one@example", "sub": "sub-1"});
    for (header, status) in [
        (json!({"alg": "ES256", "kid": "ec"}), 200),
        (json!({"alg": "ES256"}), 200),
        (json!({"alg": "ES256", "kid": "unknown"}), 401),
        (json!({"alg": "ES256", "kid": "ec384"}), 401),
        (json!({"alg": "ES384", "kid": "ec384"}), 200),
        (json!({"alg": "EdDSA", "kid": "ed"}), 200),
        (json!({"alg": "HS256", "kid": "oct"}), 200),
        (json!({"alg": "HS256", "kid": "rsa"}), 401),
        (json!({"alg": "RS256", "kid": "rsa"}), 401),
        (json!({"alg": "none"}), 401),
        (json!({"alg": "XS256"}), 401),
        (json!({"alg": 1}), 401),
        (json!({"kid": "ec"}), 401),
        (json!({"alg": "ES256", "kid": 1}), 401),
    ] {
        add(&header.to_string(), bearer(&issuer.sign(&header, &claims)?), status);
    }
    for (claims, status) in [
        (
            json!({"iss": "one@example", "sub": "sub-1", "number": 42, "flag": true, "a": {"b": "c"},
                "fraction": 0.5, "negative": -1, "groups": ["a", "b"], "object": {"a": [true, null]}}),
            200,
        ),
        (json!({"iss": "one@example", "exp": now + 600, "nbf": now - 600}), 200),
        (json!({"iss": "one@example", "exp": now - 30}), 200),
        (json!({"iss": "one@example", "exp": now - 600}), 401),
        (json!({"iss": "one@example", "nbf": now + 600}), 401),
        (json!({"iss": "one@example", "exp": "soon"}), 401),
        (json!({"iss": "nobody"}), 401),
        (json!({"sub": "sub-1"}), 401),
        (json!({"iss": 1}), 401),
        (json!({"iss": "one@example", "aud": 1}), 401),
        (json!({"iss": "one@example", "sub": {}}), 401),
        // The other issuer's are elsewhere.
        (json!({"iss": "two@example", "aud": "aud-1"}), 401),
        (json!([]), 401),
    ] {
        add(&claims.to_string(), bearer(&issuer.token(&claims)?), status);
    }
    for token in ["a", "a.b.c", "..", "e30.e30.", "e30.e30.e30"] {
        add(&format!("{token:?}"), bearer(token), 401);
    }
    let good = issuer.token(&claims)?;
    add("not a bearer", with(&doors, "/", &[("authorization", &good)]), 200);
    add("a parameter", with(&doors, &format!("/?a=b&access_token={good}&c=d"), &[]), 200);
    add("nothing but a parameter", with(&doors, &format!("/?access_token={good}"), &[]), 200);
    add(
        "a bad one beside a good one",
        with(&doors, "/?access_token=bad", &[("authorization", &format!("Bearer {good}"))]),
        401,
    );
    add("gigantic", bearer(&"a".repeat(40_000)), 401);

    let two = issuer.token(&json!({"iss": "two@example", "aud": ["x", "aud-1"]}))?;
    add("in a header", with(&doors, "/", &[("x-token", &format!("Token {two}"))]), 200);
    add("in a parameter", with(&doors, &format!("/?token={two}"), &[]), 200);
    add("in a cookie", with(&doors, "/", &[("cookie", &format!("a=b; session={two}"))]), 200);
    for (audience, status) in [(json!("aud-2"), 200), (json!("aud-3"), 403), (json!([]), 403)] {
        let token = issuer.token(&json!({"iss": "two@example", "aud": audience}))?;
        add(
            &format!("audience {audience}"),
            with(&doors, "/", &[("x-token", &format!("Token {token}"))]),
            status,
        );
    }
    let mut preflight = with(
        &doors,
        "/",
        &[
            ("origin", "https://a.example"),
            ("access-control-request-method", "PUT"),
            ("authorization", "Bearer nonsense"),
        ],
    );
    preflight.method = "OPTIONS".to_owned();
    add("a preflight needs none", preflight, 200);
    compare(&doors, &calls)?;
    let [by_orlop, by_envoy] = doors.counted("jwt_authn.(allowed|denied|cors)")?;
    assert_eq!(by_orlop, by_envoy);
    Ok(())
}

#[test]
fn policies_go_by_what_tokens_say() -> Result<()> {
    let issuer = Issuer::new()?;
    let doors = Doors::open(|_| config(&issuer))?;
    let one = |claims: Value| {
        let mut claims = claims;
        if let Some(claims) = claims.as_object_mut() {
            claims.entry("iss").or_insert(json!("one@example"));
        }
        claims
    };
    let mut calls = Vec::new();
    for (path, claims, status) in [
        ("/principal", json!({"sub": "sub-1"}), 200),
        ("/principal", json!({"sub": "sub-2"}), 403),
        ("/principals", json!({"sub": "sub-1"}), 200),
        ("/any", json!({"sub": "x"}), 200),
        ("/any", json!({}), 403),
        ("/groups", json!({"groups": ["user", "admin"]}), 200),
        ("/groups", json!({"groups": "admin"}), 200),
        ("/groups", json!({"groups": ["user"]}), 403),
        ("/groups", json!({"groups": {"admin": "admin"}}), 403),
        ("/prefix", json!({"groups": ["admiral"]}), 200),
        ("/nested", json!({"a": {"b": ["c"]}}), 200),
        ("/nested", json!({"a": {"b": "d"}}), 403),
        ("/nested", json!({"a": "b"}), 403),
        ("/scope", json!({"scope": "read  write"}), 200),
        ("/scope", json!({"scope": "rewrite"}), 403),
        ("/audience", json!({"aud": "aud-1"}), 200),
        ("/audience", json!({"aud": ["aud-2"]}), 403),
        ("/presenter", json!({"azp": "azp-1"}), 200),
        ("/not", json!({"groups": ["admin"]}), 403),
        ("/not", json!({"groups": ["user"]}), 200),
    ] {
        let token = issuer.token(&one(claims.clone()))?;
        let call = with(&doors, path, &[("authorization", &format!("Bearer {token}"))]);
        calls.push((format!("{path} {claims}"), call, status));
        let status = if path == "/not" { 200 } else { 403 };
        calls.push((format!("{path} without a token"), with(&doors, path, &[]), status));
    }
    compare(&doors, &calls)
}
