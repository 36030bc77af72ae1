//! `reveille sim`: the provider simulators as a command of their own, virtual phones at a running relay, or a fleet in virtual time.

mod fleet;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use rand::RngExt as _;
use tokio::sync::mpsc;

use super::exit::{Exit, Failure};
use super::screen::Screen;
use crate::config::{Remote, Wanted, Way, url_of_flag};
use crate::sim::phones::{Backend, Cause, News, Phone, PhoneSetup, What};
use crate::sim::{Provider, Sim, SimConfig};

/// How often each phone of the fleet may go offline or come back.
const TOSS_EVERY: Duration = Duration::from_secs(10);
/// Phones that may register at a relay: each is a task with connections of its own.
const MOST_AT_RELAY: u32 = 1000;
/// News that phones may be ahead of the terminal.
const NEWS: usize = 1024;

/// Simulates APNs, FCM and Google's token endpoint on this machine.
#[derive(Debug, clap::Args)]
pub struct SimArgs {
    /// Where APNs listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2197")]
    pub apns_listen: SocketAddr,
    /// Where FCM and the OAuth token endpoint listen.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8443")]
    pub fcm_listen: SocketAddr,
    /// Where the control API (plain HTTP, no authentication) listens.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:2198")]
    pub control_listen: SocketAddr,
    /// A bundle id the APNs key may push to; may be repeated.
    #[arg(long = "bundle-id", value_name = "ID", default_value = "com.example.shop")]
    pub bundle_ids: Vec<String>,
    /// A name for the certificate, beside localhost; may be repeated.
    #[arg(long = "name", value_name = "NAME")]
    pub names: Vec<String>,
    /// Where CA, credentials and env.sh are written; new ones at every start.
    #[arg(long, default_value = "./sim")]
    pub dir: PathBuf,
    /// Simulate so many phones in virtual time, print the figures and exit; with --relay, let so many (at most 1,000) register there.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub phones: Option<u32>,
    /// The phones in virtual time.
    #[command(flatten)]
    pub fleet: fleet::FleetArgs,
    /// The phones at a relay.
    #[command(flatten)]
    pub at_relay: AtRelayArgs,
}

/// Virtual phones at a running relay.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Virtual phones at a running relay")]
pub struct AtRelayArgs {
    /// The relay, as http://host:port; each phone follows the feeds `fleet:all` and `phone:N`.
    #[arg(long, value_name = "URL", requires = "phones")]
    pub relay: Option<String>,
    /// A file that holds an app key of the relay with the scope `devices:write`; without it REVEILLE_APP_KEY.
    #[arg(long, value_name = "FILE", requires = "relay")]
    pub key_file: Option<PathBuf>,
    /// Of a hundred pushes, how many a phone loses.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "relay", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub lose: u8,
    /// Of a hundred phones, how many are offline; every 10 s others.
    #[arg(long, value_name = "PERCENT", default_value_t = 0, requires = "relay", value_parser = clap::value_parser!(u8).range(0..=100))]
    pub offline: u8,
    /// How often a phone polls by itself, in seconds; without it when the relay says.
    #[arg(long, value_name = "SECONDS", requires = "relay", value_parser = clap::value_parser!(u64).range(1..))]
    pub floor_s: Option<u64>,
}

/// Serves until Ctrl-C or SIGTERM; with phones and no relay, simulates a fleet instead.
///
/// # Errors
/// When there is no app key for a relay, a port is taken, or a file or folder cannot be written.
pub async fn run(args: SimArgs) -> anyhow::Result<()> {
    if let (Some(phones), None) = (args.phones, &args.at_relay.relay) {
        return fleet::run(phones, &args.fleet);
    }
    if args.phones.is_some_and(|phones| phones > MOST_AT_RELAY) {
        let text = format!("at most {MOST_AT_RELAY} phones can register at a relay");
        return Err(Failure::new(Exit::Usage, text).into());
    }
    let backend = backend(&args.at_relay)?;
    let topic = args.bundle_ids.first().cloned().unwrap_or_default();
    let config = SimConfig {
        apns_listen: args.apns_listen,
        google_listen: args.fcm_listen,
        control_listen: Some(args.control_listen),
        bundle_ids: args.bundle_ids,
        names: args.names,
        ..SimConfig::default()
    };
    let sim = Sim::start(config).await?;
    sim.write_folder(&args.dir)?;
    let control = sim.control_url().unwrap_or_default();
    let screen = Screen::new();
    screen.line("The provider simulators are up.");
    screen.line(format!("\n  APNs          {}", sim.apns_url()));
    screen.line(format!("  FCM, OAuth    {}", sim.fcm_url()));
    screen.line(format!("  control       {control}"));
    screen.line(format!("  credentials   {}", args.dir.display()));
    screen.line(format!("\nPoint a relay at them:     . {}", args.dir.join("env.sh").display()));
    screen.line(format!("See what they received:    curl {control}/pushes"));
    screen.line(format!(
        "Let something go wrong:    curl {control}/faults --json '{{\"provider\":\"fcm\",\"count\":3,\"fault\":\"lost\"}}'"
    ));
    screen.line("CA and keys are new at every start: restart the relay, and PUT the credentials again.");
    screen.line("Ctrl-C ends them.");
    let (news, mut told) = mpsc::channel(NEWS);
    let phones = match (args.phones, backend) {
        (Some(phones), Some(backend)) => register(&sim, phones, &backend, &args.at_relay, &topic, news).await?,
        _ => Vec::new(),
    };
    let stop = super::asked_to_stop();
    tokio::pin!(stop);
    let mut toss = tokio::time::interval(TOSS_EVERY);
    loop {
        tokio::select! {
            stopped = &mut stop => {
                stopped?;
                break;
            }
            Some(news) = told.recv() => screen.line(words(&news)),
            _ = toss.tick(), if args.at_relay.offline > 0 => toss_offline(&phones, args.at_relay.offline),
        }
    }
    sim.stop().await;
    Ok(())
}

/// The backend of the phones' app, if there is a relay. Its key is no flag: others can see those with `ps`.
fn backend(args: &AtRelayArgs) -> anyhow::Result<Option<Backend>> {
    let Some(relay) = &args.relay else { return Ok(None) };
    let url = url_of_flag("--relay", relay)?;
    let way = Way { url: Some(url), key_file: args.key_file.clone(), config: None };
    let remote = Remote::of_process(&way, Wanted::App)?;
    if remote.is_operators() {
        let text =
            "phones register with an app key: set REVEILLE_APP_KEY, or name a file that holds one with --key-file";
        return Err(Failure::new(Exit::Usage, text).into());
    }
    Ok(Some(Backend::new(&remote.url, remote.key)?))
}

async fn register(
    sim: &Sim,
    phones: u32,
    backend: &Backend,
    args: &AtRelayArgs,
    topic: &str,
    news: mpsc::Sender<News>,
) -> anyhow::Result<Vec<Phone>> {
    let relay = args.relay.as_deref().unwrap_or_default();
    Screen::new().line(format!(
        "\n{phones} phones register at {relay}. They get pushes once the app has the credentials above."
    ));
    let mut fleet = Vec::new();
    for number in 1..=phones {
        let apple = number % 2 == 1;
        let setup = PhoneSetup {
            name: format!("{}-{number:03}", if apple { "ios" } else { "android" }),
            installation_id: None,
            provider: if apple { Provider::Apns } else { Provider::Fcm },
            user: None,
            feeds: vec!["fleet:all".to_owned(), format!("phone:{number}")],
            topic: topic.to_owned(),
            floor: args.floor_s.map(Duration::from_secs),
            lose_percent: args.lose,
            seed: rand::rng().random(),
        };
        fleet.push(Phone::start(sim, setup, backend.clone(), news.clone()).await?);
    }
    Ok(fleet)
}

fn toss_offline(phones: &[Phone], percent: u8) {
    for phone in phones {
        if rand::rng().random_range(0..100) < percent {
            phone.go_offline();
        } else {
            phone.go_online();
        }
    }
}

/// What a phone has to tell, in a line.
pub(super) fn words(news: &News) -> String {
    let what = match &news.what {
        What::Pushed { head, feed, .. } => {
            format!("push    up to {head}{}", feed.as_ref().map(|feed| format!(", {feed}")).unwrap_or_default())
        }
        What::Polled { cause, applied, through, took } => {
            let cause = match cause {
                Cause::Start => "after it registered",
                Cause::Push { .. } => "because of a push",
                Cause::Itself => "by itself",
            };
            let read: Vec<_> = applied.iter().map(|event| format!("{}@{}", event.feed, event.position)).collect();
            let read = if read.is_empty() { "nothing new".to_owned() } else { read.join(" ") };
            format!("poll    {cause}, {} ms: {read}, through {through}", took.as_millis())
        }
        What::Offline => "goes offline".to_owned(),
        What::Online => "is online again".to_owned(),
        What::TokenDead => "told    that its push token is dead".to_owned(),
        What::RegisteredAgain => "backend has registered it again, with a new push token".to_owned(),
        What::Later { status, pause } => format!("told    to come later: {status}, after {} s", pause.as_secs()),
        What::Trouble(words) => format!("failed  {words}"),
    };
    format!("{:<12} {what}", news.phone)
}
