//! The log line of a request that no pipe came of.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use crate::config::snapshot::{LogEvent, LogLine, LogRequest, Report};
use crate::core::young::answer::Manner;
use crate::core::young::http::After;
use crate::meter::Side;

use super::{Told, Visit};

impl Visit<'_> {
    /// Tells control of a request, whose head was `bytes`, if the plan says so.
    pub(super) fn log(&self, bytes: &[u8], begun: Instant, told: Told, after: &After) {
        let ours = match after {
            After::Refuse(refusal, manner, _) => Some((refusal, manner, true)),
            After::Decline(refusal, manner) => Some((refusal, manner, false)),
            After::Again | After::End(_) => None,
        };
        let mut record = told.record;
        if let Some((refusal, ..)) = ours {
            (record.status, record.ours) = (Some(refusal.status), true);
        }
        if !self.core.logs_request(record.status, record.ours) {
            return;
        }
        if let Some((refusal, manner, close)) = ours {
            let answer = refusal.compose(&Manner { close, ..manner.clone() }, 0);
            record.bytes_to_client += answer.len() as u64;
        }
        let (id, terms) = told.known.unzip();
        let id = id.or_else(|| ours.map(|(_, manner, _)| Rc::clone(&manner.id)));
        let [method, path] = first_words(bytes);
        let by = if record.ours { Side::Proxy } else { Side::Server };
        let request = LogRequest {
            id: id.as_deref().unwrap_or_default().to_owned(),
            method,
            path,
            status: record.status,
            answered_by: record.status.map(|_| by),
            duration: begun.elapsed(),
            bytes_from_client: bytes.len() as u64 + record.bytes_from_client,
            bytes_to_client: record.bytes_to_client,
        };
        self.core.report(Report::Line(LogLine {
            core: self.core.index,
            id: self.conn.id,
            event: LogEvent::Request(Box::new(request)),
            listener: Arc::clone(&self.conn.birth.listener),
            server: record.server.and_then(|server| self.core.server_name(server)),
            client: self.conn.client,
            route: terms.map(|terms| Arc::clone(&terms.label)),
        }));
    }
}

/// Method and path of a head, be it legal or not.
fn first_words(head: &[u8]) -> [String; 2] {
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let mut words = line.split(|byte| *byte == b' ');
    let mut next = || words.next().unwrap_or_default();
    let (method, target) = (next(), next());
    let path = target.split(|byte| *byte == b'?').next().unwrap_or_default();
    [method, path].map(|word| String::from_utf8_lossy(word).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_shows_no_query() {
        let words = |head: &str| first_words(head.as_bytes());
        assert_eq!(words("GET /a/b?token=secret HTTP/1.1\r\nX: y\r\n"), ["GET", "/a/b"]);
        assert_eq!(words("OPTIONS * HTTP/1.1\r\n"), ["OPTIONS", "*"]);
        assert_eq!(words("\u{1}\r\n"), ["\u{1}", ""]);
        assert_eq!(words(""), ["", ""]);
    }
}
