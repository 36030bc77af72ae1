//! `reveille demo` as a reader of the README runs it.

use std::process::Command;
use std::time::{Duration, Instant};

fn demo(arguments: &[&str]) -> (bool, String, Duration) {
    let started = Instant::now();
    let output = Command::new(env!("CARGO_BIN_EXE_reveille")).arg("demo").args(arguments).output().unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    (output.status.success(), text, started.elapsed())
}

/// The number in front of `word` on the summary's line about `what`.
fn number(text: &str, what: &str, word: &str) -> usize {
    let line = text.lines().rfind(|line| line.trim_start().starts_with(what) && line.contains(word));
    let line = line.unwrap_or_else(|| panic!("no {what} with {word} in:\n{text}"));
    line.split(word).next().unwrap().split_whitespace().next_back().unwrap().parse().unwrap()
}

#[test]
fn the_demo_ends_with_the_true_state_on_every_phone() {
    let (success, text, took) = demo(&[]);
    assert!(success, "{text}");
    assert!(text.contains("20 of 20 phones have the true state"), "{text}");
    assert!(number(&text, "pushes", " of them lost") > 0, "{text}");
    assert!(number(&text, "pushes", " refused") > 0, "{text}");
    assert!(number(&text, "pushes", " put off") > 0, "{text}");
    assert!(number(&text, "polls", " because of a push") > 0, "{text}");
    assert!(number(&text, "polls", " by itself") > 0, "{text}");
    assert!(text.contains("has registered again with a new push token"), "{text}");
    assert!(took < Duration::from_secs(30), "it took {took:?}");
    assert!(!text.contains('\u{1b}'), "no colours where no terminal is");
    for line in text.lines() {
        assert!(line.chars().count() <= 100, "more than 100 columns: {line}");
    }
}

#[test]
fn one_phone_and_another_seed_do_as_well() {
    let (success, text, _) = demo(&["--phones", "1", "--seed", "3"]);
    assert!(success && text.contains("1 of 1 phones have the true state"), "{text}");
}
