//! Every setting, once: name, environment variable, default, meaning. Help texts, `reveille init` and the README follow this table.

use std::path::PathBuf;

/// One setting and what the operator is told about it.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// The key in `reveille.toml`; with dashes it is the flag.
    pub name: &'static str,
    /// The environment variable.
    pub env: &'static str,
    /// The value used when nobody sets it, if there is one.
    pub default: Option<&'static str>,
    /// What it does, in one line; numbers carry their unit.
    pub about: &'static str,
    /// Whether its value must never be shown. Such a setting has no flag, for flags show in `ps`.
    pub secret: bool,
}

/// Where the API listens.
pub const LISTEN: Setting = plain("listen", "REVEILLE_LISTEN", Some("127.0.0.1:8080"), "Address and port of the API");
/// Where readiness detail is served without a key.
pub const ADMIN_LISTEN: Setting = plain(
    "admin_listen",
    "REVEILLE_ADMIN_LISTEN",
    None,
    "Address and port that serves readiness detail and metrics without a key; keep it private",
);
/// What phones are told to poll.
pub const PUBLIC_URL: Setting = plain(
    "public_url",
    "REVEILLE_PUBLIC_URL",
    None,
    "The URL under which phones reach the relay; when not set, `http://` and the value of `listen`",
);
/// Where the data lies.
pub const DATABASE_URL: Setting = plain(
    "database_url",
    "REVEILLE_DATABASE_URL",
    Some("sqlite:reveille.db"),
    "The database, as `sqlite:PATH` or `postgres://USER:PASSWORD@HOST/DATABASE`",
);
/// The key that encrypts stored credentials, inline.
pub const MASTER_KEY: Setting = Setting {
    secret: true,
    ..plain(
        "master_key",
        "REVEILLE_MASTER_KEY",
        None,
        "The key that encrypts what is stored: 32 bytes in base64; `serve` refuses to start without one",
    )
};
/// The key that encrypts stored credentials, as a file.
pub const MASTER_KEY_FILE: Setting = plain(
    "master_key_file",
    "REVEILLE_MASTER_KEY_FILE",
    None,
    "A file that holds the master key, instead of the key itself",
);
/// The key that makes apps and app keys, inline.
pub const OPERATOR_KEY: Setting = Setting {
    secret: true,
    ..plain(
        "operator_key",
        "REVEILLE_OPERATOR_KEY",
        None,
        "The key for making apps and app keys: at least 16 characters, without spaces",
    )
};
/// The key that makes apps and app keys, as a file.
pub const OPERATOR_KEY_FILE: Setting = plain(
    "operator_key_file",
    "REVEILLE_OPERATOR_KEY_FILE",
    None,
    "A file that holds the operator key, instead of the key itself",
);
/// Another APNs than Apple's.
pub const APNS_URL: Setting =
    plain("apns_url", "REVEILLE_APNS_URL", None, "`https://host:port` to call instead of Apple's push servers");
/// Another FCM than Google's.
pub const FCM_URL: Setting = plain(
    "fcm_url",
    "REVEILLE_FCM_URL",
    None,
    "`https://host:port` to call instead of Google's push servers; it also frees `token_uri` in service accounts",
);
/// A certificate authority trusted in addition.
pub const EXTRA_CA: Setting = plain(
    "extra_ca",
    "REVEILLE_EXTRA_CA",
    None,
    "A PEM file with certificates to trust in addition when calling providers",
);
/// What this process does.
pub const ROLES: Setting = plain(
    "roles",
    "REVEILLE_ROLES",
    Some("api,dispatch,janitor"),
    "What this process does, separated by commas: `api`, `dispatch`, `janitor`",
);
/// How long a claimed wake belongs to the process that claimed it.
pub const LEASE_S: Setting = plain(
    "lease_s",
    "REVEILLE_LEASE_S",
    Some("45"),
    "Seconds a claimed wake belongs to one process, 3 to 3600; after a crash its calls are repeated when it ends",
);
/// How many live connections may be open.
pub const LIVE_CONNECTIONS: Setting = plain(
    "live_connections",
    "REVEILLE_LIVE_CONNECTIONS",
    Some("20000"),
    "Live connections (polls that wait, streams, WebSockets) that this process has at most, 0 to 1000000; more are turned away",
);
/// What is logged.
pub const LOG: Setting = plain(
    "log",
    "REVEILLE_LOG",
    Some("info"),
    "What is logged to stderr: a level, or a filter such as `info,reveille=debug`",
);
/// How it is logged.
pub const LOG_FORMAT: Setting =
    plain("log_format", "REVEILLE_LOG_FORMAT", Some("text"), "How it is logged: `text` or `json`");

/// Where traces go.
pub const OTLP_URL: Setting = plain(
    "otlp_url",
    "REVEILLE_OTLP_URL",
    None,
    "A collector of OpenTelemetry traces (OTLP over HTTP), such as `http://127.0.0.1:4318`; none are made when not set",
);

/// All settings, in the order in which they are shown.
pub const SETTINGS: &[Setting] = &[
    LISTEN,
    ADMIN_LISTEN,
    PUBLIC_URL,
    DATABASE_URL,
    MASTER_KEY,
    MASTER_KEY_FILE,
    OPERATOR_KEY,
    OPERATOR_KEY_FILE,
    APNS_URL,
    FCM_URL,
    EXTRA_CA,
    ROLES,
    LEASE_S,
    LIVE_CONNECTIONS,
    LOG,
    LOG_FORMAT,
    OTLP_URL,
];

/// The flags every command that needs a configuration takes; each is stronger than environment and file.
#[derive(Debug, Clone, Default, clap::Args)]
#[command(next_help_heading = "Configuration")]
#[expect(missing_docs, reason = "the table of settings documents every field")]
pub struct Flags {
    /// The configuration file; without it `reveille.toml` in the current folder, if there is one
    #[arg(long, value_name = "PATH")]
    pub config: Option<PathBuf>,
    #[arg(long, value_name = "ADDRESS:PORT", help = LISTEN.about)]
    pub listen: Option<String>,
    #[arg(long, value_name = "ADDRESS:PORT", help = ADMIN_LISTEN.about)]
    pub admin_listen: Option<String>,
    #[arg(long, value_name = "URL", help = PUBLIC_URL.about)]
    pub public_url: Option<String>,
    #[arg(long, value_name = "URL", help = DATABASE_URL.about)]
    pub database_url: Option<String>,
    #[arg(long, value_name = "PATH", help = MASTER_KEY_FILE.about)]
    pub master_key_file: Option<String>,
    #[arg(long, value_name = "PATH", help = OPERATOR_KEY_FILE.about)]
    pub operator_key_file: Option<String>,
    #[arg(long, value_name = "URL", help = APNS_URL.about)]
    pub apns_url: Option<String>,
    #[arg(long, value_name = "URL", help = FCM_URL.about)]
    pub fcm_url: Option<String>,
    #[arg(long, value_name = "PATH", help = EXTRA_CA.about)]
    pub extra_ca: Option<String>,
    #[arg(long, value_name = "ROLES", help = ROLES.about)]
    pub roles: Option<String>,
    #[arg(long, value_name = "SECONDS", help = LEASE_S.about)]
    pub lease_s: Option<String>,
    #[arg(long, value_name = "NUMBER", help = LIVE_CONNECTIONS.about)]
    pub live_connections: Option<String>,
    #[arg(long, value_name = "FILTER", help = LOG.about)]
    pub log: Option<String>,
    #[arg(long, value_name = "FORMAT", help = LOG_FORMAT.about)]
    pub log_format: Option<String>,
    #[arg(long, value_name = "URL", help = OTLP_URL.about)]
    pub otlp_url: Option<String>,
}

impl Flags {
    /// What the command line says about a setting.
    pub(super) fn get(&self, setting: &Setting) -> Option<&String> {
        match setting.name {
            "listen" => self.listen.as_ref(),
            "admin_listen" => self.admin_listen.as_ref(),
            "public_url" => self.public_url.as_ref(),
            "database_url" => self.database_url.as_ref(),
            "master_key_file" => self.master_key_file.as_ref(),
            "operator_key_file" => self.operator_key_file.as_ref(),
            "apns_url" => self.apns_url.as_ref(),
            "fcm_url" => self.fcm_url.as_ref(),
            "extra_ca" => self.extra_ca.as_ref(),
            "roles" => self.roles.as_ref(),
            "lease_s" => self.lease_s.as_ref(),
            "live_connections" => self.live_connections.as_ref(),
            "log" => self.log.as_ref(),
            "log_format" => self.log_format.as_ref(),
            "otlp_url" => self.otlp_url.as_ref(),
            _ => None,
        }
    }
}

const fn plain(name: &'static str, env: &'static str, default: Option<&'static str>, about: &'static str) -> Setting {
    Setting { name, env, default, about, secret: false }
}
