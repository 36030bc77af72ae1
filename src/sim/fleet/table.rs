//! The figures as a table for people, in Markdown, and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Ages, Figures, Plan, Row};
use crate::domain::event::Class;

/// By these ages people ask whether an event has been fetched.
const SOON: Duration = Duration::from_mins(15);
const LATER: Duration = Duration::from_hours(1);

const COLUMNS: usize = 9;
const HEADINGS: [&str; COLUMNS] =
    ["", "median", "p95", "≤ 15 min", "≤ 1 h", "pushes/event", "wake rate", "stopped", "battery"];
const LEGEND: &str = "\
median, p95, ≤: age of background events when a poll fetched them; never fetched counts as never
wake rate:      of accepted pushes, how many led to a poll; 30 % of them vanish on purpose
stopped:        of accepted pushes, how many systems and providers replaced, dropped, held until too late or let expire
battery:        per phone and day, runs of the app in the background (own polls included; ½ without a poll, 1 more to leave Doze)
";

/// A table per platform, and one of all phones.
pub fn table(plan: Plan, rows: &[Row]) -> String {
    let mut text = String::new();
    let events = rows.first().map_or(0, |row| row.all().events());
    let Plan { phones, days, seed } = plan;
    // Writing into a string cannot fail.
    let _ = writeln!(text, "{phones} phones, {}, {events} events, seed {seed}\n", in_days(days));
    for (name, figures) in platforms(rows) {
        let mut lines = vec![HEADINGS.map(str::to_owned)];
        lines[0][0] = name.to_owned();
        lines.extend(rows.iter().zip(&figures).map(|(row, figures)| line(&row.policy, figures)));
        draw(&mut text, &lines);
    }
    text.push_str(LEGEND);
    text
}

/// A number of days in words.
pub(super) fn in_days(days: u32) -> String {
    if days == 1 { "1 day".to_owned() } else { format!("{days} days") }
}

/// All figures.
pub fn json(plan: Plan, rows: &[Row]) -> Value {
    let policies: Vec<Value> = rows
        .iter()
        .map(|row| json!({"policy": row.policy, "all": of(&row.all()), "ios": of(&row.ios), "android": of(&row.android)}))
        .collect();
    json!({"phones": plan.phones, "days": plan.days, "seed": plan.seed, "policies": policies})
}

fn platforms(rows: &[Row]) -> [(&'static str, Vec<Figures>); 3] {
    [
        ("all phones", rows.iter().map(Row::all).collect()),
        ("iPhones", rows.iter().map(|row| row.ios.clone()).collect()),
        ("Android", rows.iter().map(|row| row.android.clone()).collect()),
    ]
}

fn line(policy: &str, figures: &Figures) -> [String; COLUMNS] {
    let percent = |share: f64| format!("{:.1} %", share * 100.0);
    [
        policy.to_owned(),
        age(figures.background.quantile(0.5)),
        age(figures.background.quantile(0.95)),
        percent(figures.background.within(SOON)),
        percent(figures.background.within(LATER)),
        format!("{:.2}", figures.pushes_per_event()),
        percent(figures.wake_rate()),
        percent(figures.stopped()),
        format!("{:.1}", figures.battery_per_day()),
    ]
}

/// An age in the unit that people would use.
fn age(age: Option<Duration>) -> String {
    let Some(seconds) = age.map(|age| age.as_secs_f64()) else {
        return "never".to_owned();
    };
    match seconds {
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 3600.0 => format!("{:.1} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

fn draw(text: &mut String, lines: &[[String; COLUMNS]]) {
    let widths: [usize; COLUMNS] =
        std::array::from_fn(|column| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0));
    for (number, line) in lines.iter().enumerate() {
        for (column, (cell, width)) in line.iter().zip(widths).enumerate() {
            let _ = if column == 0 { write!(text, "| {cell:<width$} ") } else { write!(text, "| {cell:>width$} ") };
        }
        text.push_str("|\n");
        if number == 0 {
            for (column, width) in widths.into_iter().enumerate() {
                let end = if column == 0 { '-' } else { ':' };
                let _ = write!(text, "|{}{end}", "-".repeat(width + 1));
            }
            text.push_str("|\n");
        }
    }
    text.push('\n');
}

fn of(figures: &Figures) -> Value {
    let pushes = |class| -> Vec<Value> {
        let of_class = figures.pushes.iter().filter(|((of, _), _)| *of == class);
        of_class.map(|((_, end), n)| json!({"end": end, "pushes": n})).collect()
    };
    let waiting: Vec<Value> = figures.waiting.iter().map(|(rests, n)| json!({"reason": rests, "events": n})).collect();
    json!({
        "background": ages(&figures.background), "alerts": ages(&figures.alerts),
        "pushes": {"background": pushes(Class::Background), "alert": pushes(Class::Alert)},
        "refused": figures.refused, "own_polls": figures.own_polls, "waiting_at_the_end": waiting,
        "pushes_per_event": figures.pushes_per_event(), "wake_rate": figures.wake_rate(),
        "stopped": figures.stopped(), "battery_per_day": figures.battery_per_day(),
    })
}

fn ages(ages: &Ages) -> Value {
    let seconds = |share| ages.quantile(share).map(|age| age.as_secs_f64());
    json!({
        "events": ages.events(), "fetched": ages.fetched(), "median_s": seconds(0.5), "p95_s": seconds(0.95),
        "within_15min": ages.within(SOON), "within_1h": ages.within(LATER),
    })
}
