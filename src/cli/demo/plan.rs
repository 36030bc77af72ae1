//! What happens in the demo, and when: the stream of order updates and the accidents in it.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

use crate::sim::Provider;

/// What an order goes through, with the class of the wake.
const STAGES: [(&str, Class); 3] =
    [("packed", Class::Silent), ("out for delivery", Class::Alert), ("delivered", Class::Silent)];
/// From the first update to the last.
const STREAM: Duration = Duration::from_millis(7500);
/// FCM requests that are answered 503 in its bad moment.
pub const HICCUP_REQUESTS: usize = 5;
/// How long FCM asks the relay to wait then.
pub const HICCUP_RETRY_AFTER_S: u32 = 1;

/// How a wake shows on the phone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Text to see.
    Alert,
    /// Nothing to see.
    Silent,
}

impl Class {
    /// As it is shown.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Alert => "alert",
            Self::Silent => "silent",
        }
    }
}

/// A phone of the plan.
#[derive(Debug, Clone)]
pub struct Cast {
    pub name: String,
    pub provider: Provider,
    /// The index of the order it follows.
    pub order: usize,
}

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// An order reaches this stage.
    Update { order: usize, stage: usize },
    /// The push token of this phone dies.
    TokenDies { phone: usize },
    /// FCM has a bad moment.
    Hiccup,
    /// This phone loses the network.
    Offline { phone: usize },
    /// It has it again.
    Online { phone: usize },
}

/// Who takes part and what happens at which time after the start.
pub struct Plan {
    pub cast: Vec<Cast>,
    pub orders: usize,
    pub steps: Vec<(Duration, Step)>,
}

impl Plan {
    /// A plan for so many phones, the same for the same seed.
    pub fn new(phones: usize, seed: u64) -> Self {
        let mut dice = StdRng::seed_from_u64(seed);
        let orders = (phones * 4 / 5).max(1);
        let cast: Vec<_> = (0..phones).map(|phone| member(phone, orders)).collect();
        let updates = orders * STAGES.len();
        let slot = STREAM / u32::try_from(updates).unwrap_or(u32::MAX);
        let (mut steps, mut at) = (Vec::new(), Duration::ZERO);
        for stage in 0..STAGES.len() {
            let mut turn: Vec<_> = (0..orders).collect();
            turn.shuffle(&mut dice);
            for order in turn {
                steps.push((at + slot.mul_f64(dice.random_range(0.0..0.6)), Step::Update { order, stage }));
                at += slot;
            }
        }
        add_accidents(&mut steps, &cast);
        steps.sort_by_key(|(at, _)| *at);
        Self { cast, orders, steps }
    }

    /// The updates in it.
    pub fn updates(&self) -> usize {
        self.orders * STAGES.len()
    }
}

/// Four of five phones have an order of their own; the others are somebody's second phone, of the other kind.
fn member(phone: usize, orders: usize) -> Cast {
    let order = if phone < orders { phone } else { (phone + 1) % orders };
    let provider = if phone.is_multiple_of(2) { Provider::Apns } else { Provider::Fcm };
    Cast { name: format!("phone-{:02}", phone + 1), provider, order }
}

/// Each accident comes just before an update that it spoils.
fn add_accidents(steps: &mut Vec<(Duration, Step)>, cast: &[Cast]) {
    let just_before = Duration::from_millis(60);
    let first = |stage: usize, provider: Provider, skip: usize| {
        (steps.iter())
            .filter_map(|(at, step)| match step {
                Step::Update { order, stage: reached } if *reached == stage => {
                    let phone = cast.iter().position(|who| who.order == *order && who.provider == provider)?;
                    Some((*at, phone))
                }
                _ => None,
            })
            .nth(skip)
    };
    let dies = first(1, Provider::Fcm, 0);
    let hiccup = first(1, Provider::Fcm, 3);
    let leaves = first(2, Provider::Apns, 0);
    if let Some((at, phone)) = dies {
        steps.push((at.saturating_sub(just_before), Step::TokenDies { phone }));
    }
    if let Some((at, _)) = hiccup {
        steps.push((at.saturating_sub(just_before), Step::Hiccup));
    }
    if let Some((at, phone)) = leaves {
        steps.push((at.saturating_sub(just_before), Step::Offline { phone }));
        steps.push((at + Duration::from_millis(1700), Step::Online { phone }));
    }
}

/// The name of an order's feed.
pub fn feed(order: usize) -> String {
    format!("order:{}", order + 1)
}

/// The key of its state.
pub fn key(order: usize) -> String {
    format!("order/{}", order + 1)
}

/// What a stage is called, and the class of its wake.
pub fn stage(stage: usize) -> (&'static str, Class) {
    STAGES.get(stage).copied().unwrap_or(("placed", Class::Silent))
}

/// An order's state.
pub fn data(status: &str) -> Value {
    json!({"status": status.replace(' ', "_")})
}

/// The event that says that an order was placed: nobody is woken, for no phone has registered yet.
pub fn placed(order: usize) -> Value {
    json!({"feed": feed(order), "type": "order.placed", "key": key(order), "op": "upsert", "data": data("placed"),
        "wake": {"class": "none"}})
}

/// The event that says that an order has reached a stage.
pub fn update(order: usize, reached: usize) -> Value {
    let (status, class) = stage(reached);
    let wake = match class {
        Class::Silent => json!({"class": "background", "ttl_s": 3600}),
        Class::Alert => json!({"class": "alert", "ttl_s": 3600,
            "alert": {"title": format!("Order {}", order + 1), "body": "Your order is out for delivery"}}),
    };
    json!({"feed": feed(order), "type": "order.updated", "key": key(order), "op": "upsert", "data": data(status), "wake": wake})
}

/// The event that says how far an order's courier is: news that changes no state.
pub fn courier(order: usize, stops: u32) -> Value {
    json!({"feed": feed(order), "type": "courier.moved", "data": {"stops_before_you": stops},
        "wake": {"class": "background", "ttl_s": 3600}})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_plan() {
        let steps = |seed| Plan::new(20, seed).steps;
        assert_eq!(steps(1), steps(1));
        assert_ne!(steps(1), steps(2));
    }

    #[test]
    fn every_order_goes_through_all_stages_in_order_and_accidents_happen() {
        for seed in 0..20 {
            let plan = Plan::new(20, seed);
            for order in 0..plan.orders {
                let stages: Vec<_> = (plan.steps.iter())
                    .filter_map(|(_, step)| match step {
                        Step::Update { order: whose, stage } if *whose == order => Some(*stage),
                        _ => None,
                    })
                    .collect();
                assert_eq!(stages, [0, 1, 2]);
            }
            assert_eq!(plan.steps.len(), plan.updates() + 4);
        }
    }

    #[test]
    fn a_single_phone_is_enough() {
        let plan = Plan::new(1, 1);
        assert_eq!((plan.orders, plan.cast.len()), (1, 1));
    }
}
