//! The house rules that no compiler checks: who may use whom, what a file looks like, and that the map is complete.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// What each floor may use of the crate. `cli`, `lib` and `main` may use everything.
const FLOORS: &[(&str, &[&str])] = &[
    ("domain", &["secret"]),
    ("fault", &["domain"]),
    ("secret", &[]),
    ("telemetry", &[]),
    ("metrics", &["domain"]),
    ("config", &["secret", "telemetry"]),
    ("store", &["fault", "domain", "secret", "config", "metrics", "telemetry"]),
    ("transport", &["domain", "secret", "config", "metrics", "telemetry"]),
    ("live", &["store", "domain", "metrics"]),
    ("api", &["live", "store", "transport", "domain", "secret", "config", "metrics", "telemetry"]),
    ("dispatch", &["fault", "store", "transport", "domain", "secret", "config", "metrics", "telemetry"]),
    ("sim", &["domain"]),
    ("relay", &["api", "dispatch", "live", "store", "transport", "domain", "secret", "config", "metrics", "telemetry"]),
];

/// Who may name these crates at all.
const CRATES: &[(&str, &[&str])] = &[
    ("sqlx", &["store"]),
    ("rusqlite", &["store"]),
    ("axum", &["api", "sim"]),
    ("reqwest", &["transport", "sim", "cli"]),
    ("hyper::client", &["transport", "sim", "cli"]),
    ("hyper_util::client", &["transport", "sim", "cli"]),
];

/// Names that say nothing about what is inside.
const EMPTY_NAMES: &[&str] = &["utils", "util", "helpers", "helper", "common", "types", "manager", "service"];

const MOST_LINES: usize = 500;

#[test]
fn no_import_points_up() {
    check(|file, problems| {
        let Some((_, allowed)) = FLOORS.iter().find(|(floor, _)| *floor == file.floor) else {
            assert!(["cli", "lib", "main"].contains(&file.floor.as_str()), "{} is on no floor", file.name);
            return;
        };
        for used in crate_names(&file.code) {
            if used != file.floor && !allowed.contains(&used.as_str()) {
                problems.push(format!("{}: {} may not use {used}", file.name, file.floor));
            }
        }
        if file.code.contains("super::super::") {
            problems.push(format!("{}: write crate::… for super::super::…, so that this test sees it", file.name));
        }
    });
}

#[test]
fn outside_crates_stay_on_their_floors() {
    check(|file, problems| {
        for (name, floors) in CRATES {
            if after_each(&file.code, name).any(|rest| !rest.starts_with(is_word)) && !floors.contains(&&*file.floor) {
                problems.push(format!("{}: {name} belongs to {floors:?}", file.name));
            }
        }
    });
}

#[test]
fn files_are_short_and_say_what_they_are_for() {
    check(|file, problems| {
        let lines = file.text.lines().count();
        if lines > MOST_LINES {
            problems.push(format!("{}: {lines} lines are more than {MOST_LINES}", file.name));
        }
        if !file.text.starts_with("//! ") {
            problems.push(format!("{}: the first line does not say what the file is for", file.name));
        }
        let parts = file.name.split('/').map(|part| part.trim_end_matches(".rs"));
        let inline = after_each(&file.code, "mod").map(|rest| rest.trim_start().split(|c| !is_word(c)).next().unwrap());
        for name in parts.chain(inline).filter(|name| EMPTY_NAMES.contains(name)) {
            problems.push(format!("{}: `{name}` says nothing about what is inside", file.name));
        }
    });
}

#[test]
fn the_architecture_names_every_folder() {
    let map = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    for entry in fs::read_dir(root().join("src")).unwrap().map(Result::unwrap) {
        let name = entry.file_name().into_string().unwrap();
        let shown = if entry.path().is_dir() { format!("`{name}/`") } else { format!("`{name}`") };
        assert!(map.contains(&shown), "ARCHITECTURE.md does not name {shown}");
    }
}

#[test]
fn this_test_finds_what_it_looks_for() {
    let code = "use crate::{\n    domain::{id, time},\n    store::Store,\n};\nfn f() { crate::relay::run() }";
    assert_eq!(crate_names(code).into_iter().collect::<Vec<_>>(), ["domain", "relay", "store"]);
}

struct File {
    /// Its path from `src`.
    name: String,
    floor: String,
    text: String,
    /// The text without the lines that are comments.
    code: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(rule: impl Fn(&File, &mut Vec<String>)) {
    let (mut files, mut problems) = (Vec::new(), Vec::new());
    collect(&root().join("src"), &mut files);
    assert!(!files.is_empty());
    for path in files {
        let text = fs::read_to_string(&path).unwrap();
        let name = path.strip_prefix(root().join("src")).unwrap().display().to_string();
        let floor = name.split('/').next().unwrap().trim_end_matches(".rs").to_owned();
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//")).collect::<Vec<_>>().join("\n");
        rule(&File { name, floor, text, code }, &mut problems);
    }
    assert!(problems.is_empty(), "\n{}\n", problems.join("\n"));
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

/// The first names behind `crate::`, also those of a group in braces.
fn crate_names(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for rest in after_each(code, "crate").filter_map(|rest| rest.strip_prefix("::")) {
        let word = |text: &str| text.trim_start().split(|c| !is_word(c)).next().unwrap().to_owned();
        let Some(group) = rest.strip_prefix('{') else {
            names.insert(word(rest));
            continue;
        };
        let (mut depth, mut start) = (0, 0);
        for (at, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                '}' if depth > 0 => depth -= 1,
                ',' | '}' if depth == 0 => {
                    names.insert(word(&group[start..at]));
                    start = at + 1;
                    if c == '}' {
                        break;
                    }
                }
                _ => {}
            }
        }
    }
    names.remove("");
    names
}

/// What stands behind each occurrence of a name that is not the end of a longer one.
fn after_each<'a>(code: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    code.match_indices(name).filter(|(at, _)| !code[..*at].ends_with(is_word)).map(|(at, _)| &code[at + name.len()..])
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}
