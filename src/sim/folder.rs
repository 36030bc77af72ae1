//! Writes a simulator's CA and credentials where a person, a script or a foreign SDK finds them.

use std::path::Path;

use anyhow::Context as _;
use serde_json::Value;

use super::Sim;

/// Writes all files of `sim` into `dir`.
///
/// # Errors
/// When the folder or a file cannot be written.
pub(super) fn write(sim: &Sim, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make the folder {}", dir.display()))?;
    let apns = sim.apns_credential();
    let p8 = apns.get("private_key").and_then(Value::as_str).unwrap_or_default();
    public(dir, "ca.pem", sim.ca_pem())?;
    private(dir, "apns-key.p8", p8)?;
    private(dir, "apns-credential.json", &format!("{apns:#}\n"))?;
    private(dir, "service-account.json", &format!("{:#}\n", sim.fcm_credential()))?;
    let ca = std::path::absolute(dir.join("ca.pem"))?;
    let env = format!(
        "# Points a relay at these simulators: . {}\nexport REVEILLE_APNS_URL='{}'\nexport REVEILLE_FCM_URL='{}'\n\
         export REVEILLE_EXTRA_CA='{}'\n",
        dir.join("env.sh").display(),
        sim.apns_url(),
        sim.fcm_url(),
        ca.display().to_string().replace('\'', r"'\''"),
    );
    public(dir, "env.sh", &env)
}

fn public(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    let path = dir.join(name);
    std::fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Simulated keys open nothing, but they are handled as real ones are.
fn private(dir: &Path, name: &str, text: &str) -> anyhow::Result<()> {
    use std::io::Write as _;

    let path = dir.join(name);
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&path).with_context(|| format!("cannot write {}", path.display()))?;
    file.write_all(text.as_bytes()).with_context(|| format!("cannot write {}", path.display()))
}
