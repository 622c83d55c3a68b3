use std::time::Duration;

use nng::{Aio, AioResult, Context, Message, Socket};
use tokio::sync::mpsc;

/// One nng operation after the other, awaited by one task.
pub(crate) struct Call {
    aio: Aio,
    results: mpsc::Receiver<AioResult>,
}

impl Call {
    pub(crate) fn new() -> nng::Result<Call> {
        // One operation runs at a time, so one place is enough; a result nobody awaits any more is dropped.
        let (sender, results) = mpsc::channel(1);
        let aio = Aio::new(move |_, result| drop(sender.try_send(result)))?;
        Ok(Call { aio, results })
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

    /// Sends a request on a REQ context, and waits for its reply.
    pub(crate) async fn request(
        &mut self,
        context: &Context,
        octets: &[u8],
        limit: Duration,
    ) -> nng::Result<Message> {
        self.begin(limit)?;
        context.send(&self.aio, octets).map_err(|(_, error)| error)?;
        match self.results.recv().await {
            Some(AioResult::Send(result)) => result.map_err(|(_, error)| error)?,
            _ => return Err(nng::Error::Canceled),
        }
        context.recv(&self.aio)?;
        match self.results.recv().await {
            Some(AioResult::Recv(result)) => result,
            _ => Err(nng::Error::Canceled),
        }
    }

    fn begin(&mut self, limit: Duration) -> nng::Result<()> {
        // What a call that was given up has left behind.
        self.aio.cancel();
        self.aio.wait();
        while self.results.try_recv().is_ok() {}
        self.aio.set_timeout(Some(limit))
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.aio.cancel();
    }
}
