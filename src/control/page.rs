//! Prometheus text. Samples come in any order and leave family by family, as the format wants; it
//! knows no metric.

use std::collections::HashMap;
use std::fmt::Write as _;

use crate::meter::{Family, Kind, Sample};

/// What the admin face sends as `Content-Type` with a page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Every name begins with this.
const PREFIX: &str = "standpipe_";

/// Label names and values, in the order they are written.
pub type Labels<'a> = &'a [(&'static str, &'a str)];

/// A page of metrics under construction.
#[derive(Debug, Default)]
pub struct Page {
    families: Vec<(&'static Family, String)>,
    places: HashMap<&'static str, usize>,
}

impl Page {
    /// One value of a family that has no labels of its own.
    pub fn put(&mut self, family: &'static Family, whose: Labels, value: f64) {
        self.add(whose, Sample { family, suffix: "", labels: &[], value });
    }

    /// A sample, with the labels that say whose it is before its own.
    pub fn add(&mut self, whose: Labels, sample: Sample) {
        if sample.family.sparse && sample.value == 0.0 {
            return;
        }
        let next = self.families.len();
        let place = *self.places.entry(sample.family.name).or_insert(next);
        if place == next {
            self.families.push((sample.family, String::new()));
        }
        let text = &mut self.families[place].1;
        text.push_str(PREFIX);
        text.push_str(sample.family.name);
        text.push_str(sample.suffix);
        let own = sample.labels.iter().map(|(name, value)| (*name, *value));
        let mut open = '{';
        for (name, value) in whose.iter().copied().chain(own) {
            text.push(open);
            open = ',';
            text.push_str(name);
            text.push_str("=\"");
            push_escaped(text, value);
            text.push('"');
        }
        if open == ',' {
            text.push('}');
        }
        let _ = writeln!(text, " {}", sample.value);
    }

    pub fn finish(self) -> String {
        let mut page = String::new();
        for (family, samples) in self.families {
            let kind = match family.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            let _ = writeln!(page, "# HELP {PREFIX}{} {}", family.name, family.help);
            let _ = writeln!(page, "# TYPE {PREFIX}{} {kind}", family.name);
            page.push_str(&samples);
        }
        page
    }
}

/// Samples of several cores added up line by line: their sequence is always the same.
#[derive(Default)]
pub struct Sum {
    lines: Vec<Line>,
    next: usize,
}

struct Line {
    family: &'static Family,
    suffix: &'static str,
    labels: Vec<(&'static str, &'static str)>,
    value: f64,
}

impl Sum {
    /// Begins with the next core's samples.
    pub fn core(&mut self) {
        self.next = 0;
    }

    pub fn add(&mut self, sample: Sample) {
        match self.lines.get_mut(self.next) {
            Some(line) => line.value += sample.value,
            None => self.lines.push(Line {
                family: sample.family,
                suffix: sample.suffix,
                labels: sample.labels.to_vec(),
                value: sample.value,
            }),
        }
        self.next += 1;
    }

    pub fn onto(&self, page: &mut Page, whose: Labels) {
        for Line { family, suffix, labels, value } in &self.lines {
            page.add(whose, Sample { family, suffix, labels, value: *value });
        }
    }
}

/// Label values come from configuration files: backslash, quote and line end are escaped.
fn push_escaped(out: &mut String, value: &str) {
    for c in value.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' => out.push_str("\\\""),
            '\n' => out.push_str("\\n"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::meter::ServerCounters;

    static THINGS: Family = Family::counter("things_total", "Things.");
    static OTHERS: Family = Family::gauge("others", "Others.");
    static RARE: Family = Family::counter("rare_total", "Rare.").sparse();

    #[test]
    fn families_stand_together_with_help_and_type() {
        let mut page = Page::default();
        page.put(&THINGS, &[("pool", "a\"b\\c\nd")], 3.0);
        page.put(&OTHERS, &[], 1.5);
        page.put(&THINGS, &[("pool", "x")], 4.0);
        page.put(&RARE, &[], 0.0);
        assert_eq!(
            page.finish(),
            "# HELP standpipe_things_total Things.\n# TYPE standpipe_things_total counter\n\
             standpipe_things_total{pool=\"a\\\"b\\\\c\\nd\"} 3\n\
             standpipe_things_total{pool=\"x\"} 4\n\
             # HELP standpipe_others Others.\n# TYPE standpipe_others gauge\nstandpipe_others 1.5\n"
        );
    }

    #[test]
    fn cores_are_added_up() {
        let (a, b) = (ServerCounters::default(), ServerCounters::default());
        a.leased.add(2);
        b.leased.add(3);
        b.live.add(1);
        let mut sum = Sum::default();
        for cell in [&a, &b] {
            sum.core();
            cell.each(&mut |sample| sum.add(sample));
        }
        let mut page = Page::default();
        sum.onto(&mut page, &[("server", "s")]);
        let text = page.finish();
        assert!(text.contains("standpipe_server_connections_total{server=\"s\"} 5\n"), "{text}");
        assert!(text.contains("standpipe_server_connections{server=\"s\"} 1\n"));
    }
}
