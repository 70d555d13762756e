//! The programs that the other tests lean on: a real istiod that takes edits in, and a real Envoy that carries traffic
//! as it says.

use std::time::Duration;

use anyhow::{Result, ensure};
use orlop_integration::{Bed, Envoy, Istiod, Service, until};

const WEB: &str = "10.96.0.20:8080";

#[test]
fn an_envoy_routes_as_istiod_says_and_follows_an_edit() -> Result<()> {
    let bed = Bed::new()?;
    let client = bed.pod("client").label("app", "client").start()?;
    let v1 = bed.pod("v1").label("version", "v1").start()?;
    v1.serve_http(8080)?;
    let web = Service::new("web", "10.96.0.20").http(8080, 8080).endpoint(&v1);
    let istiod = Istiod::start_for_stock_envoy(&bed, &[("web.yaml", &web.yaml())])?;
    let _envoy = Envoy::start(&bed, &client, &istiod)?;

    let reply = client.http(WEB.parse()?).host(&web.host()).send()?;
    assert_eq!(reply.echo()?.server, "v1");
    assert_eq!(reply.header("server"), Some("envoy"));

    istiod.apply("teapot.yaml", &format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: web, namespace: default}}\n\
         spec: {{hosts: [{}], http: [{{directResponse: {{status: 418}}}}]}}\n",
        web.host()
    ))?;
    until("the edit to take effect", Duration::from_secs(10), || {
        let status = client.http(WEB.parse()?).host(&web.host()).send()?.status;
        ensure!(status == 418, "still {status}");
        Ok(Some(()))
    })
}

#[test]
fn an_istiod_that_was_killed_comes_back_at_the_same_address() -> Result<()> {
    let bed = Bed::new()?;
    let web = Service::new("web", "10.96.0.20").http(8080, 8080);
    let mut istiod = Istiod::start(&bed, &[("web.yaml", &web.yaml())])?;
    let address = istiod.address();

    istiod.kill();
    assert!(istiod.debug("/debug/configz").is_err());
    istiod.restart()?;
    assert_eq!(istiod.address(), address);
    assert!(istiod.debug("/debug/configz")?.to_string().contains("web.default.svc.cluster.local"));
    Ok(())
}

#[test]
fn an_invalid_document_is_told_to_the_test_that_wrote_it() -> Result<()> {
    let bed = Bed::new()?;
    let istiod = Istiod::start(&bed, &[])?;
    let error = istiod.apply("bad.yaml", "kind: VirtualService\nspec: [").expect_err("istiod cannot read it");
    assert!(format!("{error:#}").contains("is a document invalid?"), "{error:#}");
    Ok(())
}
