//! The files of the directory as they were last good, and snapshots of what they say together.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::file::{FileError, Format, Parser, digest};
use crate::{FileProblem, Resource, ResourceType};

/// Resources by what identifies them.
pub(super) type Content = BTreeMap<(ResourceType, String), Arc<Resource>>;

/// The whole directory at one time.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    /// Counts changes.
    pub(super) generation: u64,
    common: Folder,
    workloads: BTreeMap<String, Folder>,
}

/// What one folder says: the directory itself, or a workload's subfolder.
#[derive(Debug, Default)]
struct Folder {
    content: Content,
    problems: Vec<FileProblem>,
}

impl Snapshot {
    /// What applies to one workload: what is common, and its own subfolder over it.
    pub(super) fn content(&self, workload: &str) -> Content {
        let mut content = self.common.content.clone();
        if let Some(own) = self.workloads.get(workload) {
            content.extend(own.content.clone());
        }
        content
    }

    /// The files that concern one workload and are not in force as they stand.
    pub(super) fn problems(&self, workload: &str) -> Vec<FileProblem> {
        let own = self.workloads.get(workload).into_iter().flat_map(|own| &own.problems);
        self.common.problems.iter().chain(own).cloned().collect()
    }

    fn folder(&mut self, workload: Option<&String>) -> &mut Folder {
        match workload {
            None => &mut self.common,
            Some(name) => self.workloads.entry(name.clone()).or_default(),
        }
    }
}

/// Every file seen, with its last good content.
#[derive(Debug)]
pub(super) struct Files {
    root: PathBuf,
    known: BTreeMap<PathBuf, Known>,
    /// Why the directory could not be listed.
    unlisted: Option<String>,
    generation: u64,
}

#[derive(Debug, Default)]
struct Known {
    /// The subfolder that it lies in.
    workload: Option<String>,
    /// Of the bytes read last, whether they were good or not.
    digest: Option<u64>,
    resources: Vec<(ResourceType, Arc<Resource>)>,
    error: Option<FileError>,
}

impl Files {
    pub(super) fn new(root: PathBuf) -> Self {
        Self { root, known: BTreeMap::new(), unlisted: None, generation: 0 }
    }

    /// Reads what changed since the last time; `None` if nothing did. If the directory cannot be listed, as in
    /// the middle of a swap, what is known of its files stays.
    pub(super) fn scan(&mut self) -> Option<Snapshot> {
        let (changed, unlisted) = match list(&self.root) {
            Ok(present) => (self.read(present), None),
            Err(error) => (false, Some(format!("cannot be listed: {error}"))),
        };
        let changed = changed || unlisted != self.unlisted || self.generation == 0;
        self.unlisted = unlisted;
        changed.then(|| {
            self.generation = self.generation.saturating_add(1);
            self.snapshot()
        })
    }

    /// The folders whose changes concern the files, with symbolic links resolved.
    pub(super) fn folders(&self) -> BTreeSet<PathBuf> {
        let folders = self.known.keys().filter_map(|path| path.parent());
        let targets =
            self.known.keys().filter_map(|path| Some(path.canonicalize().ok()?.parent()?.to_owned()));
        let subfolders = entries(&self.root).into_iter().flatten().filter(|path| path.is_dir());
        folders
            .map(Path::to_owned)
            .chain(subfolders)
            .chain([self.root.clone()])
            .filter_map(|path| path.canonicalize().ok())
            .chain(targets)
            .collect()
    }

    /// Whether anything is different from what was known.
    fn read(&mut self, present: BTreeMap<PathBuf, (Format, Option<String>)>) -> bool {
        let before = self.known.len();
        self.known.retain(|path, _| present.contains_key(path));
        let mut changed = self.known.len() != before;
        let mut parser = Parser::default();
        for (path, (format, workload)) in present {
            let content = fs::read(&path);
            let known = self.known.entry(path).or_default();
            known.workload = workload;
            changed |= known.update(format, content, &mut parser);
        }
        changed
    }

    fn snapshot(&self) -> Snapshot {
        let mut snapshot = Snapshot { generation: self.generation, ..Snapshot::default() };
        let unlisted = self.unlisted.iter().cloned();
        snapshot.common.problems.extend(unlisted.map(|error| FileProblem { path: self.root.clone(), error }));
        for (path, known) in &self.known {
            let folder = snapshot.folder(known.workload.as_ref());
            let problem = |error: String| FileProblem { path: path.clone(), error };
            folder.problems.extend(known.error.as_ref().map(|error| problem(error.to_string())));
            for (resource_type, resource) in &known.resources {
                match folder.content.entry((*resource_type, resource.name.clone())) {
                    Entry::Vacant(vacant) => drop(vacant.insert(Arc::clone(resource))),
                    Entry::Occupied(_) => {
                        let name = &resource.name;
                        let error = format!("{resource_type} '{name}' is in an earlier file, which holds");
                        folder.problems.push(problem(error));
                    }
                }
            }
        }
        snapshot
    }
}

impl Known {
    /// Whether the content, or the reason for not having it, is another than before.
    fn update(&mut self, format: Format, content: io::Result<Vec<u8>>, parser: &mut Parser) -> bool {
        let parsed = content.map_err(FileError::from).and_then(|content| {
            let digest = Some(digest(&content));
            if self.digest == digest {
                return Ok(None);
            }
            self.digest = digest;
            parser.parse(format, &content).map(Some)
        });
        match parsed {
            Ok(None) => false,
            Ok(Some(resources)) => {
                let shared = |(resource_type, resource)| (resource_type, Arc::new(resource));
                self.resources = resources.into_iter().map(shared).collect();
                self.error = None;
                true
            }
            Err(error) => {
                // Read again once it can be read, even if it then is what it was.
                if matches!(error, FileError::Io(_)) {
                    self.digest = None;
                }
                let text = error.to_string();
                let before = self.error.replace(error);
                before.is_none_or(|before| before.to_string() != text)
            }
        }
    }
}

/// The files of the directory and of its subfolders, in the order of their paths.
fn list(root: &Path) -> io::Result<BTreeMap<PathBuf, (Format, Option<String>)>> {
    let mut files = BTreeMap::new();
    for path in entries(root)? {
        if path.is_dir() {
            let workload = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
            for path in entries(&path)? {
                files.extend(Format::of(&path).map(|format| (path, (format, workload.clone()))));
            }
        } else if let Some(format) = Format::of(&path) {
            files.insert(path, (format, None));
        }
    }
    Ok(files)
}

/// What lies in a folder, but for hidden entries.
fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b".") {
            paths.push(entry.path());
        }
    }
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A file with one cluster of this name for each timeout, which tells versions apart.
    fn cluster(name: &str, connect_timeout: &str) -> String {
        format!(
            "resources:\n- '@type': {}\n  name: {name}\n  connect_timeout: {connect_timeout}\n",
            ResourceType::Cluster.type_url()
        )
    }

    fn names(content: &Content) -> Vec<&str> {
        content.keys().map(|(_, name)| name.as_str()).collect()
    }

    #[test]
    fn a_workloads_subfolder_adds_to_what_is_common_and_replaces_it() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("cds.yaml"), cluster("a", "1s") + &cluster("b", "1s")[11..]).unwrap();
        fs::create_dir(root.path().join("client-0")).unwrap();
        fs::write(root.path().join("client-0/own.yaml"), cluster("b", "2s") + &cluster("c", "1s")[11..])
            .unwrap();

        let snapshot = Files::new(root.path().into()).scan().unwrap();

        let key = (ResourceType::Cluster, "b".to_owned());
        assert_eq!(names(&snapshot.content("client-0")), ["a", "b", "c"]);
        assert_eq!(names(&snapshot.content("client-1")), ["a", "b"]);
        assert_ne!(snapshot.content("client-0")[&key], snapshot.content("client-1")[&key]);
    }

    #[test]
    fn a_file_that_becomes_malformed_keeps_its_last_good_content_and_is_reported() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cds.yaml");
        let mut files = Files::new(root.path().into());
        fs::write(&path, cluster("a", "1s")).unwrap();
        files.scan();

        fs::write(&path, cluster("a", "soon")).unwrap();
        let snapshot = files.scan().unwrap();

        assert_eq!(names(&snapshot.content("client-0")), ["a"]);
        let [problem] = &*snapshot.problems("client-0") else { panic!("one problem") };
        assert_eq!(problem.path, path);
        assert!(problem.error.starts_with("resources[0].connect_timeout: "), "{}", problem.error);
        assert!(problem.error.contains("line 4"), "{}", problem.error);

        fs::write(&path, cluster("b", "1s")).unwrap();
        let snapshot = files.scan().unwrap();
        assert_eq!(names(&snapshot.content("client-0")), ["b"]);
        assert!(snapshot.problems("client-0").is_empty());
    }

    #[test]
    fn a_problem_in_one_workloads_subfolder_is_not_shown_to_another() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("client-0")).unwrap();
        fs::write(root.path().join("client-0/bad.json"), "{").unwrap();

        let snapshot = Files::new(root.path().into()).scan().unwrap();

        assert_eq!(snapshot.problems("client-0").len(), 1);
        assert!(snapshot.problems("client-1").is_empty());
    }

    #[test]
    fn a_resource_defined_twice_holds_as_in_the_first_file_and_is_reported() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("1.yaml"), cluster("a", "1s")).unwrap();
        fs::write(root.path().join("2.yaml"), cluster("a", "2s")).unwrap();

        let snapshot = Files::new(root.path().into()).scan().unwrap();

        let [problem] = &*snapshot.problems("client-0") else { panic!("one problem") };
        assert_eq!(problem.path, root.path().join("2.yaml"));
    }

    #[test]
    fn a_directory_that_is_gone_for_a_moment_withdraws_nothing() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("xds");
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join("cds.yaml"), cluster("a", "1s")).unwrap();
        let mut files = Files::new(folder.clone());
        files.scan();

        fs::rename(&folder, root.path().join("moved")).unwrap();
        let snapshot = files.scan().unwrap();

        assert_eq!(names(&snapshot.content("client-0")), ["a"]);
        assert_eq!(snapshot.problems("client-0")[0].path, folder);
    }

    #[test]
    fn a_file_that_is_deleted_takes_its_resources_with_it() {
        let root = tempfile::tempdir().unwrap();
        let path = root.path().join("cds.yaml");
        fs::write(&path, cluster("a", "1s")).unwrap();
        let mut files = Files::new(root.path().into());
        files.scan();

        fs::remove_file(&path).unwrap();

        assert!(files.scan().unwrap().content("client-0").is_empty());
    }
}
