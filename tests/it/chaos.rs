//! The loop under chance: crashes between claim and answer, answers of every kind, polls at any time. It always converges, no event is lost,
//! nobody is woken for what it has, and no budget is broken.

use std::{collections::HashMap, time::Duration};

use rand::{RngExt, SeedableRng, rngs::StdRng, seq::IndexedRandom};
use reveille::{
    domain::{
        budget::Bucket,
        event::Class,
        push::{Meaning, Reply},
        settings::Settings,
        time::Timestamp,
    },
    store::{Call, Finished},
};

use crate::support::{phone::Phone, world::World};

const SEEDS: u64 = 12;
const STEPS: usize = 120;

/// What has been accepted, to hold it against the budgets.
#[derive(Default)]
struct Accepted(HashMap<(String, Class), Vec<Timestamp>>);

impl Accepted {
    /// Every push found a token, had the bucket been emptied by those before it and by nothing else.
    fn hold_against_budgets(&self, phones: &[Phone<'_>]) {
        let settings = Settings::default();
        for ((device, class), times) in &self.0 {
            let phone = phones.iter().find(|phone| phone.id == *device).unwrap();
            let platform = serde_json::from_value(phone.registered["platform"].clone()).unwrap();
            let budget = settings.policy(platform, *class).budget;
            let mut bucket = Bucket::default();
            for at in times {
                assert!(bucket.next_token_at(budget) <= *at, "{device} was pushed to without a token");
                bucket = bucket.spent(budget, *at);
            }
        }
    }
}

#[tokio::test]
async fn whatever_happens_it_converges() {
    for seed in 0..SEEDS {
        let world = World::start().await;
        let phones = [
            world.phone("pixel").follows(&["a", "b"]).await,
            world.phone("iphone").ios().follows(&["a"]).await,
            world.phone("other").follows(&["b"]).await,
        ];
        let mut chance = StdRng::seed_from_u64(seed);
        let mut accepted = Accepted::default();
        let mut events: HashMap<&str, Vec<i64>> = HashMap::new();
        for _ in 0..STEPS {
            match chance.random_range(0..10) {
                0..=2 => {
                    let feed = *["a", "b"].choose(&mut chance).unwrap();
                    let event = match chance.random_range(0..4) {
                        0 => world.alert(feed, "news").await,
                        _ => world.publish(feed).await,
                    };
                    events.entry(feed).or_default().push(event["position"].as_i64().unwrap());
                }
                3..=6 => {
                    for call in claim(&world, &phones).await {
                        // Some calls are never heard of again.
                        if chance.random_bool(0.8) {
                            answer(&world, call, &mut chance, &mut accepted).await;
                        }
                    }
                }
                7 => drop(phones.choose(&mut chance).unwrap().sync().await),
                _ => world.clock.advance(Duration::from_secs(chance.random_range(1..2000))),
            }
        }
        // The phones stay silent, and everything that is sent is accepted.
        for _ in 0..400 {
            for call in claim(&world, &phones).await {
                finish(&world, call, Meaning::Accepted, &mut accepted).await;
            }
            match world.next_due().await {
                Some(due) => world.clock.advance(due.since(world.clock.now())),
                None => break,
            }
        }
        assert_eq!(world.next_due().await, None, "seed {seed}: it comes to rest");
        accepted.hold_against_budgets(&phones);
        for (phone, feeds) in phones.iter().zip([vec!["a", "b"], vec!["a"], vec!["b"]]) {
            let mut expected: Vec<i64> = feeds.iter().filter_map(|feed| events.get(feed)).flatten().copied().collect();
            expected.sort_unstable();
            let begin = phone.registered["poll"]["cursor"].as_str().unwrap();
            let page = phone.get(&format!("/v1/sync?after={begin}&limit=500")).await.expect(200);
            let read: Vec<i64> =
                page["events"].as_array().unwrap().iter().map(|event| event["position"].as_i64().unwrap()).collect();
            assert_eq!(read, expected, "seed {seed}");
        }
        world.stop().await;
    }
}

/// Claims, and makes sure that nobody is woken for what it has.
async fn claim(world: &World, phones: &[Phone<'_>]) -> Vec<Call> {
    let calls = world.claim().await;
    for call in &calls {
        let phone = phones.iter().find(|phone| phone.id == call.device.to_string()).unwrap();
        let [fetched, _] = phone.levels().await;
        assert!(call.trigger.head.0 > fetched, "{} has {fetched} and is woken for {}", phone.id, call.trigger.head);
    }
    calls
}

async fn answer(world: &World, call: Call, chance: &mut StdRng, accepted: &mut Accepted) {
    use Meaning::{
        Accepted as Fine, CredentialFault, DoubtfulToken, OurFault, Throttled, Timeout, Unavailable, Unreachable,
    };
    let likely = [
        Fine,
        Fine,
        Fine,
        Fine,
        Unavailable,
        Throttled,
        Unreachable,
        Timeout,
        OurFault,
        CredentialFault,
        DoubtfulToken,
    ];
    let meaning = *likely.choose(chance).unwrap();
    // Some answers come when the lease is long over.
    if chance.random_bool(0.1) {
        world.clock.advance(Duration::from_secs(60));
    }
    finish(world, call, meaning, accepted).await;
}

async fn finish(world: &World, call: Call, meaning: Meaning, accepted: &mut Accepted) {
    let in_time = world.clock.now() < call.lease_ends_at;
    if meaning == Meaning::Accepted && in_time {
        let key = (call.device.to_string(), call.wake_class);
        accepted.0.entry(key).or_default().push(call.started_at);
    }
    let reply = Reply { meaning, status: None, reason: None, provider_id: None, retry_after: None, bytes: 0 };
    world.relay().store().finish(Finished { call, duration: Duration::ZERO, reply }).await.unwrap();
}
