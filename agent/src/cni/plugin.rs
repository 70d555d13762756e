//! What the container runtime runs. In: the variables `CNI_*` and the entry of the chain on stdin; out: on stdout, what the
//! plug-ins before have made, or an error as the specification has them.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::Context;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Entry, NOT_HELD, WhenAway};
use crate::admin::{Answer, Request, Starting};
use crate::cli::ask;

/// The versions of the specification whose results are handed on as they are.
const VERSIONS: [&str; 5] = ["0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"];
/// Before an agent that did not answer is asked again.
const PAUSE: Duration = Duration::from_millis(100);
/// At which the agent is asked for a reason when the time is over.
const LAST_WORD: Duration = Duration::from_secs(1);

/// What comes on stdin.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Conf {
    cni_version: String,
    #[serde(flatten)]
    entry: Entry,
    prev_result: Option<Value>,
}

/// An error as the runtime reads it.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct CniError {
    cni_version: String,
    code: u32,
    msg: String,
    details: String,
}

/// The codes of the specification, as far as they occur here.
const INCOMPATIBLE_VERSION: u32 = 1;
const INVALID_ENVIRONMENT: u32 = 4;
const NOT_DECODED: u32 = 6;
const INVALID_CONF: u32 = 7;
const TRY_AGAIN_LATER: u32 = 11;

/// Does what the runtime asks for.
pub(crate) fn run() -> ExitCode {
    let mut conf = String::new();
    // What could not be read is no JSON.
    let _ = std::io::stdin().read_to_string(&mut conf);
    let (text, code) = match answer(&conf, &|name| std::env::var(name).ok()) {
        Ok(text) => (text, ExitCode::SUCCESS),
        Err(error) => (json!(error).to_string(), ExitCode::FAILURE),
    };
    // A runtime that has gone reads nothing.
    let _ = writeln!(std::io::stdout(), "{text}");
    code
}

fn answer(conf: &str, variable: &dyn Fn(&str) -> Option<String>) -> Result<String, CniError> {
    let command = variable("CNI_COMMAND").unwrap_or_default();
    if command == "VERSION" {
        let asked = serde_json::from_str::<Value>(conf).ok();
        let version = asked.as_ref().and_then(|asked| asked.get("cniVersion")?.as_str()).unwrap_or("1.1.0");
        return Ok(json!({"cniVersion": version, "supportedVersions": VERSIONS}).to_string());
    }
    let error = |version: &str, code, msg: &str, details: String| CniError {
        cni_version: version.to_owned(),
        code,
        msg: msg.to_owned(),
        details,
    };
    let conf: Conf = serde_json::from_str(conf).map_err(|e| {
        error("1.0.0", NOT_DECODED, "the configuration on stdin is not as it is to be", e.to_string())
    })?;
    let error = |code, msg: &str, details: String| error(&conf.cni_version, code, msg, details);
    if !VERSIONS.contains(&&*conf.cni_version) {
        let details = format!("cniVersion {}; supported: {}", conf.cni_version, VERSIONS.join(", "));
        return Err(error(INCOMPATIBLE_VERSION, "the version is not supported", details));
    }
    match &*command {
        "ADD" => {
            let Some(result) = &conf.prev_result else {
                let details = "it is chained: another plug-in makes the network, before it".to_owned();
                return Err(error(INVALID_CONF, "prevResult is missing", details));
            };
            let pod = starting(result, variable)
                .map_err(|(code, details)| error(code, "the pod cannot be told from others", details))?;
            if let Some(pod) = pod.filter(|pod| !conf.entry.exclude_namespaces.contains(&pod.namespace)) {
                hold(&pod, &conf.entry)
                    .map_err(|details| error(TRY_AGAIN_LATER, "the pod is not carried by Orlop", details))?;
            }
            Ok(result.to_string())
        }
        // Nothing is kept for a pod here, and nothing of the network is the plug-in's.
        "DEL" | "CHECK" | "GC" | "STATUS" => Ok(String::new()),
        other => {
            let details = format!("CNI_COMMAND {other:?}");
            Err(error(INVALID_ENVIRONMENT, "the command is not known", details))
        }
    }
}

/// Which pod it is, and where; `None` for what is no pod of Kubernetes.
fn starting(
    result: &Value,
    variable: &dyn Fn(&str) -> Option<String>,
) -> Result<Option<Starting>, (u32, String)> {
    let arguments = variable("CNI_ARGS").unwrap_or_default();
    let mut arguments: HashMap<_, _> =
        arguments.split(';').filter_map(|argument| argument.split_once('=')).collect();
    let mut argument = |name| arguments.remove(name).map(str::to_owned);
    let (Some(namespace), Some(name)) = (argument("K8S_POD_NAMESPACE"), argument("K8S_POD_NAME")) else {
        return Ok(None);
    };
    let missing = |what: &str| (INVALID_ENVIRONMENT, format!("{what} is not set"));
    let uid = argument("K8S_POD_UID").ok_or_else(|| missing("K8S_POD_UID in CNI_ARGS"))?;
    let netns = variable("CNI_NETNS").filter(|path| !path.is_empty());
    let netns = PathBuf::from(netns.ok_or_else(|| missing("CNI_NETNS"))?);
    let addresses = result.get("ips").and_then(Value::as_array).into_iter().flatten();
    let addresses: Vec<IpAddr> = addresses
        .filter_map(|entry| entry.get("address")?.as_str()?.split('/').next()?.parse().ok())
        .collect();
    if addresses.is_empty() {
        return Err((INVALID_CONF, "prevResult has no addresses".to_owned()));
    }
    Ok(Some(Starting { namespace, name, uid, netns, addresses }))
}

/// Comes back when the pod is carried or is not to be, or when the time is over and the pod may go on all the same.
fn hold(pod: &Starting, entry: &Entry) -> Result<(), String> {
    let deadline = Instant::now() + entry.timeout();
    let mut last = String::new();
    while let Some(left) = deadline.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
        match ask_within(entry, &Request::Starting(pod.clone()), left) {
            Ok(Answer::Done(_)) => return Ok(()),
            Ok(Answer::Refused(reason)) => last = reason,
            // An agent that is being replaced is back in a moment.
            Err(error) => last = format!("{error:#}"),
        }
        sleep(PAUSE.min(left));
    }
    // The agent knows why, if it is there.
    let id = format!("{}/{}", pod.namespace, pod.name);
    if let Ok(Answer::Refused(reason)) = ask_within(entry, &Request::Enrolled { workload: id }, LAST_WORD) {
        last = reason;
    }
    let reason = format!("after {} s: {last}", entry.timeout_seconds);
    match entry.when_away {
        WhenAway::Wait => Err(reason),
        WhenAway::Direct => {
            // The pod goes on in any case; the agent that comes says that it did.
            let folder = entry.socket.with_file_name(NOT_HELD);
            let _ =
                std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(&pod.uid), reason));
            Ok(())
        }
    }
}

fn ask_within(entry: &Entry, request: &Request, patience: Duration) -> anyhow::Result<Answer> {
    let stream = ask::request(&entry.socket, request)?;
    stream.set_read_timeout(Some(patience)).context("cannot limit the time of the agent's answer")?;
    ask::answer(stream).context("the agent has not answered in time")
}

#[cfg(test)]
mod tests {
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;
    use std::path::Path;

    use super::*;

    const PREVIOUS: &str =
        r#"{"cniVersion":"1.0.0","ips":[{"address":"10.244.1.7/24"},{"address":"fd00::7/64"}]}"#;

    fn conf(socket: &Path, when_away: &str) -> String {
        json!({
            "cniVersion": "1.0.0", "name": "pods", "type": "orlop-cni", "socket": socket, "whenAway": when_away,
            "timeoutSeconds": 1, "excludeNamespaces": ["kube-system"],
            "prevResult": serde_json::from_str::<Value>(PREVIOUS).unwrap(),
        })
        .to_string()
    }

    fn add(conf: &str, namespace: &str) -> Result<String, CniError> {
        let arguments =
            format!("IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=web;K8S_POD_UID=1-2");
        answer(conf, &|name| match name {
            "CNI_COMMAND" => Some("ADD".to_owned()),
            "CNI_ARGS" => Some(arguments.clone()),
            "CNI_NETNS" => Some("/run/netns/1".to_owned()),
            _ => None,
        })
    }

    /// An agent that gives one answer, and returns what it was asked.
    fn agent(socket: &Path, answer: Answer) -> std::thread::JoinHandle<Value> {
        let listener = UnixListener::bind(socket).unwrap();
        std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut line = String::new();
            BufReader::new(&stream).read_line(&mut line).unwrap();
            writeln!(stream, "{}", json!(answer)).unwrap();
            serde_json::from_str(&line).unwrap()
        })
    }

    #[test]
    fn the_agent_is_told_where_the_pod_is_and_the_result_is_handed_on() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let agent = agent(&socket, Answer::Done("shop/web is carried".to_owned()));
        let result = add(&conf(&socket, "wait"), "shop").unwrap();
        assert_eq!(
            serde_json::from_str::<Value>(&result).unwrap(),
            serde_json::from_str::<Value>(PREVIOUS).unwrap()
        );
        assert_eq!(
            agent.join().unwrap()["starting"],
            json!({
                "namespace": "shop", "name": "web", "uid": "1-2", "netns": "/run/netns/1",
                "addresses": ["10.244.1.7", "fd00::7"],
            })
        );
    }

    #[test]
    fn without_an_agent_a_pod_waits_or_goes_on_as_the_policy_says() {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let error = add(&conf(&socket, "wait"), "shop").unwrap_err();
        assert_eq!((error.code, &*error.cni_version), (TRY_AGAIN_LATER, "1.0.0"));
        assert!(error.details.contains("after 1 s: no agent answers"), "{}", error.details);

        add(&conf(&socket, "direct"), "shop").unwrap();
        let said = std::fs::read_to_string(dir.path().join(NOT_HELD).join("1-2")).unwrap();
        assert!(said.contains("no agent answers"), "{said}");
    }

    #[test]
    fn pods_of_excluded_namespaces_and_what_is_no_pod_are_not_held() {
        let nowhere = conf(Path::new("/nowhere/admin.sock"), "wait");
        add(&nowhere, "kube-system").unwrap();
        let no_pod = answer(&nowhere, &|name| (name == "CNI_COMMAND").then(|| "ADD".to_owned()));
        no_pod.unwrap();
    }

    #[test]
    fn errors_are_those_of_the_specification() {
        let command =
            |name: &'static str| move |variable: &str| (variable == "CNI_COMMAND").then(|| name.to_owned());
        assert_eq!(answer("{", &command("ADD")).unwrap_err().code, NOT_DECODED);
        let conf = conf(Path::new("/nowhere"), "wait");
        let old = conf.replace(r#""cniVersion":"1.0.0","excl"#, r#""cniVersion":"0.2.0","excl"#);
        assert_eq!(answer(&old, &command("ADD")).unwrap_err().code, INCOMPATIBLE_VERSION);
        let first = conf.replace("prevResult", "nothing");
        assert_eq!(answer(&first, &command("ADD")).unwrap_err().code, INVALID_CONF);
        assert_eq!(answer(&conf, &command("MEND")).unwrap_err().code, INVALID_ENVIRONMENT);
        assert_eq!(answer(&conf, &command("DEL")).unwrap(), "");
        let versions = answer(r#"{"cniVersion": "0.4.0"}"#, &command("VERSION")).unwrap();
        assert!(
            versions.contains(r#""cniVersion":"0.4.0""#) && versions.contains(r#""1.0.0""#),
            "{versions}"
        );
    }
}
