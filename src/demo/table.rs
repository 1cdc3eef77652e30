//! A moment as text: the live table, the plain lines for scripts, the summary at the end, and the
//! commands to try next. It writes strings; where they go is the screen's affair.

use std::fmt::Write as _;

use super::driver::{LANES, Lane, MESSAGE_BYTES, REST};
use super::scene::{Ports, SERVERS, Scene};
use super::tally::Seen;
use super::view::{Row, View, quantiles};

/// What is going on here.
pub fn title() -> String {
    let clients: usize = LANES.iter().map(|lane| lane.clients).sum();
    let rest = REST.as_millis();
    format!(
        "standpipe demo: {clients} clients say {MESSAGE_BYTES} bytes, await the echo, rest \
         {rest} ms, and go on"
    )
}

/// The whole table, small enough for a terminal of 80 columns and 24 rows.
pub fn full(view: &View, ports: &Ports) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{:<37}{:>6}{:>9}{:>10}{:>9}{:>9}",
        format!("listener (after {} s)", view.age.as_secs()),
        "open",
        "msgs/s",
        "bytes/s",
        "p50 ms",
        "p99 ms"
    );
    for (lane, row) in LANES.iter().zip(&view.lanes) {
        push_row(&mut text, &place(lane, ports), row);
    }
    push_row(&mut text, "all", &view.all);
    let _ = writeln!(
        text,
        "\n{:<37}{:>6}{:>9}{:>10}{:>9}",
        "server", "open", "msgs/s", "bytes/s", "state"
    );
    for (server, it) in SERVERS.iter().zip(&view.servers) {
        let _ = writeln!(
            text,
            "{:<37}{:>6}{:>9.0}{:>10}{:>9}",
            format!("{}  pool {}", server.name, server.pool),
            it.connections,
            it.pace.messages,
            bytes(it.pace.bytes),
            it.state
        );
    }
    text.push('\n');
    for line in notes(view) {
        let _ = writeln!(text, "{line}");
    }
    text
}

fn push_row(text: &mut String, name: &str, row: &Row) {
    let _ = writeln!(
        text,
        "{name:<37}{:>6}{:>9.0}{:>10}{:>9}{:>9}",
        row.connections,
        row.pace.messages,
        bytes(row.pace.bytes),
        millis(row.p50),
        millis(row.p99)
    );
}

/// The same for programs and files: a line for each listener and server, every one complete.
pub fn lines(view: &View, ports: &Ports) -> String {
    let mut text = String::new();
    let second = view.age.as_secs();
    for (lane, row) in LANES.iter().zip(&view.lanes) {
        let _ = writeln!(
            text,
            "{second:>4} s  {}: {} connections, {:.0} messages/s, {}/s, p50 {} ms, p99 {} ms",
            place(lane, ports),
            row.connections,
            row.pace.messages,
            bytes(row.pace.bytes),
            millis(row.p50),
            millis(row.p99)
        );
    }
    for (server, it) in SERVERS.iter().zip(&view.servers) {
        let _ = writeln!(
            text,
            "{second:>4} s  {} of pool {}: {}, {} connections, {:.0} messages/s, {}/s",
            server.name,
            server.pool,
            it.state,
            it.connections,
            it.pace.messages,
            bytes(it.pace.bytes)
        );
    }
    for line in notes(view) {
        let _ = writeln!(text, "{second:>4} s  {line}");
    }
    text
}

/// What stands below the tables.
fn notes(view: &View) -> Vec<String> {
    let View { returned, returned_same, astray, memory, .. } = view;
    let mut notes = vec![
        format!(
            "cookies   {returned} clients came back, {returned_same} to the same server; \
             {astray} in a wrong pool"
        ),
        format!(
            "memory    {}, {} when empty: {} a connection, shared buffers too",
            bytes(memory.resident as f64),
            bytes(memory.before as f64),
            bytes(memory.per_connection as f64)
        ),
        format!("processor {:.0} % of one, for the proxy", view.processor * 100.0),
    ];
    if let Some(idle) = memory.idle {
        notes.push(format!(
            "crowd     {} more connections, silent by now, have added {} each",
            view.crowd,
            bytes(idle as f64)
        ));
    }
    if let Some(last) = &view.last_fault {
        let last: String = last.chars().take(50).collect();
        notes.push(format!("faults    {}, last: {last}", view.faults));
    }
    notes
}

/// What it came to, over the whole time.
pub fn summary(view: &View, seen: &Seen, ports: &Ports) -> String {
    let mut text = format!("\nSummary of {:.1} s\n", view.age.as_secs_f64());
    for (lane, it) in LANES.iter().zip(&seen.lanes) {
        let (p50, p99) = quantiles([&it.all].into_iter());
        let _ = writeln!(
            text,
            "  {:<36} {:>8} messages {:>9}   p50 {} ms, p99 {} ms",
            place(lane, ports),
            it.moved.messages,
            bytes(it.moved.bytes as f64),
            millis(p50),
            millis(p99)
        );
    }
    for (server, moved) in SERVERS.iter().zip(&seen.servers) {
        let _ = writeln!(
            text,
            "  {:<36} {:>8} messages {:>9}",
            format!("{} of pool {}", server.name, server.pool),
            moved.messages,
            bytes(moved.bytes as f64)
        );
    }
    for line in notes(view) {
        let _ = writeln!(text, "  {line}");
    }
    text
}

/// What to do while it runs.
pub fn hints(ports: &Ports, scene: &Scene) -> String {
    let certificate = scene.certificate_file();
    format!(
        "Try in another terminal:\n  \
           curl http://{web}/chat      # which server is it? with -b and -c: always the same\n  \
           openssl s_client -brief -connect {secure} -CAfile {certificate} </dev/null\n  \
           curl -s http://{admin}/metrics | grep server_connections\n\
         or https://{secure}/live in a browser. It runs {file}:\n\
         change that file, and the proxy takes it over. Ctrl-C ends the demo.\n",
        web = ports.web,
        secure = ports.secure,
        admin = ports.admin,
        certificate = certificate.display(),
        file = scene.configuration().display(),
    )
}

/// A lane's listener and where it is.
fn place(lane: &Lane, ports: &Ports) -> String {
    format!("{:<8}{}://{}{}", lane.listener, lane.scheme, lane.address(ports), lane.path)
}

/// Four digits at most, with a unit.
fn bytes(count: f64) -> String {
    let mut value = count;
    for unit in ["B", "KB", "MB", "GB"] {
        if value < 999.5 {
            let digits = usize::from(unit != "B" && value < 99.95);
            return format!("{value:.digits$} {unit}");
        }
        value /= 1000.0;
    }
    format!("{value:.1} TB")
}

fn millis(us: u64) -> String {
    format!("{:.2}", us as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::demo::driver::CROWD;
    use crate::demo::figures::Page;
    use crate::demo::tally::Tally;
    use crate::demo::view::{Before, Moment, Weight, compare};

    fn view() -> (View, Seen, Ports) {
        let at = |port| std::net::SocketAddr::from(([127, 0, 0, 1], port));
        let ports = Ports { edge: at(57000), web: at(57001), secure: at(57443), admin: at(59901) };
        let tally = Tally::new().unwrap();
        let before = Before { seen: tally.look(), processor: 0.0 };
        for lane in 0..LANES.len() {
            tally.round(lane, lane, 256, Duration::from_micros(999_990));
        }
        tally.fault("x".repeat(200));
        (0..CROWD).for_each(|_| tally.joined());
        let seen = tally.look();
        let page = Page::of(
            "standpipe_process_resident_memory_bytes 999500000000\n\
             standpipe_connections_live 1\n",
        );
        let empty = Weight { resident: 99_900_000, live: 0 };
        let (age, time) = (Duration::from_secs(100_000), Duration::from_secs(1));
        let moment = Moment { age, time, empty, uncrowded: Some(empty) };
        let view = compare(&page, &seen, &before, moment);
        (view, seen, ports)
    }

    #[test]
    fn the_table_fits_a_terminal() {
        let (view, _, ports) = view();
        let text = full(&view, &ports);
        for line in text.lines() {
            assert!(line.chars().count() <= 80, "{line}");
        }
        assert!(text.lines().count() <= 23, "{text}");
    }

    #[test]
    fn plain_lines_have_no_escape_codes_and_name_everything() {
        let (view, seen, ports) = view();
        let text = lines(&view, &ports) + &summary(&view, &seen, &ports);
        assert!(!text.contains('\u{1b}'));
        for name in LANES.iter().map(|lane| lane.listener).chain(SERVERS.map(|it| it.name)) {
            assert!(text.contains(name), "{name} in {text}");
        }
    }

    #[test]
    fn bytes_have_units() {
        assert_eq!(bytes(0.0), "0 B");
        assert_eq!(bytes(999.0), "999 B");
        assert_eq!(bytes(1000.0), "1.0 KB");
        assert_eq!(bytes(123_456.0), "123 KB");
        assert_eq!(bytes(12_345_678.0), "12.3 MB");
    }
}
