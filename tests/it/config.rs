//! The configuration as an operator meets it: what is stronger than what, what is refused, and what is shown.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use jsonwebtoken::{Algorithm, EncodingKey, Header};
use reveille::{
    config::{Config, ConfigError, Flags, Role, SETTINGS},
    telemetry::LogFormat,
};
use secrecy::ExposeSecret;
use tempfile::TempDir;

/// 32 bytes that say nothing.
const MASTER_KEY: &str = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=";

/// A machine with nothing set.
struct Machine {
    folder: TempDir,
    flags: Flags,
    environment: BTreeMap<&'static str, String>,
}

impl Machine {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        Self { folder, flags: Flags::default(), environment: BTreeMap::new() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn toml(self, text: &str) -> Self {
        self.file("reveille.toml", text)
    }

    fn env(mut self, name: &'static str, value: &str) -> Self {
        self.environment.insert(name, value.to_owned());
        self
    }

    fn flags(mut self, flags: Flags) -> Self {
        self.flags = flags;
        self
    }

    fn load(&self) -> Result<Config, ConfigError> {
        Config::load(&self.flags, |name| self.environment.get(name).cloned(), self.folder.path())
    }

    fn error(&self) -> String {
        self.load().unwrap_err().to_string()
    }
}

#[test]
fn with_nothing_set_the_defaults_hold() {
    let machine = Machine::new();
    let config = machine.load().unwrap();
    assert_eq!(config.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.admin_listen, None);
    assert_eq!(config.public_url, "http://127.0.0.1:8080");
    assert_eq!(config.database_url.expose_secret(), format!("sqlite:{}", machine.path("reveille.db").display()));
    assert!(config.master_key.is_none() && config.operator_key.is_none());
    assert!(config.apns_url.is_none() && config.fcm_url.is_none() && config.extra_ca_pem.is_none());
    assert_eq!(config.roles.into_iter().collect::<Vec<_>>(), [Role::Api, Role::Dispatch, Role::Janitor]);
    assert_eq!(config.lease_s, 45);
    assert_eq!(config.log, "info");
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn in_the_current_folder_paths_stay_as_they_are() {
    let config = Config::load(&Flags::default(), |_| None, Path::new("")).unwrap();
    assert_eq!(config.database_url.expose_secret(), "sqlite:reveille.db");
}

#[test]
fn flags_are_stronger_than_environment_than_file_than_default() {
    let machine = Machine::new().toml("lease_s = 50");
    assert_eq!(machine.load().unwrap().lease_s, 50);
    let machine = machine.env("REVEILLE_LEASE_S", "60");
    assert_eq!(machine.load().unwrap().lease_s, 60);
    let machine = machine.flags(Flags { lease_s: Some("70".to_owned()), ..Flags::default() });
    assert_eq!(machine.load().unwrap().lease_s, 70);
}

#[test]
fn every_setting_is_read_from_the_environment_and_from_the_file() {
    let machine = Machine::new()
        .file("master.key", MASTER_KEY)
        .file("operator.key", "an-operator-key-0")
        .file("ca.pem", "-----BEGIN CERTIFICATE-----\n");
    let values = [
        ("listen", "[::1]:9000"),
        ("admin_listen", "127.0.0.1:9001"),
        ("public_url", "https://push.example.com"),
        ("database_url", "sqlite:other.db"),
        ("master_key", MASTER_KEY),
        ("master_key_file", "master.key"),
        ("operator_key", "an-operator-key-0"),
        ("operator_key_file", "operator.key"),
        ("apns_url", "https://localhost:2197"),
        ("fcm_url", "https://localhost:8443"),
        ("extra_ca", "ca.pem"),
        ("roles", "api"),
        ("lease_s", "30"),
        ("live_connections", "5"),
        ("log", "debug"),
        ("log_format", "json"),
        ("otlp_url", "http://127.0.0.1:4318"),
    ];
    assert_eq!(SETTINGS.iter().map(|setting| setting.name).collect::<Vec<_>>(), values.map(|(name, _)| name));
    let origin = |machine: &Machine, name: &str| {
        let printed = machine.load().unwrap().print();
        let line = printed.lines().find(|line| line.starts_with(&format!("{name} = "))).map(str::to_owned);
        line.unwrap_or_else(|| panic!("{name} is not shown as set:\n{printed}"))
    };
    let mut machine = machine;
    for ((name, value), setting) in values.iter().zip(SETTINGS) {
        machine = machine.toml(&format!("{name} = \"{value}\"\n"));
        assert!(origin(&machine, name).contains("  # file "), "{name}");
        machine.environment = BTreeMap::from([(setting.env, (*value).to_owned())]);
        assert!(origin(&machine, name).ends_with(&format!("  # environment {}", setting.env)), "{name}");
        machine.environment.clear();
        assert_eq!(setting.env, format!("REVEILLE_{}", name.to_uppercase()));
    }
}

#[test]
fn every_setting_but_a_secret_has_a_flag_and_the_flag_reaches_it() {
    #[derive(clap::Parser)]
    struct Command {
        #[command(flatten)]
        flags: Flags,
    }
    for setting in SETTINGS {
        let flag = format!("--{}", setting.name.replace('_', "-"));
        let parsed = <Command as clap::Parser>::try_parse_from(["reveille", &flag, "?"]);
        assert_eq!(parsed.is_err(), setting.secret, "{flag}");
        let Ok(Command { flags }) = parsed else { continue };
        // No setting takes a lone question mark, except the names of files and folders, and the filter of the log.
        let loaded = Config::load(&flags, |_| None, Path::new("nowhere"));
        match setting.name {
            "database_url" | "log" => continue,
            _ => assert!(loaded.unwrap_err().to_string().contains(&format!("(flag {flag})")), "{flag}"),
        }
    }
}

#[test]
fn an_empty_variable_counts_as_not_set() {
    let machine = Machine::new().env("REVEILLE_APNS_URL", "").env("REVEILLE_MASTER_KEY", "");
    let config = machine.load().unwrap();
    assert!(config.apns_url.is_none() && config.master_key.is_none());
}

#[test]
fn an_unknown_key_is_an_error_that_names_it_and_the_file() {
    let machine = Machine::new().toml("listen = \"127.0.0.1:1\"\nlisten_on = \"x\"\n");
    let error = machine.error();
    let file = machine.path("reveille.toml");
    assert!(
        error.starts_with(&format!("unknown key `listen_on` in {}; the keys are listen, ", file.display())),
        "{error}"
    );
}

#[test]
fn a_file_that_is_no_toml_is_an_error_with_its_line_and_without_its_text() {
    let machine = Machine::new().toml("# one\n\nmaster_key = \"hidden-hidden\n");
    let error = machine.error();
    assert!(error.contains("reveille.toml, line 3: "), "{error}");
    assert!(!error.contains("hidden"), "{error}");
}

#[test]
fn a_table_in_the_file_is_an_error() {
    let error = Machine::new().toml("[log]\nlevel = \"info\"\n").error();
    assert!(error.contains("`log` in ") && error.ends_with("not of type table"), "{error}");
}

#[test]
fn a_named_file_must_exist_and_the_usual_one_need_not() {
    let flags = Flags { config: Some("other.toml".into()), ..Flags::default() };
    let machine = Machine::new().flags(flags);
    assert!(machine.error().starts_with("cannot read the configuration file "));
    let machine = machine.file("other.toml", "log_format = \"json\"").toml("log_format = \"nonsense\"");
    assert_eq!(machine.load().unwrap().log_format, LogFormat::Json);
}

#[test]
fn relative_paths_in_a_file_count_from_the_file() {
    let toml = "master_key_file = \"keys/master.key\"\ndatabase_url = \"sqlite:data.db?mode=rw\"\n";
    let flags = Flags { config: Some("etc/relay.toml".into()), ..Flags::default() };
    let machine = Machine::new()
        .flags(flags)
        .file("etc/relay.toml", toml)
        .file("etc/keys/master.key", &format!("{MASTER_KEY}\n"));
    let config = machine.load().unwrap();
    assert_eq!(config.master_key.unwrap().expose_secret()[..4], [0, 1, 2, 3]);
    assert_eq!(
        config.database_url.expose_secret(),
        format!("sqlite:{}?mode=rw", machine.path("etc/data.db").display())
    );
    for absolute in ["sqlite:/var/lib/reveille.db", "sqlite::memory:"] {
        let machine = Machine::new().toml(&format!("database_url = \"{absolute}\""));
        assert_eq!(machine.load().unwrap().database_url.expose_secret(), absolute);
    }
}

#[test]
fn a_bad_value_names_the_setting_where_it_came_from_and_the_value() {
    let cases = [
        ("REVEILLE_LISTEN", "8080", "listen"),
        ("REVEILLE_ADMIN_LISTEN", "localhost", "admin_listen"),
        ("REVEILLE_PUBLIC_URL", "push.example.com", "public_url"),
        ("REVEILLE_PUBLIC_URL", "https://push.example.com/?a=b", "public_url"),
        ("REVEILLE_DATABASE_URL", "mysql://localhost/x", "database_url"),
        ("REVEILLE_DATABASE_URL", "sqlite:", "database_url"),
        ("REVEILLE_APNS_URL", "http://localhost:2197", "apns_url"),
        ("REVEILLE_FCM_URL", "https://localhost/v1", "fcm_url"),
        ("REVEILLE_EXTRA_CA", "no/such/file", "extra_ca"),
        ("REVEILLE_ROLES", "api,cook", "roles"),
        ("REVEILLE_LEASE_S", "2", "lease_s"),
        ("REVEILLE_LIVE_CONNECTIONS", "1000001", "live_connections"),
        ("REVEILLE_LEASE_S", "3601", "lease_s"),
        ("REVEILLE_LEASE_S", "45s", "lease_s"),
        ("REVEILLE_LOG", "reveille=loudly", "log"),
        ("REVEILLE_LOG_FORMAT", "xml", "log_format"),
        ("REVEILLE_MASTER_KEY_FILE", "no/such/file", "master_key_file"),
    ];
    for (variable, value, setting) in cases {
        let error = Machine::new().env(variable, value).error();
        let value = value.split_once('?').map_or(value.to_owned(), |(before, _)| format!("{before}?***"));
        let start = format!("bad value for `{setting}` (environment {variable}), `{value}`: ");
        assert!(error.starts_with(&start), "{error}");
    }
    let machine = Machine::new().toml("lease_s = 2");
    let start = format!("bad value for `lease_s` (file {}), `2`: ", machine.path("reveille.toml").display());
    assert!(machine.error().starts_with(&start), "{}", machine.error());
}

#[test]
fn the_bounds_of_the_lease_are_allowed() {
    for seconds in [3, 3600] {
        assert_eq!(Machine::new().toml(&format!("lease_s = {seconds}")).load().unwrap().lease_s, seconds);
    }
}

#[test]
fn the_password_of_a_database_is_never_shown() {
    let url = "postgres://me:hidden@db/x?password=hidden";
    let config = Machine::new().env("REVEILLE_DATABASE_URL", url).load().unwrap();
    assert_eq!(config.database_url.expose_secret(), url);
    assert!(!config.print().contains("hidden") && !format!("{config:?}").contains("hidden"));
    assert!(config.print().contains("database_url = \"postgres://***@db/x?***\""), "{}", config.print());
    let error = Machine::new().env("REVEILLE_DATABASE_URL", "postgres://me:hidden@db").error();
    let why = "`postgres://***@db`: it must be sqlite:PATH or postgres://USER@HOST/DATABASE";
    assert!(error.ends_with(why), "{error}");
}

#[test]
fn a_public_url_loses_its_last_slash_and_keeps_its_path() {
    let config = Machine::new().env("REVEILLE_PUBLIC_URL", "https://example.com/push/").load().unwrap();
    assert_eq!(config.public_url, "https://example.com/push");
    let config = Machine::new().env("REVEILLE_LISTEN", "0.0.0.0:8081").load().unwrap();
    assert_eq!(config.public_url, "http://0.0.0.0:8081");
}

#[test]
fn roles_are_a_list_or_words_with_commas() {
    for text in ["roles = [\"dispatch\", \"janitor\"]", "roles = \"dispatch, janitor\""] {
        let config = Machine::new().toml(text).load().unwrap();
        assert_eq!(config.roles.into_iter().collect::<Vec<_>>(), [Role::Dispatch, Role::Janitor]);
    }
    assert!(Machine::new().toml("roles = []").error().starts_with("bad value for `roles`"));
}

#[test]
fn a_secret_given_twice_in_one_place_is_an_error_and_in_two_places_the_stronger_counts() {
    let machine = Machine::new()
        .file("operator.key", "operator-key-of-file\n")
        .env("REVEILLE_OPERATOR_KEY", "operator-key-inline")
        .env("REVEILLE_OPERATOR_KEY_FILE", "operator.key");
    let error = machine.error();
    assert!(error.starts_with("both `operator_key` and `operator_key_file` are set (environment "), "{error}");

    let mut machine = machine.toml("operator_key_file = \"operator.key\"");
    machine.environment.remove("REVEILLE_OPERATOR_KEY_FILE");
    assert_eq!(machine.load().unwrap().operator_key.unwrap().expose_secret(), "operator-key-inline");
    machine.environment.clear();
    assert_eq!(machine.load().unwrap().operator_key.unwrap().expose_secret(), "operator-key-of-file");
}

#[test]
fn bad_secrets_are_refused_and_never_shown() {
    let cases = [
        ("REVEILLE_MASTER_KEY", "hidden!", "master_key"),
        ("REVEILLE_MASTER_KEY", "aGlkZGVu", "master_key"),
        ("REVEILLE_OPERATOR_KEY", "hidden", "operator_key"),
        ("REVEILLE_OPERATOR_KEY", "hidden hidden hidden", "operator_key"),
    ];
    for (variable, value, setting) in cases {
        let machine = Machine::new().env(variable, value);
        let error = machine.load().unwrap_err();
        let start = format!("bad value for `{setting}` (environment {variable}), `***`: ");
        assert!(error.to_string().starts_with(&start), "{error}");
        assert!(!error.to_string().contains(value) && !format!("{error:?}").contains(value), "{error:?}");
    }
}

#[test]
fn without_a_master_key_it_says_how_to_make_one() {
    let config = Machine::new().load().unwrap();
    let error = config.require_master_key().unwrap_err().to_string();
    assert!(error.contains("reveille init") && error.contains("openssl rand -base64 32"), "{error}");
    let config = Machine::new().env("REVEILLE_MASTER_KEY", MASTER_KEY).load().unwrap();
    assert_eq!(config.require_master_key().unwrap().expose_secret()[31], 31);
}

#[test]
fn what_is_printed_is_a_file_with_sources_and_without_secrets() {
    let machine = Machine::new()
        .toml("log = \"warn\"\noperator_key = \"hidden-operator-key\"\n")
        .env("REVEILLE_MASTER_KEY", MASTER_KEY)
        .flags(Flags { listen: Some("127.0.0.1:1".to_owned()), ..Flags::default() });
    let config = machine.load().unwrap();
    let printed = config.print();
    let file = machine.path("reveille.toml");
    for line in [
        "listen = \"127.0.0.1:1\"  # flag --listen",
        "# admin_listen is not set",
        "public_url = \"http://127.0.0.1:1\"  # default",
        "master_key = \"***\"  # environment REVEILLE_MASTER_KEY",
        "lease_s = 45  # default",
        &format!("log = \"warn\"  # file {}", file.display()),
        &format!("operator_key = \"***\"  # file {}", file.display()),
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line} is missing in\n{printed}");
    }
    assert!(printed.parse::<toml::Table>().is_ok(), "{printed}");
    let debug = format!("{config:?}");
    for secret in ["hidden", MASTER_KEY, "0, 1, 2"] {
        assert!(!printed.contains(secret) && !debug.contains(secret), "{secret}");
    }
}

#[test]
fn the_readme_lists_exactly_the_settings_there_are() {
    let readme = fs::read_to_string(in_repository("README.md")).unwrap();
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with("| `REVEILLE_")).collect();
    let expected: Vec<String> = SETTINGS
        .iter()
        .map(|setting| {
            let default = setting.default.map_or("not set".to_owned(), |default| format!("`{default}`"));
            format!("| `{}` | {default} | {} |", setting.env, setting.about)
        })
        .collect();
    assert_eq!(rows, expected, "the table in README.md should be\n{}", expected.join("\n"));
}

#[test]
fn the_example_configuration_loads() {
    let flags = Flags { config: Some("reveille.toml".into()), ..Flags::default() };
    let config = Config::load(&flags, |_| None, &in_repository("credentials-example")).unwrap();
    assert!(config.require_master_key().is_ok());
    assert!(config.operator_key.is_some());
    assert_eq!(config.public_url, "https://push.example.com");
}

#[test]
fn the_example_keys_sign() {
    let claims = serde_json::json!({ "iss": "EXAMPLE123", "iat": 1_764_547_200 });
    let p8 = fs::read(in_repository("credentials-example/apns-AuthKey_EXAMPLE123.p8")).unwrap();
    let key = EncodingKey::from_ec_pem(&p8).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::ES256), &claims, &key).unwrap();

    let json = |name: &str| -> serde_json::Value {
        serde_json::from_slice(&fs::read(in_repository(&format!("credentials-example/{name}"))).unwrap()).unwrap()
    };
    assert_eq!(json("apns.json")["private_key"].as_str().unwrap().as_bytes(), p8);

    let account = json("service-account.json");
    assert_eq!(account["token_uri"], "https://oauth2.googleapis.com/token");
    let key = EncodingKey::from_rsa_pem(account["private_key"].as_str().unwrap().as_bytes()).unwrap();
    jsonwebtoken::encode(&Header::new(Algorithm::RS256), &claims, &key).unwrap();
}

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}
