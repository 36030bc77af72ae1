//! The first and the last word of the demo.

use std::time::Duration;

use super::plan::Plan;
use super::screen::{Look, Screen, time};
use super::story::{Story, quantiles};
use super::world::{FLOOR, LOSE_PERCENT, World};
use crate::sim::Provider;
use crate::sim::phones::Cause;

/// Says who takes part, what will go wrong, and how to read the lines.
pub fn introduce(screen: Screen, world: &World, plan: &Plan) {
    let of = |provider| plan.cast.iter().filter(|cast| cast.provider == provider).count();
    let (ios, android) = (of(Provider::Apns), of(Provider::Fcm));
    let lines = [
        ("relay", format!("{}  (fresh SQLite file, the real API)", world.url)),
        ("providers", "simulated APNs and FCM, over TLS and HTTP/2".to_owned()),
        ("phones", format!("{ios} iOS by APNs, {android} Android by FCM; each follows one order")),
        (
            "backend",
            format!("{} updates of {} orders; all were placed before the phones came", plan.updates(), plan.orders),
        ),
        (
            "trouble",
            format!("{LOSE_PERCENT} of 100 pushes are lost, a push token dies, FCM fails, a phone goes offline"),
        ),
    ];
    screen.line(screen.paint(Look::Bold, "Reveille wakes the app; the app asks for the truth."));
    screen.line("");
    for (what, words) in lines {
        screen.line(format!("  {what:<10}{words}"));
    }
    screen.line("");
    screen.line("  A push carries no state, it only says \"come and look\". The phone then polls the relay. It also");
    screen.line(format!(
        "  polls by itself, here every {} s, so a lost push costs time and never the truth.",
        FLOOR.as_secs()
    ));
    screen.line("  Each update gets a line when its phones have read it, with the times since the backend's request.");
    screen.line("");
    let header = format!(
        "{:>6}  {:<8}  {:<16}  {:<6}  {:>8}  {:>14}  {:<10}  {:>7}  {}",
        "at s", "order", "is now", "wake", "accepted", "pushed", "phone", "read", "because"
    );
    screen.line(screen.paint(Look::Dim, &header));
}

/// Says what came of it. `missing` are the phones without the true state.
pub async fn conclude(
    screen: Screen,
    world: &World,
    story: &Story,
    missing: &[String],
    took: Duration,
) -> anyhow::Result<()> {
    let (since, before) = world.began;
    let attempts = world.shop.attempts(since).await?;
    let outcome = |word: &str| attempts.iter().filter(|attempt| attempt.outcome.as_deref() == Some(word)).count();
    let (accepted, rejected) = (outcome("accepted"), outcome("rejected"));
    let put_off = outcome("unavailable") + outcome("throttled") + outcome("timeout");
    let repeated = attempts.iter().filter(|attempt| attempt.tries > 1).count();
    let lost = world.sim.pushes().iter().filter(|push| push.status == 200 && !push.delivered).count();
    let counts = world.counts();
    let (by_push, by_itself) =
        (counts.polls_by_push - before.polls_by_push, counts.polls_by_itself - before.polls_by_itself);
    let (after_push, push_times) = quantiles(story, |cause| matches!(cause, Cause::Push { .. }));
    let (at_own, own_times) = quantiles(story, |cause| !matches!(cause, Cause::Push { .. }));
    let (all, all_times) = quantiles(story, |_| true);
    let phones = world.phones.len();
    let true_ones = phones - missing.len();

    let lines = [
        ("events", format!("{} updates accepted, to be read {} times", story.updates(), story.ledger.expected())),
        (
            "pushes",
            format!(
                "{} calls: {accepted} accepted, {lost} of them lost; {rejected} refused, {put_off} put off, {repeated} repeated",
                attempts.len()
            ),
        ),
        ("polls", format!("{by_push} because of a push, {by_itself} by itself")),
        ("read", format!("{after_push:>3} after a push     {push_times}")),
        ("", format!("{at_own:>3} at an own poll   {own_times}")),
        ("", format!("{all:>3} in all           {all_times}")),
    ];
    screen.line("");
    for (what, words) in lines {
        screen.line(format!("  {what:<10}{words}"));
    }
    let (look, verdict) = match missing {
        [] => (Look::Good, format!("{true_ones} of {phones} phones have the true state")),
        _ => (Look::Bad, format!("{true_ones} of {phones} phones have the true state, not {}", missing.join(", "))),
    };
    screen.line(format!("  {:<10}{}  ({})", "truth", screen.paint(look, &verdict), time(took)));
    Ok(())
}
