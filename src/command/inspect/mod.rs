//! `ocbus inspect`: octets to JSON and back, and what a configuration string means, for people who debug.

mod event;
mod hex;
mod records;
mod ropnotify;
mod rops;
mod selection;

use std::fmt;
use std::io::Read as _;

use clap::{Args, Subcommand, ValueEnum};
use ocbus::wire::openchange::DosCharset;

use super::failure::Failure;
use super::output;

/// The most that is read from standard input: the largest record in hex, many times over.
const MAX_INPUT: u64 = 64 << 20;

const HELP: &str = "\
Examples:
  ocbus inspect decode newmail 010200736f676f00312e656d6c00494e424f58002f
  ocbus inspect encode newmail '{\"backend\":\"sogo\",\"eml\":\"1.eml\",\"folder\":\"INBOX\",\"separator\":47}'
  memccat resolver:bob | xxd -p | ocbus inspect decode resolver -
  ocbus inspect config '--SERVER=10.0.0.1 --SERVER=10.0.0.2:11212 --HASH=MD5'
  ocbus inspect server '--SERVER=10.0.0.1 --SERVER=10.0.0.2:11212' resolver:bob resolver:alice

KIND and its JSON:
  session       {\"uuid\":\"...\",\"cn\":\"...\"}
  resolver      {\"hosts\":[\"tcp://127.0.0.1:9005\"]}
  subscription  {\"subscriptions\":[{\"handle\":66,\"flags\":2,\"fid\":\"0x1\",\"mid\":\"0x0\",\"properties\":[\"0x37001f\"]}]}
  newmail       {\"backend\":\"sogo\",\"eml\":\"1.eml\",\"folder\":\"INBOX\",\"separator\":47}
  ropnotify     {\"handle\":41,\"kind\":\"NewMail\",\"fid\":\"0x3412000000000001\",\"mid\":\"0xefcdab0000000001\"}
  deliver       {\"replies\":[...]}: the value of a key deliver:, RopNotify replies end to end
  roppending    {\"session_index\":7}
  ropregister   {\"input_handle_index\":0,\"output_handle_index\":1,\"types\":\"0x0002\",\"whole_store\":true}
                or its answer: {\"output_handle_index\":1,\"return_value\":0}
  event         {\"v\":1,\"events\":[...],\"skipped\":0}: a native batch; the events as `ocbus watch --json` prints them

What cannot be read or written: one line on standard error that says where and why, and status 1. Octets and
characters are counted from 0.";

/// Decodes and encodes records and payloads; explains configuration strings.
#[derive(Debug, Args)]
#[command(after_long_help = HELP, arg_required_else_help = true)]
pub(super) struct Inspect {
    #[command(subcommand)]
    direction: Direction,
}

#[derive(Debug, Subcommand)]
enum Direction {
    Decode(Decode),
    Encode(Encode),
    Config(selection::Config),
    Server(selection::Server),
}

/// Prints octets as one line of JSON.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
struct Decode {
    /// What they are.
    #[arg(value_enum)]
    kind: Kind,
    /// The octets in hex, upper or lower case, spaces allowed; `-` reads them from standard input.
    #[arg(required = true, value_name = "HEX")]
    hex: Vec<String>,
    /// The charset of strings: smb.conf's `dos charset`.
    #[arg(long, value_name = "NAME", default_value_t = DosCharset::default())]
    charset: DosCharset,
}

/// Prints JSON as octets, in hex.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
struct Encode {
    /// What it is.
    #[arg(value_enum)]
    kind: Kind,
    /// The JSON; `-` reads it from standard input.
    json: String,
    /// The charset of strings: smb.conf's `dos charset`.
    #[arg(long, value_name = "NAME", default_value_t = DosCharset::default())]
    charset: DosCharset,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// OpenChange's record `session:`.
    Session,
    /// OpenChange's record `resolver:`.
    Resolver,
    /// OpenChange's record `subscription:`.
    Subscription,
    /// The payload that OpenChange's Dovecot plugin pushes.
    Newmail,
    /// A RopNotify reply: what tells Outlook of a new mail.
    Ropnotify,
    /// OpenChange's record `deliver:`: RopNotify replies, end to end.
    Deliver,
    /// RopPending: more replies wait.
    Roppending,
    /// RopRegisterNotification: Outlook asks to be told; or the answer to it.
    Ropregister,
    /// A native batch of events.
    Event,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Session => "session",
            Kind::Resolver => "resolver",
            Kind::Subscription => "subscription",
            Kind::Newmail => "newmail",
            Kind::Ropnotify => "ropnotify",
            Kind::Deliver => "deliver",
            Kind::Roppending => "roppending",
            Kind::Ropregister => "ropregister",
            Kind::Event => "event",
        })
    }
}

impl Inspect {
    pub(super) fn run(self) -> Result<(), Failure> {
        match self.direction {
            Direction::Decode(decode) => {
                let text = input(&decode.hex.join(" "))?;
                let octets = hex::decode(&text).map_err(Failure::failed)?;
                let json = json(decode.kind, &octets, decode.charset);
                output::line(&json.map_err(|why| Failure::failed(format!("{}: {why}", decode.kind)))?)
            }
            Direction::Encode(encode) => {
                let text = input(&encode.json)?;
                let octets = octets(encode.kind, &text, encode.charset);
                output::line(&hex::encode(
                    &octets.map_err(|why| Failure::failed(format!("{}: {why}", encode.kind)))?,
                ))
            }
            Direction::Config(config) => config.run(),
            Direction::Server(server) => server.run(),
        }
    }
}

/// The argument, or standard input where it is `-`.
fn input(argument: &str) -> Result<String, Failure> {
    if argument != "-" {
        return Ok(argument.to_owned());
    }
    let mut text = Vec::new();
    let read = std::io::stdin().lock().take(MAX_INPUT + 1).read_to_end(&mut text);
    let read = read.map_err(|error| Failure::failed(format!("standard input: {error}")))?;
    if u64::try_from(read).unwrap_or(u64::MAX) > MAX_INPUT {
        return Err(Failure::failed(format!("standard input: more than {MAX_INPUT} octets")));
    }
    String::from_utf8(text).map_err(|error| {
        let at = error.utf8_error().valid_up_to();
        Failure::failed(format!("standard input: at octet {at}: no UTF-8: expected text"))
    })
}

fn json(kind: Kind, octets: &[u8], charset: DosCharset) -> Result<String, String> {
    match kind {
        Kind::Session => records::session_json(octets, charset),
        Kind::Resolver => records::resolver_json(octets, charset),
        Kind::Subscription => records::subscription_json(octets),
        Kind::Newmail => records::new_mail_json(octets, charset),
        Kind::Ropnotify => ropnotify::json(octets),
        Kind::Deliver => ropnotify::deliver_json(octets),
        Kind::Roppending => rops::pending_json(octets),
        Kind::Ropregister => rops::register_json(octets),
        Kind::Event => event::json(octets),
    }
}

fn octets(kind: Kind, text: &str, charset: DosCharset) -> Result<Vec<u8>, String> {
    match kind {
        Kind::Session => records::session_octets(text, charset),
        Kind::Resolver => records::resolver_octets(text, charset),
        Kind::Subscription => records::subscription_octets(text),
        Kind::Newmail => records::new_mail_octets(text, charset),
        Kind::Ropnotify => ropnotify::octets(text),
        Kind::Deliver => ropnotify::deliver_octets(text),
        Kind::Roppending => rops::pending_octets(text),
        Kind::Ropregister => rops::register_octets(text),
        Kind::Event => event::octets(text),
    }
}
