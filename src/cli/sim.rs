//! `reveille sim`: the provider simulators as a command of their own.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::sim::{Sim, SimConfig};

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
}

/// Serves until Ctrl-C or SIGTERM.
///
/// # Errors
/// When a port is taken or the folder cannot be written.
pub async fn run(args: SimArgs) -> anyhow::Result<()> {
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
    println!("The provider simulators are up.\n");
    println!("  APNs          {}", sim.apns_url());
    println!("  FCM, OAuth    {}", sim.fcm_url());
    println!("  control       {control}");
    println!("  credentials   {}\n", args.dir.display());
    println!("Point a relay at them:     . {}", args.dir.join("env.sh").display());
    println!("See what they received:    curl {control}/pushes");
    println!(
        "Let something go wrong:    curl {control}/faults --json '{{\"provider\":\"fcm\",\"count\":3,\"fault\":\"lost\"}}'"
    );
    println!("Ctrl-C ends them.");
    super::asked_to_stop().await?;
    sim.stop().await;
    Ok(())
}
