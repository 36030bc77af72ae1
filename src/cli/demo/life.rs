//! The shop's life around the story: the day before it, in seconds, and what goes on after it. For `--keep`, whose dashboard shows it.

use std::time::Duration;

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

use super::plan;
use super::world::World;
use crate::sim::{Fault, FaultKind};

/// How long before the story the day begins.
pub const DAY: Duration = Duration::from_secs(86_400);
/// What one turn of the clock is.
const QUARTER: Duration = Duration::from_secs(900);
/// What it takes in real time: the phones live in that.
const QUARTER_TAKES: Duration = Duration::from_millis(110);
/// Quarters, counted from the day's beginning, in which FCM is in trouble.
const TROUBLE: std::ops::Range<u32> = 60..64;
/// Requests that it fails in each.
const TROUBLE_REQUESTS: usize = 3;
/// How often something happens afterwards.
const EVERY: Duration = Duration::from_millis(1500);
/// The phone that is switched off in the end, so that there is one to ask about: the seventh.
const SWITCHED_OFF: usize = 6;

/// Lets a day pass; when it is over, the world's clock is right.
///
/// # Errors
/// When the relay does not take an event.
pub async fn day_before(world: &World, seed: u64) -> anyhow::Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    let quarters = u32::try_from(DAY.as_secs() / QUARTER.as_secs()).unwrap_or(u32::MAX);
    for quarter in 0..quarters {
        if TROUBLE.contains(&quarter) {
            let status = FaultKind::Status { status: 503, reason: Some("UNAVAILABLE".to_owned()), retry_after: None };
            world.sim.fcm().answer(Fault::new(status).times(TROUBLE_REQUESTS));
        }
        // By night few order.
        let most = if (24..88).contains(&quarter) { 4 } else { 2 };
        for _ in 0..dice.random_range(1..=most) {
            happen(world, &mut dice).await?;
        }
        tokio::time::sleep(QUARTER_TAKES).await;
        world.clock.advance(QUARTER);
    }
    Ok(())
}

/// Switches a phone off and lets something happen to its order: it is told, and does not come.
///
/// # Errors
/// When the relay does not take an event.
pub async fn leave_one_behind(world: &World) -> anyhow::Result<()> {
    if let Some(phone) = world.phones.get(SWITCHED_OFF) {
        phone.go_offline();
        let order = world.orders.get(SWITCHED_OFF).copied().unwrap_or_default();
        world.shop.publish(&plan::courier(order, 1)).await?;
    }
    Ok(())
}

/// Goes on without end.
///
/// # Errors
/// When the relay does not take an event.
pub async fn go_on(world: &World, seed: u64) -> anyhow::Result<()> {
    let mut dice = StdRng::seed_from_u64(seed);
    loop {
        tokio::time::sleep(EVERY).await;
        happen(world, &mut dice).await?;
    }
}

/// The courier of some order comes nearer.
async fn happen(world: &World, dice: &mut StdRng) -> anyhow::Result<()> {
    let order = dice.random_range(0..world.placed.len().max(1));
    let stops = dice.random_range(0..9);
    world.shop.publish(&plan::courier(order, stops)).await?;
    Ok(())
}
