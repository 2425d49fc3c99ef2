//! The figures as a picture: a bar for each scenario, its share of the bare pipe; below them, how figures grow.

use plotters::coord::Shift;
use plotters::prelude::*;

use super::growth;
use super::report::Row;

const BAR_HEIGHT: u32 = 26;
const WIDTH: u32 = 860;
const LABELS_WIDTH: u32 = 260;
const MARGINS_HEIGHT: u32 = 96;

/// An SVG, or why there is none.
pub fn svg(rows: &[Row]) -> Result<String, String> {
    let mut text = String::new();
    draw(&mut text, rows).map_err(|error| error.to_string())?;
    Ok(text)
}

fn draw<'a>(text: &'a mut String, rows: &[Row]) -> Result<(), Box<dyn std::error::Error + 'a>> {
    // What is a point of a curve below needs no bar.
    let bars: Vec<&Row> = rows.iter().filter(|row| row.at.is_none()).collect();
    let height = bars.len() as u32 * BAR_HEIGHT + MARGINS_HEIGHT;
    let area = SVGBackend::with_string(text, (WIDTH, height + growth::height(rows))).into_drawing_area();
    area.fill(&WHITE)?;
    let (area, below) = area.split_vertically(height);
    growth::draw(&below, rows)?;
    draw_bars(&area, &bars)?;
    Ok(())
}

fn draw_bars<'a>(
    area: &DrawingArea<SVGBackend<'a>, Shift>,
    rows: &[&Row],
) -> Result<(), Box<dyn std::error::Error + 'a>> {
    let most = rows.iter().map(|row| row.of_the_pipe * 100.0).fold(100.0, f64::max);
    // The first row on top: the axis counts upwards.
    let row_at = |place: &usize| rows.len().checked_sub(place + 1).and_then(|place| rows.get(place));
    let mut chart = ChartBuilder::on(area)
        .caption("deliveries per second, % of the bare pipe", ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(LABELS_WIDTH)
        .build_cartesian_2d(0.0..most * 1.25, (0..rows.len().saturating_sub(1)).into_segmented())?;
    chart
        .configure_mesh()
        .disable_y_mesh()
        .y_labels(rows.len())
        .y_label_formatter(&|place| match place {
            SegmentValue::CenterOf(place) | SegmentValue::Exact(place) => {
                row_at(place).map_or(String::new(), |row| row.scenario.clone())
            }
            SegmentValue::Last => String::new(),
        })
        .x_label_formatter(&|share| format!("{share:.0}"))
        .label_style(("sans-serif", 14))
        .draw()?;
    let share = |place: usize| row_at(&place).map_or(0.0, |row| row.of_the_pipe * 100.0);
    chart.draw_series((0..rows.len()).map(|place| {
        let corners = [(0.0, SegmentValue::Exact(place)), (share(place), SegmentValue::Exact(place + 1))];
        let mut bar = Rectangle::new(corners, RGBColor(46, 110, 164).filled());
        bar.set_margin(4, 4, 0, 0);
        bar
    }))?;
    chart.draw_series((0..rows.len()).map(|place| {
        let figure = row_at(&place).map_or(0.0, |row| row.figures.deliveries_per_second);
        let label = format!("{:.0} % ({figure:.0}/s)", share(place));
        Text::new(label, (share(place) + 1.0, SegmentValue::CenterOf(place)), ("sans-serif", 13))
    }))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::report;
    use super::super::run::Figures;
    use super::super::scenario::{Group, pipe};
    use super::*;

    #[test]
    fn every_scenario_has_its_bar_and_its_name() {
        let figures = Figures {
            events_per_second: 100.0,
            deliveries_per_second: 100.0,
            router_cpu_micros_per_event: 1.0,
            store_cpu_micros_per_event: 1.0,
            accept_p50_ms: 1.0,
            accept_p99_ms: 1.0,
            peak_memory_mib: 1.0,
        };
        let scenarios = [pipe(Group::Size, 1024), pipe(Group::Size, 4096)];
        let picture = svg(&report::rows(&scenarios, &[vec![figures], vec![figures]])).unwrap();
        for name in ["bare pipe", "bare pipe, 4 KiB"] {
            assert!(picture.lines().any(|line| line.trim() == name), "{picture}");
        }
        assert_eq!(picture.matches("100 % (100/s)").count(), 2);
    }
}
