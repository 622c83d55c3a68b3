use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use nng::{Aio, AioResult, Context, Message, Socket};
use tokio::sync::mpsc;

/// One nng operation after the other, awaited by one task.
pub(crate) struct Call {
    aio: Aio,
    results: mpsc::Receiver<AioResult>,
    /// Whether a request that is out goes on to its reply. Held while it does, so that giving up comes before or after.
    awaited: Arc<Mutex<bool>>,
    /// Of a REQ socket, whose requests are answered.
    context: Option<Context>,
}

impl Call {
    /// For [`send`](Call::send).
    pub(crate) fn sending() -> nng::Result<Call> {
        // One operation runs at a time, so one place is enough; a result nobody awaits any more is dropped.
        let (sender, results) = mpsc::channel(1);
        let aio = Aio::new(move |_, result| drop(sender.try_send(result)))?;
        Ok(Call { aio, results, awaited: Arc::default(), context: None })
    }

    /// For [`request`](Call::request) on a REQ socket.
    pub(crate) fn requesting(socket: &Socket) -> nng::Result<Call> {
        let context = Context::new(socket)?;
        let (sender, results) = mpsc::channel(1);
        let awaited = Arc::<Mutex<bool>>::default();
        let (own, wanted) = (context.clone(), Arc::clone(&awaited));
        // Once the request is out, nng's own thread begins to wait for the reply: one wake of the task, not two.
        let aio = Aio::new(move |aio, result| {
            let result = match result {
                AioResult::Send(Ok(())) => {
                    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
                    let receiving = if *wanted { own.recv(&aio) } else { Err(nng::Error::Canceled) };
                    match receiving {
                        Ok(()) => return,
                        Err(error) => AioResult::Recv(Err(error)),
                    }
                }
                other => other,
            };
            drop(sender.try_send(result));
        })?;
        Ok(Call { aio, results, awaited, context: Some(context) })
    }

    /// Sends on a PUSH socket; done when a peer's pipe took it.
    pub(crate) async fn send(&mut self, socket: &Socket, octets: &[u8], limit: Duration) -> nng::Result<()> {
        self.begin(limit)?;
        socket.send_async(&self.aio, octets).map_err(|(_, error)| error)?;
        match self.results.recv().await {
            Some(AioResult::Send(result)) => result.map_err(|(_, error)| error),
            _ => Err(nng::Error::Canceled),
        }
    }

    /// Sends a request, and waits for its reply; each of the two takes `limit` at most.
    pub(crate) async fn request(
        &mut self,
        message: impl Into<Message>,
        limit: Duration,
    ) -> nng::Result<Message> {
        self.begin(limit)?;
        let context = self.context.as_ref().ok_or(nng::Error::IncorrectState)?;
        context.send(&self.aio, message).map_err(|(_, error)| error)?;
        match self.results.recv().await {
            Some(AioResult::Recv(result)) => result,
            Some(AioResult::Send(Err((_, error)))) => Err(error),
            _ => Err(nng::Error::Canceled),
        }
    }

    fn begin(&mut self, limit: Duration) -> nng::Result<()> {
        // What a call that was given up has left behind.
        self.give_up();
        while self.results.try_recv().is_ok() {}
        self.expect(true);
        self.aio.set_timeout(Some(limit))
    }

    fn expect(&self, reply: bool) {
        *self.awaited.lock().unwrap_or_else(PoisonError::into_inner) = reply;
    }

    /// Ends the operation that is under way, and waits for its callback, which is a matter of microseconds.
    fn give_up(&self) {
        self.expect(false);
        self.aio.cancel();
        self.aio.wait();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        // A callback that still runs holds the operation as well. Were it the last to, it would free the operation in
        // the operation's own callback: nng waits there for that callback to end, for ever, on one of its few threads.
        self.give_up();
    }
}
