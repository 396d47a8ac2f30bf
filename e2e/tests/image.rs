//! The image: the same bytes twice, nothing but what is needed, and every command runs from its root file system, read-only
//! and as no root.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use e2e::binaries::{self, repository};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::time::timeout;

/// Runs `program` with the image as its root: read-only, `/run` and `/tmp` mounted, users mapped as the kernel lets anybody.
const INSIDE: &str = r#"
set -e
root=$1; shift
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount -t tmpfs tmpfs "$root/run"
mount -t tmpfs tmpfs "$root/tmp"
cp -r "$FILES/." "$root/run/"
mount -o remount,bind,ro "$root"
exec chroot "$root" "$@"
"#;

struct Image {
    folder: tempfile::TempDir,
}

async fn build(binary: &Path, arguments: &[&str], out: &Path) -> Result<()> {
    let output = Command::new(repository("e2e/tools/build-image"))
        .arg("--binary")
        .arg(binary)
        .args(arguments)
        .arg(out)
        .output()
        .await?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

impl Image {
    /// Built as `make image` does, from the program under test, and unpacked from its layers.
    async fn unpacked() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let layout = folder.path().join("layout");
        build(
            &binaries::signet()?,
            &["--compression", "0", "--layout"],
            &layout,
        )
        .await?;
        let root = folder.path().join("root");
        std::fs::create_dir(&root)?;
        std::fs::create_dir(folder.path().join("files"))?;
        let manifest = blob(&layout, &read(&layout.join("index.json"))?["manifests"][0])?;
        let manifest: Value = serde_json::from_slice(&std::fs::read(manifest)?)?;
        for layer in manifest["layers"].as_array().context("layers")? {
            let tar = Command::new("tar")
                .arg("-xf")
                .arg(blob(&layout, layer)?)
                .arg("-C")
                .arg(&root)
                .output()
                .await?;
            ensure!(
                tar.status.success(),
                "{}",
                String::from_utf8_lossy(&tar.stderr)
            );
        }
        Ok(Self { folder })
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// Puts a file where the program sees it as `/run/<name>`.
    fn file(&self, name: &str, text: &str) -> Result<()> {
        Ok(std::fs::write(
            self.folder.path().join("files").join(name),
            text,
        )?)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("unshare");
        command
            .args(["--user", "--map-root-user", "--mount", "sh", "-c", INSIDE])
            .arg("inside")
            .arg(self.root())
            .args(arguments)
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("FILES", self.folder.path().join("files"))
            .kill_on_drop(true);
        command
    }

    async fn run(&self, arguments: &[&str]) -> Result<String> {
        let output = timeout(Duration::from_secs(30), self.command(arguments).output()).await??;
        let error = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{arguments:?}: {error}");
        Ok(format!(
            "{}{error}",
            String::from_utf8_lossy(&output.stdout)
        ))
    }
}

fn read(path: &Path) -> Result<Value> {
    Ok(serde_json::from_slice(&std::fs::read(path)?)?)
}

/// The file of a descriptor, whose size it has.
fn blob(layout: &Path, descriptor: &Value) -> Result<PathBuf> {
    let digest = descriptor["digest"].as_str().context("a digest")?;
    let path = layout
        .join("blobs/sha256")
        .join(digest.trim_start_matches("sha256:"));
    ensure!(Some(std::fs::metadata(&path)?.len()) == descriptor["size"].as_u64());
    Ok(path)
}

/// Says why, when this machine lets nobody make user and mount namespaces.
async fn unable() -> bool {
    let able = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "true"])
        .status()
        .await;
    if able.is_ok_and(|status| status.success()) {
        return false;
    }
    testkit::skipped(
        "`unshare` with user namespaces is missing (Debian: apt-get install util-linux)",
    );
    true
}

#[tokio::test]
async fn the_same_program_gives_the_same_image() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let program = folder.path().join("signet");
    // Any program with libraries does, and a small one is quick.
    std::fs::copy("/bin/true", &program)?;
    let mut indexes = BTreeSet::new();
    for name in ["one", "two"] {
        let layout = folder.path().join(name);
        build(&program, &["--layout"], &layout).await?;
        indexes.insert(std::fs::read_to_string(layout.join("index.json"))?);
    }
    ensure!(indexes.len() == 1, "{indexes:?}");
    Ok(())
}

#[tokio::test]
async fn nothing_else_is_in_it() -> Result<()> {
    let image = Image::unpacked().await?;
    let find = Command::new("find")
        .arg(image.root())
        .args(["-type", "f", "-printf", "%P %m\n"])
        .output()
        .await?;
    let text = String::from_utf8(find.stdout)?;
    for line in text.lines() {
        let (path, mode) = line.split_once(' ').context("path and mode")?;
        let expected = path == "usr/bin/signet"
            || path == "usr/share/doc/signet/LICENSE"
            || path == "etc/ssl/certs/ca-certificates.crt"
            || matches!(path, "etc/passwd" | "etc/group" | "etc/nsswitch.conf")
            || (path.starts_with("lib") && path.contains(".so"));
        ensure!(expected, "{path} does not belong there");
        ensure!(matches!(mode, "755" | "644"), "{path} has mode {mode}");
    }
    ensure!(text.lines().count() > 8, "{text}");
    Ok(())
}

#[tokio::test]
async fn every_command_runs_from_its_root_file_system() -> Result<()> {
    if unable().await {
        return Ok(());
    }
    let image = Image::unpacked().await?;
    let signet = "/usr/bin/signet";
    let version = image.run(&[signet, "--version"]).await?;
    ensure!(version.starts_with("signet "), "{version}");
    for (program, word) in [
        ("/opt/spire/bin/spire-server", "bundle"),
        ("/opt/spire/bin/spire-agent", "run"),
    ] {
        let help = image.run(&[program, "--help"]).await?;
        ensure!(help.contains(word), "{program}: {help}");
    }
    let plugins = json!({"NodeAttestor": {"join_token": {"plugin_data": {}}}});
    let server = json!({"server": {"trust_domain": "example.org"}, "plugins": plugins});
    image.file("server.conf", &server.to_string())?;
    let validate = [signet, "server", "validate", "-config", "/run/server.conf"];
    image.run(&validate).await?;
    let mut to_ask = vec![Vec::new()];
    let mut asked = 0;
    while let Some(words) = to_ask.pop() {
        let mut arguments: Vec<&str> = vec![signet];
        arguments.extend(words.iter().map(String::as_str));
        arguments.push("--help");
        let help = image.run(&arguments).await?;
        asked += 1;
        to_ask.extend(commands(&help).map(|one| [words.as_slice(), &[one]].concat()));
    }
    ensure!(asked > 40, "only {asked} commands were found");
    Ok(())
}

/// The commands that a help text lists.
fn commands(help: &str) -> impl Iterator<Item = String> {
    help.lines()
        .skip_while(|line| !line.starts_with("Commands:"))
        .skip(1)
        .map_while(|line| line.split_whitespace().next())
        .filter(|name| *name != "help")
        .map(str::to_owned)
}

/// The agent looks its server up by name: `localhost` by the hosts file that the kubelet writes.
#[tokio::test]
async fn names_are_looked_up_inside() -> Result<()> {
    if unable().await {
        return Ok(());
    }
    let image = Image::unpacked().await?;
    // As a container runtime does.
    std::fs::write(
        image.root().join("etc/hosts"),
        "127.0.0.1 localhost spire-server.ident.svc\n",
    )?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    for name in ["localhost", "spire-server.ident.svc"] {
        let conf = json!({
            "agent": {
                "trust_domain": "example.org", "server_address": name, "server_port": port, "insecure_bootstrap": true,
                "data_dir": "/run/data", "socket_path": "/run/agent.sock", "join_token": "t",
            },
            "plugins": {
                "NodeAttestor": {"join_token": {"plugin_data": {}}},
                "WorkloadAttestor": {"unix": {"plugin_data": {}}},
            },
        });
        image.file("agent.conf", &conf.to_string())?;
        let agent = [
            "/usr/bin/signet",
            "agent",
            "run",
            "-config",
            "/run/agent.conf",
        ];
        let child = image.command(&agent).spawn()?;
        let arrived = timeout(Duration::from_secs(30), listener.accept()).await;
        ensure!(arrived.is_ok(), "nobody connected by the name {name}");
        drop(child);
    }
    Ok(())
}
