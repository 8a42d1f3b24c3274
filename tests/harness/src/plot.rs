//! Figures as pictures, and the straight line that fits them best.
//!
//! Owns: a small writer of SVG: panels in a grid, each with lines over one axis, and least squares. A picture is text
//! with a white ground, so that it reads the same wherever it is shown. It deliberately draws nothing but lines.

use std::fmt::Write;

/// The size of a panel, and what of it is not the plot.
const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 190.0;
const LEFT: f64 = 62.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 34.0;
/// Room for the title of the whole.
const HEAD: f64 = 34.0;

const COLOURS: [&str; 4] = ["#1f6feb", "#d1570a", "#1a7f37", "#8250df"];

/// One set of axes.
#[derive(Clone, Debug, Default)]
pub struct Panel {
    pub title: String,
    /// What the horizontal axis counts.
    pub across: String,
    pub lines: Vec<Line>,
    /// Each step to the right is a multiple, not a sum.
    pub is_log: bool,
}

/// Points that belong together.
#[derive(Clone, Debug, Default)]
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
    /// A mark at each point: for few of them.
    pub has_marks: bool,
}

/// A straight line through points.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Trend {
    pub mean: f64,
    /// Up, for one to the right.
    pub slope: f64,
    /// The standard error of the slope: what chance alone makes of one.
    pub error: f64,
}

/// Least squares. Without two points at different places the slope is 0.
pub fn trend(points: &[(f64, f64)]) -> Trend {
    let count = points.len() as f64;
    if points.is_empty() {
        return Trend::default();
    }
    let (x_mean, mean) = points.iter().fold((0.0, 0.0), |(x, y), point| (x + point.0, y + point.1));
    let (x_mean, mean) = (x_mean / count, mean / count);
    let spread: f64 = points.iter().map(|point| (point.0 - x_mean).powi(2)).sum();
    if spread == 0.0 {
        return Trend { mean, ..Trend::default() };
    }
    let slope = points.iter().map(|(x, y)| (x - x_mean) * (y - mean)).sum::<f64>() / spread;
    let left = |(x, y): &(f64, f64)| (y - mean - slope * (x - x_mean)).powi(2);
    let rest: f64 = points.iter().map(left).sum();
    let error = (rest / (count - 2.0).max(1.0) / spread).sqrt();
    Trend { mean, slope, error }
}

/// The panels in rows of `columns`, as an SVG file.
pub fn svg(title: &str, panels: &[Panel], columns: usize) -> String {
    let columns = columns.max(1);
    let rows = panels.len().div_ceil(columns);
    let (width, height) = (WIDTH * columns as f64, HEAD + HEIGHT * rows as f64);
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" \
         height=\"{height}\" font-family=\"sans-serif\" font-size=\"11\" fill=\"#24292f\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"#ffffff\"/>\n\
         <text x=\"16\" y=\"22\" font-size=\"15\">{}</text>\n",
        escaped(title)
    );
    for (number, panel) in panels.iter().enumerate() {
        let x = WIDTH * (number % columns) as f64;
        let y = HEAD + HEIGHT * (number / columns) as f64;
        // Writing to a string can not fail.
        let _ = writeln!(text, "<g transform=\"translate({x} {y})\">");
        draw(&mut text, panel);
        text += "</g>\n";
    }
    text + "</svg>\n"
}

/// What a panel shows, and where on it.
struct Frame {
    across: (f64, f64),
    top: f64,
    is_log: bool,
}

impl Frame {
    fn of(panel: &Panel) -> Frame {
        let points = || panel.lines.iter().flat_map(|line| &line.points);
        let least = points().map(|point| point.0).fold(f64::INFINITY, f64::min);
        let most = points().map(|point| point.0).fold(f64::NEG_INFINITY, f64::max);
        let top = points().map(|point| point.1).fold(0.0, f64::max);
        let is_empty = !least.is_finite();
        let across = if is_empty { (0.0, 1.0) } else { (least, most.max(least + 1e-9)) };
        Frame {
            across,
            top: step_of(top) * (top / step_of(top)).ceil().max(1.0),
            is_log: panel.is_log,
        }
    }

    fn x(&self, value: f64) -> f64 {
        let scaled = |value: f64| if self.is_log { value.max(1e-9).ln() } else { value };
        let (least, most) = (scaled(self.across.0), scaled(self.across.1));
        LEFT + (scaled(value) - least) / (most - least) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - value / self.top * (HEIGHT - TOP - BOTTOM)
    }
}

fn draw(text: &mut String, panel: &Panel) {
    let frame = Frame::of(panel);
    let mut put = |line: String| {
        text.push_str(&line);
        text.push('\n');
    };
    put(format!(
        "<text x=\"{LEFT}\" y=\"14\" font-weight=\"bold\">{}</text>",
        escaped(&panel.title)
    ));
    let step = step_of(frame.top);
    for number in 0..=(frame.top / step).round() as u32 {
        let value = step * f64::from(number);
        let y = frame.y(value);
        put(format!(
            "<path d=\"M{LEFT} {y:.1}H{}\" stroke=\"#d0d7de\"/><text x=\"{}\" y=\"{:.1}\" \
             text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 6.0,
            y + 4.0,
            short(value)
        ));
    }
    for value in places(panel, &frame) {
        put(format!(
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            frame.x(value),
            HEIGHT - BOTTOM + 14.0,
            short(value)
        ));
    }
    put(format!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"end\" fill=\"#57606a\">{}</text>",
        WIDTH - RIGHT,
        HEIGHT - BOTTOM + 27.0,
        escaped(&panel.across)
    ));
    let mut x = LEFT;
    for (line, colour) in panel.lines.iter().zip(COLOURS.iter().cycle()) {
        let dots = line.points.iter().map(|(x, y)| (frame.x(*x), frame.y(*y)));
        let path: Vec<String> = dots.clone().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        put(format!(
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.4\"/>",
            path.join(" ")
        ));
        for (x, y) in dots.filter(|_| line.has_marks) {
            put(format!("<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"2.5\" fill=\"{colour}\"/>"));
        }
        if panel.lines.len() > 1 {
            let name = escaped(&line.name);
            put(format!("<text x=\"{x:.0}\" y=\"28\" fill=\"{colour}\">{name}</text>"));
            x += 6.5 * line.name.len() as f64 + 16.0;
        }
    }
}

/// Where the horizontal axis has numbers: at each point of a few, else at round places.
fn places(panel: &Panel, frame: &Frame) -> Vec<f64> {
    let first = panel.lines.first().map(|line| line.points.as_slice()).unwrap_or_default();
    if panel.is_log || first.len() <= 6 {
        return first.iter().map(|point| point.0).collect();
    }
    let (least, most) = frame.across;
    let step = step_of(most - least);
    let from = (least / step).ceil() as i64;
    (from..).map(|number| number as f64 * step).take_while(|value| *value <= most).collect()
}

/// A round step that divides a span into about four.
fn step_of(span: f64) -> f64 {
    if span <= 0.0 {
        return 1.0;
    }
    let rough = span / 4.0;
    let tens = 10f64.powf(rough.log10().floor());
    [1.0, 2.0, 2.5, 5.0]
        .iter()
        .map(|unit| unit * tens)
        .rfind(|step| *step <= rough * 1.001)
        .unwrap_or(tens)
}

/// A number with as many digits as an axis needs.
fn short(value: f64) -> String {
    let (scaled, unit) = match value.abs() {
        size if size >= 1e6 => (value / 1e6, "M"),
        size if size >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{scaled:.2}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_found_in_its_points() {
        let points: Vec<_> = (0..10).map(f64::from).map(|x| (x, 3.0 + 2.0 * x)).collect();
        let found = trend(&points);
        assert!((found.slope - 2.0).abs() < 1e-9 && found.error < 1e-9, "{found:?}");
        assert!((found.mean - 12.0).abs() < 1e-9, "{found:?}");
        // Up and down by one around a level: no slope, and an error that says how little that means.
        let noise: Vec<_> = (0..100).map(|n| (f64::from(n), f64::from(n % 2))).collect();
        let found = trend(&noise);
        assert!(found.slope.abs() < 3.0 * found.error && found.error < 0.01, "{found:?}");
        assert_eq!(trend(&[]), Trend::default());
        assert_eq!(trend(&[(1.0, 5.0)]).mean, 5.0);
    }

    #[test]
    fn a_picture_holds_what_it_was_given() {
        let line = Line {
            name: "a<b".to_owned(),
            points: vec![(0.0, 0.0), (60.0, 80.0)],
            has_marks: true,
        };
        let panel = Panel {
            title: "RSS & PSS".to_owned(),
            across: "minutes".to_owned(),
            lines: vec![line, Line::default()],
            is_log: false,
        };
        let picture = svg("one hour", &[panel.clone(), panel], 2);
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"), "{picture}");
        assert!(picture.contains("RSS &amp; PSS") && picture.contains("a&lt;b"), "{picture}");
        // The first point lies where the axes meet, the last at their far ends.
        let (right, bottom) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
        let points = format!("points=\"{LEFT:.1},{bottom:.1} {right:.1},{TOP:.1}\"");
        assert!(picture.contains(&points), "{picture}");
        assert_eq!(picture.matches("<circle").count(), 4);
    }

    #[test]
    fn steps_are_round() {
        for (span, step) in [(80.0, 20.0), (60.0, 10.0), (1.0, 0.25), (7.0, 1.0), (0.0, 1.0)] {
            assert!((step_of(span) - step).abs() < 1e-9, "{span}: {}", step_of(span));
        }
        assert_eq!(
            [short(0.25), short(20.0), short(25_000.0), short(1e6)],
            ["0.25", "20", "25k", "1M"]
        );
    }
}
