//! The tasks that `hyper` spawns for a connection: they end with it.

use std::cell::RefCell;
use std::future::Future;
use std::rc::Rc;

use tokio::task::JoinSet;

/// Spawns on the worker's thread. Dropping the last clone ends what is still running.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTasks(Rc<RefCell<JoinSet<()>>>);

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.0.borrow_mut();
        while tasks.try_join_next().is_some() {}
        tasks.spawn_local(async move {
            let _output = task.await;
        });
    }
}
