//! What can be seen on this machine: the configuration, who can read the secrets, the database.

use std::{
    io::ErrorKind,
    net::IpAddr,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use percent_encoding::percent_decode_str;
use secrecy::ExposeSecret as _;
use url::{Host, Url};

use super::report::Report;
use crate::{
    config::{Config, unknown_variables},
    domain::time::Clock,
    secret::Secrets,
    store::{Inspected, Schema, Standing, inspect},
};

/// Settings and secrets.
pub fn configuration(report: &mut Report, config: &Config) {
    report.area("configuration");
    report.ok("settings", "they load (`reveille serve --print-config` shows them)");
    for name in unknown_variables() {
        let says = format!("{name} is no setting, so nobody reads it");
        report.warning("environment", says, "see whether it is misspelt, or take it away");
    }
    match config.master_key {
        Some(_) => report.ok("master key", "there is one, of 32 bytes"),
        None => report.failed(
            "master key",
            "there is none, so no relay starts",
            "make one with `reveille init`, or with `openssl rand -base64 32 > master.key` and REVEILLE_MASTER_KEY_FILE=master.key; \
             keep a copy in a safe place",
        ),
    }
    match config.operator_key {
        Some(_) => report.ok("operator key", "there is one"),
        None => report.warning(
            "operator key",
            "there is none, so apps and app keys cannot be made",
            "set REVEILLE_OPERATOR_KEY_FILE; `reveille init` makes a key",
        ),
    }
    for path in &config.secret_files {
        private(report, path, "holds a secret");
    }
    public_url(report, config);
    super::outside::extra_ca(report, config, Clock::System.now());
}

/// Whether only its owner can read a file.
fn private(report: &mut Report, path: &Path, what: &str) {
    let about = path.file_name().unwrap_or_default().to_string_lossy();
    match path.metadata() {
        Ok(file) => {
            let mode = file.permissions().mode() & 0o777;
            if mode & 0o077 == 0 {
                report.ok(&about, format!("{what}; only its owner can read it (mode {mode:03o})"));
            } else {
                let says = format!("{what}; not only its owner can read or change it (mode {mode:03o})");
                report.warning(&about, says, format!("chmod 600 {}", path.display()));
            }
        }
        Err(error) => {
            report.failed(&about, format!("its permissions cannot be seen: {error}"), "see who owns the folder")
        }
    }
}

fn public_url(report: &mut Report, config: &Config) {
    let about = "public URL";
    let Ok(url) = Url::parse(&config.public_url) else { return };
    let set_it = "set REVEILLE_PUBLIC_URL to the https URL under which phones reach the relay";
    let local = match url.host() {
        Some(Host::Domain(name)) => name == "localhost",
        Some(Host::Ipv4(address)) => address.is_loopback() || address.is_unspecified(),
        Some(Host::Ipv6(address)) => address.is_loopback() || address.is_unspecified(),
        None => true,
    };
    if local {
        report.warning(about, format!("{url} is this machine: no phone reaches it"), set_it);
    } else if url.scheme() == "http" {
        report.warning(about, format!("{url} is not encrypted: device tokens go over it"), set_it);
    } else {
        report.ok(about, config.public_url.clone());
    }
}

/// Whether the database can be served. It is only looked at.
pub async fn database(report: &mut Report, config: &Config) {
    report.area("database");
    let url = config.database_url.expose_secret();
    let sqlite = url.strip_prefix("sqlite:").map(|path| path.split('?').next().unwrap_or(path));
    let sqlite = sqlite.map(|path| PathBuf::from(percent_decode_str(path).decode_utf8_lossy().as_ref()));
    let about = if sqlite.is_some() { "SQLite" } else { "PostgreSQL" };
    match (inspect(url).await, sqlite.as_deref()) {
        (Ok(Inspected::Absent), Some(path)) => absent(report, about, path),
        (Ok(Inspected::Absent | Inspected::Empty), _) => {
            report.ok(about, "it is empty; the first `reveille serve` makes its tables");
        }
        (Ok(Inspected::Served(standing)), path) => {
            schema(report, about, &standing.schema);
            master_key(report, config, &standing);
            if standing.is_half_moved {
                let says = "a move to this database was broken off, and nobody serves half of one";
                report.failed("move", says, "run `reveille migrate-store` again; it goes on where it was");
            }
            if standing.is_copy {
                let says = "it is a backup: the first relay that serves it begins a new epoch, and phones start from their snapshots";
                report.warning("backup", says, "nothing, if that is what you want");
            }
            if let Some(path) = path {
                private(report, path, "holds push tokens and event data");
            }
        }
        (Err(error), _) => {
            report.failed(about, format!("{error:#}"), "see that it is there, and that this user may open it")
        }
    }
}

fn absent(report: &mut Report, about: &str, path: &Path) {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Such a file has no name, and is gone when it is closed.
    match tempfile::tempfile_in(folder) {
        Ok(_) => report.ok(about, format!("there is no {} yet; the first `reveille serve` makes it", path.display())),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            report.failed(
                about,
                format!("there is no folder {}", folder.display()),
                "make it, or set REVEILLE_DATABASE_URL",
            );
        }
        Err(error) => {
            let says = format!("{} cannot be made: {error}", path.display());
            report.failed(about, says, format!("let this user write into {}", folder.display()));
        }
    }
}

fn schema(report: &mut Report, about: &str, schema: &Schema) {
    match schema {
        Schema::Current(version) => report.ok(about, format!("it can be read, and its tables are of this version ({version})")),
        Schema::Older(pending) => report.warning(
            about,
            format!("it is of an older version: the next `reveille serve` applies {pending} migrations, and there is no way back"),
            "make a backup before: `reveille backup FILE`, or pg_dump",
        ),
        Schema::Newer(unknown) => {
            let says = format!("a newer version of Reveille has changed it: migrations {unknown:?} are unknown here");
            report.failed(about, says, "serve it with that version");
        }
        Schema::Other(version) => {
            let says = format!("its migration {version} was another one than this version's");
            report.failed(about, says, "serve it with the version that made it");
        }
    }
}

fn master_key(report: &mut Report, config: &Config, standing: &Standing) {
    match (&config.master_key, &standing.key_check) {
        (_, None) => report.ok("master key", "no relay has served it yet; the first one binds it to its master key"),
        (None, Some(_)) => {
            report.not_checked("master key", "there is none to compare with", "give the one it was made with")
        }
        (Some(key), Some(made_under)) if Secrets::derive(key).key_check() == *made_under => {
            report.ok("master key", "it fits the database");
        }
        (Some(_), Some(_)) => report.failed(
            "master key",
            "the database was made under another one: a relay refuses to serve it",
            "give the one it was made with (REVEILLE_MASTER_KEY or REVEILLE_MASTER_KEY_FILE)",
        ),
    }
}

/// Where a relay of this configuration answers on this machine.
pub fn local_url(config: &Config) -> String {
    let mut address = config.listen;
    match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv4Addr::LOCALHOST.into()),
        IpAddr::V6(ip) if ip.is_unspecified() => address.set_ip(std::net::Ipv6Addr::LOCALHOST.into()),
        _ => {}
    }
    format!("http://{address}")
}
