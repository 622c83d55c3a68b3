//! `ocbus send`: what OpenChange's `ocnotify --newmail` did, and what became of it.

use std::time::Duration;

use clap::Args;
use ocbus::publisher::{EndpointReport, Publisher, PublisherConfig, Report};
use ocbus::resolver::Cn;
use ocbus::resolver::delivery::{Options, Verdict};
use ocbus::wire::NewMessage;
use ocbus::wire::openchange::{DosCharset, NewMail};
use ocbus::{Event, EventKind, Mailbox, now_us};
use serde::Serialize;
use uuid::Uuid;

use super::Global;
use super::failure::Failure;
use super::output::{self, BAD, DIM, GOOD, Table, UNSURE, escape};

const HELP: &str = "\
Examples:
  ocbus send bob --folder INBOX --uid 7
  ocbus send bob --folder Projects/2026 --message 7.eml --from alice@example.org --subject Hello
  ocbus send bob --folder Projects.2026 --separator . --uid 7 --json

Every endpoint of the user is told, all at once, and named with what happened there:
  acknowledged    a native subscriber has the event
  delivered       an OpenChange v1 endpoint was sent the payload (it does not acknowledge)
  ... (removed)   nobody is there any more; the endpoint was taken out of the record
  ... (marked)    a native subscriber did not get it, and is told to look again when it renews

Status 0: at least one endpoint took it. Status 1: none did, or nobody is registered.
With --json: one object with user, id, taken, endpoints (url, kind, outcome, reason), skipped (what, why) and
unsettled (why the records could not be brought up to date).";

/// Tells a user's subscribers of a new mail, as a delivery would.
#[derive(Debug, Args)]
#[command(after_long_help = HELP)]
pub(super) struct SendMail {
    /// Whose mail: the username or e-mail address under which subscribers register.
    #[arg(value_name = "USER")]
    user: Cn,
    /// The mailbox as users see it, in UTF-8.
    #[arg(long, value_name = "NAME", default_value = "INBOX", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    folder: String,
    /// The hierarchy separator in the name of the mailbox.
    #[arg(long, value_name = "C", default_value_t = '/', value_parser = separator)]
    separator: char,
    /// The mailbox as the storage has it, sent to OpenChange v1 endpoints as it stands. By default --folder in
    /// modified UTF-7, as Dovecot stores it.
    #[arg(long, value_name = "NAME")]
    storage_name: Option<String>,
    /// The message's UID. OpenChange v1 endpoints want this or --message.
    #[arg(long, value_name = "N", conflicts_with = "message", value_parser = clap::value_parser!(u32).range(1..))]
    uid: Option<u32>,
    /// The message's name in the backend, as in 7.eml.
    #[arg(long, value_name = "NAME", value_parser = clap::builder::NonEmptyStringValueParser::new())]
    message: Option<String>,
    /// OpenChange's storage backend.
    #[arg(long, value_name = "NAME", default_value = "sogo")]
    backend: String,
    /// The sender, for native endpoints.
    #[arg(long, value_name = "TEXT")]
    from: Option<String>,
    /// The subject, for native endpoints.
    #[arg(long, value_name = "TEXT")]
    subject: Option<String>,
    /// How long all of it may take, 1 to 60000 milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1000, value_parser = clap::value_parser!(u64).range(1..=60_000))]
    budget: u64,
    /// The charset of OpenChange v1 payloads: smb.conf's `dos charset`.
    #[arg(long, value_name = "NAME", default_value_t = DosCharset::default())]
    charset: DosCharset,
    /// Print what happened as one JSON object.
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct ReportJson<'a> {
    user: &'a str,
    id: Uuid,
    taken: usize,
    endpoints: Vec<EndpointJson<'a>>,
    skipped: Vec<SkippedJson<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    unsettled: Option<&'a str>,
}

#[derive(Serialize)]
struct EndpointJson<'a> {
    url: &'a str,
    kind: &'static str,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

#[derive(Serialize)]
struct SkippedJson<'a> {
    what: &'a str,
    why: &'a str,
}

impl SendMail {
    pub(super) async fn run(self, global: &Global) -> Result<(), Failure> {
        let options = Options { charset: self.charset, ..Options::default() };
        let config = PublisherConfig { options, budget: Duration::from_millis(self.budget) };
        let publisher = Publisher::new(global.resolver().await?, config)?;
        let event = self.event();
        let report = publisher.publish(&self.user, std::slice::from_ref(&event)).await?;
        match self.json {
            true => output::json(&self.json(&event, &report))?,
            false => self.print(&report)?,
        }
        if report.taken() > 0 {
            return Ok(());
        }
        let user = &self.user;
        Err(Failure::failed(match (report.endpoints.len(), report.skipped.first()) {
            (0, None) => format!("{user}: nobody is registered: nothing was sent"),
            (0, Some(skipped)) => format!("{user}: nothing could be sent: {}: {}", skipped.what, skipped.why),
            (1, _) => format!("{user}: the only endpoint did not take the event"),
            (count, _) => format!("{user}: none of {count} endpoints took the event"),
        }))
    }

    fn event(&self) -> Event {
        let mut mailbox = Mailbox::new(&self.folder, self.separator);
        if let Some(storage_name) = &self.storage_name {
            mailbox.storage_name.clone_from(storage_name);
        }
        // A name that is only the UID says no more than the UID.
        let named = self
            .message
            .as_ref()
            .and_then(|message| NewMail { message: message.clone(), ..NewMail::default() }.uid());
        let message = NewMessage {
            uid: self.uid.or(named),
            name: self.message.clone().filter(|_| named.is_none()),
            backend: Some(self.backend.clone()),
            from: self.from.clone(),
            subject: self.subject.clone(),
            ..NewMessage::default()
        };
        Event::new(Uuid::now_v7(), now_us(), self.user.as_str(), mailbox, EventKind::MessageNew(message))
    }

    fn json<'a>(&'a self, event: &Event, report: &'a Report) -> ReportJson<'a> {
        ReportJson {
            user: self.user.as_str(),
            id: event.id,
            taken: report.taken(),
            endpoints: report.endpoints.iter().map(EndpointJson::new).collect(),
            skipped: report
                .skipped
                .iter()
                .map(|skipped| SkippedJson { what: &skipped.what, why: &skipped.why })
                .collect(),
            unsettled: report.unsettled.as_deref(),
        }
    }

    fn print(&self, report: &Report) -> Result<(), Failure> {
        let mut table = Table::default();
        for endpoint in &report.endpoints {
            let EndpointJson { url, kind, outcome, reason } = EndpointJson::new(endpoint);
            let reason = reason.unwrap_or_default();
            let (style, text) = match outcome {
                "removed" => match &report.unsettled {
                    Some(why) => (BAD, format!("{reason} (not removed: {why})")),
                    None => (BAD, format!("{reason} (removed)")),
                },
                "missed" => (BAD, format!("{reason} (marked)")),
                "dropped" => (BAD, reason.to_owned()),
                taken if reason.is_empty() => (GOOD, taken.to_owned()),
                taken => (UNSURE, format!("{taken}, but {reason}")),
            };
            table.row([(anstyle::Style::new(), escape(url)), (DIM, kind.to_owned()), (style, escape(&text))]);
        }
        for skipped in &report.skipped {
            table.row([
                (anstyle::Style::new(), escape(&skipped.what)),
                (DIM, "skipped".to_owned()),
                (BAD, escape(&skipped.why)),
            ]);
        }
        table.print()
    }
}

impl<'a> EndpointJson<'a> {
    fn new(endpoint: &'a EndpointReport) -> EndpointJson<'a> {
        let kind = if endpoint.native { "native" } else { "legacy" };
        let taken = if endpoint.native { "acknowledged" } else { "delivered" };
        let (outcome, reason) = match &endpoint.verdict {
            Verdict::Taken { skipped: 0 } => (taken, None),
            Verdict::Taken { .. } => (taken, Some("it could not make sense of the event")),
            Verdict::Gone { reason } => ("removed", Some(reason.as_str())),
            Verdict::Missed { reason } => ("missed", Some(reason.as_str())),
            Verdict::Dropped { reason } => ("dropped", Some(reason.as_str())),
        };
        EndpointJson { url: &endpoint.url, kind, outcome, reason }
    }
}

/// OpenChange v1 has one octet for it.
fn separator(text: &str) -> Result<char, String> {
    let mut characters = text.chars();
    match (characters.next(), characters.next()) {
        (Some(character), None) if u8::try_from(character).is_ok() => Ok(character),
        _ => Err("expected one character of one octet, as in / or .".to_owned()),
    }
}
