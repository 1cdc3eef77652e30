//! Log lines: logfmt (one `key=value` line for each event) or JSON, to standard error. Control
//! makes them; what a core has to say arrives here as plain data by channel.

mod lines;

use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt::{self, Write as _};
use std::io;
use std::panic::{self, PanicHookInfo};
use std::thread;
use std::time::SystemTime;

use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::config::plan::LogFormat;
use crate::config::snapshot::{LogEvent, LogLine};

pub use lines::Lines;

/// Environment variable that filters lines, in the usual `target=level` form.
pub const FILTER: &str = "STANDPIPE_LOG";

/// Installs the process's only subscriber. Call it once, with signals blocked: the thread that
/// writes must not be the one they arrive in.
///
/// # Errors
/// No thread could be started.
pub fn start(format: LogFormat) -> io::Result<Lines> {
    let lines = Lines::begin(io::stderr())?;
    let filter = EnvFilter::try_from_env(FILTER);
    let misread = filter.as_ref().err().filter(|_| std::env::var_os(FILTER).is_some());
    let misread = misread.map(ToString::to_string);
    let filter = filter.unwrap_or_else(|_| EnvFilter::new("info"));
    let events = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(lines.clone())
        // It would tell of its troubles on standard error itself, and panic if that is closed.
        .log_internal_errors(false);
    let _ = match format {
        LogFormat::Logfmt => events.event_format(Logfmt).try_init(),
        LogFormat::Json => events.json().flatten_event(true).with_target(false).try_init(),
    };
    if let Some(error) = misread {
        tracing::warn!(error, "{FILTER} is not understood and left aside");
    }
    panic::set_hook(Box::new(panicked));
    Ok(lines)
}

/// A fault of ours takes the way of all lines: the usual hook writes to standard error itself, and
/// a core that waits there would seem to live.
fn panicked(fault: &PanicHookInfo<'_>) {
    let payload = fault.payload();
    let text = payload.downcast_ref::<String>().map(String::as_str);
    let what = text.or(payload.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let place = fault.location().map(ToString::to_string);
    let trace = Backtrace::capture();
    let trace = (trace.status() == BacktraceStatus::Captured).then(|| trace.to_string());
    let current = thread::current();
    tracing::error!(thread = current.name(), place, trace, "panicked: {what}");
}

/// Writes a connection's line. Which connections have one was decided by their core.
pub fn connection(line: &LogLine) {
    let (core, id) = (line.core, line.id);
    let client = line.client.map(|address| address.to_string());
    let listener = &*line.listener;
    let server = line.server.as_deref();
    let route = line.route.as_deref();
    match &line.event {
        LogEvent::Open { request } => {
            let request_id = request.as_deref();
            tracing::info!(core, id, listener, client, route, server, request_id, "open");
        }
        LogEvent::Request(request) => {
            let answered_by = request.answered_by.map(|side| side.name());
            let duration_ms = u64::try_from(request.duration.as_millis()).unwrap_or(u64::MAX);
            tracing::info!(
                core,
                id,
                listener,
                client,
                route,
                server,
                request_id = request.id,
                method = request.method,
                path = request.path,
                status = request.status,
                answered_by,
                duration_ms,
                bytes_from_client = request.bytes_from_client,
                bytes_to_client = request.bytes_to_client,
                "request"
            );
        }
        LogEvent::End { ending, age, bytes_from_client, bytes_from_server, close } => {
            let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
            let ending = ending.to_string();
            let close_code = close.map(|(_, code)| code);
            let closed_by = close.map(|(side, _)| side.name());
            tracing::info!(
                core,
                id,
                listener,
                client,
                route,
                server,
                ending,
                age_ms,
                bytes_from_client,
                bytes_from_server,
                close_code,
                closed_by,
                "end"
            );
        }
    }
}

/// `ts=… level=info msg="…" key=value …`
struct Logfmt;

impl<S, N> FormatEvent<S, N> for Logfmt
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        _: &FmtContext<'_, S, N>,
        mut out: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        let level = event.metadata().level().as_str().to_ascii_lowercase();
        let now = humantime::format_rfc3339_millis(SystemTime::now());
        let mut fields = Fields::default();
        event.record(&mut fields);
        write!(out, "ts={now} level={level} msg=")?;
        out.write_str(&fields.message)?;
        out.write_str(&fields.rest)?;
        out.write_char('\n')
    }
}

/// An event's fields as they will stand on the line.
#[derive(Default)]
struct Fields {
    message: String,
    rest: String,
}

impl Fields {
    fn put(&mut self, field: &Field, value: &str) {
        if field.name() == "message" {
            push_value(&mut self.message, value);
        } else {
            self.rest.push(' ');
            self.rest.push_str(field.name());
            self.rest.push('=');
            push_value(&mut self.rest, value);
        }
    }
}

impl Visit for Fields {
    fn record_str(&mut self, field: &Field, value: &str) {
        self.put(field, value);
    }

    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.put(field, &format!("{value:?}"));
    }
}

/// A value as logfmt wants it: bare when it can be, else quoted with everything escaped that
/// could end the quotes or the line.
fn push_value(out: &mut String, value: &str) {
    let bare = |c: char| c.is_ascii_graphic() && !matches!(c, '"' | '=' | '\\');
    if !value.is_empty() && value.chars().all(bare) {
        out.push_str(value);
        return;
    }
    out.push('"');
    for c in value.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(value: &str) -> String {
        let mut out = String::new();
        push_value(&mut out, value);
        out
    }

    #[test]
    fn plain_words_stay_bare_and_everything_else_is_quoted() {
        assert_eq!(shown("chat/b"), "chat/b");
        assert_eq!(shown("127.0.0.1:80"), "127.0.0.1:80");
        assert_eq!(shown(""), "\"\"");
        assert_eq!(shown("two words"), "\"two words\"");
        assert_eq!(shown("a=b"), "\"a=b\"");
        assert_eq!(shown("say \"hi\""), "\"say \\\"hi\\\"\"");
    }

    #[test]
    fn a_value_from_the_network_cannot_forge_a_line() {
        assert_eq!(shown("x\nlevel=error"), "\"x\\nlevel=error\"");
        assert_eq!(shown("\u{1b}[31m"), "\"\\u001b[31m\"");
    }
}
