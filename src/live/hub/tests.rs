//! Nothing is lost between the database and a connection, however reading, telling and changes of what it follows fall together.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::{
    domain::{
        event::{Event, NewEvent, WakeSpec},
        id,
        time::Timestamp,
    },
    store::subject,
};

const AT: Timestamp = Timestamp::from_ms(0);

fn feed(name: &str) -> FeedName {
    FeedName::parse(name).unwrap()
}

fn stored(position: i64, name: &str) -> StoredEvent {
    let content = NewEvent {
        feed: feed(name),
        kind: "t".to_owned(),
        key: None,
        op: None,
        href: None,
        data: None,
        occurred_at: None,
        wake: WakeSpec::default(),
    };
    let event = Event { id: id::new(AT), position: Position(position), accepted_at: AT, occurred_at: AT, content };
    StoredEvent { event, traceparent: None }
}

fn place(id: u64, app: AppId, device: DeviceId) -> Arc<Place> {
    Arc::new(Place::new(id, app, Who::Device(device, String::new()), Purpose::Stream(Channel::Sse)))
}

/// An app as the database knows it: at each position an event in a feed, or a change of what the device follows.
#[derive(Debug, Clone, Default)]
struct Database {
    at: Vec<Row>,
    /// Since when the device follows each feed.
    follows: BTreeMap<&'static str, i64>,
}

#[derive(Debug, Clone, Copy)]
enum Row {
    Event(&'static str),
    Change,
}

impl Database {
    fn counter(&self) -> i64 {
        self.at.len() as i64
    }

    /// What has come in up to a position, as the tail reads it.
    fn news(&self, after: i64, through: i64, device: DeviceId) -> News {
        let mut news = News { through: Position(through), has_more: false, events: Vec::new(), changed: Vec::new() };
        for position in after + 1..=through {
            match self.at[position as usize - 1] {
                Row::Event(name) => news.events.push(stored(position, name)),
                Row::Change => news.changed.push(subject(&device.to_string())),
            }
        }
        news
    }

    /// A page, as the connection reads it.
    fn page(&self, after: i64) -> (Vec<i64>, Vec<FeedName>) {
        let seen = (after + 1..=self.counter()).filter(|position| match self.at[*position as usize - 1] {
            Row::Event(name) => self.follows.get(name).is_some_and(|since| since < position),
            Row::Change => false,
        });
        (seen.collect(), self.follows.keys().map(|name| feed(name)).collect())
    }
}

/// What may happen, in any order.
#[derive(Debug, Clone, Copy)]
enum Step {
    /// An event is accepted.
    Event(&'static str),
    /// The device comes to follow a feed.
    Follow(&'static str),
    /// It leaves one.
    Leave(&'static str),
    /// The tail reads on, and has not yet told.
    ReadNews,
    /// It tells what it has read.
    Tell,
    /// The connection breaks off, and another takes its place.
    Reconnect,
    /// The connection reads a page, and has not yet said so.
    Read,
    /// It says what it has read, and listens.
    Listen,
    /// It takes what it hears.
    Hear,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let name = prop_oneof![Just("a"), Just("b"), Just("c")];
    let step = prop_oneof![
        4 => name.clone().prop_map(Step::Event),
        1 => name.clone().prop_map(Step::Follow),
        1 => name.prop_map(Step::Leave),
        3 => Just(Step::ReadNews),
        3 => Just(Step::Tell),
        1 => Just(Step::Reconnect),
        2 => Just(Step::Read),
        2 => Just(Step::Listen),
        3 => Just(Step::Hear),
    ];
    prop::collection::vec(step, 1..80)
}

/// The connection's own state, as `api/live/line` keeps it.
struct Line {
    told: i64,
    seen: Vec<i64>,
    listens: bool,
    /// Read, and not yet told.
    page: Option<(i64, Vec<i64>, Vec<FeedName>)>,
}

impl Line {
    fn read(&mut self, app: &Database) {
        if !self.listens && self.page.is_none() {
            let (entries, feeds) = app.page(self.told);
            self.page = Some((app.counter(), entries, feeds));
        }
    }

    fn listen(&mut self, hub: &mut Hub, place: &Arc<Place>) {
        if let Some((counter, entries, feeds)) = self.page.take() {
            self.listens = hub.listen(place, &feeds, Position(counter));
            self.seen.extend(entries);
            self.told = counter;
        }
    }

    fn hear(&mut self, place: &Place) {
        if !self.listens {
            return;
        }
        let heard = place.mail().take();
        match heard {
            None => {}
            Some(Heard::Anew) => self.listens = false,
            Some(Heard::End(why)) => panic!("{why:?}"),
            Some(Heard::Events(items)) => {
                for item in items {
                    let position = item.stored.event.position.0;
                    if position > self.told {
                        self.seen.push(position);
                        self.told = position;
                    }
                }
            }
        }
    }
}

proptest! {
    // Rare orders are what it is about.
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn a_connection_is_told_everything_in_order_and_once(steps in steps()) {
        let (id, device) = (id::new(AT), id::new(AT));
        let (mut hub, mut app, mut place) = (Hub::default(), Database::default(), place(0, id, device));
        let mut line = Line { told: 0, seen: Vec::new(), listens: false, page: None };
        hub.join(&place).unwrap();
        let mut read = None;
        let read_news = |hub: &Hub, app: &Database| {
            let (_, after) = *hub.positions().first()?;
            Some((after, app.news(after.0, app.counter(), device)))
        };
        for (number, step) in (1..).zip(steps) {
            match step {
                Step::Event(name) => app.at.push(Row::Event(name)),
                Step::Follow(name) => {
                    app.at.push(Row::Change);
                    let since = app.counter();
                    app.follows.entry(name).or_insert(since);
                }
                Step::Leave(name) => {
                    app.at.push(Row::Change);
                    app.follows.remove(name);
                }
                Step::ReadNews => read = read.or_else(|| read_news(&hub, &app)),
                Step::Tell => {
                    if let Some((after, news)) = read.take() {
                        hub.tell(id, after, news);
                    }
                }
                Step::Reconnect => {
                    hub.leave(&place);
                    place = self::place(number, id, device);
                    hub.join(&place).unwrap();
                    (line.listens, line.page) = (false, None);
                }
                Step::Read => line.read(&app),
                Step::Listen => line.listen(&mut hub, &place),
                Step::Hear => line.hear(&place),
            }
        }
        // In the end it is quiet, and everybody gets to it.
        for _ in 0..5 {
            if let Some((after, news)) = read.take().or_else(|| read_news(&hub, &app)) {
                hub.tell(id, after, news);
            }
            line.hear(&place);
            line.read(&app);
            line.listen(&mut hub, &place);
        }
        prop_assert!(line.seen.is_sorted_by(|a, b| a < b), "in order, and once: {:?}", line.seen);
        // What it has left by now it may have been told of before.
        let missed: Vec<i64> = app.page(0).0.into_iter().filter(|position| !line.seen.contains(position)).collect();
        prop_assert_eq!(missed, Vec::<i64>::new());
    }
}

#[tokio::test]
async fn more_than_fits_is_read_anew_and_who_takes_nothing_is_ended() {
    let (app, device) = (id::new(AT), id::new(AT));
    let (mut hub, place) = (Hub::default(), place(1, app, device));
    assert_eq!(hub.join(&place), Ok(true));
    assert!(hub.listen(&place, &[feed("a")], Position(0)));
    let many = |from: i64| News {
        through: Position(from + 100),
        has_more: false,
        events: (from + 1..=from + 100).map(|position| stored(position, "a")).collect(),
        changed: Vec::new(),
    };
    hub.tell(app, Position(0), many(0));
    assert!(place.mail().events.len() <= WAITING);
    assert!(matches!(place.heard().await, Heard::Anew));
    hub.tell(app, Position(100), many(100));
    place.mail().full_since = Instant::now().checked_sub(STALLED * 2);
    assert!(matches!(place.heard().await, Heard::End(End::TooSlow)));
}

#[tokio::test]
async fn of_a_scope_one_waits_and_of_a_device_four_stream() {
    let (app, device) = (id::new(AT), id::new(AT));
    let mut hub = Hub::default();
    let wait = |id| Arc::new(Place::new(id, app, Who::Key(id::new(AT)), Purpose::Wait("scope".to_owned())));
    let (older, newer) = (wait(1), wait(2));
    hub.join(&older).unwrap();
    hub.join(&newer).unwrap();
    assert!(matches!(older.heard().await, Heard::End(End::Replaced)));
    assert!(newer.mail().take().is_none());
    hub.leave(&older);
    assert!(hub.waits.contains_key("scope"), "the newer one waits on");
    hub.leave(&newer);

    let streams: Vec<_> = (3..9).map(|id| place(id, app, device)).collect();
    for stream in &streams {
        hub.join(stream).unwrap();
    }
    let ended = streams.iter().map(|stream| stream.mail().ended.is_some());
    assert_eq!(ended.collect::<Vec<_>>(), [true, true, false, false, false, false]);
    for (index, stream) in streams.iter().enumerate() {
        hub.listen(stream, &[feed("a")], Position(0));
        assert_eq!(hub.leave(stream), index == streams.len() - 1);
    }
    assert!(hub.apps.is_empty() && hub.by_subject.is_empty() && hub.waits.is_empty(), "nobody is left");
}

#[test]
fn who_is_named_looks_anew_and_nobody_else() {
    let (app, [one, other]) = (id::new(AT), [id::new(AT), id::new(AT)]);
    let (mut hub, places) = (Hub::default(), [place(1, app, one), place(2, app, other)]);
    for place in &places {
        hub.join(place).unwrap();
        hub.listen(place, &[feed("a")], Position(0));
    }
    let changed = vec![subject(&one.to_string())];
    hub.tell(app, Position(0), News { through: Position(1), has_more: false, events: Vec::new(), changed });
    assert!(matches!(places[0].mail().take(), Some(Heard::Anew)));
    assert!(places[1].mail().take().is_none());
}
