//! The tasks that `hyper` spawns for a connection: they end with it. A server's are its streams.

use std::cell::{Cell, RefCell};
use std::future::Future;
use std::rc::Rc;
use std::task::{Context, Waker};

use tokio::task::JoinSet;

/// Spawns on the worker's thread. Dropping the last clone ends what is still running.
#[derive(Debug, Clone, Default)]
pub(super) struct ConnectionTasks {
    tasks: Rc<RefCell<JoinSet<()>>>,
    running: Rc<Running>,
}

#[derive(Debug, Default)]
struct Running {
    count: Cell<usize>,
    /// Who wants to know of the last one's end.
    waker: RefCell<Option<Waker>>,
}

impl ConnectionTasks {
    /// Whether any is running; where one is, the task is woken when none is any more.
    pub(super) fn poll_idle(&self, cx: &Context<'_>) -> bool {
        let idle = self.running.count.get() == 0;
        if !idle {
            self.running.waker.replace(Some(cx.waker().clone()));
        }
        idle
    }
}

impl<F> hyper::rt::Executor<F> for ConnectionTasks
where
    F: Future<Output: 'static> + 'static,
{
    fn execute(&self, task: F) {
        let mut tasks = self.tasks.borrow_mut();
        while tasks.try_join_next().is_some() {}
        self.running.count.update(|count| count + 1);
        let running = Rc::clone(&self.running);
        tasks.spawn_local(async move {
            let _output = task.await;
            running.count.update(|count| count - 1);
            if running.count.get() == 0
                && let Some(waker) = running.waker.take()
            {
                waker.wake();
            }
        });
    }
}
