use std::sync::Weak;
use std::time::Duration;

use super::engine::{Answer, Query, QueryId};
use super::service::Inner;

/// Who knows the ids of folders and messages, and the rows of tables: the host.
///
/// `ask` is called for each question, from any thread, never while a lock of ours is held, and one question after the
/// other: it should return soon. The answer may come before it returns or later, from any thread. A [`Reply`] that is
/// dropped answers that it failed; one that is kept for longer than
/// [`query_timeout`](super::EngineConfig::query_timeout) comes too late.
///
/// A closure `Fn(Query, Reply)` is one; [`AsyncIds`] makes one of an async function.
pub trait Ids: Send + Sync + 'static {
    /// Answers a question, now or later.
    fn ask(&self, query: Query, reply: Reply);
}

impl<F: Fn(Query, Reply) + Send + Sync + 'static> Ids for F {
    fn ask(&self, query: Query, reply: Reply) {
        self(query, reply);
    }
}

/// Answers by an async function; each question is a task of its own on the runtime where
/// [`AsyncIds::new`] was called, and is given up when nobody waits for its answer any more.
#[derive(Debug)]
pub struct AsyncIds<F> {
    ask: F,
    runtime: tokio::runtime::Handle,
}

impl<F, Fut> AsyncIds<F>
where
    F: Fn(Query) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    /// Of this function. Must be called within a tokio runtime, which runs the tasks.
    pub fn new(ask: F) -> AsyncIds<F> {
        AsyncIds { ask, runtime: tokio::runtime::Handle::current() }
    }
}

impl<F, Fut> Ids for AsyncIds<F>
where
    F: Fn(Query) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Answer> + Send + 'static,
{
    fn ask(&self, query: Query, reply: Reply) {
        let answer = (self.ask)(query);
        // One that comes later would be of no use: a host that hangs does not gather tasks.
        self.runtime.spawn(async move {
            let answer = tokio::time::timeout(reply.limit, answer).await;
            reply.answer(answer.unwrap_or(Answer::Failed));
        });
    }
}

/// Where the answer to one question goes.
#[derive(Debug)]
pub struct Reply {
    pub(super) id: Option<QueryId>,
    pub(super) inner: Weak<Inner>,
    pub(super) limit: Duration,
}

impl Reply {
    /// Answers.
    pub fn answer(mut self, answer: Answer) {
        self.give(answer);
    }

    /// How long the answer is waited for.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// For a host that keeps a number, and answers by [`Emsmdb::answer`](super::Emsmdb::answer).
    pub fn into_id(mut self) -> QueryId {
        // There is one until here: this and `answer` take it, and the reply with it.
        self.id.take().unwrap_or(QueryId::from_u64(0))
    }

    fn give(&mut self, answer: Answer) {
        if let Some(id) = self.id.take()
            && let Some(inner) = self.inner.upgrade()
        {
            inner.with(|engine, now| engine.answer(id, answer, now));
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        self.give(Answer::Failed);
    }
}
