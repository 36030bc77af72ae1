//! A PostgreSQL server of our own, which may be stopped and broken at will.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, ensure};

/// Where Debian's package puts its programs, by version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// A crash of the server is survived by what it has written; a crash of the machine is not played here, so nobody waits for the disk.
const OPTIONS: &str = "-c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200";

/// A running server, gone with all its data when it is dropped.
pub struct Server {
    folder: tempfile::TempDir,
    programs: PathBuf,
    port: u16,
}

/// How a server is stopped.
#[derive(Debug, Clone, Copy)]
pub enum Stop {
    /// Connections are ended and open transactions rolled back.
    Fast,
    /// As in a crash: it recovers from its log at the next start.
    Immediate,
}

impl Server {
    pub fn start() -> anyhow::Result<Self> {
        let versions =
            std::fs::read_dir(VERSIONS).context("PostgreSQL is not installed: `apt-get install postgresql`")?;
        let programs = versions.filter_map(|version| Some(version.ok()?.path().join("bin")));
        let programs = programs.filter(|programs| programs.join("initdb").exists()).max();
        let programs = programs.context("there is no initdb: `apt-get install postgresql`")?;
        let folder = tempfile::tempdir()?;
        let server = Self { folder, programs, port: super::free_port()? };
        if is_root()? {
            // PostgreSQL does not run as root.
            run(Command::new("chown").arg("postgres").arg(server.folder.path()))?;
        }
        let data = server.data();
        run(server.program("initdb").arg("-D").arg(&data).args(["-U", "postgres", "-A", "trust", "--no-sync"]))?;
        server.start_again()?;
        Ok(server)
    }

    pub fn url(&self) -> String {
        format!("postgres://postgres@127.0.0.1:{}/postgres?sslmode=disable", self.port)
    }

    /// Ends it.
    pub fn stop(&self, how: Stop) -> anyhow::Result<()> {
        let mode = match how {
            Stop::Fast => "fast",
            Stop::Immediate => "immediate",
        };
        run(self.program("pg_ctl").arg("-D").arg(self.data()).args(["-w", "-m", mode, "stop"]))
    }

    /// Starts it on its data, and waits until it answers.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let options = format!("-p {} -c unix_socket_directories={} {OPTIONS}", self.port, self.folder.path().display());
        let log = self.folder.path().join("log");
        let mut start = self.program("pg_ctl");
        run(start.arg("-D").arg(self.data()).arg("-l").arg(log).args(["-w", "-t", "60", "-o", &options, "start"]))
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn program(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = match is_root() {
            Ok(true) => {
                let mut command = Command::new("runuser");
                command.args(["-u", "postgres", "--"]).arg(program);
                command
            }
            _ => Command::new(program),
        };
        command.current_dir(self.folder.path());
        command
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop(Stop::Immediate));
    }
}

fn is_root() -> anyhow::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    Ok(Path::new("/proc/self").metadata()?.uid() == 0)
}

fn run(command: &mut Command) -> anyhow::Result<()> {
    // Its output goes to a file: the server it starts would keep a pipe open.
    let mut said = tempfile::tempfile()?;
    let status = command.stdin(Stdio::null()).stdout(said.try_clone()?).stderr(said.try_clone()?).status()?;
    let mut words = String::new();
    std::io::Seek::rewind(&mut said)?;
    std::io::Read::read_to_string(&mut said, &mut words)?;
    ensure!(status.success(), "{command:?} failed: {words}");
    Ok(())
}
