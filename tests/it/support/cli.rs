//! The real binary as a person or a script runs it, beside a world that goes on answering.

use std::{
    io::{BufRead, BufReader, Read, Write},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::mpsc;

use super::world::{OPERATOR_KEY, World};

/// Nothing takes longer, even where much else goes on.
const PATIENCE: Duration = Duration::from_secs(30);

/// A folder of its own and an environment.
pub struct Cli {
    pub folder: TempDir,
    variables: Vec<(String, String)>,
}

/// What a command said, and how it ended.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// A command that goes on.
pub struct Running {
    child: Child,
    out: mpsc::UnboundedReceiver<String>,
    err: mpsc::UnboundedReceiver<String>,
}

impl Cli {
    /// Knows the relay's URL, and no key.
    pub fn stranger(world: &World) -> Self {
        Self::nowhere().with("REVEILLE_PUBLIC_URL", &world.url(""))
    }

    /// Has the app's key.
    pub fn backend(world: &World) -> Self {
        Self::stranger(world).with("REVEILLE_APP_KEY", &world.key)
    }

    /// Has the operator's key.
    pub fn operator(world: &World) -> Self {
        Self::stranger(world).with("REVEILLE_OPERATOR_KEY", OPERATOR_KEY)
    }

    /// Knows nothing.
    pub fn nowhere() -> Self {
        Self { folder: tempfile::tempdir().unwrap(), variables: Vec::new() }
    }

    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.retain(|(known, _)| known != name);
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command that is about to run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_reveille"));
        command.args(arguments).current_dir(self.folder.path()).env_clear().envs(self.variables.iter().cloned());
        command
    }

    /// Runs a command to its end.
    pub async fn run(&self, arguments: &[&str]) -> Said {
        self.run_with(arguments, "").await
    }

    /// The same with something on its stdin.
    pub async fn run_with(&self, arguments: &[&str], stdin: &str) -> Said {
        let (mut command, stdin) = (self.command(arguments), stdin.to_owned());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        tokio::task::spawn_blocking(move || {
            let mut child = command.spawn().unwrap();
            child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
            let output = child.wait_with_output().unwrap();
            let text = |bytes| String::from_utf8(bytes).unwrap();
            Said { code: output.status.code().unwrap(), out: text(output.stdout), err: text(output.stderr) }
        })
        .await
        .unwrap()
    }

    /// Runs a command that has to end well; answers its stdout.
    #[track_caller]
    pub fn shown(&self, arguments: &[&str]) -> impl Future<Output = String> {
        let said = self.run(arguments);
        async {
            let said = said.await;
            assert_eq!(said.code, 0, "{said:?}");
            said.out
        }
    }

    /// Runs a command that has to end so, with nothing on stdout; answers its stderr.
    pub async fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let said = self.run(arguments).await;
        assert_eq!((said.code, said.out.as_str()), (code, ""), "{said:?}");
        said.err
    }

    /// What a command prints as JSON.
    pub async fn json(&self, arguments: &[&str]) -> Value {
        let text = self.shown(&[arguments, &["--json"]].concat()).await;
        assert_eq!(text.lines().count(), 1, "one document: {text}");
        serde_json::from_str(&text).unwrap()
    }

    /// Starts a command that goes on; its stderr is read as well.
    pub fn start(&self, arguments: &[&str]) -> Running {
        let mut command = self.command(arguments);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (out, err) = (lines(child.stdout.take().unwrap()), lines(child.stderr.take().unwrap()));
        Running { child, out, err }
    }
}

/// What comes, line by line.
fn lines(from: impl Read + Send + 'static) -> mpsc::UnboundedReceiver<String> {
    let (tell, told) = mpsc::unbounded_channel();
    let mut lines = BufReader::new(from).lines().map_while(Result::ok);
    std::thread::spawn(move || lines.try_for_each(|line| tell.send(line)));
    told
}

impl Running {
    /// The next line of stdout that holds this text; those before it are passed over.
    pub async fn line(&mut self, holds: &str) -> String {
        next(&mut self.out, holds).await
    }

    /// The same of stderr.
    pub async fn aside(&mut self, holds: &str) -> String {
        next(&mut self.err, holds).await
    }

    /// Ends it as Ctrl-C does; answers how it ended and the lines that were left.
    pub async fn interrupt(mut self) -> (i32, Vec<String>) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        self.end().await
    }

    /// Waits for its end; answers how it ended and the lines that were left.
    pub async fn end(&mut self) -> (i32, Vec<String>) {
        let mut left = Vec::new();
        let all = async {
            for lines in [&mut self.out, &mut self.err] {
                while let Some(line) = lines.recv().await {
                    left.push(line);
                }
            }
        };
        tokio::time::timeout(PATIENCE, all).await.expect("it ends");
        (self.child.wait().unwrap().code().unwrap(), left)
    }
}

async fn next(lines: &mut mpsc::UnboundedReceiver<String>, holds: &str) -> String {
    let mut passed = Vec::new();
    let found = tokio::time::timeout(PATIENCE, async {
        while let Some(line) = lines.recv().await {
            if line.contains(holds) {
                return Some(line);
            }
            passed.push(line);
        }
        None
    });
    found.await.ok().flatten().unwrap_or_else(|| panic!("no line with {holds:?} after {passed:#?}"))
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
