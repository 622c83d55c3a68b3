//! `ocbus demo`: everything at work, with private servers: two mails on their way from Dovecot to two
//! subscribers.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use ocbus::bus::{Filter, Subscription};
use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::sandbox::{Dovecot, DovecotOptions, Mail, Memcached, Sandbox, mail};
use ocbus::subscriber::SubscriberConfig;
use ocbus::wire::Endpoint;
use ocbus::wire::openchange::DosCharset;
use ocbus::{Bus, Event, EventKind, Subscriber, now_us};
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use super::failure::Failure;
use super::output::{self, DIM, GOOD, STRONG, paint};
use super::{Global, runtime, watch_line};

/// Whose mail it is.
const USER: &str = "bob";

/// How long an event may take to arrive.
const DEADLINE: Duration = Duration::from_secs(5);

/// How long leaving may take.
const LEAVE: Duration = Duration::from_secs(2);

/// The plugin as Cargo names it, and as Dovecot loads it.
const BUILT: &str = "libopenchange_plugin.so";
const INSTALLED: &str = "lib90_openchange_plugin.so";

const HELP: &str = "\
Starts a private memcached and Dovecot on 127.0.0.1 in a temporary folder, with our plugin, and two subscribers for
the user bob in this process: one at a native endpoint, one at an OpenChange v1 endpoint. Then dovecot-lda delivers a
mail and the LMTP server another, and each has to arrive at both. All of it is gone afterwards. Dovecot wants root.

Examples:
  ocbus demo
  ocbus demo --plugin target/debug/libopenchange_plugin.so --keep";

/// Shows a mail on its way from Dovecot to subscribers, with servers of its own.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct Demo {
    /// The Dovecot plugin. By default libopenchange_plugin.so beside this command, or the installed one.
    #[arg(long, value_name = "PATH", env = "OCBUS_PLUGIN", hide_env_values = true)]
    plugin: Option<PathBuf>,
    /// Leave the folder with the mails and logs there, and say where.
    #[arg(long)]
    keep: bool,
}

/// The running demonstration.
struct Stage {
    started: Instant,
    runtime: Runtime,
    /// Somebody wants us to end.
    stop: Arc<AtomicBool>,
}

/// One of the two subscribers.
struct Listener {
    name: &'static str,
    subscriber: Subscriber,
    events: Subscription,
}

/// An event and when it came.
struct Arrival {
    event: Arc<Event>,
    received_us: u64,
}

impl Demo {
    pub(super) fn run(self, global: &Global) -> Result<(), Failure> {
        let plugin = self.plugin()?;
        let stage = Stage::new()?;
        let sandbox = Sandbox::new()?;
        if self.keep {
            sandbox.keep();
        }
        let result = stage.play(&sandbox, &plugin, global.timeout());
        let folder = sandbox.path().to_path_buf();
        drop(sandbox);
        stage.runtime.shutdown_background();
        result?;
        let ended =
            if self.keep { format!("kept: {}", folder.display()) } else { "removed everything".to_owned() };
        step(stage.started, "ended", &ended)
    }

    fn plugin(&self) -> Result<PathBuf, Failure> {
        if let Some(path) = &self.plugin {
            return match path.is_file() {
                true => Ok(path.clone()),
                false => Err(Failure::failed(format!("--plugin {}: no such file: {BUILD}", path.display()))),
            };
        }
        let executable = std::env::current_exe().unwrap_or_default();
        let folder = executable.parent().unwrap_or(Path::new("."));
        let places = [
            folder.join(BUILT),
            folder.join("../lib").join(BUILT),
            folder.join("../lib/dovecot/modules").join(INSTALLED),
            Path::new("/usr/lib/dovecot/modules").join(INSTALLED),
        ];
        places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
            let place = places.first().map(|path| path.display().to_string()).unwrap_or_default();
            Failure::failed(format!("--plugin: neither at {place} nor installed: {BUILD}"))
        })
    }
}

const BUILD: &str = "build it with `cargo build --release -p dovecot-openchange-plugin`, or name its .so";

impl Stage {
    fn new() -> Result<Stage, Failure> {
        let runtime = runtime()?;
        let stop = Arc::new(AtomicBool::new(false));
        {
            // The end comes between two steps, so that everything is removed on the way out.
            let _entered = runtime.enter();
            for kind in [SignalKind::interrupt(), SignalKind::terminate(), SignalKind::hangup()] {
                let stop = Arc::clone(&stop);
                let mut signals =
                    signal(kind).map_err(|error| Failure::failed(format!("signals: {error}")))?;
                runtime.spawn(async move {
                    signals.recv().await;
                    stop.store(true, Ordering::Relaxed);
                });
            }
        }
        Ok(Stage { started: Instant::now(), runtime, stop })
    }

    fn play(&self, sandbox: &Sandbox, plugin: &Path, timeout: Duration) -> Result<(), Failure> {
        self.step("sandbox", &sandbox.path().display().to_string())?;
        let memcached = sandbox.memcached()?;
        self.step("memcached", &memcached.address())?;
        let options = DovecotOptions::new(&["notify", "openchange"])
            .plugin_file(plugin)
            .setting("openchange_resolver", &memcached.configuration())
            // A busy machine must not fail a demonstration.
            .setting("openchange_budget", "1000");
        let dovecot = sandbox.dovecot(options)?;
        self.step(
            "Dovecot",
            &format!("LMTP at 127.0.0.1:{}, plugin {}", dovecot.lmtp_port(), plugin.display()),
        )?;
        let mut listeners = self.runtime.block_on(listeners(&memcached, timeout))?;
        for listener in &listeners {
            self.step("subscriber", &format!("{} for {USER} at {}", listener.name, listener.endpoint()?))?;
        }
        let result = self.deliver(&dovecot, &mut listeners);
        for listener in listeners {
            self.runtime.block_on(listener.subscriber.stop(LEAVE));
        }
        // With the log, because what is missing has its reason there.
        result.map_err(|failure| match failure {
            Failure::Failed(why) => match dovecot.plugin_log_lines().last() {
                Some(line) => Failure::Failed(format!("{why}; Dovecot's log: {line}")),
                None => Failure::Failed(why),
            },
            other => other,
        })
    }

    fn deliver(&self, dovecot: &Dovecot, listeners: &mut [Listener]) -> Result<(), Failure> {
        let by_lda = mail("Alice <alice@example.org>", "Hello by LDA", "The first mail.");
        let delivery = dovecot.deliver_lda(USER, &by_lda, None)?;
        if !delivery.is_ok() {
            return Err(Failure::failed(format!(
                "dovecot-lda: status {:?}: {}",
                delivery.status, delivery.stderr
            )));
        }
        self.step("dovecot-lda", &format!("delivered a mail in {}", milliseconds(delivery.took)))?;
        self.arrivals("LDA", &by_lda, listeners)?;

        let by_lmtp = mail("Carol <carol@example.org>", "Hello by LMTP", "The second mail.");
        let mut lmtp = dovecot.lmtp()?;
        let started = Instant::now();
        let replies = lmtp.deliver("carol@example.org", &[USER], &by_lmtp)?;
        let took = started.elapsed();
        if let Some(refused) = replies.iter().find(|reply| !reply.is_ok()) {
            return Err(Failure::failed(format!("LMTP: {} {}", refused.code, refused.text)));
        }
        self.step("LMTP", &format!("delivered a mail in {}", milliseconds(took)))?;
        self.arrivals("LMTP", &by_lmtp, listeners)?;
        lmtp.quit()?;

        match dovecot.maildir(USER).count("INBOX") {
            2 => self.step("stored", "2 mails in the INBOX, each once"),
            count => Err(Failure::failed(format!("{count} mails in the INBOX: expected 2"))),
        }
    }

    /// Waits for a mail's event at each subscriber, and prints them.
    fn arrivals(&self, way: &str, mail: &Mail, listeners: &mut [Listener]) -> Result<(), Failure> {
        // An OpenChange v1 payload has no time: its mail was committed when the native event says.
        let mut committed_us = None;
        for listener in listeners {
            let name = listener.name;
            let arrival = self.runtime.block_on(self.arrival(listener)).map_err(|failure| match failure {
                Failure::Failed(why) => Failure::Failed(format!("{way}: the {name} subscriber: {why}")),
                other => other,
            })?;
            let Arrival { event, received_us } = &arrival;
            check(event, mail, name)
                .map_err(|why| Failure::failed(format!("{way}: the {name} subscriber: {why}")))?;
            let committed_us = *committed_us.get_or_insert(event.time_us);
            let after = i64::try_from(received_us.saturating_sub(committed_us)).unwrap_or(i64::MAX);
            let after = format!("{} after the commit", watch_line::milliseconds(after));
            let what = watch_line::what(event);
            step(self.started, &format!("  {name}"), &format!("{what}  {}", paint(GOOD, &after)))?;
        }
        Ok(())
    }

    async fn arrival(&self, listener: &mut Listener) -> Result<Arrival, Failure> {
        let end = tokio::time::Instant::now() + DEADLINE;
        loop {
            self.going_on()?;
            let wake = end.min(tokio::time::Instant::now() + Duration::from_millis(100));
            match tokio::time::timeout_at(wake, listener.events.recv()).await {
                Ok(Some(event)) => return Ok(Arrival { event, received_us: now_us() }),
                Ok(None) => return Err(Failure::failed("its bus is gone")),
                Err(_) if tokio::time::Instant::now() >= end => {
                    return Err(Failure::failed(format!("no event within {} s", DEADLINE.as_secs())));
                }
                Err(_) => {}
            }
        }
    }

    fn going_on(&self) -> Result<(), Failure> {
        match self.stop.load(Ordering::Relaxed) {
            true => Err(Failure::failed("interrupted: removed everything")),
            false => Ok(()),
        }
    }

    fn step(&self, name: &str, what: &str) -> Result<(), Failure> {
        self.going_on()?;
        step(self.started, name, what)
    }
}

impl Listener {
    async fn start(
        name: &'static str,
        config: SubscriberConfig,
        resolver: &Resolver,
    ) -> Result<Listener, Failure> {
        let bus = Bus::new();
        let events = bus.subscribe(Filter::user(USER));
        let subscriber = Subscriber::start(config, resolver.clone(), bus).await?;
        subscriber.add(&Cn::new(USER)?).await?;
        Ok(Listener { name, subscriber, events })
    }

    fn endpoint(&self) -> Result<String, Failure> {
        let own = self.subscriber.endpoint().cloned().or(self.subscriber.legacy_endpoint(&Cn::new(USER)?));
        Ok(own.map(|endpoint| endpoint.to_string()).unwrap_or_default())
    }
}

async fn listeners(memcached: &Memcached, timeout: Duration) -> Result<Vec<Listener>, Failure> {
    let config = Config::parse(&memcached.configuration())?;
    let resolver = Resolver::new(&config, DosCharset::default(), timeout).await?;
    let any = || Some(Endpoint::Tcp { host: "127.0.0.1".to_owned(), port: 0 });
    let native = SubscriberConfig { bind: any(), ..SubscriberConfig::default() };
    let legacy = SubscriberConfig { bind: None, legacy_bind: any(), ..SubscriberConfig::default() };
    Ok(vec![
        Listener::start("native", native, &resolver).await?,
        Listener::start("legacy", legacy, &resolver).await?,
    ])
}

/// Whether it is the event of that mail.
fn check(event: &Event, mail: &Mail, name: &str) -> Result<(), String> {
    let EventKind::MessageNew(message) = &event.kind else {
        return Err(format!("{} came: expected MessageNew", event.kind.name()));
    };
    // The legacy payload does not say whose mail it is, only its UID.
    match (name, message.message_id.as_deref(), message.uid) {
        ("native", Some(id), _) if id != mail.message_id() => {
            Err(format!("the event of another mail came: {id}"))
        }
        (_, _, None) => Err("the event has no UID".to_owned()),
        _ => Ok(()),
    }
}

/// One line: when, who, what.
fn step(started: Instant, name: &str, what: &str) -> Result<(), Failure> {
    let elapsed = format!("{:>7.3} s", started.elapsed().as_secs_f64());
    output::line(&format!("{}  {}  {what}", paint(DIM, &elapsed), paint(STRONG, &format!("{name:<12}"))))
}

fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
