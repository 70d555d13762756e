//! What differs between two printouts, and what may.

use serde_json::{Map, Value};

/// A difference that is there for a reason.
pub(crate) struct OnPurpose {
    /// Part of the difference's text.
    pub(crate) difference: &'static str,
    /// Why.
    pub(crate) reason: &'static str,
}

/// Fails with every difference that has no reason, and with every reason that explains nothing.
pub(crate) fn assert_only_on_purpose(what: &str, differences: &[String], reasons: &[OnPurpose]) {
    let explains = |reason: &OnPurpose, text: &String| text.contains(reason.difference);
    let unexplained: Vec<_> =
        differences.iter().filter(|text| !reasons.iter().any(|reason| explains(reason, text))).collect();
    assert!(unexplained.is_empty(), "{what}: {} differ:\n{unexplained:#?}", unexplained.len());
    for reason in reasons {
        let used = differences.iter().any(|text| explains(reason, text));
        assert!(used, "{what}: nothing differs any more because {}", reason.reason);
    }
}

/// Lines of two tables that only one of them has. Neither the order nor the width of columns counts.
pub(crate) fn of_tables(envoy: &str, orlop: &str) -> Vec<String> {
    let lines = |table: &str| {
        let mut lines: Vec<_> =
            table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
        lines.sort();
        lines
    };
    let (envoy, mut orlop) = (lines(envoy), lines(orlop));
    let mut differences = Vec::new();
    for line in envoy {
        match orlop.iter().position(|other| *other == line) {
            Some(at) => drop(orlop.remove(at)),
            None => differences.push(format!("only Envoy: {line}")),
        }
    }
    differences.extend(orlop.into_iter().map(|line| format!("only Orlop: {line}")));
    differences
}

/// Fields of two documents that are not the same. Lists of named objects are compared by name.
pub(crate) fn of_json(envoy: &Value, orlop: &Value) -> Vec<String> {
    let mut differences = Vec::new();
    compare("", &by_name(envoy), &by_name(orlop), &mut differences);
    differences
}

fn compare(path: &str, envoy: &Value, orlop: &Value, differences: &mut Vec<String>) {
    match (envoy, orlop) {
        (Value::Object(ours), Value::Object(theirs)) => {
            for (key, value) in ours {
                match theirs.get(key) {
                    Some(other) => compare(&format!("{path}/{key}"), value, other, differences),
                    None => differences.push(format!("only Envoy: {path}/{key}")),
                }
            }
            let more = theirs.keys().filter(|key| !ours.contains_key(*key));
            differences.extend(more.map(|key| format!("only Orlop: {path}/{key}")));
        }
        (Value::Array(ours), Value::Array(theirs)) if ours.len() == theirs.len() => {
            for (index, (value, other)) in ours.iter().zip(theirs).enumerate() {
                compare(&format!("{path}/{index}"), value, other, differences);
            }
        }
        _ if envoy == orlop => {}
        _ => differences.push(format!("{path}: Envoy {envoy}, Orlop {orlop}")),
    }
}

/// The outermost list as an object, so that its order does not count. Equal names are told apart by a number.
fn by_name(document: &Value) -> Value {
    let Value::Array(list) = document else { return document.clone() };
    let mut items: Vec<_> = list.iter().map(|item| (name_of(item), item)).collect();
    items.sort_by_key(|(name, item)| (name.clone(), item.to_string()));
    let mut named = Map::new();
    for (name, item) in items {
        let mut key = name.clone();
        for number in 2.. {
            if !named.contains_key(&key) {
                break;
            }
            key = format!("{name} #{number}");
        }
        named.insert(key, item.clone());
    }
    Value::Object(named)
}

fn name_of(item: &Value) -> String {
    let name = item.get("name").or_else(|| item.get("clusterName")).and_then(Value::as_str);
    name.unwrap_or_default().to_owned()
}
