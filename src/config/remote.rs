//! What a command needs that asks a running relay: where it is, and a key. No configuration is needed, but one is looked at.

use std::path::{Path, PathBuf};

use secrecy::{ExposeSecret, SecretString};

use super::{
    ConfigError, Flags, Origin,
    layers::{Given, Layers},
    settings::{LISTEN, OPERATOR_KEY, OPERATOR_KEY_FILE, PUBLIC_URL, Setting},
};

/// The environment variable of the app key; it is no setting of the relay.
pub(super) const APP_KEY: &str = "REVEILLE_APP_KEY";
/// The environment variable of a device token.
pub(super) const DEVICE_TOKEN: &str = "REVEILLE_DEVICE_TOKEN";

/// What flags say about the relay that is asked.
#[derive(Debug, Clone, Default)]
pub struct Way {
    /// Its URL.
    pub url: Option<String>,
    /// A file that holds the key.
    pub key_file: Option<PathBuf>,
    /// The configuration file.
    pub config: Option<PathBuf>,
}

/// Which key a command asks with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wanted {
    /// An app's, else the operator's.
    App,
    /// The operator's.
    Operator,
    /// A device's token.
    Device,
}

/// A relay, and a key to it. `Debug` does not show the key.
#[derive(Debug)]
pub struct Remote {
    /// Where the relay is, without a slash at its end.
    pub url: String,
    /// The key.
    pub key: SecretString,
    /// What it is by where it comes from, for people: `app key (environment REVEILLE_APP_KEY)`.
    pub key_is: String,
}

impl Remote {
    /// From the flags of a command, else from this process' environment, else from the configuration file.
    ///
    /// # Errors
    /// As [`Remote::load`].
    pub fn of_process(way: &Way, wanted: Wanted) -> Result<Self, ConfigError> {
        Self::load(way, wanted, super::environment::variable, Path::new(""))
    }

    /// Resolves both. `env` looks a variable up; relative paths count from `folder`.
    ///
    /// # Errors
    /// There is no such key or its file cannot be read; the URL is none; or the configuration file is needed and wrong.
    pub fn load(
        way: &Way,
        wanted: Wanted,
        env: impl Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self, ConfigError> {
        let flags = Flags { config: way.config.clone(), ..Flags::default() };
        let variable = |name: &str| Some(env(name)?.trim().to_owned()).filter(|key| !key.is_empty());
        let of_variable =
            |name: &'static str, what: &str| Some((variable(name)?, format!("{what} ({})", Origin::Environment(name))));
        let operator_key = || -> Result<Option<(String, String)>, ConfigError> {
            let layers = Layers::read(&flags, &env, folder)?;
            let Some(given) = layers.find_secret(OPERATOR_KEY, OPERATOR_KEY_FILE)? else { return Ok(None) };
            let text = if given.setting.secret { given.text.clone() } else { super::read(&given)? };
            Ok(Some((text.trim().to_owned(), format!("operator key ({})", given.origin))))
        };
        let (key, missing) = match (&way.key_file, wanted) {
            (Some(path), _) => {
                let path = folder.join(path);
                let read = std::fs::read_to_string(&path);
                let text = read.map_err(|source| ConfigError::NoKeyFile { path: path.clone(), source })?;
                let key = Some(text.trim().to_owned()).filter(|key| !key.is_empty());
                let key = key.map(|key| {
                    let what = format!("{} (file {})", kind(&key, wanted), path.display());
                    (key, what)
                });
                (key, ConfigError::EmptyKeyFile { path })
            }
            (None, Wanted::App) => {
                let key = of_variable(APP_KEY, "app key");
                (if key.is_some() { key } else { operator_key()? }, ConfigError::NoAppKey)
            }
            (None, Wanted::Operator) => (operator_key()?, ConfigError::NoOperatorKey),
            (None, Wanted::Device) => (of_variable(DEVICE_TOKEN, "device token"), ConfigError::NoDeviceToken),
        };
        let (key, key_is) = key.ok_or(missing)?;
        let url = match &way.url {
            Some(url) => url_of_flag("--url", url)?,
            None => {
                let layers = Layers::read(&flags, &env, folder)?;
                let listen = || Some(default_url(format!("http://{}", layers.find(LISTEN)?.text)));
                let found = layers.find(PUBLIC_URL).or_else(listen);
                super::web_url(&found.unwrap_or_else(|| default_url(String::new())))?
            }
        };
        Ok(Self { url, key: SecretString::from(key), key_is })
    }

    /// Whether the key is the operator's: an app's and a device's say what they are.
    pub fn is_operators(&self) -> bool {
        let key = self.key.expose_secret();
        !key.starts_with("rk_") && !key.starts_with("dt_")
    }
}

/// The URL that a flag gives, without a slash at its end.
///
/// # Errors
/// It is none; the error names the flag.
pub fn url_of_flag(flag: &'static str, text: &str) -> Result<String, ConfigError> {
    let setting = Setting { name: flag.trim_start_matches('-'), ..PUBLIC_URL };
    let origin = Origin::Flag(flag.to_owned());
    super::web_url(&Given { setting, text: text.to_owned(), origin, folder: PathBuf::new() })
}

fn default_url(text: String) -> Given {
    Given { setting: PUBLIC_URL, text, origin: Origin::Default, folder: PathBuf::new() }
}

/// What lies in a key file: most keys begin with what they are.
fn kind(key: &str, wanted: Wanted) -> &'static str {
    match (key.get(..3), wanted) {
        (Some("rk_"), _) => "app key",
        (Some("dt_"), _) | (_, Wanted::Device) => "device token",
        (Some("ro_"), _) | (_, Wanted::Operator) => "operator key",
        (_, Wanted::App) => "key",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(url: Option<&str>, variables: &[(&str, &str)], folder: &Path) -> Result<Remote, ConfigError> {
        load_for(Wanted::App, Way { url: url.map(str::to_owned), ..Way::default() }, variables, folder)
    }

    fn load_for(wanted: Wanted, way: Way, vars: &[(&str, &str)], folder: &Path) -> Result<Remote, ConfigError> {
        let env = |name: &str| Some(vars.iter().find(|(known, _)| *known == name)?.1.to_owned());
        Remote::load(&way, wanted, env, folder)
    }

    #[test]
    fn the_url_comes_from_the_flag_or_the_relays_own_settings() {
        let folder = tempfile::tempdir().unwrap();
        let url = |flag, variables: &[(&str, &str)]| {
            let variables = [&[(APP_KEY, "rk_1")], variables].concat();
            load(flag, &variables, folder.path()).unwrap().url
        };
        assert_eq!(url(None, &[]), "http://127.0.0.1:8080");
        assert_eq!(url(None, &[("REVEILLE_LISTEN", "127.0.0.1:9000")]), "http://127.0.0.1:9000");
        assert_eq!(url(None, &[("REVEILLE_PUBLIC_URL", "https://push.example.com/")]), "https://push.example.com");
        std::fs::write(
            folder.path().join("reveille.toml"),
            "public_url = \"https://of.file\"\nmaster_key_file = \"none\"",
        )
        .unwrap();
        assert_eq!(url(None, &[]), "https://of.file", "what does not matter here is not looked at");
        assert_eq!(url(Some("http://10.0.0.7:8080/"), &[]), "http://10.0.0.7:8080");
        std::fs::write(folder.path().join("reveille.toml"), "=").unwrap();
        assert_eq!(url(Some("http://10.0.0.7:8080"), &[]), "http://10.0.0.7:8080");
    }

    #[test]
    fn the_key_comes_from_a_file_or_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let error = load(None, &[(APP_KEY, " ")], folder.path()).unwrap_err().to_string();
        assert!(error.contains(APP_KEY) && error.contains("--key-file"), "{error}");
        std::fs::write(folder.path().join("key"), "rk_file\n").unwrap();
        std::fs::write(folder.path().join("empty"), "\n").unwrap();
        let key = |file: Option<&str>| {
            let way = Way { key_file: file.map(PathBuf::from), ..Way::default() };
            load_for(Wanted::App, way, &[(APP_KEY, "rk_environment")], folder.path()).map(|remote| remote.key)
        };
        assert_eq!(key(None).unwrap().expose_secret(), "rk_environment");
        assert_eq!(key(Some("key")).unwrap().expose_secret(), "rk_file");
        for file in ["none", "empty"] {
            let error = key(Some(file)).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }
    }

    #[test]
    fn where_there_is_no_app_key_the_operators_will_do() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("reveille.toml"), "operator_key_file = \"operator.key\"").unwrap();
        std::fs::write(folder.path().join("operator.key"), "ro_of-the-file\n").unwrap();
        let load = |wanted, vars: &[(&str, &str)]| load_for(wanted, Way::default(), vars, folder.path()).unwrap();
        let of_app = load(Wanted::App, &[(APP_KEY, "rk_1")]);
        assert!(of_app.key.expose_secret() == "rk_1" && !of_app.is_operators());
        let operators = load(Wanted::App, &[]);
        assert!(operators.key.expose_secret() == "ro_of-the-file" && operators.is_operators());
        let environment = load(Wanted::Operator, &[(APP_KEY, "rk_1"), ("REVEILLE_OPERATOR_KEY", "ro_of-the-process")]);
        assert_eq!(environment.key.expose_secret(), "ro_of-the-process");
        let empty = tempfile::tempdir().unwrap();
        let error = load_for(Wanted::Operator, Way::default(), &[(APP_KEY, "rk_1")], empty.path()).unwrap_err();
        assert!(error.to_string().contains("REVEILLE_OPERATOR_KEY"), "{error}");
        let error = load_for(Wanted::Device, Way::default(), &[(APP_KEY, "rk_1")], empty.path()).unwrap_err();
        assert!(error.to_string().contains(DEVICE_TOKEN), "{error}");
    }

    #[test]
    fn a_key_is_what_the_place_says_where_it_comes_from() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("key"), "rk_file\n").unwrap();
        let what = |wanted, file: Option<&str>, vars: &[(&str, &str)]| {
            let way = Way { key_file: file.map(PathBuf::from), ..Way::default() };
            load_for(wanted, way, vars, folder.path()).unwrap().key_is
        };
        assert_eq!(what(Wanted::App, None, &[(APP_KEY, "hello")]), "app key (environment REVEILLE_APP_KEY)");
        let of_operator = [("REVEILLE_OPERATOR_KEY", "ro_of-the-process")];
        assert_eq!(what(Wanted::App, None, &of_operator), "operator key (environment REVEILLE_OPERATOR_KEY)");
        assert_eq!(
            what(Wanted::Device, None, &[(DEVICE_TOKEN, "x")]),
            "device token (environment REVEILLE_DEVICE_TOKEN)"
        );
        let of_file = format!("app key (file {})", folder.path().join("key").display());
        assert_eq!(what(Wanted::Operator, Some("key"), &[]), of_file);
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        let error = load(Some("push.example.com"), &[(APP_KEY, "rk_1")], Path::new("")).unwrap_err().to_string();
        assert!(error.contains("--url") && error.contains("push.example.com"), "{error}");
        for url in ["push.example.com", "127.0.0.1:8080", "localhost:8080", "ftp://push.example.com"] {
            let error = url_of_flag("--relay", url).unwrap_err().to_string();
            let expected =
                format!("bad value for `relay` (flag --relay), `{url}`: it must begin with http:// or https://");
            assert_eq!(error, expected);
        }
    }
}
