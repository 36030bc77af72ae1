//! The demo's books: what was published, what became of its pushes, and which phone has it since when.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::plan::{self, Class};
use super::screen::{Look, Screen, time};
use crate::sim::phones::{Applied, Cause, Items};
use crate::sim::{Provider, Push};

/// A push that arrived this much before its phone came by itself was not heard.
const UNHEARD: Duration = Duration::from_millis(500);
/// The columns of a line that belong to the update, before those of a phone.
const HEAD_COLUMNS: usize = 52;

/// A published update.
pub struct Update {
    pub order: usize,
    pub stage: usize,
    pub position: i64,
    /// When the backend asked, after the start of the stream.
    pub at: Duration,
    /// The same on the demo's clock, and on the providers' in milliseconds since the epoch.
    pub asked: Instant,
    pub asked_ms: i64,
    /// From the backend's request to the relay's 202.
    pub accepted: Duration,
}

/// How a phone came to have an update.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Got {
    /// Since the backend's request.
    pub after: Duration,
    pub cause: Cause,
}

struct Entry {
    update: Update,
    /// Each phone that follows, and how it got it.
    phones: Vec<(usize, Option<Got>)>,
    shown: bool,
}

/// See above.
#[derive(Default)]
pub struct Ledger {
    entries: BTreeMap<i64, Entry>,
    /// What is true, by feed and key.
    truth: HashMap<(String, String), (i64, Value)>,
}

impl Ledger {
    /// Notes what is true now.
    pub fn publish(&mut self, order: usize, status: &str, position: i64) {
        self.truth.insert((plan::feed(order), plan::key(order)), (position, plan::data(status)));
    }

    /// Notes an update that these phones are to read.
    pub fn expect(&mut self, update: Update, phones: &[usize]) {
        let phones = phones.iter().map(|phone| (*phone, None)).collect();
        self.entries.insert(update.position, Entry { update, phones, shown: false });
    }

    /// Notes what a phone has read.
    pub fn read(&mut self, phone: usize, applied: &[Applied], cause: &Cause, at: Instant) {
        for event in applied {
            let Some(entry) = self.entries.get_mut(&event.position) else { continue };
            let after = at.saturating_duration_since(entry.update.asked);
            for (_, got) in entry.phones.iter_mut().filter(|(whose, got)| *whose == phone && got.is_none()) {
                *got = Some(Got { after, cause: cause.clone() });
            }
        }
    }

    /// The updates that all their phones have by now and that have not been shown, oldest first.
    pub fn complete(&mut self) -> Vec<i64> {
        self.unshown(|entry| entry.phones.iter().all(|(_, got)| got.is_some()))
    }

    /// Those that have not been shown for whatever reason.
    pub fn rest(&mut self) -> Vec<i64> {
        self.unshown(|_| true)
    }

    fn unshown(&mut self, wanted: impl Fn(&Entry) -> bool) -> Vec<i64> {
        let found = self.entries.values_mut().filter(|entry| !entry.shown && wanted(entry));
        found
            .map(|entry| {
                entry.shown = true;
                entry.update.position
            })
            .collect()
    }

    /// Whether `items` is exactly what was published in the feed of `order`.
    pub fn is_true(&self, items: &Items, order: usize) -> bool {
        let feed = plan::feed(order);
        let expected = self.truth.iter().filter(|((of, _), _)| *of == feed);
        expected.clone().count() == items.len()
            && expected.clone().all(|(place, (position, data))| {
                items.get(place).is_some_and(|item| item.position == *position && item.data == *data)
            })
    }

    /// How long each reading took, with what caused it.
    pub fn readings(&self) -> Vec<&Got> {
        self.entries.values().flat_map(|entry| entry.phones.iter().filter_map(|(_, got)| got.as_ref())).collect()
    }

    /// What the phones were to read in all.
    pub fn expected(&self) -> usize {
        self.entries.values().map(|entry| entry.phones.len()).sum()
    }

    /// The lines about an update: one per phone. `who` gives a phone's name and the pushes to it so far.
    pub fn lines<'a>(&self, screen: Screen, position: i64, who: impl Fn(usize) -> (&'a str, Vec<Push>)) -> Vec<String> {
        let Some(Entry { update, phones, .. }) = self.entries.get(&position) else { return Vec::new() };
        let (status, class) = plan::stage(update.stage);
        let mut head = format!(
            "{:>6.2}  {:<8}  {:<16}  {:<6}  {:>8}",
            update.at.as_secs_f64(),
            plan::key(update.order),
            status,
            class.word(),
            time(update.accepted),
        );
        if class == Class::Alert {
            head = head.replace(class.word(), &screen.paint(Look::Bold, class.word()));
        }
        let blank = " ".repeat(HEAD_COLUMNS);
        let mut lines = Vec::new();
        for (at, (phone, got)) in phones.iter().enumerate() {
            let (name, pushes) = who(*phone);
            let fate = fate(update, &pushes, got.as_ref());
            let head = if at == 0 { &head } else { &blank };
            lines.push(format!(
                "{head}  {}  {name:<10}  {}",
                fate.show(screen),
                show_got(screen, got.as_ref(), fate.brought)
            ));
        }
        lines
    }
}

/// What became of the first push for an update to one phone, and whether that or another one brought the phone.
struct Fate {
    provider: Option<Provider>,
    words: String,
    look: Look,
    /// What brought the phone, if a push did.
    brought: &'static str,
}

impl Fate {
    fn show(&self, screen: Screen) -> String {
        let provider = match self.provider {
            Some(Provider::Apns) => "apns",
            Some(Provider::Fcm) => "fcm",
            None => "",
        };
        format!("{provider:<4} {}", screen.paint(self.look, &format!("{:>9}", self.words)))
    }
}

fn fate(update: &Update, pushes: &[Push], got: Option<&Got>) -> Fate {
    let wake_of = |push: &Push| push.trigger().and_then(|mut trigger| trigger.remove("wake"));
    let announces = |push: &&Push| {
        let head = push.trigger().and_then(|trigger| trigger.get("head")?.parse::<i64>().ok());
        push.at_ms >= update.asked_ms && head.is_some_and(|head| head >= update.position)
    };
    let Some(push) = pushes.iter().find(announces) else {
        return Fate { provider: None, words: "-".to_owned(), look: Look::Dim, brought: "push" };
    };
    let after = Duration::from_millis(u64::try_from(push.at_ms - update.asked_ms).unwrap_or_default());
    let heard = got.is_none_or(|got| got.after <= after + UNHEARD);
    let (words, look) = match push.status {
        200 if !push.delivered => ("lost".to_owned(), Look::Bad),
        200 if !heard => ("missed".to_owned(), Look::Bad),
        200 => (time(after), Look::Plain),
        404 | 410 => (format!("{} dead", push.status), Look::Bad),
        status => (format!("{status} later"), Look::Odd),
    };
    let brought = match got.map(|got| &got.cause) {
        Some(Cause::Push { wake }) if wake_of(push).as_ref() != Some(wake) => "next push",
        Some(Cause::Push { .. }) if push.status != 200 => "retried",
        _ => "push",
    };
    Fate { provider: Some(push.provider), words, look, brought }
}

fn show_got(screen: Screen, got: Option<&Got>, brought: &str) -> String {
    let Some(got) = got else {
        return screen.paint(Look::Bad, "      -  not yet");
    };
    let (how, look) = match got.cause {
        Cause::Push { .. } => (brought, Look::Good),
        Cause::Itself | Cause::Start => ("own poll", Look::Odd),
    };
    format!("{:>7}  {}", time(got.after), screen.paint(look, how))
}
