//! Images as a container runtime imports them (OCI image layout, in a tar archive): one layer, made of files.
//!
//! The same files make the same bytes: nothing in an archive depends on when, where or by whom it was made.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use ring::digest::{SHA256, digest};
use serde::Serialize;
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

const EXECUTABLE: u32 = 0o755;
const PLAIN: u32 = 0o644;
/// Where the container runtime or the kubelet mounts something.
const MOUNT_POINTS: [&str; 8] = ["dev", "etc", "proc", "run", "sys", "tmp", "var", "var/lib"];

/// An image to be written.
#[derive(Debug)]
pub struct Image<'a> {
    /// `REGISTRY/NAME:TAG`.
    pub reference: &'a str,
    /// What a container of it runs, and with which arguments before its own.
    pub entrypoint: &'a [&'a str],
    /// The arguments of a container that has none of its own.
    pub arguments: &'a [&'a str],
    /// `UID`, where it is not root's.
    pub user: &'a str,
    /// Executables, and where in the image they lie.
    pub files: &'a [(PathBuf, String)],
    /// Symbolic links: where they lie, and what they name.
    pub links: &'a [(String, String)],
}

impl Image<'_> {
    /// Writes the archive.
    pub fn write(&self, archive: &Path) -> Result<()> {
        let layer = self.layer()?;
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        let config = serde_json::to_vec(&json!({
            "architecture": architecture,
            "os": "linux",
            "config": {
                "Entrypoint": self.entrypoint, "Cmd": self.arguments, "User": self.user,
                "Env": ["PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"],
            },
            "rootfs": {"type": "layers", "diff_ids": [name_of(&layer)]},
        }))?;
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", &config),
            "layers": [described("layer.v1.tar", &layer)],
        }))?;
        let entry = json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": name_of(&manifest),
            "size": manifest.len(),
            "platform": {"architecture": architecture, "os": "linux"},
            "annotations": {
                "io.containerd.image.name": self.reference,
                "org.opencontainers.image.ref.name": self.reference,
            },
        });

        let file = File::create(archive).with_context(|| format!("cannot write {}", archive.display()))?;
        let mut tar = Builder::new(file);
        append_json(&mut tar, "oci-layout", &json!({"imageLayoutVersion": "1.0.0"}))?;
        append_json(&mut tar, "index.json", &json!({"schemaVersion": 2, "manifests": [entry]}))?;
        for blob in [&config, &manifest, &layer] {
            let path = format!("blobs/{}", name_of(blob).replace(':', "/"));
            append(&mut tar, &path, EntryType::Regular, PLAIN, blob)?;
        }
        Ok(tar.into_inner()?.flush()?)
    }

    /// The file system, as a tar archive.
    fn layer(&self) -> Result<Vec<u8>> {
        let mut tar = Builder::new(Vec::new());
        for path in MOUNT_POINTS {
            append(&mut tar, path, EntryType::Directory, EXECUTABLE, &[])?;
        }
        let mut link = header(EntryType::Symlink, EXECUTABLE, 0);
        tar.append_link(&mut link, "var/run", "/run")?;
        append(&mut tar, "etc/passwd", EntryType::Regular, PLAIN, b"root:x:0:0:root:/:/bin/false\n")?;
        for (source, path) in self.files {
            let mut content = Vec::new();
            let mut file = File::open(source).with_context(|| format!("cannot read {}", source.display()))?;
            file.read_to_end(&mut content)?;
            append(&mut tar, path.trim_start_matches('/'), EntryType::Regular, EXECUTABLE, &content)?;
        }
        for (path, target) in self.links {
            let mut link = header(EntryType::Symlink, EXECUTABLE, 0);
            tar.append_link(&mut link, path.trim_start_matches('/'), target)?;
        }
        Ok(tar.into_inner()?)
    }
}

fn header(kind: EntryType, mode: u32, size: usize) -> Header {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_size(size as u64);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header
}

fn append(
    tar: &mut Builder<impl Write>,
    path: &str,
    kind: EntryType,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    Ok(tar.append_data(&mut header(kind, mode, content.len()), path, content)?)
}

fn append_json(tar: &mut Builder<impl Write>, path: &str, content: &impl Serialize) -> Result<()> {
    append(tar, path, EntryType::Regular, PLAIN, &serde_json::to_vec(content)?)
}

/// A blob as others refer to it.
fn described(kind: &str, blob: &[u8]) -> Value {
    json!({
        "mediaType": format!("application/vnd.oci.image.{kind}"),
        "digest": name_of(blob),
        "size": blob.len(),
    })
}

fn name_of(blob: &[u8]) -> String {
    let mut name = "sha256:".to_owned();
    for byte in digest(&SHA256, blob).as_ref() {
        // Writing to a String cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name
}
