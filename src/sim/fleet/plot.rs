//! The figures as a picture: the share of background events that phones had fetched by some age, one curve per policy, one panel per platform.

use std::fmt::{self, Write as _};
use std::time::Duration;

use super::{Figures, Plan, Row, table::in_days};

const WIDTH: f64 = 1000.0;
const PANEL_WIDTH: f64 = 400.0;
const PANEL_HEIGHT: f64 = 300.0;
const PANEL_TOP: f64 = 56.0;
const PANELS_LEFT: [f64; 2] = [70.0, 560.0];
const LEGEND_TOP: f64 = 422.0;
const LEGEND_LINE: f64 = 22.0;

/// Ages on the axis, which is logarithmic; the first and the last are its ends.
const AGES: [(u64, &str); 7] =
    [(1, "1 s"), (10, "10 s"), (60, "1 min"), (600, "10 min"), (3600, "1 h"), (6 * 3600, "6 h"), (24 * 3600, "1 d")];
/// Points of a curve.
const POINTS: u32 = 240;

/// Colours that people with any colour vision tell apart, on white and on black (Okabe, Ito 2008), and dashes for those who see none.
const STROKES: [(&str, &str); 6] = [
    ("#8c8c8c", "2 3"),
    ("#e69f00", "7 3"),
    ("#56b4e9", "10 3 2 3"),
    ("#009e73", ""),
    ("#d55e00", "4 2"),
    ("#cc79a7", "1 2"),
];

/// An SVG image, readable on a light and on a dark page.
pub fn plot(plan: Plan, rows: &[Row]) -> String {
    let mut svg = String::new();
    // Writing into a string cannot fail.
    let _ = draw(&mut svg, plan, rows);
    svg
}

fn draw(svg: &mut String, plan: Plan, rows: &[Row]) -> fmt::Result {
    let height = LEGEND_TOP + LEGEND_LINE * rows.len() as f64 + 8.0;
    writeln!(
        svg,
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="13">"#
    )?;
    svg.push_str(
        "<title>How fresh phones are, by policy</title>\n<style>\n\
         .page { fill: #ffffff } .ink { fill: #1f2328 } .grid { stroke: #d0d7de } .frame { stroke: #6e7781; fill: none }\n\
         @media (prefers-color-scheme: dark) {\n\
         .page { fill: #0d1117 } .ink { fill: #e6edf3 } .grid { stroke: #30363d } .frame { stroke: #8b949e }\n}\n</style>\n",
    );
    writeln!(svg, r#"<rect class="page" width="{WIDTH}" height="{height}"/>"#)?;
    let Plan { phones, days, seed } = plan;
    writeln!(
        svg,
        r#"<text class="ink" x="70" y="22" font-size="15">Background events fetched, by their age: {phones} phones, {}, seed {seed}</text>"#,
        in_days(days)
    )?;
    panel(svg, PANELS_LEFT[0], "iPhones", rows.iter().map(|row| &row.ios))?;
    panel(svg, PANELS_LEFT[1], "Android phones", rows.iter().map(|row| &row.android))?;
    for (number, row) in rows.iter().enumerate() {
        let (y, all) = (LEGEND_TOP + LEGEND_LINE * number as f64, row.all());
        let (x, end) = (PANELS_LEFT[0], PANELS_LEFT[0] + 44.0);
        writeln!(svg, r#"<path d="M{x} {y}H{end}" {}/>"#, stroke(number))?;
        writeln!(
            svg,
            r#"<text class="ink" x="{}" y="{}">{}: {:.2} pushes per event, battery {:.1} runs per phone and day</text>"#,
            end + 10.0,
            y + 4.5,
            escaped(&row.policy),
            all.pushes_per_event(),
            all.battery_per_day(),
        )?;
    }
    svg.push_str("</svg>\n");
    Ok(())
}

fn panel<'a>(svg: &mut String, left: f64, name: &str, figures: impl Iterator<Item = &'a Figures>) -> fmt::Result {
    let (right, bottom) = (left + PANEL_WIDTH, PANEL_TOP + PANEL_HEIGHT);
    writeln!(svg, r#"<text class="ink" x="{left}" y="{}" font-weight="bold">{name}</text>"#, PANEL_TOP - 10.0)?;
    for percent in (0..=100).step_by(20) {
        let y = height_of(f64::from(percent) / 100.0);
        writeln!(svg, r#"<path class="grid" d="M{left} {y:.1}H{right}"/>"#)?;
        writeln!(
            svg,
            r#"<text class="ink" x="{}" y="{:.1}" text-anchor="end">{percent} %</text>"#,
            left - 8.0,
            y + 4.5
        )?;
    }
    for (seconds, label) in AGES {
        let x = left + along(seconds as f64);
        writeln!(svg, r#"<path class="grid" d="M{x:.1} {PANEL_TOP}V{bottom}"/>"#)?;
        writeln!(svg, r#"<text class="ink" x="{x:.1}" y="{}" text-anchor="middle">{label}</text>"#, bottom + 18.0)?;
    }
    writeln!(svg, r#"<rect class="frame" x="{left}" y="{PANEL_TOP}" width="{PANEL_WIDTH}" height="{PANEL_HEIGHT}"/>"#)?;
    let middle = left + PANEL_WIDTH / 2.0;
    writeln!(
        svg,
        r#"<text class="ink" x="{middle}" y="{}" text-anchor="middle">time from acceptance to fetch</text>"#,
        bottom + 40.0
    )?;
    for (number, figures) in figures.enumerate() {
        let mut path = String::new();
        for point in 0..=POINTS {
            let x = PANEL_WIDTH * f64::from(point) / f64::from(POINTS);
            let share = figures.background.within(Duration::from_secs_f64(longest().powf(x / PANEL_WIDTH)));
            write!(path, "{}{:.1} {:.1}", if point == 0 { 'M' } else { 'L' }, left + x, height_of(share))?;
        }
        writeln!(svg, r#"<path d="{path}" {}/>"#, stroke(number))?;
    }
    Ok(())
}

fn longest() -> f64 {
    AGES.iter().map(|(seconds, _)| *seconds as f64).fold(1.0, f64::max)
}

/// How far along the axis an age lies.
fn along(seconds: f64) -> f64 {
    PANEL_WIDTH * seconds.ln() / longest().ln()
}

fn height_of(share: f64) -> f64 {
    PANEL_TOP + PANEL_HEIGHT * (1.0 - share)
}

fn stroke(number: usize) -> String {
    let (colour, dashes) = STROKES[number % STROKES.len()];
    format!(r#"fill="none" stroke="{colour}" stroke-width="2.5" stroke-linejoin="round" stroke-dasharray="{dashes}""#)
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_begins_and_ends_with_its_labels() {
        assert!(along(1.0).abs() < 1e-9);
        assert!((along(86_400.0) - PANEL_WIDTH).abs() < 1e-9);
        assert!((height_of(1.0) - PANEL_TOP).abs() < 1e-9);
    }

    #[test]
    fn a_name_cannot_break_the_picture() {
        let row = Row { policy: "<b> & co".to_owned(), ios: Figures::default(), android: Figures::default() };
        let svg = plot(Plan { phones: 2, days: 1, seed: 1 }, &[row]);
        assert!(svg.contains("&lt;b&gt; &amp; co: 0.00 pushes"), "{svg}");
        assert!(!svg.contains("NaN"));
    }
}
