//! Where a value comes from: flags, then the environment, then the file, then the default.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use super::{
    ConfigError,
    settings::{Flags, SETTINGS, Setting},
};

/// The file that is read when no other is named.
pub const FILE_NAME: &str = "reveille.toml";

/// Where a value comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The command line, with the flag's name.
    Flag(String),
    /// The environment, with the variable's name.
    Environment(&'static str),
    /// A configuration file.
    File(PathBuf),
    /// Nobody set it.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(name) => write!(f, "flag {name}"),
            Self::Environment(name) => write!(f, "environment {name}"),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// A setting's text as somebody gave it. It has no `Debug`, for it may be a secret.
pub(super) struct Given {
    pub setting: Setting,
    pub text: String,
    pub origin: Origin,
    /// The folder from which a relative path in it counts.
    pub folder: PathBuf,
}

impl Given {
    /// The error for this value; it shows the value only if it is no secret.
    pub fn bad(&self, why: impl Into<String>) -> ConfigError {
        ConfigError::Bad {
            setting: self.setting.name,
            origin: self.origin.clone(),
            value: if self.setting.secret { "***".to_owned() } else { without_password(&self.text) },
            why: why.into(),
        }
    }

    /// The path it names.
    pub fn path(&self) -> PathBuf {
        self.folder.join(&self.text)
    }
}

/// What each layer says.
pub(super) struct Layers<'a, E> {
    flags: &'a Flags,
    env: E,
    file: Option<(PathBuf, BTreeMap<&'static str, String>)>,
    folder: &'a Path,
}

impl<'a, E: Fn(&str) -> Option<String>> Layers<'a, E> {
    /// Reads the configuration file; `folder` is the current one.
    pub fn read(flags: &'a Flags, env: E, folder: &'a Path) -> Result<Self, ConfigError> {
        let named = flags.config.as_ref().map(|path| folder.join(path));
        let path = named.clone().unwrap_or_else(|| folder.join(FILE_NAME));
        let file = match std::fs::read_to_string(&path) {
            Ok(text) => {
                let keys = parse(&path, &text)?;
                Some((path, keys))
            }
            Err(error) if named.is_none() && error.kind() == std::io::ErrorKind::NotFound => None,
            Err(source) => return Err(ConfigError::Unreadable { path, source }),
        };
        Ok(Self { flags, env, file, folder })
    }

    /// The strongest layer's value, or the default.
    pub fn find(&self, setting: Setting) -> Option<Given> {
        let default = || {
            let text = setting.default?.to_owned();
            Some(Given { setting, text, origin: Origin::Default, folder: self.folder.to_owned() })
        };
        self.by_strength(setting).into_iter().flatten().next().or_else(default)
    }

    /// The value of a secret that may be given inline or as a file; both in one layer is an error.
    pub fn find_secret(&self, inline: Setting, as_file: Setting) -> Result<Option<Given>, ConfigError> {
        for pair in self.by_strength(inline).into_iter().zip(self.by_strength(as_file)) {
            match pair {
                (Some(_), Some(file)) => {
                    return Err(ConfigError::Both { one: inline.name, other: as_file.name, origin: file.origin });
                }
                (Some(given), None) | (None, Some(given)) => return Ok(Some(given)),
                (None, None) => {}
            }
        }
        Ok(None)
    }

    /// What flag, environment and file say, in this order. An empty variable counts as not set.
    fn by_strength(&self, setting: Setting) -> [Option<Given>; 3] {
        let given = |text: &String, origin, folder: &Path| Given {
            setting,
            text: text.clone(),
            origin,
            folder: folder.to_owned(),
        };
        let flag = self.flags.get(&setting).map(|text| {
            let name = format!("--{}", setting.name.replace('_', "-"));
            given(text, Origin::Flag(name), self.folder)
        });
        let variable = (self.env)(setting.env).filter(|text| !text.is_empty());
        let variable = variable.map(|text| given(&text, Origin::Environment(setting.env), self.folder));
        let file = self.file.as_ref().and_then(|(path, keys)| {
            let folder = path.parent().unwrap_or(Path::new(""));
            keys.get(setting.name).map(|text| given(text, Origin::File(path.clone()), folder))
        });
        [flag, variable, file]
    }
}

/// Hides what stands before an `@` or behind a `?` in something like a URL, where passwords would be.
pub(super) fn without_password(text: &str) -> String {
    let Some((scheme, rest)) = text.split_once("://") else {
        return text.to_owned();
    };
    let (rest, query) = rest.split_once('?').map_or((rest, ""), |(rest, _)| (rest, "?***"));
    match rest.rsplit_once('@') {
        Some((_, host)) => format!("{scheme}://***@{host}{query}"),
        None => format!("{scheme}://{rest}{query}"),
    }
}

/// The keys of a configuration file as texts. Numbers become their digits, lists of words a comma list.
fn parse(path: &Path, text: &str) -> Result<BTreeMap<&'static str, String>, ConfigError> {
    let not_toml = |line: usize, what: String| ConfigError::NotToml { path: path.to_owned(), line, what };
    let table = text.parse::<toml::Table>().map_err(|error| {
        // Only its message: the error's own display quotes the line, which may hold a secret.
        let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
        not_toml(before.lines().count().max(1), error.message().to_owned())
    })?;
    let mut keys = BTreeMap::new();
    for (key, value) in table {
        let Some(setting) = SETTINGS.iter().find(|setting| setting.name == key) else {
            return Err(ConfigError::UnknownKey { path: path.to_owned(), key });
        };
        let Some(text) = scalar(&value).or_else(|| words(&value)) else {
            return Err(ConfigError::WrongType { path: path.to_owned(), key, found: value.type_str() });
        };
        keys.insert(setting.name, text);
    }
    Ok(keys)
}

fn scalar(value: &toml::Value) -> Option<String> {
    match value {
        toml::Value::String(text) => Some(text.clone()),
        toml::Value::Integer(number) => Some(number.to_string()),
        _ => None,
    }
}

fn words(value: &toml::Value) -> Option<String> {
    let words: Option<Vec<&str>> = value.as_array()?.iter().map(toml::Value::as_str).collect();
    words.map(|words| words.join(","))
}
