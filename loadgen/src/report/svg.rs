//! Draws small charts: axes, lines with bands and marks, bars with spread, a legend.
//!
//! Colours are classes; `chart.css` says what they are in light and dark. Each style has its own
//! dashes and its own marker too. Knows nothing of results and pages.

use std::fmt;

use super::{
    markup::Markup,
    scale::{Kind, Scale, Tick, can_be_drawn},
    words,
};

mod marker;

/// A drawing.
pub(super) enum Picture {
    Chart(Chart),
    Bars(Bars),
}

/// Lines or points over two axes.
pub(super) struct Chart {
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) series: Vec<Series>,
    /// Up to this `x` the background says that it does not count.
    pub(super) shaded_until: f64,
}

/// What is measured along a side.
#[derive(Clone, Copy)]
pub(super) struct Axis {
    pub(super) title: &'static str,
    pub(super) kind: Kind,
    pub(super) format: fn(f64) -> String,
}

/// What belongs to one name in the legend.
#[derive(Default)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) style: usize,
    pub(super) line: Vec<(f64, f64)>,
    /// From where to where it goes at each `x`.
    pub(super) band: Vec<(f64, f64, f64)>,
    /// Small marks without read-out.
    pub(super) points: Vec<(f64, f64)>,
    pub(super) marks: Vec<Mark>,
}

/// A place that the pointer can ask about.
pub(super) struct Mark {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) tip: String,
    pub(super) hollow: bool,
}

/// Horizontal bars.
pub(super) struct Bars {
    pub(super) bars: Vec<Bar>,
}

/// The median as a bar, and each round as a dot.
pub(super) struct Bar {
    pub(super) name: String,
    pub(super) style: usize,
    pub(super) median: f64,
    pub(super) rounds: Vec<f64>,
}

/// A drawing's headline and what stands below it, for files that stand alone.
pub(super) struct Heading<'a> {
    pub(super) title: &'a str,
    pub(super) load: &'a str,
}

impl Picture {
    /// As an element of a page that has [`STYLE`].
    pub(super) fn inline(&self, title: &str) -> Markup {
        self.draw(title, None)
    }

    /// As a file.
    pub(super) fn file(&self, heading: &Heading<'_>) -> String {
        let mut text = self.draw(heading.title, Some(heading)).into_string();
        text.push('\n');
        text
    }

    fn draw(&self, title: &str, heading: Option<&Heading<'_>>) -> Markup {
        let top = if heading.is_some() { HEADING } else { 0.0 };
        let (height, body) = match self {
            Self::Chart(chart) => chart.draw(top),
            Self::Bars(bars) => bars.draw(top),
        };
        let mut svg = Markup::default();
        let size: [&dyn fmt::Display; 5] =
            [&Px(WIDTH), &Px(height), &Px(WIDTH), &Px(height), &title];
        svg.put(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" class=\"c\" role=\"img\" \
             viewBox=\"0 0 {} {}\" width=\"{}\" height=\"{}\"><title>{}</title>",
            &size,
        );
        if let Some(heading) = heading {
            svg.raw("<style>").raw(STYLE).raw("</style>");
            svg.raw("<rect class=\"bg\" width=\"100%\" height=\"100%\"/>");
            let title = words::shortened(heading.title, 60);
            svg.put("<text class=\"h\" x=\"12\" y=\"24\">{}</text>", &[&title]);
            let load = words::shortened(heading.load, 84);
            svg.put("<text class=\"t\" x=\"12\" y=\"41\">{}</text>", &[&load]);
        }
        svg.append(&body).raw("</svg>");
        svg
    }
}

impl Chart {
    /// Whether there is anything to see.
    pub(super) fn is_empty(&self) -> bool {
        self.series.iter().all(|series| series.values().next().is_none())
    }

    /// Returns the height, too.
    fn draw(&self, top: f64) -> (f64, Markup) {
        let mut svg = Markup::default();
        let top = self.draw_legend(&mut svg, top) + 36.0;
        let bottom = top + PLOT_HEIGHT;
        let shown = || self.series.iter().flat_map(Series::values);
        let y = Scale::new(self.y.kind, shown().map(|(_, y)| y)).between(bottom, top);
        let y_ticks = y.ticks(self.y.format);
        let widest = y_ticks.iter().map(|tick| text_width(&tick.label)).fold(0.0, f64::max);
        let left = 12.0 + widest + 6.0;
        let x = Scale::new(self.x.kind, shown().map(|(x, _)| x)).between(left, WIDTH - 26.0);
        let until = x.place(self.shaded_until);
        if self.shaded_until > 0.0 {
            let values: [&dyn fmt::Display; 4] =
                [&Px(left), &Px(top), &Px(until - left), &Px(PLOT_HEIGHT)];
            svg.put("<rect class=\"w\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>", &values);
        }
        svg.put("<text class=\"t\" x=\"12\" y=\"{}\">{}</text>", &[&Px(top - 12.0), &self.y.title]);
        draw_y_ticks(&mut svg, &y_ticks, left);
        draw_x_ticks(&mut svg, &x.ticks(self.x.format), top, bottom);
        svg.put(
            "<text class=\"t\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            &[&Px((left + WIDTH - 26.0) / 2.0), &Px(bottom + 34.0), &self.x.title],
        );
        for series in &self.series {
            series.draw(&mut svg, &x, &y);
        }
        (bottom + 44.0, svg)
    }

    /// Returns where it ends.
    fn draw_legend(&self, svg: &mut Markup, top: f64) -> f64 {
        let (mut left, mut y) = (12.0, top + 16.0);
        for series in &self.series {
            let name = words::shortened(&series.name, NAME_CHARS_MAX);
            let width = 38.0 + text_width(&name) + 16.0;
            if left + width > WIDTH && left > 12.0 {
                (left, y) = (12.0, y + 20.0);
            }
            let style = series.style % STYLES;
            if !series.line.is_empty() {
                let values: [&dyn fmt::Display; 4] = [&style, &Px(left), &Px(y - 4.0), &28];
                svg.put("<path class=\"l s{}\" d=\"M{} {}h{}\"/>", &values);
            }
            if !series.marks.is_empty() || series.line.is_empty() {
                marker::draw(svg, "m", style, (left + 14.0, y - 4.0), "");
            }
            svg.put("<text x=\"{}\" y=\"{}\">{}</text>", &[&Px(left + 35.0), &Px(y), &name]);
            left += width;
        }
        y
    }
}

impl Series {
    /// All that must be on the axes.
    fn values(&self) -> impl Iterator<Item = (f64, f64)> {
        let band = self.band.iter().flat_map(|(x, low, high)| [(*x, *low), (*x, *high)]);
        let marks = self.marks.iter().map(|mark| (mark.x, mark.y));
        let all = self.line.iter().copied().chain(self.points.iter().copied());
        all.chain(band).chain(marks).filter(|(x, y)| can_be_drawn(*x) && can_be_drawn(*y))
    }

    fn draw(&self, svg: &mut Markup, x: &Scale, y: &Scale) {
        let style = self.style % STYLES;
        let at = |(to_x, to_y): (f64, f64)| (x.place(to_x), y.place(to_y));
        let drawn = |(x, y): &(f64, f64)| can_be_drawn(*x) && can_be_drawn(*y);
        if self.band.len() > 1 {
            let upper = self.band.iter().map(|(x, _, high)| (*x, *high));
            let lower = self.band.iter().rev().map(|(x, low, _)| (*x, *low));
            let path = Path(upper.chain(lower).filter(drawn).map(at).collect());
            svg.put("<path class=\"b s{}\" d=\"{}z\"/>", &[&style, &path]);
        }
        if !self.line.is_empty() {
            let path = Path(self.line.iter().copied().filter(drawn).map(at).collect());
            svg.put("<path class=\"l s{}\" d=\"{}\"/>", &[&style, &path]);
        }
        for point in self.points.iter().copied().filter(drawn) {
            marker::draw(svg, "k", style, at(point), "");
        }
        for mark in self.marks.iter().filter(|mark| drawn(&(mark.x, mark.y))) {
            let class = if mark.hollow { "o" } else { "m" };
            marker::draw(svg, class, style, at((mark.x, mark.y)), &mark.tip);
        }
    }
}

impl Bars {
    /// Returns the height, too.
    fn draw(&self, top: f64) -> (f64, Markup) {
        let mut svg = Markup::default();
        let names: Vec<String> =
            self.bars.iter().map(|bar| words::shortened(&bar.name, NAME_CHARS_MAX)).collect();
        let widest = names.iter().map(|name| text_width(name)).fold(0.0, f64::max);
        let (left, top) = (12.0 + widest + 8.0, top + 6.0);
        let bottom = top + self.bars.len() as f64 * BAR_ROOM;
        let values =
            self.bars.iter().flat_map(|bar| bar.rounds.iter().copied().chain([bar.median]));
        let x = Scale::new(Kind::Linear, values).between(left, WIDTH - 108.0);
        draw_x_ticks(&mut svg, &x.ticks(words::short), top, bottom);
        let first = self.bars.first().map_or(0.0, |bar| bar.median);
        for ((at, bar), name) in self.bars.iter().enumerate().zip(&names) {
            let middle = top + (at as f64 + 0.5) * BAR_ROOM;
            bar.draw(&mut svg, &x, middle, name, (at > 0).then_some(first));
        }
        (bottom + 26.0, svg)
    }
}

impl Bar {
    fn draw(&self, svg: &mut Markup, x: &Scale, middle: f64, name: &str, first: Option<f64>) {
        let (from, to) = (x.place(0.0), x.place(self.median));
        let style = self.style % STYLES;
        svg.put(
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
            &[&Px(from - 8.0), &Px(middle + 4.0), &name],
        );
        let values: [&dyn fmt::Display; 4] =
            [&style, &Px(from), &Px(middle - 10.0), &Px((to - from).max(1.0))];
        svg.put(
            "<rect class=\"k s{}\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"20\" rx=\"2\"/>",
            &values,
        );
        let rounds: Vec<f64> = self.rounds.iter().map(|round| x.place(*round)).collect();
        let low = rounds.iter().copied().fold(to, f64::min);
        let high = rounds.iter().copied().fold(to, f64::max);
        svg.put("<path class=\"e\" d=\"M{} {}H{}\"/>", &[&Px(low), &Px(middle), &Px(high)]);
        for (place, round) in rounds.iter().zip(&self.rounds) {
            let values: [&dyn fmt::Display; 3] = [&Px(*place), &Px(middle), &words::number(*round)];
            svg.put(
                "<circle class=\"d\" cx=\"{}\" cy=\"{}\" r=\"3\"><title>{}</title></circle>",
                &values,
            );
        }
        let mut value = words::short(self.median);
        if let Some(first) = first.filter(|first| *first > 0.0) {
            value = format!("{value} (×{})", words::number(self.median / first));
        }
        svg.put("<text x=\"{}\" y=\"{}\">{}</text>", &[&Px(high + 8.0), &Px(middle + 4.0), &value]);
    }
}

fn draw_y_ticks(svg: &mut Markup, ticks: &[Tick], left: f64) {
    for Tick { place, label } in ticks {
        let class = if label.is_empty() { "f" } else { "g" };
        let values: [&dyn fmt::Display; 4] = [&class, &Px(left), &Px(*place), &Px(WIDTH - 26.0)];
        svg.put("<path class=\"{}\" d=\"M{} {}H{}\"/>", &values);
        if !label.is_empty() {
            svg.put(
                "<text class=\"t\" x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>",
                &[&Px(left - 6.0), &Px(place + 4.0), label],
            );
        }
    }
}

fn draw_x_ticks(svg: &mut Markup, ticks: &[Tick], top: f64, bottom: f64) {
    for Tick { place, label } in ticks {
        let class = if label.is_empty() { "f" } else { "g" };
        let values: [&dyn fmt::Display; 4] = [&class, &Px(*place), &Px(top), &Px(bottom)];
        svg.put("<path class=\"{}\" d=\"M{} {}V{}\"/>", &values);
        if !label.is_empty() {
            svg.put(
                "<text class=\"t\" x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                &[&Px(*place), &Px(bottom + 16.0), label],
            );
        }
    }
}

/// About how wide the text is: the fonts of readers differ.
fn text_width(text: &str) -> f64 {
    // East Asian characters and pictures take twice the room.
    text.chars().map(|c| if c < '\u{1100}' { 6.9 } else { 13.0 }).sum()
}

/// Tenths of a unit are finer than what a screen shows.
struct Px(f64);

impl fmt::Display for Px {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", (self.0 * 10.0).round() / 10.0)
    }
}

/// The data of a path from place to place.
struct Path(Vec<(f64, f64)>);

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (x, y)) in self.0.iter().enumerate() {
            write!(f, "{}{} {}", if at == 0 { "M" } else { "L" }, Px(*x), Px(*y))?;
        }
        Ok(())
    }
}

/// The rules that drawings need, for the page as for each file.
pub(super) const STYLE: &str = include_str!("chart.css");

/// Names past these share their look with an earlier one.
pub(super) const STYLES: usize = 8;

const WIDTH: f64 = 560.0;
const PLOT_HEIGHT: f64 = 220.0;
const HEADING: f64 = 48.0;
const BAR_ROOM: f64 = 32.0;
const NAME_CHARS_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::*;

    const AXIS: Axis = Axis { title: "t", kind: Kind::Linear, format: words::short };
    const LOG: Axis = Axis { title: "t", kind: Kind::Log, format: words::short };

    fn chart(values: &[f64]) -> Picture {
        let pairs = || values.iter().flat_map(|x| values.iter().map(move |y| (*x, *y)));
        let series = Series {
            name: "<b>&\u{1}".repeat(20),
            style: usize::MAX,
            line: pairs().collect(),
            band: pairs().map(|(x, y)| (x, y, y)).collect(),
            points: pairs().collect(),
            marks: pairs()
                .map(|(x, y)| Mark { x, y, tip: "<i>".to_owned(), hollow: x > y })
                .collect(),
        };
        Picture::Chart(Chart { x: AXIS, y: LOG, series: vec![series], shaded_until: 1e300 })
    }

    fn bars(values: &[f64]) -> Picture {
        let bar = |median: &f64| Bar {
            name: "<b>".to_owned(),
            style: 9,
            median: *median,
            rounds: values.to_vec(),
        };
        Picture::Bars(Bars { bars: values.iter().map(bar).collect() })
    }

    #[test]
    fn odd_numbers_and_names_leave_a_sound_drawing() {
        let odd = [f64::NAN, f64::INFINITY, -1.0, 0.0, 1.0, 1e18, 1e300];
        for picture in [chart(&odd), bars(&odd), chart(&[]), bars(&[]), chart(&[f64::NAN])] {
            let text = picture.file(&Heading { title: "<u>", load: "\"" });
            assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
            assert!(!["<b>", "<i>", "<u>"].iter().any(|tag| text.contains(tag)), "{text}");
            assert_eq!(text.matches("<svg").count(), 1);
            assert!(text.ends_with("</svg>\n"));
        }
    }

    #[test]
    fn a_legend_breaks_before_the_edge() {
        let series =
            |at| Series { name: "a broker with a name".to_owned(), style: at, ..Series::default() };
        let chart =
            Chart { x: AXIS, y: AXIS, series: (0..8).map(series).collect(), shaded_until: 0.0 };
        let end = chart.draw_legend(&mut Markup::default(), 0.0);
        assert!(end > 16.0, "{end}");
    }

    #[test]
    fn nothing_to_see_is_known_before() {
        let is_empty = |picture| match picture {
            Picture::Chart(chart) => chart.is_empty(),
            Picture::Bars(bars) => bars.bars.is_empty(),
        };
        assert!(is_empty(chart(&[])) && is_empty(chart(&[f64::NAN])) && !is_empty(chart(&[1.0])));
    }
}
