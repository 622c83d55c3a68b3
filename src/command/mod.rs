//! The command: one module for each subcommand, and what they share.
//!
//! Standard output has the results, one line or JSON object for each; standard error has everything else. A
//! fault is one line there. Exit status: 0 done, 1 failed, 2 wrong usage.

mod at_daemon;
mod demo;
mod failure;
mod flush;
mod inspect;
mod list;
mod list_all;
mod logging;
mod output;
mod probing;
mod send;
mod serve;
mod shell;
mod trace;
mod users;
mod watch;
mod watch_line;

use std::future::Future;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ocbus::resolver::{Cn, Config, Resolver};
use ocbus::wire::openchange::DosCharset;

use failure::Failure;

const EXAMPLES: &str = "\
Try it, with servers of its own and nothing to set up:
  ocbus demo

Watch bob's mailbox in one terminal, tell of a mail in another:
  ocbus watch bob
  ocbus send bob --folder INBOX --uid 1

Exit status: 0 done, 1 failed, 2 wrong usage. A fault is one line on standard error.";

/// The notification bus that makes Outlook refresh the moment a mail arrives on an OpenChange server.
#[derive(Debug, Parser)]
#[command(name = "ocbus", version, after_long_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// What every subcommand takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// The memcached that knows who listens, as libmemcached's configuration strings name it.
    ///
    /// The same string as Dovecot's `openchange_resolver` and smb.conf's `mapistore:notification_cache`.
    #[arg(
        long,
        global = true,
        env = "OCBUS_RESOLVER",
        hide_env_values = true,
        value_name = "STRING",
        default_value = "--SERVER=127.0.0.1:11211",
        allow_hyphen_values = true
    )]
    resolver: String,
    /// How long one request to memcached, or the check of one endpoint, may take: 1 to 60000 milliseconds.
    #[arg(long, global = true, value_name = "MS", default_value_t = 1000,
        value_parser = clap::value_parser!(u64).range(1..=60_000))]
    timeout: u64,
    /// Say more on standard error; twice for even more. OCBUS_LOG takes a filter instead, as in `ocbus=debug`.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    verbose: u8,
    /// When to use colour.
    #[arg(long, global = true, value_enum, value_name = "WHEN", default_value_t = Color::Auto)]
    color: Color,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Color {
    /// On a terminal.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

#[derive(Debug, Subcommand)]
enum Command {
    Watch(watch::Watch),
    Send(send::SendMail),
    Serve(serve::Serve),
    List(list::List),
    Flush(flush::Flush),
    Trace(trace::Follow),
    Users(users::Users),
    Inspect(inspect::Inspect),
    Demo(demo::Demo),
    Completions(shell::Completions),
    Man(shell::Man),
}

/// Runs the command.
pub(crate) fn main() -> ExitCode {
    std::panic::set_hook(Box::new(failure::panicked));
    match Cli::try_parse() {
        Ok(cli) => match run(cli) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        },
        Err(error) => failure::usage(&error),
    }
}

fn run(cli: Cli) -> Result<(), Failure> {
    let Cli { global, command } = cli;
    output::choose_color(global.color);
    // What these report on standard output needs no second line from the library.
    let quiet = matches!(command, Command::Send(_) | Command::List(_) | Command::Flush(_) | Command::Demo(_));
    let loudness = match &command {
        Command::Serve(_) => logging::Loudness::Daemon,
        _ if quiet => logging::Loudness::Errors,
        _ => logging::Loudness::Warnings,
    };
    logging::start(global.verbose, loudness)?;
    match command {
        Command::Watch(watch) => on_runtime(watch.run(&global)),
        Command::Send(send) => on_runtime(send.run(&global)),
        Command::Serve(serve) => serve.run(),
        Command::List(list) => on_runtime(list.run(&global)),
        Command::Flush(flush) => on_runtime(flush.run(&global)),
        Command::Trace(trace) => on_runtime(trace.run()),
        Command::Users(users) => on_runtime(users.run()),
        Command::Inspect(inspect) => inspect.run(),
        Command::Demo(demo) => demo.run(&global),
        Command::Completions(completions) => completions.run(),
        Command::Man(man) => man.run(),
    }
}

fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .map_err(|error| Failure::failed(format!("no threads: {error}")))
}

fn on_runtime(task: impl Future<Output = Result<(), Failure>>) -> Result<(), Failure> {
    let runtime = runtime()?;
    let result = runtime.block_on(task);
    // A host name that is still being looked up must not hold us up.
    runtime.shutdown_background();
    result
}

impl Global {
    fn timeout(&self) -> Duration {
        Duration::from_millis(self.timeout)
    }

    /// What `--resolver` says.
    fn config(&self) -> Result<Config, Failure> {
        Config::parse(&self.resolver)
            .and_then(Config::needs_server)
            .map_err(|error| Failure::usage(format!("--resolver: {error}")))
    }

    /// The resolver that `--resolver` names; not asked anything yet.
    async fn resolver(&self) -> Result<Resolver, Failure> {
        // Endpoints are ASCII in any charset.
        Ok(Resolver::new(&self.config()?, DosCharset::default(), self.timeout()).await?)
    }
}

/// The users without repetitions: `bob` and `BOB` are one cn.
fn each_once(users: &[Cn]) -> Vec<Cn> {
    let mut once: Vec<Cn> = Vec::with_capacity(users.len());
    for user in users {
        if !once.contains(user) {
            once.push(user.clone());
        }
    }
    once
}
