//! What the tests share: pods as network namespaces with cgroups, processes inside them, and plans in few words.
#![allow(dead_code, reason = "each test file uses its part")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot be set up must fail"
)]

mod churn;
mod connects;
pub(crate) mod plan;
pub(crate) mod pod;
pub(crate) mod process;
pub(crate) mod proxy;
pub(crate) mod scene;

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use orlop_datapath::{Datapath, DatapathConfig, WayTraffic};

/// A name that no other test of this or another process has.
pub(crate) fn unique(prefix: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("{prefix}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

/// A node of its own: the pins go when this is dropped, whatever the test left.
pub(crate) struct Node {
    pub(crate) name: String,
}

impl Node {
    pub(crate) fn new() -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test needs root: it makes network namespaces");
        Self { name: unique("test-") }
    }

    pub(crate) fn config(&self) -> DatapathConfig {
        DatapathConfig::new(&self.name)
    }

    /// Starts an agent's datapath; the earlier one, if any, counts as dead.
    pub(crate) async fn open(&self) -> Datapath {
        Datapath::open(self.config()).await.unwrap()
    }

    /// The folder of its pins.
    pub(crate) fn pins(&self) -> std::path::PathBuf {
        std::path::Path::new("/sys/fs/bpf/orlop").join(&self.name)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        drop(std::fs::remove_dir_all(self.pins()));
    }
}

/// What went where, once every connection is closed: the last acknowledgement comes after the application has gone on.
pub(crate) fn traffic_once_closed(datapath: &Datapath, pod: &str) -> Vec<WayTraffic> {
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let ways = datapath.traffic(pod).unwrap();
        if ways.iter().all(|way| way.closed == way.opened) || Instant::now() > deadline {
            return ways;
        }
        sleep(Duration::from_millis(5));
    }
}
