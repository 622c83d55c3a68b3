//! What the page looks like: its files in `../page/`, and the parts that change, which a browser gets again and again.
//! All texts from outside go through [`Text`].

use std::fmt::Write as _;
use std::sync::LazyLock;

use axum::body::Body;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue};
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use ring::digest;

use super::escape::Text;
use super::recorder::Outcome;
use super::view::{Line, View};
use crate::gateway::http::Reach;
use crate::outbox::{LATENCY_BOUNDS_US, SendOutcome};

const PAGE: &str = include_str!("../page/status.html");
const STYLE: &str = include_str!("../page/status.css");
const SCRIPT: &str = include_str!("../page/status.js");

/// Nothing but the page's own script and style runs, and nothing is fetched but the page's own events.
static POLICY: LazyLock<Option<HeaderValue>> = LazyLock::new(|| {
    let hash = |text: &str| STANDARD.encode(digest::digest(&digest::SHA256, text.as_bytes()));
    let policy = format!(
        "default-src 'none'; script-src 'sha256-{}'; style-src 'sha256-{}'; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
        hash(SCRIPT),
        hash(STYLE)
    );
    HeaderValue::try_from(policy).ok()
});

/// The whole page.
pub(super) fn page(view: &View) -> Response {
    let parts = parts(view);
    let mut html = String::with_capacity(64 * 1024);
    // In one pass: what a part says is not looked at again.
    for (at, piece) in PAGE.split("{{").enumerate() {
        let (name, rest) = match at {
            0 => ("", piece),
            _ => piece.split_once("}}").unwrap_or(("", piece)),
        };
        html.push_str(match name {
            "style" => STYLE,
            "script" => SCRIPT,
            name => parts.iter().find(|(id, _)| *id == name).map_or("", |(_, part)| part.as_str()),
        });
        html.push_str(rest);
    }
    let mut response = Response::new(Body::from(html));
    let headers: [(HeaderName, &'static str); 4] = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (REFERRER_POLICY, "no-referrer"),
    ];
    for (name, value) in headers {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Some(policy) = POLICY.clone() {
        response.headers_mut().insert(CONTENT_SECURITY_POLICY, policy);
    }
    response
}

/// The parts that change: the id of each, and what stands in it.
pub(super) fn parts(view: &View) -> [(&'static str, String); 6] {
    [
        ("health", health(view)),
        ("numbers", numbers(view)),
        ("events", events(view)),
        ("endpoints", endpoints(view)),
        ("faults", faults(view)),
        ("about", about(view)),
    ]
}

fn health(view: &View) -> String {
    let (style, text) = match (view.health.resolver, view.health.full) {
        (Reach::All, false) => ("good", "Working"),
        (Reach::Some, false) => {
            ("bad", "A server of the resolver out of reach: events of its users are held")
        }
        (Reach::None, false) => ("bad", "Resolver out of reach: events are held"),
        (Reach::All, true) => ("bad", "Outbox full: events are refused"),
        (Reach::Some | Reach::None, true) => {
            ("bad", "Resolver out of reach, outbox full: events are refused")
        }
    };
    format!(
        "<span class=\"tag big {style}\">{text}</span> <span class=\"quiet\">since {}</span>",
        date(view.health_since_us)
    )
}

/// One figure with its name, and a line below.
fn tile(name: &str, figure: &str, below: &str) -> String {
    format!(
        "<div class=\"tile\"><dt>{name}</dt><dd class=\"figure\">{figure}</dd><dd class=\"quiet small\">{below}</dd></div>"
    )
}

fn numbers(view: &View) -> String {
    let (rates, outbox) = (&view.rates, &view.statistics);
    let mut html = String::from("<dl class=\"tiles\">");
    let busiest = rates.seconds.iter().copied().max().unwrap_or(0);
    let _ = write!(
        html,
        "<div class=\"tile double\"><dt>Events each second, last minute</dt><dd>{}</dd>\
         <dd class=\"quiet small\">at most {} a second; {} in this minute</dd></div>",
        chart(&rates.seconds),
        count(busiest),
        count(rates.minute.accepted)
    );
    let below = format!("{} since the start", count(rates.total.accepted));
    html.push_str(&tile("Events, last hour", &count(rates.hour.accepted), &below));
    let below = match (quantile(&outbox.latency, 50), quantile(&outbox.latency, 99)) {
        (Some(_), Some(most)) => format!("99 of 100 within {most}"),
        _ => "nothing acknowledged yet".to_owned(),
    };
    let half = quantile(&outbox.latency, 50).map_or_else(|| "–".to_owned(), |half| format!("≤ {half}"));
    html.push_str(&tile("Event to receipt", &half, &below));
    let users = if outbox.waiting_users == 1 { "user" } else { "users" };
    let below = format!(
        "of {} {users} · {} of {}",
        count(outbox.waiting_users),
        octets(outbox.held_octets),
        octets(view.max_octets)
    );
    let _ = write!(
        html,
        "<div class=\"tile\"><dt>Held in the outbox</dt><dd class=\"figure\">{}</dd><dd class=\"quiet small\">{below}\
         <meter min=\"0\" max=\"{}\" high=\"{}\" value=\"{}\" aria-label=\"outbox\"></meter></dd></div>",
        count(outbox.held_events),
        view.max_octets,
        view.max_octets / 5 * 4,
        outbox.held_octets
    );
    let found = &view.registered;
    let (figure, below) = match (found.at_us, &found.fault) {
        (None, None) => ("–".to_owned(), "being counted".to_owned()),
        (None, Some(why)) => ("–".to_owned(), Text(why).to_string()),
        (Some(_), why) => {
            let ways = format!("{} sessions · {} legacy", count(found.native), count(found.legacy));
            let why = why.as_ref().map(|why| format!(" · {}", Text(why)));
            (count(found.users), ways + &why.unwrap_or_default())
        }
    };
    html.push_str(&tile("Registered users", &figure, &below));
    if let Some(registrar) = &view.registrar {
        let below = format!(
            "{} permanent · {} failing · {} by other daemons · {} of {} servers aside",
            count(registrar.permanent),
            count(registrar.failing),
            count(registrar.elsewhere),
            count(registrar.endpoints_aside),
            count(registrar.endpoints)
        );
        html.push_str(&tile("Registered with Dovecot", &count(registrar.registered), &below));
    }
    let below = format!(
        "{} sends failed · {} events nobody listened for",
        count(rates.hour.failed),
        count(rates.hour.unheard)
    );
    html.push_str(&tile("Lost, last hour", &count(rates.hour.dropped), &below));
    html.push_str("</dl>");
    html
}

/// A bar for each second, the oldest first.
fn chart(seconds: &[u64]) -> String {
    let most = seconds.iter().copied().max().unwrap_or(0).max(1);
    let mut svg = String::from(
        "<svg viewBox=\"0 0 360 48\" preserveAspectRatio=\"none\" aria-hidden=\"true\">\
         <line x1=\"0\" y1=\"47.5\" x2=\"360\" y2=\"47.5\"/>",
    );
    for (at, count) in seconds.iter().enumerate().filter(|(_, count)| **count > 0) {
        let height = (count.saturating_mul(46) / most).max(2);
        let _ = write!(
            svg,
            "<rect x=\"{}\" y=\"{}\" width=\"5\" height=\"{height}\"/>",
            at * 6,
            47u64.saturating_sub(height)
        );
    }
    svg.push_str("</svg>");
    svg
}

fn events(view: &View) -> String {
    if view.events.is_empty() {
        return "<p class=\"quiet\">none since the start</p>".to_owned();
    }
    let mut html = table(&["Time", "User", "Kind", "Mailbox", "By", "Outcome", ">Latency"]);
    for seen in &view.events {
        let (style, outcome) = match seen.outcome {
            Outcome::Accepted => ("unsure", "accepted".to_owned()),
            Outcome::Sending => ("unsure", "being sent".to_owned()),
            Outcome::Acknowledged => ("good", "acknowledged".to_owned()),
            Outcome::Pushed => ("good", "pushed".to_owned()),
            Outcome::Held => ("unsure", "held".to_owned()),
            Outcome::Dropped(crate::outbox::Reason::Unheard) => ("quiet", "nobody listens".to_owned()),
            Outcome::Dropped(reason) => ("bad", format!("dropped: {}", reason.name())),
        };
        let by = match seen.reached {
            0 | 1 => String::new(),
            several => format!(" <span class=\"quiet small\">by {several}</span>"),
        };
        let _ = write!(
            html,
            "<tr><td>{}</td><th scope=\"row\" class=\"name\">{}</th><td>{}</td><td class=\"name\">{}</td><td>{}</td>\
             <td><span class=\"tag {style}\">{outcome}</span>{by}</td><td class=\"number\">{}</td></tr>",
            time(seen.event.time_us),
            Text(&short(&seen.user)),
            Text(&short(&seen.event.kind)),
            Text(&short(seen.event.mailbox.as_deref().unwrap_or_default())),
            seen.source.map_or("", |source| source.name()),
            seen.latency_us.map(milliseconds).unwrap_or_default()
        );
    }
    html.push_str("</tbody></table>");
    if view.missed > 0 {
        let missed = count(view.missed);
        let _ = write!(
            html,
            "<p class=\"quiet small\">{missed} steps went by too fast to be shown since the start</p>"
        );
    }
    html
}

fn endpoints(view: &View) -> String {
    let (lines, more) = view.lines();
    if lines.is_empty() {
        return "<p class=\"quiet\">nobody is registered</p>".to_owned();
    }
    let heads = ["Endpoint", "Kind", ">Users", "Last outcome", "At", ">Took", ">Taken", ">Failed"];
    let mut html = table(&heads);
    lines.iter().for_each(|line| html.push_str(&endpoint(line)));
    html.push_str("</tbody></table>");
    if more > 0 {
        let _ = write!(html, "<p class=\"quiet small\">and {} more</p>", count(more as u64));
    }
    html
}

fn endpoint(line: &Line<'_>) -> String {
    let kind = if line.native { "native" } else { "legacy" };
    let outcome = line.sent.map(|sent| {
        let style = match sent.outcome {
            SendOutcome::Taken => "good",
            SendOutcome::Gone => "quiet",
            SendOutcome::Failed | SendOutcome::Refused => "bad",
        };
        format!("<span class=\"tag {style}\">{}</span>", sent.outcome.name())
    });
    let sent = line.sent;
    format!(
        "<tr><th scope=\"row\" class=\"url\">{}</th><td>{kind}</td><td class=\"number\">{}</td><td>{}</td><td>{}</td>\
         <td class=\"number\">{}</td><td class=\"number\">{}</td><td class=\"number\">{}</td></tr>",
        Text(&short(line.url)),
        count(line.users),
        outcome.unwrap_or_else(|| "<span class=\"quiet\">not used yet</span>".to_owned()),
        sent.map(|sent| time(sent.at_us)).unwrap_or_default(),
        sent.map(|sent| milliseconds(sent.took_us)).unwrap_or_default(),
        sent.map(|sent| count(sent.taken)).unwrap_or_default(),
        sent.map(|sent| count(sent.failed)).unwrap_or_default(),
    )
}

fn faults(view: &View) -> String {
    if view.faults.is_empty() {
        return "<p class=\"quiet\">none since the start</p>".to_owned();
    }
    let mut html = table(&["Time", "Where", "User", "What", ">Times"]);
    for fault in &view.faults {
        let _ = write!(
            html,
            "<tr><td>{}</td><th scope=\"row\" class=\"url\">{}</th><td class=\"name\">{}</td><td class=\"name\">{}</td>\
             <td class=\"number\">{}</td></tr>",
            time(fault.at_us),
            Text(&short(&fault.place)),
            Text(&short(&fault.user)),
            Text(&short(&fault.why)),
            count(fault.times)
        );
    }
    html.push_str("</tbody></table>");
    html
}

fn about(view: &View) -> String {
    format!(
        "ocbus {} · started {} · {} connections · <a href=\"metrics\">metrics</a> · <a href=\"healthz\">health</a>",
        env!("CARGO_PKG_VERSION"),
        date(view.started_us),
        count(view.http.open)
    )
}

/// The beginning of a table; `>` marks a column of numbers.
fn table(heads: &[&str]) -> String {
    let mut html = String::from("<table><thead><tr>");
    for head in heads {
        let _ = match head.strip_prefix('>') {
            Some(head) => write!(html, "<th scope=\"col\" class=\"number\">{head}</th>"),
            None => write!(html, "<th scope=\"col\">{head}</th>"),
        };
    }
    html.push_str("</tr></thead><tbody>");
    html
}

/// A text that somebody may have made long.
fn short(text: &str) -> String {
    match text.char_indices().nth(160) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

fn zoned(us: u64, format: &str) -> Option<String> {
    let time = Timestamp::from_microsecond(i64::try_from(us).ok()?).ok()?;
    let shown = time.to_zoned(TimeZone::system()).strftime(format).to_string();
    Some(format!("<time datetime=\"{time:.3}\">{shown}</time>"))
}

fn time(us: u64) -> String {
    zoned(us, "%H:%M:%S%.3f").unwrap_or_default()
}

fn date(us: u64) -> String {
    zoned(us, "%Y-%m-%d %H:%M:%S %Z").unwrap_or_default()
}

/// `1.2 ms`
fn milliseconds(us: u64) -> String {
    match us {
        0..10_000_000 => format!("{}.{} ms", us / 1000, us % 1000 / 100),
        _ => format!("{} s", us / 1_000_000),
    }
}

/// `12 345`, with spaces that do not break.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 2);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            shown.push('\u{202f}');
        }
        shown.push(digit);
    }
    shown
}

fn octets(octets: u64) -> String {
    match octets {
        0..1024 => format!("{octets} octets"),
        1024..1_048_576 => format!("{} KiB", octets / 1024),
        _ => format!("{} MiB", octets >> 20),
    }
}

// The bounds are exact in a float.
#[allow(clippy::cast_precision_loss)]
/// The bound within which so many of a hundred are.
fn quantile(counts: &[u64], hundredths: u64) -> Option<String> {
    let all: u64 = counts.iter().sum();
    let wanted = all.saturating_mul(hundredths).div_ceil(100);
    let mut sum = 0;
    let at = counts.iter().position(|count| {
        sum += count;
        sum >= wanted
    })?;
    match (all, LATENCY_BOUNDS_US.get(at)) {
        (0, _) => None,
        (_, Some(bound @ 0..1_000_000)) => Some(format!("{} ms", *bound as f32 / 1000.0)),
        (_, Some(bound)) => Some(format!("{} s", bound / 1_000_000)),
        (_, None) => Some("more than two minutes".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_readable() {
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!((count(0), count(999), count(1000)), ("0".into(), "999".into(), "1\u{202f}000".into()));
        assert_eq!((milliseconds(1_250), milliseconds(12_000_000)), ("1.2 ms".into(), "12 s".into()));
        let mut latency = [0; LATENCY_BOUNDS_US.len() + 1];
        assert_eq!(quantile(&latency, 50), None);
        (latency[0], latency[4], latency[16]) = (50, 49, 1);
        let shown = |hundredths| quantile(&latency, hundredths).unwrap();
        assert_eq!((shown(50), shown(51), shown(99)), ("0.1 ms".into(), "2.5 ms".into(), "2.5 ms".into()));
        assert_eq!(shown(100), "more than two minutes");
    }

    #[test]
    fn the_page_has_a_place_for_each_part_and_no_other() {
        for (at, piece) in PAGE.split("{{").enumerate().skip(1) {
            let name = piece.split_once("}}").unwrap().0;
            let known = ["style", "script", "health", "numbers", "events", "endpoints", "faults", "about"];
            assert!(known.contains(&name), "{at}: {name}");
            let id = format!("id=\"{name}\"");
            assert!(["style", "script"].contains(&name) || PAGE.contains(&id), "{id}");
        }
        assert_eq!(PAGE.split("{{").count(), 9);
        assert!(!STYLE.contains("</") && !SCRIPT.contains("</"), "they stand within the page");
    }
}
