//! What a command needs that asks a running relay: where it is, and an app key. No configuration is needed, but one is looked at.

use std::path::{Path, PathBuf};

use secrecy::SecretString;

use super::{
    ConfigError, Flags, Origin,
    layers::{Given, Layers},
    settings::{LISTEN, PUBLIC_URL},
};

/// The environment variable of the app key; it is no setting of the relay.
const APP_KEY: &str = "REVEILLE_APP_KEY";

/// A relay, and the key to one of its apps. `Debug` does not show the key.
#[derive(Debug)]
pub struct Remote {
    /// Where the relay is, without a slash at its end.
    pub url: String,
    /// The app key.
    pub app_key: SecretString,
}

impl Remote {
    /// From the flags of a command, else from this process' environment, else from the configuration file in its folder.
    ///
    /// # Errors
    /// As [`Remote::load`].
    pub fn of_process(url: Option<&str>, key_file: Option<&Path>) -> Result<Self, ConfigError> {
        Self::load(url, key_file, super::variable, Path::new(""))
    }

    /// Resolves both. `env` looks a variable up; relative paths count from `folder`.
    ///
    /// # Errors
    /// There is no app key or its file cannot be read; the URL is none; or, without `url`, the configuration file is wrong.
    pub fn load(
        url: Option<&str>,
        key_file: Option<&Path>,
        env: impl Fn(&str) -> Option<String>,
        folder: &Path,
    ) -> Result<Self, ConfigError> {
        let app_key = match key_file {
            Some(path) => {
                let path = folder.join(path);
                std::fs::read_to_string(&path).map_err(|source| ConfigError::NoKeyFile { path, source })?
            }
            None => env(APP_KEY).unwrap_or_default(),
        };
        let app_key = app_key.trim();
        if app_key.is_empty() {
            return Err(ConfigError::NoAppKey);
        }
        let given = match url {
            Some(url) => given(url.to_owned(), Origin::Flag("--url".to_owned())),
            None => {
                let flags = Flags::default();
                let layers = Layers::read(&flags, env, folder)?;
                let listen = || Some(given(format!("http://{}", layers.find(LISTEN)?.text), Origin::Default));
                let found = layers.find(PUBLIC_URL).or_else(listen);
                found.unwrap_or_else(|| given(String::new(), Origin::Default))
            }
        };
        Ok(Self { url: super::web_url(&given)?, app_key: app_key.into() })
    }
}

fn given(text: String, origin: Origin) -> Given {
    Given { setting: PUBLIC_URL, text, origin, folder: PathBuf::new() }
}

#[cfg(test)]
mod tests {
    use secrecy::ExposeSecret;

    use super::*;

    fn load(url: Option<&str>, variables: &[(&str, &str)], folder: &Path) -> Result<Remote, ConfigError> {
        let env = |name: &str| Some(variables.iter().find(|(known, _)| *known == name)?.1.to_owned());
        Remote::load(url, None, env, folder)
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
        let env = |name: &str| (name == APP_KEY).then(|| "rk_environment".to_owned());
        let key = |file: Option<&Path>| Remote::load(None, file, env, folder.path()).map(|remote| remote.app_key);
        assert_eq!(key(None).unwrap().expose_secret(), "rk_environment");
        assert_eq!(key(Some(Path::new("key"))).unwrap().expose_secret(), "rk_file");
        let error = key(Some(Path::new("none"))).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }

    #[test]
    fn a_url_that_is_none_is_refused() {
        let error = load(Some("push.example.com"), &[(APP_KEY, "rk_1")], Path::new("")).unwrap_err().to_string();
        assert!(error.contains("--url") && error.contains("push.example.com"), "{error}");
    }
}
