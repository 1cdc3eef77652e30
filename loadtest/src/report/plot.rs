//! One plot as inline SVG: lines over two labelled axes. Pure text, no script, no font, no file.

use std::fmt::Write as _;

pub struct Plot<'a> {
    pub title: &'a str,
    pub x_label: &'a str,
    pub y_label: &'a str,
    pub x: Axis,
    pub y: Axis,
    pub series: Vec<Series<'a>>,
}

pub struct Series<'a> {
    pub name: &'a str,
    /// A class of the page's style: `a`, `b`, `c`.
    pub class: &'a str,
    pub points: Vec<(f64, f64)>,
}

/// How values become places.
#[derive(Clone, Debug)]
pub enum Axis {
    /// From zero to a round number above the largest value.
    Linear,
    /// By decades; for values in nanoseconds.
    Time,
    /// 1/(1-p) by decades: each nine takes the same room.
    Nines,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 300.0;
const LEFT: f64 = 78.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 40.0;
const BOTTOM: f64 = 48.0;

/// A range of places on an axis, with its ticks: (value, label).
struct Scale {
    low: f64,
    high: f64,
    ticks: Vec<(f64, String)>,
}

impl Plot<'_> {
    pub fn draw(&self) -> String {
        let points = || self.series.iter().flat_map(|series| &series.points);
        let x = scale(&self.x, points().map(|point| point.0));
        let y = scale(&self.y, points().map(|point| point.1));
        let mut out = String::new();
        // Writing to a String cannot fail, here and below.
        let _ = self.frame(&mut out, &x, &y);
        for series in &self.series {
            let _ = self.line(&mut out, series, &x, &y);
        }
        let _ = self.legend(&mut out);
        out.push_str("</svg>\n");
        out
    }

    fn frame(&self, out: &mut String, x: &Scale, y: &Scale) -> std::fmt::Result {
        writeln!(
            out,
            "<svg class=\"plot\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{}\">",
            escape(self.title)
        )?;
        writeln!(out, "<text class=\"title\" x=\"{LEFT}\" y=\"20\">{}</text>", escape(self.title))?;
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        for (value, label) in &y.ticks {
            let at = place(y, *value, bottom, TOP);
            writeln!(out, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/>")?;
            writeln!(
                out,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
                LEFT - 6.0,
                at + 4.0
            )?;
        }
        for (value, label) in &x.ticks {
            let at = place(x, *value, LEFT, right);
            writeln!(out, "<path class=\"grid\" d=\"M{at:.1} {TOP}V{bottom}\"/>")?;
            writeln!(
                out,
                "<text class=\"tick\" x=\"{at:.1}\" y=\"{:.1}\" \
                 text-anchor=\"middle\">{label}</text>",
                bottom + 16.0
            )?;
        }
        writeln!(out, "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/>")?;
        writeln!(
            out,
            "<text class=\"label\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{}</text>",
            (LEFT + right) / 2.0,
            HEIGHT - 10.0,
            escape(self.x_label)
        )?;
        let middle = (TOP + bottom) / 2.0;
        writeln!(
            out,
            "<text class=\"label\" transform=\"translate(14 {middle:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            escape(self.y_label)
        )
    }

    fn line(
        &self,
        out: &mut String,
        series: &Series<'_>,
        x: &Scale,
        y: &Scale,
    ) -> std::fmt::Result {
        write!(out, "<path class=\"line {}\" d=\"", series.class)?;
        for (at, point) in series.points.iter().enumerate() {
            let step = if at == 0 { 'M' } else { 'L' };
            let px = place(x, coordinate(&self.x, point.0), LEFT, WIDTH - RIGHT);
            let py = place(y, coordinate(&self.y, point.1), HEIGHT - BOTTOM, TOP);
            write!(out, "{step}{px:.1} {py:.1}")?;
        }
        writeln!(out, "\"><title>{}</title></path>", escape(series.name))
    }

    fn legend(&self, out: &mut String) -> std::fmt::Result {
        let mut at = WIDTH - RIGHT;
        for series in self.series.iter().rev() {
            // Seven pixels a letter is near enough for a legend.
            at -= 7.0 * series.name.chars().count() as f64 + 30.0;
            writeln!(
                out,
                "<path class=\"line {}\" d=\"M{at:.1} 16h16\"/>\
                 <text class=\"tick\" x=\"{:.1}\" y=\"20\">{}</text>",
                series.class,
                at + 21.0,
                escape(series.name)
            )?;
        }
        Ok(())
    }
}

/// A value as a coordinate of its axis.
fn coordinate(axis: &Axis, value: f64) -> f64 {
    match axis {
        Axis::Linear => value,
        Axis::Time => value.max(100.0).log10(),
        Axis::Nines => (1.0 / (1.0 - value.min(0.999_999_9))).log10(),
    }
}

fn place(scale: &Scale, coordinate: f64, from: f64, to: f64) -> f64 {
    let span = (scale.high - scale.low).max(1e-9);
    from + (coordinate - scale.low) / span * (to - from)
}

fn scale(axis: &Axis, values: impl Iterator<Item = f64>) -> Scale {
    let (mut low, mut high) = (f64::INFINITY, f64::NEG_INFINITY);
    for value in values.map(|value| coordinate(axis, value)).filter(|value| value.is_finite()) {
        low = low.min(value);
        high = high.max(value);
    }
    if low > high {
        (low, high) = (0.0, 1.0);
    }
    match axis {
        Axis::Linear => linear(high),
        Axis::Time => {
            let (low, high) = (low.floor(), (high + 0.02).ceil().max(low.floor() + 1.0));
            let ticks = (low as i32..=high as i32)
                .map(|decade| {
                    let label = crate::units::show_ns(10f64.powi(decade) as u64);
                    (f64::from(decade), label.replace(".00", "").replace(".0 ", " "))
                })
                .collect();
            Scale { low, high, ticks }
        }
        Axis::Nines => {
            let ticks = ["0 %", "90 %", "99 %", "99.9 %", "99.99 %", "99.999 %", "99.9999 %"];
            let high = high.clamp(1.0, 6.0);
            let ticks = ticks.iter().enumerate().take(high as usize + 1);
            let ticks = ticks.map(|(at, label)| (at as f64, (*label).to_owned()));
            Scale { low: 0.0, high, ticks: ticks.collect() }
        }
    }
}

/// Five or so round steps from zero.
fn linear(high: f64) -> Scale {
    let high = if high > 0.0 { high } else { 1.0 };
    let rough = high / 5.0;
    let decade = 10f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|factor| factor * decade)
        .find(|&step| step >= rough)
        .unwrap_or(rough);
    let count = (high / step).ceil() as u32;
    let label = |value: f64| {
        if step < 1.0 { format!("{value:.2}") } else { crate::units::show_count(value as u64) }
    };
    let ticks =
        (0..=count).map(|at| f64::from(at) * step).map(|value| (value, label(value))).collect();
    Scale { low: 0.0, high: f64::from(count) * step, ticks }
}

/// Text that may stand in HTML and SVG.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plot(x: Axis, y: Axis, points: Vec<(f64, f64)>) -> String {
        let series = vec![Series { name: "p99 & more", class: "a", points }];
        Plot { title: "T <b>", x_label: "time", y_label: "latency", x, y, series }.draw()
    }

    #[test]
    fn axes_are_labelled_and_text_is_escaped() {
        let svg = plot(Axis::Linear, Axis::Time, vec![(0.0, 1e5), (10.0, 3e7)]);
        for part in
            ["T &lt;b&gt;", ">time<", ">latency<", "100 µs", "1 ms", "100 ms", "p99 &amp; more"]
        {
            assert!(svg.contains(part), "{part} is missing in {svg}");
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn nothing_to_draw_is_no_trouble() {
        for (x, y) in [(Axis::Linear, Axis::Linear), (Axis::Nines, Axis::Time)] {
            let svg = plot(x, y, Vec::new());
            assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
        }
    }

    #[test]
    fn a_hundred_percent_has_a_place() {
        let svg = plot(Axis::Nines, Axis::Time, vec![(0.0, 1e4), (1.0, 1e6)]);
        assert!(svg.contains("99.9 %") && !svg.contains("inf"));
    }
}
