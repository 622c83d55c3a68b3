//! A daemon's life in the foreground: systemd is told, signals are obeyed.
//!
//! SIGTERM and SIGINT end it in good order, a second one at once; SIGHUP reads the settings anew.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use sd_notify::NotifyState;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval};

use super::daemon::Daemon;

/// How long a part may take to be looked at, before systemd is told no more that we live.
const PATIENCE: Duration = Duration::from_secs(5);

/// Signals as they come.
pub struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hang_up: Signal,
}

/// How a life ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Everything accepted was sent or accounted for.
    InOrder,
    /// A second signal came meanwhile.
    AtOnce,
    /// A part had ended by itself; what was accepted is sent or accounted for.
    Broken,
}

impl Signals {
    /// From now on signals do not end the process.
    ///
    /// # Errors
    /// When the operating system refuses.
    pub fn new() -> io::Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hang_up: signal(SignalKind::hangup())?,
        })
    }

    async fn end(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// Lives until a signal ends it. `path` is where the settings are read anew from.
pub async fn run(mut daemon: Daemon, path: PathBuf, mut signals: Signals) -> End {
    tell(&[NotifyState::Ready, NotifyState::Status(&status(&daemon))]);
    let mut watchdog = watchdog();
    let mut end = End::InOrder;
    loop {
        tokio::select! {
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            _ = signals.hang_up.recv() => reload(&daemon, &path).await,
            () = daemon.a_listener_ended() => {
                tracing::error!(event = "listener_ended", "internal error: nobody takes connections: to be started anew");
                end = End::Broken;
                break;
            }
            () = tick(&mut watchdog) => {
                // The runtime goes on, as we do; now those on whom all events wait.
                let gateway = daemon.gateway().clone();
                if answers(PATIENCE, move || gateway.look_at_locks()).await {
                    tell(&[NotifyState::Watchdog]);
                } else {
                    tracing::error!(event = "hung", "internal error: the outbox or the registrar does not answer");
                }
            }
        }
    }
    let limit = daemon.gateway().settings().settings.drain_s.s();
    tell(&[NotifyState::Stopping]);
    tracing::info!(event = "stopping", limit_s = limit.as_secs(), "no more requests are taken");
    let mut stop = std::pin::pin!(daemon.stop(limit));
    loop {
        tokio::select! {
            () = &mut stop => return end,
            () = signals.end() => {
                tracing::warn!(event = "stopped_at_once", "a second signal: what is left is not waited for");
                return End::AtOnce;
            }
            () = tick(&mut watchdog) => tell(&[NotifyState::Watchdog]),
        }
    }
}

async fn reload(daemon: &Daemon, path: &std::path::Path) {
    // Type=notify-reload waits for READY behind this time.
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now]),
        Err(_) => tell(&[NotifyState::Reloading]),
    }
    // Files are read: not on a thread that answers requests.
    let result = tokio::task::block_in_place(|| daemon.reload(path));
    match result {
        Ok((changes, warnings)) => {
            for warning in warnings {
                tracing::warn!(event = "settings_warning", "{warning}");
            }
            let (applied, restart) = (changes.applied.join(", "), changes.restart.join(", "));
            tracing::info!(event = "reloaded", applied, "settings, secrets and certificates are read anew");
            if !restart.is_empty() {
                tracing::warn!(
                    event = "restart_needed",
                    keys = restart,
                    "changed, but the old values hold until a restart"
                );
            }
        }
        Err(error) => {
            tracing::error!(event = "reload_failed", reason = %error, "the old settings hold");
        }
    }
    tell(&[NotifyState::Ready, NotifyState::Status(&status(daemon))]);
}

fn status(daemon: &Daemon) -> String {
    let addresses: Vec<String> = daemon.addresses().iter().map(ToString::to_string).collect();
    format!(
        "listening at {}",
        if addresses.is_empty() { "no HTTP address".to_owned() } else { addresses.join(", ") }
    )
}

/// Ticks twice in the time within which systemd wants to hear from us; never, if it does not.
fn watchdog() -> Option<Interval> {
    let mut limit_us = 0;
    if !sd_notify::watchdog_enabled(false, &mut limit_us) || limit_us == 0 {
        return None;
    }
    let mut ticks = interval(Duration::from_micros((limit_us / 2).max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    Some(ticks)
}

/// Whether a look comes to its end in time. On a thread of its own: it may wait for a lock that is never given back.
async fn answers(limit: Duration, look: impl FnOnce() + Send + 'static) -> bool {
    tokio::time::timeout(limit, tokio::task::spawn_blocking(look)).await.is_ok_and(|looked| looked.is_ok())
}

async fn tick(watchdog: &mut Option<Interval>) {
    match watchdog {
        Some(ticks) => drop(ticks.tick().await),
        None => std::future::pending().await,
    }
}

/// Tells systemd, if it is there.
fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(false, states) {
        tracing::debug!(event = "sd_notify_failed", %error, "systemd was not told");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_ever_is_noticed() {
        assert!(answers(PATIENCE, || {}).await);
        let (kept, given) = std::sync::mpsc::channel::<()>();
        assert!(
            !answers(Duration::from_millis(50), move || {
                let _ = given.recv();
            })
            .await
        );
        drop(kept);
        assert!(!answers(PATIENCE, || panic!("as a test")).await);
    }
}
