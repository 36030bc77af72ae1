//! Decisions by table and by property.

use proptest::prelude::*;

use super::*;

const NOW: Timestamp = Timestamp::from_ms(1_000_000_000);
const MINUTE: Duration = Duration::from_secs(60);
const TTL_ENDS: Timestamp = Timestamp::from_ms(1_000_000_000 + 60 * 60_000);

fn situation() -> Situation<'static> {
    Situation {
        status: DeviceStatus::Active,
        status_at: Timestamp::from_ms(0),
        reached: Position(3),
        told: Position(3),
        wake: Candidate {
            stage: Stage::Fresh,
            class: Class::Background,
            head: Position(7),
            expires_at: TTL_ENDS,
            cancel_on: CancelOn::Fetch,
        },
        feed: Followed::Still,
        credential: CredentialFit::Fits,
        unanswered: 0,
        rewakes: 0,
        rewake_from: Timestamp::from_ms(0),
        rewake_s: &[600, 1200],
        pace: Pace {
            pushed_at: None,
            gap_s: 60,
            bucket: Bucket::default(),
            budget: Budget { burst: 2, refill_s: 1800 },
        },
        alert_stored_until: None,
        grace: Grace::None,
    }
}

/// All of it has been told and nothing fetched, `unanswered` times, the last time at `at`; but for the first they were re-wakes.
fn told(s: &mut Situation<'_>, unanswered: u32, at: Timestamp) {
    (s.told, s.rewake_from, s.pace.pushed_at) = (s.wake.head, at, Some(at));
    (s.unanswered, s.rewakes) = (unanswered, unanswered - 1);
}

#[test]
fn decisions_by_table() {
    use Decision::{Defer, Drop, Send};
    let ago = |minutes: u32| NOW - MINUTE * minutes;
    let then = |minutes: u32| NOW + MINUTE * minutes;
    type Change<'a> = &'a dyn Fn(&mut Situation<'_>);
    let table: &[(&str, Change<'_>, Decision)] = &[
        ("something new", &|_| {}, Send),
        ("already fetched", &|s| s.reached = Position(7), Drop(DropReason::AlreadyFetched)),
        ("fetched, but it insists", &|s| (s.reached, s.wake.cancel_on) = (Position(7), CancelOn::Never), Send),
        ("told on behalf of the other class", &|s| s.told = Position(7), Drop(DropReason::AlreadyTold)),
        ("too late", &|s| s.wake.expires_at = NOW, Drop(DropReason::Expired)),
        ("token dead", &|s| s.status = DeviceStatus::Gone, Drop(DropReason::Gone)),
        ("feed left", &|s| s.feed = Followed::Left, Drop(DropReason::Unfollowed)),
        ("no credential", &|s| s.credential = CredentialFit::Missing, Drop(DropReason::NoCredential)),
        (
            "provider down",
            &|s| s.credential = CredentialFit::Resting(then(1)),
            Defer(then(1), DeferReason::ProviderDown),
        ),
        ("doubtful long ago", &|s| s.status = DeviceStatus::Quarantined, Send),
        (
            "doubtful just now, and worth waking for longer",
            &|s| {
                (s.status, s.status_at) = (DeviceStatus::Quarantined, NOW);
                s.wake.expires_at = NOW + PROBE_EVERY * 2;
            },
            Defer(NOW + PROBE_EVERY, DeferReason::Quarantined),
        ),
        (
            "doubtful just now, and worth less than the wait",
            &|s| (s.status, s.status_at) = (DeviceStatus::Quarantined, NOW),
            Defer(TTL_ENDS, DeferReason::Quarantined),
        ),
        ("silent for a month", &|s| s.status = DeviceStatus::Stale, Drop(DropReason::Stale)),
        (
            "silent for a month, but it is visible",
            &|s| (s.status, s.wake.class) = (DeviceStatus::Stale, Class::Alert),
            Send,
        ),
        ("in the gap", &|s| s.pace.pushed_at = Some(NOW), Defer(then(1), DeferReason::Gap)),
        ("after the gap", &|s| s.pace.pushed_at = Some(ago(1)), Send),
        ("out of budget", &|s| s.pace.bucket = Bucket { full_at: then(35) }, Defer(then(5), DeferReason::Budget)),
        ("one token left", &|s| s.pace.bucket = Bucket { full_at: then(30) }, Send),
        ("an alert is stored", &|s| s.alert_stored_until = Some(then(9)), Defer(then(9), DeferReason::AlertStored)),
        (
            "an alert is stored, and another comes",
            &|s| (s.alert_stored_until, s.wake.class) = (Some(then(9)), Class::Alert),
            Send,
        ),
        (
            "the latest time wins",
            &|s| {
                s.pace.pushed_at = Some(NOW);
                s.alert_stored_until = Some(then(9));
                s.pace.bucket = Bucket { full_at: then(35) };
            },
            Defer(then(9), DeferReason::AlertStored),
        ),
        ("online", &|s| s.grace = Grace::Begins(60), Defer(then(1), DeferReason::Online)),
        ("online, and in its grace", &|s| s.grace = Grace::Ends(then(1)), Defer(then(1), DeferReason::Online)),
        ("online, and its grace is over", &|s| s.grace = Grace::Ends(NOW), Send),
        (
            "online, and worth less than the grace",
            &|s| (s.grace, s.wake.expires_at) = (Grace::Begins(60), then(1)),
            Send,
        ),
        ("online without grace", &|s| s.grace = Grace::Begins(0), Send),
        (
            "online, and already there",
            &|s| (s.grace, s.reached) = (Grace::Begins(60), Position(7)),
            Drop(DropReason::AlreadyFetched),
        ),
        ("online, but it insists", &|s| (s.grace, s.wake.cancel_on) = (Grace::Begins(60), CancelOn::Never), Send),
        ("online, and a call failed", &|s| (s.grace, s.wake.stage) = (Grace::Begins(60), Stage::Open), Send),
        (
            "online, and in a gap that ends later",
            &|s| (s.grace, s.pace.pushed_at) = (Grace::Begins(30), Some(NOW)),
            Defer(then(1), DeferReason::Gap),
        ),
        ("told just now", &|s| told(s, 1, NOW), Defer(then(10), DeferReason::Rewake)),
        ("told ten minutes ago, and silent", &|s| told(s, 1, ago(10)), Send),
        ("told twice", &|s| told(s, 2, ago(10)), Defer(then(10), DeferReason::Rewake)),
        (
            "told of more and more news, and never again",
            &|s| {
                told(s, 5, ago(1));
                s.rewakes = 0;
            },
            Defer(then(9), DeferReason::Rewake),
        ),
        ("told as often as the list says", &|s| told(s, 3, ago(59)), Drop(DropReason::Unanswered)),
        (
            "no list",
            &|s| {
                told(s, 1, NOW);
                s.rewake_s = &[];
            },
            Drop(DropReason::Unanswered),
        ),
        (
            "the list is longer than its worth",
            &|s| {
                told(s, 1, NOW);
                s.wake.expires_at = then(10);
            },
            Drop(DropReason::Unanswered),
        ),
        (
            "told and fetched",
            &|s| {
                told(s, 1, ago(10));
                s.reached = Position(7);
            },
            Drop(DropReason::AlreadyFetched),
        ),
        (
            "an open re-wake is tried again",
            &|s| {
                told(s, 1, ago(10));
                s.wake.stage = Stage::Open;
            },
            Send,
        ),
        (
            "an open wake, and more has been told",
            &|s| (s.wake.stage, s.told) = (Stage::Open, Position(8)),
            Drop(DropReason::AlreadyTold),
        ),
    ];
    for (name, change, expected) in table {
        let mut situation = situation();
        change(&mut situation);
        assert_eq!(decide(&situation, NOW), *expected, "{name}");
    }
}

fn statuses() -> impl Strategy<Value = DeviceStatus> {
    use DeviceStatus::{Active, Gone, Quarantined, Stale};
    prop_oneof![Just(Active), Just(Quarantined), Just(Stale), Just(Gone)]
}

prop_compose! {
    /// Minutes are counted from an hour before now.
    fn situations()(
        status in statuses(), reached in 0..10i64, told in 0..10i64, head in 0..10i64, open: bool, alert: bool, unanswered in 0..4u32,
        minutes in proptest::collection::vec(0..120u32, 5), pushed: bool, stored: bool, resting: bool,
    ) -> Situation<'static> {
        let at = |index: usize| NOW - MINUTE * 60 + MINUTE * minutes[index];
        Situation {
            status,
            status_at: at(0),
            reached: Position(reached),
            told: Position(told),
            wake: Candidate {
                stage: if open { Stage::Open } else { Stage::Fresh },
                class: if alert { Class::Alert } else { Class::Background },
                head: Position(head),
                expires_at: at(1),
                cancel_on: CancelOn::Fetch,
            },
            credential: if resting { CredentialFit::Resting(at(2)) } else { CredentialFit::Fits },
            unanswered,
            rewakes: unanswered.saturating_sub(1),
            rewake_from: at(3).min(NOW),
            pace: Pace { pushed_at: pushed.then_some(at(3).min(NOW)), bucket: Bucket { full_at: at(4) }, ..situation().pace },
            alert_stored_until: stored.then_some(at(2)),
            ..situation()
        }
    }
}

proptest! {
    #[test]
    fn nobody_is_woken_who_is_there_or_late_or_gone(s in situations()) {
        if decide(&s, NOW) == Decision::Send {
            prop_assert!(s.reached < s.wake.head && NOW < s.wake.expires_at && s.status != DeviceStatus::Gone);
            prop_assert!(s.pace.pushed_at.is_none_or(|at| at + MINUTE <= NOW));
            prop_assert!(s.pace.bucket.next_token_at(s.pace.budget) <= NOW);
        }
    }

    #[test]
    fn news_is_sent_or_waits_until_a_time_at_which_it_ends_or_goes(s in situations()) {
        let news = s.reached < s.wake.head && s.told < s.wake.head && NOW < s.wake.expires_at;
        if news && s.status == DeviceStatus::Active {
            match decide(&s, NOW) {
                Decision::Send => {}
                Decision::Defer(until, _) => {
                    prop_assert!(NOW < until && until <= s.wake.expires_at);
                    // Nothing else has happened: then is the time.
                    let then = decide(&s, until);
                    prop_assert!(matches!(then, Decision::Send | Decision::Drop(DropReason::Expired)), "{then:?}");
                }
                Decision::Drop(reason) => prop_assert!(false, "a device with news was left alone: {reason:?}"),
            }
        }
    }
}
