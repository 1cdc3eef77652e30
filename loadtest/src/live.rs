//! What a person sees while it runs: a bar and one line, on a terminal only.

use std::io::IsTerminal;
use std::sync::atomic::Ordering::Relaxed;

use indicatif::{ProgressBar, ProgressStyle};

use crate::conductor::Conductor;
use crate::outcome::Moment;
use crate::units::{show_count, show_ns};

pub struct Live {
    bar: Option<ProgressBar>,
    line: String,
}

impl Live {
    pub fn new(quiet: bool, connections: u64) -> Live {
        let shown = !quiet && std::io::stderr().is_terminal();
        let bar = shown.then(|| {
            let bar = ProgressBar::new(connections);
            let template = "{prefix:<16} {bar:24} {pos}/{len} open  {msg}";
            // The template is a constant that indicatif accepts.
            bar.set_style(ProgressStyle::with_template(template).expect("constant template"));
            bar
        });
        Live { bar, line: String::new() }
    }

    pub fn phase(&mut self, name: &'static str) {
        if let Some(bar) = &self.bar {
            bar.set_prefix(name);
        }
    }

    pub fn show(&self, conductor: &Conductor) {
        let Some(bar) = &self.bar else { return };
        let open: u32 = conductor.gauges().iter().map(|gauge| gauge.open.load(Relaxed)).sum();
        let failed: u32 = conductor.gauges().iter().map(|gauge| gauge.failed.load(Relaxed)).sum();
        bar.set_position(u64::from(open));
        let failed = if failed > 0 { format!("{failed} failed  ") } else { String::new() };
        bar.set_message(format!("{failed}{}", self.line));
    }

    pub fn second(&mut self, moment: Option<&Moment>) {
        let Some(moment) = moment else { return };
        self.line = format!(
            "{}/s  p50 {}  p99 {}  max {}",
            show_count(moment.received),
            show_ns(moment.p50_ns),
            show_ns(moment.p99_ns),
            show_ns(moment.max_ns)
        );
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
