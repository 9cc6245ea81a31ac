//! Plots as SVG with text as text.

use std::ops::Range;

use plotters::backend::SVGBackend;
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use nsmc_eval::Words;

use crate::language::drawn;
use crate::palette::{self, Colour, INK, MUTED, PAPER, RULE};

/// Width of a plot in its own units; on a telephone one unit is a little less than a pixel.
const WIDTH: u32 = 380;
const HEIGHT: u32 = 300;
/// plotters writes a size of 1.24 units as one.
const TEXT: u32 = 16;
/// Mean width of a character of the legend, and that of a Korean one.
const CHARACTER: f64 = 6.8;
const WIDE_CHARACTER: f64 = 12.2;
/// How much wider the title is set.
const BOLD: f64 = 1.28;

/// How a series looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) colour: Colour,
    pub(crate) marker: Marker,
}

/// Each encloses an area: hollow, it stands for the paper's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Inverted,
    Diamond,
    Cross,
}

impl Marker {
    pub(crate) const ALL: [Self; 6] =
        [Self::Circle, Self::Square, Self::Triangle, Self::Inverted, Self::Diamond, Self::Cross];
}

/// A point, and an interval of its height where it has one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Point {
    pub(crate) x: f64,
    pub(crate) y: f64,
    pub(crate) interval: Option<(f64, f64)>,
}

#[derive(Clone, Debug)]
pub(crate) struct Series {
    pub(crate) name: Words,
    pub(crate) look: Look,
    pub(crate) points: Vec<Point>,
}

/// Series over two axes.
#[derive(Clone, Debug)]
pub(crate) struct Plot {
    pub(crate) title: Words,
    pub(crate) x_title: Words,
    pub(crate) y_title: Words,
    /// Where the horizontal axis has its marks, and what stands there.
    pub(crate) x_marks: Vec<(f64, String)>,
    pub(crate) x: Range<f64>,
    pub(crate) y: Range<f64>,
    pub(crate) series: Vec<Series>,
    /// With the line on which y is x.
    pub(crate) diagonal: bool,
}

/// A row of [`Forest`].
#[derive(Clone, Debug)]
pub(crate) struct ForestRow {
    pub(crate) name: Words,
    pub(crate) look: Look,
    pub(crate) value: f64,
    pub(crate) interval: (f64, f64),
    /// A second value, drawn hollow: the paper's.
    pub(crate) other: Option<f64>,
}

/// Values with intervals, one below the other, on both sides of 0.
#[derive(Clone, Debug)]
pub(crate) struct Forest {
    pub(crate) title: Words,
    pub(crate) x_title: Words,
    pub(crate) rows: Vec<ForestRow>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<std::io::Error>>;

impl Plot {
    /// The range of these points, a little wider; none if there are no points.
    pub(crate) fn range(values: impl IntoIterator<Item = f64>) -> Option<Range<f64>> {
        let (low, high) =
            values.into_iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), value| {
                (low.min(value), high.max(value))
            });
        (low <= high).then(|| {
            let more = ((high - low) * 0.08).max(0.005);
            low - more..high + more
        })
    }

    pub(crate) fn svg(&self) -> String {
        let names: Vec<(&Words, Look)> =
            self.series.iter().map(|series| (&series.name, series.look)).collect();
        render(HEIGHT, |root| self.draw(root, &names))
    }

    fn draw(&self, root: &Area<'_>, names: &[(&Words, Look)]) -> Drawn {
        let top = title_and_legend(root, &self.title, names)?;
        let (_, below) = root.split_vertically(top);
        let mut chart = ChartBuilder::on(&below)
            .margin_right(14)
            .margin_left(4)
            .margin_top(6)
            .x_label_area_size(48)
            .y_label_area_size(66)
            .build_cartesian_2d(self.x.clone(), self.y.clone())?;
        let fine = self.y.end - self.y.start < 0.05;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RULE.rgb())
            .axis_style(MUTED.rgb())
            .x_labels(0)
            .y_labels(5)
            .label_style(text(TEXT - 1, MUTED))
            .axis_desc_style(text(TEXT - 1, INK))
            .x_desc(drawn(&self.x_title))
            .y_desc(drawn(&self.y_title))
            .y_label_formatter(&|at| if fine { format!("{at:.3}") } else { format!("{at:.2}") })
            .draw()?;
        // Marks stand where the data are, which plotters' own do not.
        let centred = Pos::new(HPos::Center, VPos::Top);
        let place =
            |(at, name): &(f64, String)| (chart.backend_coord(&(*at, self.y.start)), name.clone());
        let marks: Vec<((i32, i32), String)> = self.x_marks.iter().map(place).collect();
        let every = labelled(&marks);
        for (index, ((x, y), name)) in marks.into_iter().enumerate() {
            root.draw(&PathElement::new(vec![(x, y), (x, y + 4)], MUTED.rgb()))?;
            if index % every == 0 {
                let style = text(TEXT - 1, MUTED).pos(centred);
                root.draw(&Text::new(name, (x, y + 7), style))?;
            }
        }
        if self.diagonal {
            let (low, high) = (self.x.start.max(self.y.start), self.x.end.min(self.y.end));
            chart.draw_series(LineSeries::new([(low, low), (high, high)], MUTED.rgb()))?;
        }
        for series in &self.series {
            let colour = series.look.colour.rgb();
            let line = series.points.iter().map(|point| (point.x, point.y));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            for point in &series.points {
                let Some((low, high)) = point.interval else { continue };
                // An interval may leave the plot; the part within is shown.
                let (low, high) = (low.max(self.y.start), high.min(self.y.end));
                let bar = [(point.x, low), (point.x, high)];
                chart.draw_series(LineSeries::new(bar, colour.stroke_width(1)))?;
            }
            let area = chart.plotting_area().strip_coord_spec();
            let offset = area.get_pixel_range();
            for point in &series.points {
                let (x, y) = chart.backend_coord(&(point.x, point.y));
                marker(&area, (x - offset.0.start, y - offset.1.start), series.look, true)?;
            }
        }
        Ok(())
    }
}

impl Forest {
    /// Of a row whose name is one line, and of each further line.
    const ROW: u32 = 40;
    const LINE: u32 = 16;

    pub(crate) fn svg(&self) -> String {
        let rows: Vec<(&ForestRow, Vec<Words>)> =
            self.rows.iter().map(|row| (row, wrapped(&row.name, f64::from(WIDTH - 32)))).collect();
        let further: usize = rows.iter().map(|(_, name)| name.len() - 1).sum();
        let height = Self::ROW * rows.len() as u32 + Self::LINE * further as u32;
        render(96 + height, |root| self.draw(root, &rows, height))
    }

    /// What the axis reaches over.
    pub(crate) fn x(&self) -> Range<f64> {
        let values = self.rows.iter().flat_map(|row| {
            [Some(row.interval.0), Some(row.interval.1), row.other, Some(0.0)].into_iter().flatten()
        });
        Plot::range(values).unwrap_or(-1.0..1.0)
    }

    fn draw(&self, root: &Area<'_>, rows: &[(&ForestRow, Vec<Words>)], height: u32) -> Drawn {
        let top = title_and_legend(root, &self.title, &[])?;
        let (_, below) = root.split_vertically(top);
        let (x, height) = (self.x(), f64::from(height));
        // plotters puts at most five marks: so short an axis may have them at every 0.005.
        let (digits, zero) = if x.end - x.start < 0.03 { (3, 0.0005) } else { (2, 0.005) };
        let mut chart = ChartBuilder::on(&below)
            .margin_right(14)
            .margin_left(8)
            .x_label_area_size(48)
            .build_cartesian_2d(x.clone(), height..0.0)?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(RULE.rgb())
            .axis_style(MUTED.rgb())
            .y_labels(0)
            .x_labels(5)
            .label_style(text(TEXT - 1, MUTED))
            .axis_desc_style(text(TEXT - 1, INK))
            .x_desc(drawn(&self.x_title))
            // A mark that is 0 but for rounding has no minus.
            .x_label_formatter(&|at| {
                format!("{:+.digits$}", if at.abs() < zero { 0.0 } else { *at })
            })
            .draw()?;
        chart.draw_series(LineSeries::new([(0.0, 0.0), (0.0, height)], INK.rgb()))?;
        let row_height = f64::from(Self::ROW);
        let mut top = 0.0;
        for (row, name) in rows {
            let further = f64::from(Self::LINE) * (name.len() - 1) as f64;
            let y = top + further + 0.72 * row_height;
            let colour = row.look.colour.rgb();
            let bar = [(row.interval.0, y), (row.interval.1, y)];
            chart.draw_series(LineSeries::new(bar, colour.stroke_width(2)))?;
            let area = chart.plotting_area().strip_coord_spec();
            let offset = area.get_pixel_range();
            let place = |x: f64, y: f64| {
                let (x, y) = chart.backend_coord(&(x, y));
                (x - offset.0.start, y - offset.1.start)
            };
            marker(&area, place(row.value, y), row.look, true)?;
            if let Some(other) = row.other {
                marker(&area, place(other, y), row.look, false)?;
            }
            for (index, line) in name.iter().enumerate() {
                let at = top + 0.12 * row_height + f64::from(Self::LINE) * index as f64;
                let (_, at) = place(x.start, at);
                // The lines of the grid stop at the text.
                let ground = [(0, at - 2), (wider(line) as i32 + 6, at + 14)];
                area.draw(&Rectangle::new(ground, PAPER.rgb().filled()))?;
                area.draw(&Text::new(drawn(line), (2, at), text(TEXT - 1, INK)))?;
            }
            top += row_height + further;
        }
        Ok(())
    }
}

/// How many marks there are to one label, so that no label touches the next.
fn labelled(marks: &[((i32, i32), String)]) -> usize {
    const GAP: f64 = 4.0;
    let apart = |every: &usize| {
        let with: Vec<_> = marks.iter().step_by(*every).collect();
        with.windows(2).all(|pair| {
            let [((left, _), first), ((right, _), second)] = [pair[0], pair[1]];
            f64::from(right - left) >= f64::midpoint(width(first), width(second)) + GAP
        })
    };
    (1..marks.len()).find(apart).unwrap_or(marks.len().max(1))
}

fn text(size: u32, colour: Colour) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&colour.rgb())
}

/// How wide a text of the legend's size is, roughly.
fn width(text: &str) -> f64 {
    let wide = |character: char| character >= '\u{1100}';
    text.chars().map(|character| if wide(character) { WIDE_CHARACTER } else { CHARACTER }).sum()
}

/// That of the longer language.
fn wider(words: &Words) -> f64 {
    width(&words.en).max(width(&words.ko))
}

/// The lines of a text that is broken at spaces.
fn lines(text: &str, widest: f64) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if width(line) + CHARACTER + width(word) <= widest => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// [`lines`] of both languages, the shorter with empty ones at its end.
fn wrapped(words: &Words, widest: f64) -> Vec<Words> {
    let [en, ko] = [&words.en, &words.ko].map(|text| lines(text, widest));
    let line = |lines: &[String], index| lines.get(index).cloned().unwrap_or_default();
    let count = en.len().max(ko.len());
    (0..count).map(|index| Words::new(line(&en, index), line(&ko, index))).collect()
}

/// Draws both; gives the height they take.
fn title_and_legend(
    root: &Area<'_>,
    title: &Words,
    names: &[(&Words, Look)],
) -> Result<u32, DrawingAreaErrorKind<std::io::Error>> {
    let style = ("sans-serif", TEXT + 2).into_font().style(FontStyle::Bold).color(&INK.rgb());
    let mut y = 6;
    for line in wrapped(title, f64::from(WIDTH - 16) / BOLD) {
        root.draw(&Text::new(drawn(&line), (8, y), style.clone()))?;
        y += 19;
    }
    if names.is_empty() {
        return Ok(y as u32 + 5);
    }
    let (mut x, mut y) = (14, y + 9);
    for (name, look) in names {
        let width = 22 + wider(name) as i32;
        if x > 14 && x + width > WIDTH as i32 {
            (x, y) = (14, y + 18);
        }
        marker(root, (x, y + 2), *look, true)?;
        root.draw(&Text::new(drawn(name), (x + 9, y - 5), text(TEXT - 1, INK)))?;
        x += width + 6;
    }
    Ok(y as u32 + 14)
}

fn marker(area: &Area<'_>, (x, y): (i32, i32), look: Look, filled: bool) -> Drawn {
    let style = ShapeStyle { color: look.colour.rgb().into(), filled, stroke_width: 2 };
    match look.marker {
        Marker::Circle => area.draw(&Circle::new((x, y), 4, style)),
        Marker::Square => area.draw(&Rectangle::new([(x - 4, y - 4), (x + 4, y + 4)], style)),
        Marker::Triangle => outline(area, vec![(x, y - 5), (x + 5, y + 4), (x - 5, y + 4)], style),
        Marker::Inverted => outline(area, vec![(x - 5, y - 4), (x + 5, y - 4), (x, y + 5)], style),
        Marker::Diamond => {
            outline(area, vec![(x, y - 6), (x + 5, y), (x, y + 6), (x - 5, y)], style)
        }
        Marker::Cross => {
            let corners = [
                [(0, -2), (3, -5), (5, -3)],
                [(2, 0), (5, 3), (3, 5)],
                [(0, 2), (-3, 5), (-5, 3)],
                [(-2, 0), (-5, -3), (-3, -5)],
            ];
            let corners = corners.into_iter().flatten();
            outline(area, corners.map(|(right, down)| (x + right, y + down)).collect(), style)
        }
    }
}

fn outline(area: &Area<'_>, mut points: Vec<(i32, i32)>, style: ShapeStyle) -> Drawn {
    if style.filled {
        return area.draw(&Polygon::new(points, style));
    }
    points.push(points[0]);
    area.draw(&PathElement::new(points, style))
}

/// Draws into memory. The SVG has no size of its own: the page decides.
fn render(height: u32, draw: impl FnOnce(&Area<'_>) -> Drawn) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, (WIDTH, height)).into_drawing_area();
        let drawn = draw(&root).and_then(|()| root.present());
        drawn.expect("memory takes what is drawn");
    }
    let sized = format!("<svg width=\"{WIDTH}\" height=\"{height}\"");
    palette::with_variables(&svg.replacen(&sized, "<svg class=\"plot\"", 1))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::palette::VANILLA;

    /// The texts of a plot, each with where it stands.
    fn texts(svg: &str) -> Vec<(f64, &str)> {
        let elements = svg.split("<text x=\"").skip(1).map(|element| {
            let (x, rest) = element.split_once('"').unwrap();
            let text = rest.split_once('>').unwrap().1.split_once("</text>").unwrap().0;
            (x.parse().unwrap(), text.trim())
        });
        elements.collect()
    }

    #[test]
    fn the_labels_of_small_differences_are_not_the_same() {
        let labels = |low: f64, high: f64| -> Vec<String> {
            let row = ForestRow {
                name: "Vanilla − LoRA".into(),
                look: Look { colour: VANILLA, marker: Marker::Circle },
                value: 0.0,
                interval: (low, high),
                other: None,
            };
            let forest =
                Forest { title: "title".into(), x_title: "difference".into(), rows: vec![row] };
            let svg = forest.svg();
            let numbers = texts(&svg).into_iter().map(|(_, text)| text);
            numbers.filter(|text| text.parse::<f64>().is_ok()).map(str::to_owned).collect()
        };
        for thousandths in [0, 1, 2, 3, 5, 7, 8, 11, 14, 17, 20, 30, 50, 300] {
            for (low, high) in [(-0.007, 0.001), (-0.0001, 0.0), (-0.02, 0.0), (0.0, 0.0)] {
                let labels = labels(low, high + f64::from(thousandths) / 1000.0);
                assert!(labels.len() > 1, "{labels:?}");
                for (index, label) in labels.iter().enumerate() {
                    assert!(!labels[..index].contains(label), "{labels:?}");
                    assert!(!label.starts_with("-0.00") || label.len() == 6, "{labels:?}");
                    assert_ne!(label, "-0.000");
                }
            }
        }
        assert_eq!(labels(-0.002, 0.006), ["-0.005", "+0.000", "+0.005", "+0.010"]);
        assert_eq!(labels(-0.04, 0.1), ["-0.05", "+0.00", "+0.05", "+0.10"]);
    }

    #[test]
    fn the_labels_of_many_marks_do_not_touch() {
        for (last, labelled) in [(4, 4), (12, 12), (20, 10), (24, 12), (100, 15)] {
            let point = |x: usize| Point { x: x as f64, y: 0.5, interval: None };
            let look = Look { colour: VANILLA, marker: Marker::Circle };
            let plot = Plot {
                title: "title".into(),
                x_title: "layer".into(),
                y_title: "attention".into(),
                x_marks: (1..=last).map(|mark| (mark as f64, mark.to_string())).collect(),
                x: 0.6..last as f64 + 0.4,
                y: 0.0..1.0,
                series: vec![Series {
                    name: "all".into(),
                    look,
                    points: (1..=last).map(point).collect(),
                }],
                diagonal: false,
            };
            let svg = plot.svg();
            let texts = texts(&svg).into_iter();
            let labels: Vec<(f64, &str)> =
                texts.filter(|(_, text)| text.parse::<usize>().is_ok()).collect();
            for pair in labels.windows(2) {
                let between = pair[1].0 - pair[0].0;
                assert!(between > width(pair[0].1).max(width(pair[1].1)), "{labels:?}");
            }
            assert_eq!(labels.len(), labelled, "{labels:?}");
        }
    }

    #[test]
    fn each_marker_is_another_shape_and_has_a_hollow_form() {
        let drawn = |shape: Marker, filled: bool| {
            let look = Look { colour: VANILLA, marker: shape };
            render(20, |root| marker(root, (10, 10), look, filled))
        };
        let filling = format!("fill=\"{}", VANILLA.css().trim_end_matches(')'));
        let mut seen = Vec::new();
        for shape in Marker::ALL {
            let (filled, hollow) = (drawn(shape, true), drawn(shape, false));
            assert!(filled.contains(&filling), "{shape:?}: {filled}");
            assert!(hollow.contains("stroke=\"var(--vanilla"), "{shape:?}: {hollow}");
            assert!(!hollow.contains(&filling), "{shape:?}: {hollow}");
            for svg in [filled, hollow] {
                assert!(!seen.contains(&svg), "{shape:?} looks like another: {svg}");
                seen.push(svg);
            }
        }
    }
}
