//! How events per second change with what grows: a small panel for each group of scenarios that grows something.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::report::Row;
use super::scenario::Group;

/// Panels side by side.
const COLUMNS: usize = 2;
/// How high a panel is.
const PANEL_HEIGHT: u32 = 230;
const BLUE: RGBColor = RGBColor(46, 110, 164);

type Fault<'a> = Box<dyn std::error::Error + 'a>;

/// The groups of which at least two points were measured.
fn panels(rows: &[Row]) -> Vec<(&'static str, Vec<&Row>)> {
    let panel = |group: Group| {
        let points: Vec<&Row> = rows.iter().filter(|row| row.group == group && row.at.is_some()).collect();
        group.grows().filter(|_| points.len() > 1).map(|grows| (grows, points))
    };
    Group::ALL.into_iter().filter_map(panel).collect()
}

/// How much room all panels take.
pub fn height(rows: &[Row]) -> u32 {
    panels(rows).len().div_ceil(COLUMNS) as u32 * PANEL_HEIGHT
}

/// Draws the panels into their area.
pub fn draw<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, rows: &[Row]) -> Result<(), Fault<'a>> {
    let panels = panels(rows);
    if panels.is_empty() {
        return Ok(());
    }
    let places = area.split_evenly((panels.len().div_ceil(COLUMNS), COLUMNS));
    for (place, (grows, points)) in places.iter().zip(&panels) {
        draw_one(place, grows, points)?;
    }
    Ok(())
}

/// Points stand side by side whatever lies between them: what grows does so by factors.
fn draw_one<'a>(area: &DrawingArea<SVGBackend<'a>, Shift>, grows: &str, points: &[&Row]) -> Result<(), Fault<'a>> {
    let rate = |row: &&Row| row.figures.events_per_second;
    let most = points.iter().map(rate).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("events/s by {grows}"), ("sans-serif", 14))
        .margin(12)
        .x_label_area_size(26)
        .y_label_area_size(54)
        .build_cartesian_2d(-0.3..points.len() as f64 - 0.7, 0.0..most * 1.25)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .x_labels(points.len())
        .y_labels(5)
        .x_label_formatter(&|place| label(points, *place))
        .y_label_formatter(&|rate| count(*rate as u64))
        .label_style(("sans-serif", 12))
        .draw()?;
    let line = || points.iter().zip(0..).map(|(row, place)| (f64::from(place), rate(row)));
    chart.draw_series([PathElement::new(line().collect::<Vec<_>>(), BLUE.stroke_width(2))])?;
    chart.draw_series(line().map(|point| Circle::new(point, 3, BLUE.filled())))?;
    chart.draw_series(line().map(|(place, rate)| {
        let anchor = plotters::style::text_anchor::Pos::new(
            plotters::style::text_anchor::HPos::Center,
            plotters::style::text_anchor::VPos::Bottom,
        );
        Text::new(
            count(rate as u64),
            (place, rate + most * 0.04),
            ("sans-serif", 12).into_font().into_text_style(area).pos(anchor),
        )
    }))?;
    Ok(())
}

/// The label of a point's place; none between two points.
fn label(points: &[&Row], place: f64) -> String {
    let nearest = place.round();
    let point = ((place - nearest).abs() < 1e-6).then(|| points.get(nearest as usize)).flatten();
    point.and_then(|row| row.at).map_or(String::new(), count)
}

/// A number as people write it: 1,000,000.
fn count(number: u64) -> String {
    let digits = number.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}
