//! The node's chain of plug-ins: a list in JSON, which somebody else owns. Ours is the last entry of it.

use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::NAME;

/// What becomes of a pod that the agent does not carry in time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub enum WhenAway {
    /// It does not start; the kubelet tries again.
    #[default]
    Wait,
    /// It starts without a mesh; an event says so as soon as the agent is there.
    Direct,
}

/// What stands in the chain of the plug-in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Entry {
    /// Where the agent answers.
    pub(crate) socket: PathBuf,
    pub(crate) when_away: WhenAway,
    /// For how long a pod is held at most.
    pub(crate) timeout_seconds: u32,
    /// Namespaces whose pods are never held.
    pub(crate) exclude_namespaces: Vec<String>,
}

impl Entry {
    pub(super) fn timeout(&self) -> Duration {
        Duration::from_secs(self.timeout_seconds.into())
    }
}

/// Why a file cannot be the chain.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ChainError {
    #[error("it is not JSON: {0}")]
    Json(String),
    #[error("it has no list `plugins`: it is a single plug-in, to be made a list of one (.conflist)")]
    NoList,
}

/// The chain with the entry at its end; `None` where it is there as it is to be.
pub(super) fn with(chain: &str, entry: &Entry) -> Result<Option<String>, ChainError> {
    let mut ours = json!(entry);
    if let Some(fields) = ours.as_object_mut() {
        fields.insert("type".to_owned(), NAME.into());
    }
    let mut list = parse(chain)?;
    let plugins = plugins(&mut list)?;
    if plugins.last() == Some(&ours) && plugins.iter().filter(|plugin| is_ours(plugin)).count() == 1 {
        return Ok(None);
    }
    plugins.retain(|plugin| !is_ours(plugin));
    plugins.push(ours);
    Ok(Some(format!("{list:#}\n")))
}

/// The chain without it; `None` where it is not there.
pub(super) fn without(chain: &str) -> Result<Option<String>, ChainError> {
    let mut list = parse(chain)?;
    let plugins = plugins(&mut list)?;
    let before = plugins.len();
    plugins.retain(|plugin| !is_ours(plugin));
    let removed = plugins.len() < before;
    Ok(removed.then(|| format!("{list:#}\n")))
}

fn parse(chain: &str) -> Result<Value, ChainError> {
    serde_json::from_str(chain).map_err(|error| ChainError::Json(error.to_string()))
}

fn plugins(list: &mut Value) -> Result<&mut Vec<Value>, ChainError> {
    list.get_mut("plugins").and_then(Value::as_array_mut).ok_or(ChainError::NoList)
}

fn is_ours(plugin: &Value) -> bool {
    plugin.get("type").and_then(Value::as_str) == Some(NAME)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CHAIN: &str =
        r#"{"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "bridge", "mtu": 1500}]}"#;

    fn entry() -> Entry {
        Entry {
            socket: "/run/orlop/node-1/admin.sock".into(),
            when_away: WhenAway::Wait,
            timeout_seconds: 30,
            exclude_namespaces: vec!["kube-system".to_owned()],
        }
    }

    #[test]
    fn it_is_the_last_of_the_chain_and_there_once() {
        let chained = with(CHAIN, &entry()).unwrap().unwrap();
        let list: Value = serde_json::from_str(&chained).unwrap();
        assert_eq!(list["plugins"][0], json!({"type": "bridge", "mtu": 1500}));
        assert_eq!(list["plugins"][1]["type"], NAME);
        assert_eq!(list["plugins"][1]["whenAway"], "wait");
        assert_eq!(with(&chained, &entry()).unwrap(), None);

        let direct = Entry { when_away: WhenAway::Direct, ..entry() };
        let changed = with(&chained, &direct).unwrap().unwrap();
        let list: Value = serde_json::from_str(&changed).unwrap();
        assert_eq!(list["plugins"].as_array().unwrap().len(), 2);
        assert_eq!(list["plugins"][1]["whenAway"], "direct");
    }

    #[test]
    fn taken_out_it_leaves_the_chain_as_it_was() {
        let chained = with(CHAIN, &entry()).unwrap().unwrap();
        let left: Value = serde_json::from_str(&without(&chained).unwrap().unwrap()).unwrap();
        assert_eq!(left, serde_json::from_str::<Value>(CHAIN).unwrap());
        assert_eq!(without(CHAIN).unwrap(), None);
    }

    #[test]
    fn what_is_no_list_is_left_as_it_is() {
        assert_eq!(with(r#"{"type": "bridge"}"#, &entry()), Err(ChainError::NoList));
        assert!(matches!(with("plugins:", &entry()), Err(ChainError::Json(_))));
    }
}
