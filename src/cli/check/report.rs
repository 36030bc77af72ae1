//! The findings of a check: one line each as they come, or all of them as JSON in the end.

use serde_json::{Value, json};

use crate::cli::{
    exit::Exit,
    screen::{Look, Screen},
    text::{count, printable, wrapped},
};

/// Columns before what is found: the verdict, and about what.
const VERDICT: usize = 13;
const ABOUT: usize = 17;

/// How it stands with one thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Ok,
    Warning,
    Failed,
    NotChecked,
}

impl Verdict {
    const ALL: [Self; 4] = [Self::Ok, Self::Warning, Self::Failed, Self::NotChecked];

    const fn words(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Failed => "failed",
            Self::NotChecked => "not checked",
        }
    }

    const fn look(self) -> Look {
        match self {
            Self::Ok => Look::Good,
            Self::Warning => Look::Odd,
            Self::Failed => Look::Bad,
            Self::NotChecked => Look::Dim,
        }
    }
}

/// How it is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// Lines as they come.
    People,
    /// One document in the end.
    Json,
}

/// What has been found so far.
#[derive(Debug)]
pub struct Report {
    screen: Screen,
    form: Form,
    area: &'static str,
    verdicts: Vec<Verdict>,
    pub(super) findings: Vec<Value>,
}

impl Report {
    /// Nothing yet.
    pub fn new(form: Form) -> Self {
        Self { screen: Screen::new(), form, area: "", verdicts: Vec::new(), findings: Vec::new() }
    }

    /// What comes next is about this.
    pub fn area(&mut self, area: &'static str) {
        if self.form == Form::People {
            if !self.area.is_empty() {
                self.screen.line("");
            }
            self.screen.line(self.screen.paint(Look::Bold, area));
        }
        self.area = area;
    }

    /// It is as it should be.
    pub fn ok(&mut self, about: &str, says: impl Into<String>) {
        self.add(Verdict::Ok, about, says.into(), None);
    }

    /// It works, but somebody should look at it.
    pub fn warning(&mut self, about: &str, says: impl Into<String>, todo: impl Into<String>) {
        self.add(Verdict::Warning, about, says.into(), Some(todo.into()));
    }

    /// It does not work.
    pub fn failed(&mut self, about: &str, says: impl Into<String>, todo: impl Into<String>) {
        self.add(Verdict::Failed, about, says.into(), Some(todo.into()));
    }

    /// It could not be looked at.
    pub fn not_checked(&mut self, about: &str, says: impl Into<String>, todo: impl Into<String>) {
        self.add(Verdict::NotChecked, about, says.into(), Some(todo.into()));
    }

    fn add(&mut self, verdict: Verdict, about: &str, says: String, todo: Option<String>) {
        let todo = todo.filter(|todo| !todo.is_empty());
        if self.form == Form::People {
            self.show(verdict, about, &says, todo.as_deref());
        }
        self.verdicts.push(verdict);
        let word = verdict.words().replace(' ', "_");
        self.findings.push(json!({"area": self.area, "about": about, "verdict": word, "says": says, "todo": todo}));
    }

    fn show(&self, verdict: Verdict, about: &str, says: &str, todo: Option<&str>) {
        let screen = self.screen;
        let word = screen.paint(verdict.look(), &format!("{:<VERDICT$}", verdict.words()));
        let about = printable(about);
        // What is longer than its column pushes what comes after it.
        let about = format!("{about:<width$} ", width = ABOUT - 1);
        let indent = 2 + VERDICT + ABOUT;
        let lines = wrapped(&printable(says), screen.prose() - indent);
        for (at, line) in lines.into_iter().enumerate() {
            let front = if at == 0 { format!("  {word}{about}") } else { " ".repeat(indent) };
            screen.line(format!("{front}{line}"));
        }
        let Some(todo) = todo else { return };
        let indent = 2 + VERDICT;
        for (at, line) in wrapped(&printable(todo), screen.prose() - indent - 2).into_iter().enumerate() {
            let arrow = if at == 0 { "→" } else { " " };
            screen.line(format!("{}{arrow} {line}", " ".repeat(indent)));
        }
    }

    /// The last word.
    pub fn end(self) -> Exit {
        let of = |verdict: Verdict| self.verdicts.iter().filter(|one| **one == verdict).count();
        let failed = of(Verdict::Failed);
        let screen = self.screen;
        match self.form {
            Form::Json => screen.line(json!({"ok": failed == 0, "findings": self.findings}).to_string()),
            Form::People => {
                let counts = Verdict::ALL.into_iter().filter(|verdict| of(*verdict) > 0).map(|verdict| match verdict {
                    Verdict::Warning => count(of(verdict), "warning"),
                    _ => format!("{} {}", of(verdict), verdict.words()),
                });
                let look = if failed > 0 { Look::Bad } else { Look::Good };
                screen.line("");
                screen.line(screen.paint(look, &counts.collect::<Vec<_>>().join(", ")));
            }
        }
        self.exit()
    }

    /// Whether something has failed.
    pub fn exit(&self) -> Exit {
        if self.verdicts.contains(&Verdict::Failed) { Exit::Found } else { Exit::Done }
    }
}
