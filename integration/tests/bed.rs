//! The bed itself: pods reach each other, each process is where it should be, and nothing stays behind.

use std::fs;

use anyhow::Result;
use orlop_integration::{Bed, tally};

#[test]
fn pods_reach_each_other_over_http_and_h2c() -> Result<()> {
    let bed = Bed::new()?;
    let (client, server) = (bed.plain_pod("client")?, bed.plain_pod("server")?);
    server.serve_http(8080)?;

    let echo = client.http(server.at(8080)).path("/a?b=c").header("x-test", "1").send()?.echo()?;
    assert_eq!((echo.server.as_str(), echo.path.as_str()), ("server", "/a?b=c"));
    assert_eq!(echo.version, "HTTP/1.1");
    assert_eq!(echo.headers.get("x-test").map(String::as_str), Some("1"));
    assert_eq!(echo.peer.ip(), client.ip());

    let echo = client.http(server.at(8080)).h2c().host("web.example").send()?.echo()?;
    assert_eq!((echo.version.as_str(), echo.authority.as_str()), ("HTTP/2.0", "web.example"));
    Ok(())
}

#[test]
fn a_refused_connection_is_an_outcome_and_not_an_error() -> Result<()> {
    let bed = Bed::new()?;
    let (client, server) = (bed.plain_pod("client")?, bed.plain_pod("server")?);
    server.serve_tcp(9000)?;

    let reply = client.tcp(server.at(9000)).connect()?;
    assert_eq!(reply.greeting()?.server, "server");
    server.stop_serving(9000);
    let counts = tally(&client.tcp(server.at(9000)).times(3)?);
    assert!(counts.len() == 1 && counts.keys().all(|k| k.contains("refused")), "{counts:?}");
    Ok(())
}

#[test]
fn what_runs_in_a_pod_is_in_its_cgroup_and_its_namespace() -> Result<()> {
    let bed = Bed::new()?;
    let pod = bed.plain_pod("pod")?;

    let cgroup = pod.cgroup()?;
    let name = cgroup.file_name().and_then(|name| name.to_str()).expect("a cgroup has a name");
    let unified = pod.run("cat /proc/self/cgroup")?;
    assert!(
        unified.lines().any(|line| line.starts_with("0::") && line.ends_with(&format!("/{name}"))),
        "{unified}"
    );
    assert!(pod.run("ip -4 -brief address show eth0")?.contains(&pod.ip().to_string()));
    // /sys is still the node's, cgroups included.
    assert!(pod.run(&format!("ls {}", cgroup.display()))?.contains("cgroup.procs"));
    Ok(())
}

#[test]
fn load_reports_what_failed_and_why() -> Result<()> {
    let bed = Bed::new()?;
    let (client, server) = (bed.plain_pod("client")?, bed.plain_pod("server")?);
    server.serve_http(8080)?;

    let load = client.load_http(client.http(server.at(8080)))?;
    std::thread::sleep(std::time::Duration::from_millis(300));
    server.stop_serving(8080);
    std::thread::sleep(std::time::Duration::from_millis(100));
    let report = load.stop()?;
    assert!(report.ok > 20, "{report:?}");
    assert!(report.failures() > 0 && report.servers.contains_key("server"), "{report:?}");
    Ok(())
}

#[test]
fn nothing_is_left_even_after_a_panic() -> Result<()> {
    let bed = Bed::new()?;
    let name = bed.name().clone();
    let panicked = std::panic::catch_unwind(std::panic::AssertUnwindSafe(move || {
        let pod = bed.plain_pod("pod").expect("a pod");
        pod.serve_http(8080).expect("a server");
        std::panic::resume_unwind(Box::new("on purpose"));
    }));
    assert!(panicked.is_err());
    assert_eq!(name.remains()?, Vec::<String>::new());
    Ok(())
}

#[test]
fn the_nodes_own_namespace_stays_untouched() -> Result<()> {
    let routes = || fs::read_to_string("/proc/net/route");
    let before = routes()?;
    let bed = Bed::new()?;
    bed.plain_pod("pod")?;
    assert_eq!(routes()?, before);
    assert_eq!(bed.remove()?, Vec::<String>::new());
    assert_eq!(routes()?, before);
    Ok(())
}
