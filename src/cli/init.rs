//! `reveille init`: a configuration file, a master key and an operator key, all for their owner's eyes only.
#![allow(clippy::disallowed_macros, reason = "a command answers on stdout")]

use std::{
    fs::{self, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use base64::{
    Engine,
    prelude::{BASE64_STANDARD, BASE64_URL_SAFE_NO_PAD},
};
use rand::{TryRng, rngs::SysRng};

use super::screen::Screen;
use crate::config::{FILE_NAME, SETTINGS};

const MASTER_KEY_FILE: &str = "master.key";
const OPERATOR_KEY_FILE: &str = "operator.key";

/// Arguments of `reveille init`.
#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// The folder for the files; it is made if it does not exist
    #[arg(long, value_name = "FOLDER", default_value = ".")]
    pub dir: PathBuf,
}

/// Writes the three files, and prints what it made and the operator key.
///
/// # Errors
/// One of the files exists already or cannot be written; then none of them is left behind.
pub fn run(args: InitArgs) -> anyhow::Result<()> {
    let operator_key = create(&args.dir)?;
    let file = args.dir.join(FILE_NAME);
    let here = args.dir == Path::new(".");
    let option = if here { String::new() } else { format!(" --config {}", file.display()) };
    let screen = Screen::new();
    screen.line(format!("Made {}: the configuration, every setting explained", file.display()));
    screen.line(format!(
        "Made {}: encrypts what is stored; keep a copy, no backup opens without it",
        args.dir.join(MASTER_KEY_FILE).display()
    ));
    screen.line(format!("Made {}: makes apps and app keys", args.dir.join(OPERATOR_KEY_FILE).display()));
    screen.line(format!("\nThe operator key, which is in that file:\n  {operator_key}"));
    screen.line(format!("\nNext:\n  reveille serve{option}"));
    Ok(())
}

/// Makes the files and returns the operator key.
fn create(folder: &Path) -> anyhow::Result<String> {
    let operator_key = format!("ro_{}", BASE64_URL_SAFE_NO_PAD.encode(random_key()?));
    let files = [
        (folder.join(FILE_NAME), template()),
        (folder.join(MASTER_KEY_FILE), BASE64_STANDARD.encode(random_key()?) + "\n"),
        (folder.join(OPERATOR_KEY_FILE), format!("{operator_key}\n")),
    ];
    for (path, _) in &files {
        if path.symlink_metadata().is_ok() {
            bail!(
                "{} exists already; move it away or choose another folder with --dir. Nothing was changed",
                path.display()
            );
        }
    }
    fs::create_dir_all(folder).with_context(|| format!("cannot make the folder {}", folder.display()))?;
    for (at, (path, text)) in files.iter().enumerate() {
        if let Err(error) = write_new(path, text) {
            // A file that another process made meanwhile is not ours to remove.
            let ours = if error.kind() == ErrorKind::AlreadyExists { at } else { at + 1 };
            for (made, _) in &files[..ours] {
                let _ = fs::remove_file(made);
            }
            return Err(error).with_context(|| format!("cannot write {}; nothing was changed", path.display()));
        }
    }
    Ok(operator_key)
}

/// Only a new file, and only its owner can read it.
fn write_new(path: &Path, text: &str) -> std::io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn random_key() -> anyhow::Result<[u8; 32]> {
    let mut bytes = [0; 32];
    SysRng.try_fill_bytes(&mut bytes).context("the system gives no random numbers")?;
    Ok(bytes)
}

/// Every setting with its meaning; those that need no decision are commented out and show their default.
fn template() -> String {
    let mut text = "# Configuration of Reveille. Flags and environment variables are stronger than this file.\n\
                    # Relative paths count from the folder of this file. A line without # is in force.\n"
        .to_owned();
    for setting in SETTINGS {
        let line = match (setting.name, setting.default) {
            ("master_key_file", _) => format!("master_key_file = \"{MASTER_KEY_FILE}\""),
            ("operator_key_file", _) => format!("operator_key_file = \"{OPERATOR_KEY_FILE}\""),
            (name, Some(number)) if number.parse::<u32>().is_ok() => format!("# {name} = {number}"),
            (name, default) => format!("# {name} = \"{}\"", default.unwrap_or_default()),
        };
        text += &format!("\n# {}.\n# Environment: {}\n{line}\n", setting.about, setting.env);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use secrecy::ExposeSecret;

    use super::*;
    use crate::config::{Config, Flags};

    fn load(folder: &Path) -> Config {
        let flags = Flags { config: Some(folder.join(FILE_NAME)), ..Flags::default() };
        Config::load(&flags, |_| None, Path::new("")).unwrap()
    }

    #[test]
    fn what_init_makes_can_be_served() {
        let folder = tempfile::tempdir().unwrap();
        let operator_key = create(folder.path()).unwrap();
        assert_eq!(operator_key.len(), "ro_".len() + 43);
        let config = load(folder.path());
        assert!(config.require_master_key().is_ok());
        assert_eq!(config.operator_key.unwrap().expose_secret(), operator_key);
    }

    #[test]
    fn keys_differ_each_time() {
        let (one, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        assert_ne!(create(one.path()).unwrap(), create(other.path()).unwrap());
        let (one, other) = (load(one.path()), load(other.path()));
        assert_ne!(one.master_key.unwrap().expose_secret(), other.master_key.unwrap().expose_secret());
    }

    #[test]
    fn only_the_owner_can_read_them() {
        let parent = tempfile::tempdir().unwrap();
        let folder = parent.path().join("new/folder");
        create(&folder).unwrap();
        for name in [FILE_NAME, MASTER_KEY_FILE, OPERATOR_KEY_FILE] {
            let mode = fs::metadata(folder.join(name)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{name}");
        }
    }

    #[test]
    fn nothing_is_overwritten_and_nothing_half_done() {
        for existing in [FILE_NAME, MASTER_KEY_FILE, OPERATOR_KEY_FILE] {
            let folder = tempfile::tempdir().unwrap();
            fs::write(folder.path().join(existing), "mine").unwrap();
            let error = create(folder.path()).unwrap_err().to_string();
            assert!(error.contains(existing), "{error}");
            assert_eq!(fs::read_to_string(folder.path().join(existing)).unwrap(), "mine");
            assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
        }
    }

    #[test]
    fn every_setting_is_shown() {
        let text = template();
        for setting in SETTINGS {
            assert!(text.contains(&format!("{} = ", setting.name)), "{}", setting.name);
            assert!(text.contains(setting.env) && text.contains(setting.about), "{}", setting.name);
        }
    }
}
