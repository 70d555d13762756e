//! Waiting for something to become true.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Calls `probe` until it answers with a value, and returns that. An error, too, is asked again, and reported when the
/// time is over: what is being waited for may not be reachable yet.
pub fn until<T>(what: &str, timeout: Duration, mut probe: impl FnMut() -> Result<Option<T>>) -> Result<T> {
    let deadline = Instant::now() + timeout;
    loop {
        let outcome = probe();
        if let Ok(Some(value)) = outcome {
            return Ok(value);
        }
        if Instant::now() >= deadline {
            match outcome {
                Err(e) => return Err(e.context(format!("waited {timeout:?} for {what}"))),
                Ok(_) => bail!("waited {timeout:?} for {what}"),
            }
        }
        thread::sleep(Duration::from_millis(10));
    }
}
