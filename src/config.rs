//! The configuration: flags, then environment, then `reveille.toml`, then defaults.

use std::{
    collections::BTreeSet,
    fmt,
    net::SocketAddr,
    path::{Path, PathBuf},
    str::FromStr,
};

use base64::{Engine, prelude::BASE64_STANDARD};
use secrecy::{ExposeSecret, SecretBox, SecretString};
use url::Url;

use crate::telemetry::LogFormat;
pub use environment::unknown_variables;
pub use layers::{FILE_NAME, Origin};
use layers::{Given, Layers, without_password};
pub use remote::{Remote, Wanted, Way, url_of_flag};
pub use settings::{Flags, SETTINGS, Setting};

mod environment;
mod layers;
mod remote;
mod settings;

/// The least lease, in seconds. Call timeout (15 s) and start margin (20 s) shrink with a lease under 45 s, contract §8.
pub const LEAST_LEASE_S: u32 = 3;
/// The greatest lease, in seconds. After a crash, wakes wait for their lease to end.
pub const GREATEST_LEASE_S: u32 = 3600;
/// The greatest number of live connections that may be allowed.
pub const MOST_LIVE_CONNECTIONS: usize = 1_000_000;
/// The least length of an operator key, in characters.
const LEAST_OPERATOR_KEY_CHARS: usize = 16;

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Answers requests.
    Api,
    /// Sends pushes.
    Dispatch,
    /// Deletes what is past its time.
    Janitor,
}

/// The resolved configuration. `Debug` shows no secret.
#[derive(Debug)]
pub struct Config {
    /// Where the API listens.
    pub listen: SocketAddr,
    /// Where readiness detail is served without a key, if anywhere.
    pub admin_listen: Option<SocketAddr>,
    /// The URL under which phones reach the relay, without a slash at its end.
    pub public_url: String,
    /// `sqlite:PATH`, or `postgres://…` with its password.
    pub database_url: SecretString,
    /// The key that encrypts what is stored; [`Config::require_master_key`] insists on it.
    pub master_key: Option<SecretBox<[u8; 32]>>,
    /// The key for the operator's routes.
    pub operator_key: Option<SecretString>,
    /// `https://host:port` to call instead of Apple's push servers.
    pub apns_url: Option<Url>,
    /// `https://host:port` to call instead of Google's push servers.
    pub fcm_url: Option<Url>,
    /// The base URL of a collector of traces.
    pub otlp_url: Option<String>,
    /// Certificates, as PEM text, to trust in addition when calling providers.
    pub extra_ca_pem: Option<String>,
    /// What this process does; at least one role.
    pub roles: BTreeSet<Role>,
    /// Seconds a claimed wake belongs to one process.
    pub lease_s: u32,
    /// Live connections that this process has at most.
    pub live_connections: usize,
    /// The log filter; it is known to parse.
    pub log: String,
    /// How the log is written.
    pub log_format: LogFormat,
    /// The files that secrets were read from, for `check`, which looks at who else can read them.
    pub secret_files: BTreeSet<PathBuf>,
    /// What `print` shows, one line per setting, secrets masked.
    lines: Vec<String>,
}

/// Why there is no configuration. No message contains a secret.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The configuration file cannot be read.
    #[error("cannot read the configuration file {}: {source}", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    Unreadable { path: PathBuf, source: std::io::Error },
    /// The configuration file is not TOML.
    #[error("{}, line {line}: {what}", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    NotToml { path: PathBuf, line: usize, what: String },
    /// The configuration file has a key that means nothing.
    #[error("unknown key `{key}` in {}; the keys are {}", path.display(), names())]
    #[expect(missing_docs, reason = "the message says it")]
    UnknownKey { path: PathBuf, key: String },
    /// A key in the configuration file holds another kind of value.
    #[error("`{key}` in {} must be a text, a number or a list of words, not of type {found}", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    WrongType { path: PathBuf, key: String, found: &'static str },
    /// A value does not fit its setting.
    #[error("bad value for `{setting}` ({origin}), `{value}`: {why}")]
    #[expect(missing_docs, reason = "the message says it")]
    Bad { setting: &'static str, origin: Origin, value: String, why: String },
    /// A secret is given twice in one place.
    #[error("both `{one}` and `{other}` are set ({origin}); set only one of them")]
    #[expect(missing_docs, reason = "the message says it")]
    Both { one: &'static str, other: &'static str, origin: Origin },
    /// The relay cannot run without a master key.
    #[error(
        "there is no master key, so nothing could be stored encrypted. Make one with `reveille init`, or with \
         `openssl rand -base64 32 > master.key` and set REVEILLE_MASTER_KEY_FILE=master.key; keep a copy in a safe place"
    )]
    NoMasterKey,
    /// A command that asks a relay needs an app key.
    #[error("there is no app key: set REVEILLE_APP_KEY, or name a file that holds it with --key-file")]
    NoAppKey,
    /// A command that makes apps and keys needs the operator key.
    #[error(
        "there is no operator key: set REVEILLE_OPERATOR_KEY or REVEILLE_OPERATOR_KEY_FILE, or name a file with --key-file"
    )]
    NoOperatorKey,
    /// A command that polls as a device does needs its token.
    #[error(
        "there is no device token: set REVEILLE_DEVICE_TOKEN, or name a file that holds it with --token-file, or have a \
         device made with --register"
    )]
    NoDeviceToken,
    /// The file that should hold a key cannot be read.
    #[error("cannot read the key from {}: {source}", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    NoKeyFile { path: PathBuf, source: std::io::Error },
    /// The file that should hold a key holds nothing.
    #[error("there is no key in {}", path.display())]
    #[expect(missing_docs, reason = "the message says it")]
    EmptyKeyFile { path: PathBuf },
}

impl Config {
    /// Reads the configuration of this process: its environment, and files from its current folder.
    ///
    /// # Errors
    /// As [`Config::load`].
    pub fn of_process(flags: &Flags) -> Result<Self, ConfigError> {
        Self::load(flags, environment::variable, Path::new(""))
    }

    /// Resolves all settings. `env` looks a variable up; relative paths count from `folder`, those in the configuration
    /// file from the file's own folder.
    ///
    /// # Errors
    /// An unreadable file, an unknown key, a bad value, or a secret given twice; the error says which and where.
    pub fn load(flags: &Flags, env: impl Fn(&str) -> Option<String>, folder: &Path) -> Result<Self, ConfigError> {
        use settings as s;
        let layers = Layers::read(flags, env, folder)?;
        let mut seen = Seen { layers, secret_files: BTreeSet::new(), lines: Vec::new() };
        let listen = seen.required(s::LISTEN, "", address)?;
        Ok(Self {
            listen,
            admin_listen: seen.optional(s::ADMIN_LISTEN, address)?,
            public_url: seen.required(s::PUBLIC_URL, &format!("http://{listen}"), web_url)?,
            database_url: seen.required(s::DATABASE_URL, "", database_url)?.into(),
            master_key: seen.secret(s::MASTER_KEY, s::MASTER_KEY_FILE, master_key)?,
            operator_key: seen.secret(s::OPERATOR_KEY, s::OPERATOR_KEY_FILE, operator_key)?,
            apns_url: seen.optional(s::APNS_URL, base_url)?,
            fcm_url: seen.optional(s::FCM_URL, base_url)?,
            otlp_url: seen.optional(s::OTLP_URL, web_url)?,
            extra_ca_pem: seen.optional(s::EXTRA_CA, certificates)?,
            roles: seen.required(s::ROLES, "", roles)?,
            lease_s: seen.required(s::LEASE_S, "", lease_s)?,
            live_connections: seen.required(s::LIVE_CONNECTIONS, "", live_connections)?,
            log: seen.required(s::LOG, "", log_filter)?,
            log_format: seen.required(s::LOG_FORMAT, "", |given| given.text.parse().map_err(|why| given.bad(why)))?,
            secret_files: seen.secret_files,
            lines: seen.lines,
        })
    }

    /// The master key.
    ///
    /// # Errors
    /// [`ConfigError::NoMasterKey`], which says how to make one.
    pub fn require_master_key(&self) -> Result<&SecretBox<[u8; 32]>, ConfigError> {
        self.master_key.as_ref().ok_or(ConfigError::NoMasterKey)
    }

    /// The configuration as TOML, secrets masked, each line saying where its value comes from.
    pub fn print(&self) -> String {
        self.lines.concat()
    }
}

/// Reads settings and keeps the lines that `print` shows.
struct Seen<'a, E> {
    layers: Layers<'a, E>,
    secret_files: BTreeSet<PathBuf>,
    lines: Vec<String>,
}

impl<E: Fn(&str) -> Option<String>> Seen<'_, E> {
    fn optional<T>(
        &mut self,
        setting: Setting,
        parse: impl Fn(&Given) -> Result<T, ConfigError>,
    ) -> Result<Option<T>, ConfigError> {
        let given = self.layers.find(setting);
        let value = given.as_ref().map(parse).transpose()?;
        self.line(setting, given.as_ref());
        Ok(value)
    }

    /// As `optional`, where `derived` is the value of a setting that has no default of its own.
    fn required<T>(
        &mut self,
        setting: Setting,
        derived: &str,
        parse: impl Fn(&Given) -> Result<T, ConfigError>,
    ) -> Result<T, ConfigError> {
        let fallback = || Given { setting, text: derived.to_owned(), origin: Origin::Default, folder: PathBuf::new() };
        let given = self.layers.find(setting).unwrap_or_else(fallback);
        let value = parse(&given)?;
        self.line(setting, Some(&given));
        Ok(value)
    }

    /// A secret, inline or in a file. White space around it is not part of it: files end with a line feed.
    fn secret<T>(
        &mut self,
        inline: Setting,
        as_file: Setting,
        parse: impl Fn(&SecretString) -> Result<T, &'static str>,
    ) -> Result<Option<T>, ConfigError> {
        let given = self.layers.find_secret(inline, as_file)?;
        let from = |setting: Setting| given.as_ref().filter(|given| given.setting.name == setting.name);
        self.line(inline, from(inline));
        self.line(as_file, from(as_file));
        let Some(given) = given else { return Ok(None) };
        let text = if given.setting.secret { given.text.clone() } else { read(&given)? };
        self.secret_files.extend(match &given.origin {
            _ if !given.setting.secret => Some(given.path()),
            Origin::File(path) => Some(path.clone()),
            _ => None,
        });
        let secret = SecretString::from(text.trim());
        parse(&secret).map(Some).map_err(|why| given.bad(why))
    }

    fn line(&mut self, setting: Setting, given: Option<&Given>) {
        self.lines.push(match given {
            None => format!("# {} is not set\n", setting.name),
            Some(given) if setting.secret => format!("{} = \"***\"  # {}\n", setting.name, given.origin),
            Some(given) => {
                let text = match (setting.name, &given.origin) {
                    ("master_key_file" | "operator_key_file" | "extra_ca", _) => given.path().display().to_string(),
                    _ => without_password(&given.text),
                };
                let number = text.parse::<u32>().is_ok();
                let value = if number { text } else { toml::Value::String(text).to_string() };
                format!("{} = {value}  # {}\n", setting.name, given.origin)
            }
        });
    }
}

fn names() -> String {
    SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>().join(", ")
}

fn address(given: &Given) -> Result<SocketAddr, ConfigError> {
    given
        .text
        .parse()
        .map_err(|_| given.bad("it must be an IP address and a port, such as 127.0.0.1:8080 or [::1]:8080"))
}

fn web_url(given: &Given) -> Result<String, ConfigError> {
    let beginning = "it must begin with http:// or https://";
    let url = parsed(given, beginning)?;
    if !matches!(url.scheme(), "http" | "https") {
        return Err(given.bad(beginning));
    }
    if !url.has_host() || has_extras(&url) {
        return Err(given.bad("it must be an http or https URL without user, query and fragment"));
    }
    Ok(url.as_str().trim_end_matches('/').to_owned())
}

fn base_url(given: &Given) -> Result<Url, ConfigError> {
    let url = parsed(given, "it must begin with https://")?;
    if url.scheme() != "https" || !url.has_host() || has_extras(&url) || url.path() != "/" {
        return Err(given.bad("it must be https://host or https://host:port and nothing behind it"));
    }
    Ok(url)
}

/// A URL. Who leaves its beginning out is told of that.
fn parsed(given: &Given, beginning: &str) -> Result<Url, ConfigError> {
    Url::parse(&given.text).map_err(|error| match error {
        url::ParseError::RelativeUrlWithoutBase => given.bad(beginning),
        error => given.bad(error.to_string()),
    })
}

fn has_extras(url: &Url) -> bool {
    let user = !url.username().is_empty() || url.password().is_some();
    user || url.query().is_some() || url.fragment().is_some()
}

/// A relative path counts from the folder of the file that says it, as all paths do.
fn database_url(given: &Given) -> Result<String, ConfigError> {
    let forms = "it must be sqlite:PATH or postgres://USER@HOST/DATABASE";
    if ["postgres://", "postgresql://"].iter().any(|scheme| given.text.starts_with(scheme)) {
        let readable = Url::parse(&given.text).is_ok_and(|url| url.path().len() > 1);
        return if readable { Ok(given.text.clone()) } else { Err(given.bad(forms)) };
    }
    let Some(path) = given.text.strip_prefix("sqlite:") else {
        return Err(given.bad(forms));
    };
    let path = path.strip_prefix("//").unwrap_or(path);
    let folder = given.folder.to_string_lossy();
    match path {
        "" => Err(given.bad("it must be sqlite:PATH, with a path")),
        _ if folder.is_empty() || path.starts_with(['/', ':']) => Ok(format!("sqlite:{path}")),
        _ => {
            // In the URL these two would begin an escape and the options.
            let folder = folder.replace('%', "%25").replace('?', "%3F");
            Ok(format!("sqlite:{}/{path}", folder.trim_end_matches('/')))
        }
    }
}

fn master_key(secret: &SecretString) -> Result<SecretBox<[u8; 32]>, &'static str> {
    let why = "a master key is 32 bytes in base64, as `openssl rand -base64 32` prints them";
    let bytes = BASE64_STANDARD.decode(secret.expose_secret()).map_err(|_| why)?;
    let bytes = <[u8; 32]>::try_from(bytes).map_err(|_| why)?;
    Ok(SecretBox::new(Box::new(bytes)))
}

fn operator_key(secret: &SecretString) -> Result<SecretString, &'static str> {
    let text = secret.expose_secret();
    if text.len() < LEAST_OPERATOR_KEY_CHARS || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("an operator key has at least 16 ASCII characters and no spaces, as `reveille init` makes them");
    }
    Ok(secret.clone())
}

fn certificates(given: &Given) -> Result<String, ConfigError> {
    let pem = read(given)?;
    if pem.contains("-----BEGIN CERTIFICATE-----") {
        Ok(pem)
    } else {
        Err(given.bad("the file holds no PEM certificate"))
    }
}

fn read(given: &Given) -> Result<String, ConfigError> {
    let path = given.path();
    std::fs::read_to_string(&path).map_err(|error| given.bad(format!("cannot read {}: {error}", path.display())))
}

fn roles(given: &Given) -> Result<BTreeSet<Role>, ConfigError> {
    let words = given.text.split(',').map(str::trim);
    words.map(|word| word.parse().map_err(|why: &str| given.bad(why))).collect()
}

impl FromStr for Role {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "api" => Ok(Self::Api),
            "dispatch" => Ok(Self::Dispatch),
            "janitor" => Ok(Self::Janitor),
            _ => Err("the roles are api, dispatch and janitor, separated by commas"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Api => "api",
            Self::Dispatch => "dispatch",
            Self::Janitor => "janitor",
        })
    }
}

fn live_connections(given: &Given) -> Result<usize, ConfigError> {
    let number = given.text.parse().ok().filter(|number| *number <= MOST_LIVE_CONNECTIONS);
    number.ok_or_else(|| given.bad(format!("it must be a number from 0 to {MOST_LIVE_CONNECTIONS}")))
}

fn lease_s(given: &Given) -> Result<u32, ConfigError> {
    let seconds = given.text.parse().ok().filter(|seconds| (LEAST_LEASE_S..=GREATEST_LEASE_S).contains(seconds));
    seconds
        .ok_or_else(|| given.bad(format!("it must be a number of seconds from {LEAST_LEASE_S} to {GREATEST_LEASE_S}")))
}

fn log_filter(given: &Given) -> Result<String, ConfigError> {
    match tracing_subscriber::EnvFilter::builder().parse(&given.text) {
        Ok(_) => Ok(given.text.clone()),
        Err(error) => Err(given.bad(error.to_string())),
    }
}
