//! Writes `proto/src/descriptors.bin` and `proto/src/sensitive.txt`: what the agent needs to know of Envoy's API to read
//! and print JSON, and which fields it must not print.
//!
//! Input is the descriptor set in the published `envoy-types` crate, so the types and their descriptors are
//! always of one version. Everything that a sidecar's configuration cannot carry is cut off, as are comments,
//! services and validation rules. The output depends on the input alone; CI compares it byte for byte.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use prost::Message;
use prost_reflect::DescriptorPool;
use prost_reflect::prost_types::{
    DescriptorProto, EnumDescriptorProto, EnumOptions, FieldDescriptorProto, FieldOptions,
    FileDescriptorProto, FileDescriptorSet, MessageOptions,
};

/// Packages whose every message may occur in a sidecar's configuration or in what it answers about it. What they refer to
/// comes along.
const ROOTS: [&str; 13] = [
    "envoy.admin.",
    "envoy.config.accesslog.",
    "envoy.config.cluster.",
    "envoy.config.core.",
    "envoy.config.endpoint.",
    "envoy.config.listener.",
    "envoy.config.rbac.",
    "envoy.config.route.",
    "envoy.config.trace.",
    "envoy.extensions.",
    "envoy.service.discovery.",
    "google.protobuf",
    "xds.type.",
];
/// Extension points of the bootstrap, which no control plane sends.
const BOOTSTRAP_ONLY: [&str; 4] = [
    "envoy.extensions.bootstrap.",
    "envoy.extensions.resource_monitors.",
    "envoy.extensions.stat_sinks.",
    "envoy.extensions.watchdog.",
];
/// The number of the field option `udpa.annotations.sensitive`.
const SENSITIVE: u32 = 76_569_463;
/// The strongest setting of deflate; the output is read far more often than it is written.
const COMPRESSION_LEVEL: u8 = 10;

/// Builds the file, or with `check` only compares it with what it would be.
pub(crate) fn build(check: bool) -> Result<()> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("xtask lies in the workspace")?;
    let source = published_set(workspace)?;
    let bytes = std::fs::read(&source).with_context(|| format!("cannot read {}", source.display()))?;
    let set = FileDescriptorSet::decode(bytes.as_slice())
        .with_context(|| format!("{} is no descriptor set", source.display()))?;
    let trimmed = trim(set)?;
    let output = miniz_oxide::deflate::compress_to_vec(&trimmed.encode_to_vec(), COMPRESSION_LEVEL);

    let descriptors = workspace.join("proto/src/descriptors.bin");
    if !check {
        println!("{}: {} files, {} bytes", descriptors.display(), trimmed.file.len(), output.len());
    }
    put(&descriptors, &output, check)?;
    let names = sensitive(&DescriptorPool::decode(bytes.as_slice())?, &trimmed);
    put(&workspace.join("proto/src/sensitive.txt"), names.as_bytes(), check)
}

fn put(target: &Path, content: &[u8], check: bool) -> Result<()> {
    if !check {
        return std::fs::write(target, content).with_context(|| format!("cannot write {}", target.display()));
    }
    let present = std::fs::read(target).with_context(|| format!("cannot read {}", target.display()))?;
    ensure!(
        present == content,
        "{} is not what envoy-types gives: run `cargo xtask build-descriptors`",
        target.display()
    );
    Ok(())
}

/// The full names of the fields that are marked as sensitive in the files that are kept, one a line.
fn sensitive(published: &DescriptorPool, kept: &FileDescriptorSet) -> String {
    let kept: BTreeSet<&str> = kept.file.iter().map(FileDescriptorProto::name).collect();
    let messages = published.all_messages().filter(|message| kept.contains(message.parent_file().name()));
    let names: BTreeSet<String> = messages
        .flat_map(|message| message.fields().collect::<Vec<_>>())
        .filter(|field| field.options().extensions().any(|(extension, _)| extension.number() == SENSITIVE))
        .map(|field| field.full_name().to_owned())
        .collect();
    names.into_iter().map(|name| name + "\n").collect()
}

/// The descriptor set in the source of the `envoy-types` that the lock file names.
fn published_set(workspace: &Path) -> Result<PathBuf> {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version", "1", "--locked"])
        .current_dir(workspace)
        .output()
        .context("cannot run cargo metadata")?;
    if !output.status.success() {
        bail!("cargo metadata: {}", String::from_utf8_lossy(&output.stderr));
    }
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout)?;
    metadata
        .get("packages")
        .and_then(|packages| packages.as_array())
        .into_iter()
        .flatten()
        .find(|package| package.get("name").is_some_and(|name| name == "envoy-types"))
        .and_then(|package| package.get("manifest_path")?.as_str())
        .and_then(|manifest| Path::new(manifest).parent())
        .map(|folder| folder.join("src/generated/types.bin"))
        .context("the workspace does not use envoy-types")
}

/// Keeps the root packages and what they refer to, in the order of the input.
fn trim(set: FileDescriptorSet) -> Result<FileDescriptorSet> {
    let mut files = set.file;
    for file in &mut files {
        strip(file);
    }
    let defined_in: BTreeMap<String, String> = files
        .iter()
        .flat_map(|file| defined(file).into_iter().map(|name| (name, file.name().to_owned())))
        .collect();
    for file in &mut files {
        let mut needed = BTreeSet::new();
        for name in file.message_type.iter().flat_map(referred) {
            let home = defined_in.get(name).with_context(|| format!("{name} is not in the set"))?;
            needed.insert(home.clone());
        }
        needed.remove(file.name());
        file.dependency = needed.into_iter().collect();
    }

    let by_name: BTreeMap<&str, &FileDescriptorProto> =
        files.iter().map(|file| (file.name(), file)).collect();
    let mut open: Vec<&str> =
        files.iter().filter(|file| is_root(file.package())).map(FileDescriptorProto::name).collect();
    let mut kept = BTreeSet::new();
    while let Some(name) = open.pop() {
        if kept.insert(name.to_owned()) {
            let file = by_name.get(name).with_context(|| format!("{name} is not in the set"))?;
            open.extend(file.dependency.iter().map(String::as_str));
        }
    }
    files.retain(|file| kept.contains(file.name()));
    Ok(FileDescriptorSet { file: files })
}

fn is_root(package: &str) -> bool {
    let package = format!("{package}.");
    let starts_with = |prefix: &&str| package.starts_with(*prefix);
    ROOTS.iter().any(starts_with) && !BOOTSTRAP_ONLY.iter().any(starts_with)
}

/// Removes what JSON does not depend on.
fn strip(file: &mut FileDescriptorProto) {
    file.source_code_info = None;
    file.options = None;
    file.service.clear();
    file.extension.clear();
    file.public_dependency.clear();
    file.weak_dependency.clear();
    file.message_type.iter_mut().for_each(strip_message);
    file.enum_type.iter_mut().for_each(strip_enum);
}

fn strip_message(message: &mut DescriptorProto) {
    message.extension.clear();
    message.options = message.options.take().filter(MessageOptions::map_entry);
    message.field.iter_mut().for_each(strip_field);
    message.oneof_decl.iter_mut().for_each(|oneof| oneof.options = None);
    message.nested_type.iter_mut().for_each(strip_message);
    message.enum_type.iter_mut().for_each(strip_enum);
}

/// Whether a repeated field is packed changes its bytes; no other option does.
fn strip_field(field: &mut FieldDescriptorProto) {
    field.options = field
        .options
        .take()
        .and_then(|options| options.packed)
        .map(|packed| FieldOptions { packed: Some(packed), ..FieldOptions::default() });
}

fn strip_enum(definition: &mut EnumDescriptorProto) {
    definition.options = definition.options.take().filter(EnumOptions::allow_alias);
    definition.value.iter_mut().for_each(|value| value.options = None);
}

/// The full names, with a leading dot, of the types in a file.
fn defined(file: &FileDescriptorProto) -> Vec<String> {
    fn visit(message: &DescriptorProto, scope: &str, names: &mut Vec<String>) {
        let scope = format!("{scope}.{}", message.name());
        names.extend(message.enum_type.iter().map(|nested| format!("{scope}.{}", nested.name())));
        message.nested_type.iter().for_each(|nested| visit(nested, &scope, names));
        names.push(scope);
    }
    let scope = match file.package() {
        "" => String::new(),
        package => format!(".{package}"),
    };
    let mut names: Vec<String> =
        file.enum_type.iter().map(|definition| format!("{scope}.{}", definition.name())).collect();
    file.message_type.iter().for_each(|message| visit(message, &scope, &mut names));
    names
}

/// The types of a message's fields, those of nested messages included.
fn referred(message: &DescriptorProto) -> Vec<&str> {
    let own = message.field.iter().filter_map(|field| field.type_name.as_deref());
    own.chain(message.nested_type.iter().flat_map(referred)).collect()
}
