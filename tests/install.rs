//! The curl-pipe installer: puts in place what the checksums say and nothing else, over an old skiff as well.
#![allow(clippy::expect_used, clippy::panic, reason = "tests")]

mod common;

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
};

use common::{Cluster, project, text};

/// A folder as a release has it, and a folder to install into.
struct World {
    dir: tempfile::TempDir,
}

impl World {
    fn new() -> Self {
        let world = Self { dir: tempfile::tempdir().expect("a folder") };
        fs::create_dir(world.release()).expect("a folder");
        let name = binary_name();
        fs::hard_link(env!("CARGO_BIN_EXE_skiff"), world.release().join(name))
            .or_else(|_| fs::copy(env!("CARGO_BIN_EXE_skiff"), world.release().join(name)).map(drop))
            .expect("a binary to install");
        let sums = Command::new("sha256sum").arg(name).current_dir(world.release()).output().expect("sha256sum runs");
        fs::write(world.release().join("sha256sums"), sums.stdout).expect("checksums");
        world
    }

    fn release(&self) -> PathBuf {
        self.dir.path().join("release")
    }

    fn installed(&self) -> PathBuf {
        self.dir.path().join("bin/skiff")
    }

    /// Runs the installer as `curl URL/install.sh | SKIFF_INSTALL_URL=URL sh` does.
    fn install(&self, script: &[u8], url: &str) -> Output {
        self.install_with(script, url, &[])
    }

    fn install_with(&self, script: &[u8], url: &str, env: &[(&str, &str)]) -> Output {
        let mut shell = Command::new("sh")
            .arg("-s")
            .envs(env.iter().copied())
            .env("SKIFF_INSTALL_URL", url)
            .env("SKIFF_BIN_DIR", self.dir.path().join("bin"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("a shell");
        // A script that breaks off may end its shell before all is read.
        let _ = shell.stdin.take().expect("its input").write_all(script);
        shell.wait_with_output().expect("its end")
    }

    fn install_from_folder(&self) -> Output {
        self.install(&script(), self.release().to_str().expect("a path"))
    }
}

fn binary_name() -> &'static str {
    if cfg!(target_arch = "aarch64") { "skiff-linux-arm64" } else { "skiff-linux-amd64" }
}

fn script() -> Vec<u8> {
    fs::read(project().join("install.sh")).expect("the installer")
}

fn version(binary: &Path) -> String {
    text(&Command::new(binary).arg("--version").output().expect("skiff runs"))
}

#[test]
fn installs_and_upgrades_under_a_running_skiff() {
    let world = World::new();
    let first = world.install_from_folder();
    assert!(first.status.success(), "{}", text(&first));
    assert!(text(&first).contains("installed skiff"), "{}", text(&first));
    assert_eq!(version(&world.installed()), version(Path::new(env!("CARGO_BIN_EXE_skiff"))));
    assert_eq!(fs::metadata(world.installed()).expect("a file").permissions().mode() & 0o777, 0o755);

    // A running skiff keeps its file: the new one comes beside it, then takes its name.
    let running = fs::File::open(world.installed()).expect("the installed binary");
    let again = world.install_from_folder();
    assert!(again.status.success(), "{}", text(&again));
    let same = std::os::unix::fs::MetadataExt::ino;
    let (old, new) = (running.metadata().expect("old"), fs::metadata(world.installed()).expect("new"));
    assert_ne!(same(&old), same(&new), "the upgrade must not write into a file that runs");
}

/// A machine that is told of a cluster joins it, and its token is for root alone.
#[test]
fn with_a_server_and_a_token_an_agent_is_installed() {
    let world = World::new();
    let (programs, units) = (world.dir.path().join("programs"), world.dir.path().join("units"));
    fs::create_dir(&programs).expect("a folder");
    fs::create_dir(&units).expect("a folder");
    let told = world.dir.path().join("told");
    let systemctl = programs.join("systemctl");
    fs::write(&systemctl, format!("#!/bin/sh\necho \"$@\" >>{}\n", told.display())).expect("a program");
    fs::set_permissions(&systemctl, fs::Permissions::from_mode(0o755)).expect("a program");
    let path = format!("{}:{}", programs.display(), std::env::var("PATH").expect("a path"));
    let env = [
        ("SKIFF_URL", "https://10.0.0.1:6443"),
        ("SKIFF_TOKEN", "s3cret"),
        ("SKIFF_SYSTEMD_DIR", units.to_str().expect("a path")),
        ("PATH", &path),
    ];
    let installed = world.install_with(&script(), world.release().to_str().expect("a path"), &env);
    assert!(installed.status.success(), "{}", text(&installed));
    let unit = fs::read_to_string(units.join("skiff-agent.service")).expect("a unit");
    assert!(unit.contains("/skiff agent\n") && !unit.contains("s3cret"), "{unit}");
    let secrets = units.join("skiff-agent.service.env");
    let kept = fs::read_to_string(&secrets).expect("its environment");
    assert_eq!(kept, "SKIFF_URL=https://10.0.0.1:6443\nSKIFF_TOKEN=s3cret\n");
    assert_eq!(fs::metadata(secrets).expect("a file").permissions().mode() & 0o777, 0o600);
    let told = fs::read_to_string(told).expect("what systemd was told");
    assert!(told.contains("enable skiff-agent.service") && told.contains("restart skiff-agent.service"), "{told}");
}

#[test]
fn what_the_checksums_do_not_say_is_refused_and_changes_nothing() {
    let world = World::new();
    assert!(world.install_from_folder().status.success());
    let before = fs::read(world.installed()).expect("a binary").len();
    let binary = world.release().join(binary_name());
    fs::remove_file(&binary).expect("the link is ours");
    fs::write(&binary, "#!/bin/sh\necho owned\n").expect("another binary");
    let refused = world.install_from_folder();
    assert!(!refused.status.success());
    assert!(text(&refused).contains("is not what sha256sums says"), "{}", text(&refused));
    fs::remove_file(world.release().join("sha256sums")).expect("the checksums go");
    let refused = world.install_from_folder();
    assert!(!refused.status.success() && text(&refused).contains("sha256sums"), "{}", text(&refused));
    assert_eq!(fs::read(world.installed()).expect("a binary").len(), before);
}

#[test]
fn a_download_that_breaks_off_runs_nothing() {
    let world = World::new();
    let script = script();
    let url = world.release();
    let ends: Vec<usize> = (0..script.len() - 1).filter(|&at| script[at] == b'\n').collect();
    for end in ends {
        world.install(&script[..end], url.to_str().expect("a path"));
        assert!(!world.installed().exists(), "the first {end} bytes installed something");
    }
}

#[test]
fn only_https_and_folders_are_sources() {
    let world = World::new();
    for url in ["http://127.0.0.1:9", "ftp://127.0.0.1/x", "relative/folder", ""] {
        let refused = world.install(&script(), url);
        assert!(
            !refused.status.success() && text(&refused).contains("SKIFF_INSTALL_URL must"),
            "{url}: {}",
            text(&refused)
        );
    }
    assert!(!world.installed().exists());
}

/// A web server on TLS for a folder.
struct Web {
    process: Child,
    port: u16,
}

impl Web {
    fn serve(folder: &Path, certificate: &Path) -> Self {
        const SERVER: &str = "
import functools, http.server, ssl, sys
handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=sys.argv[1])
server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), handler)
context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
context.load_cert_chain(sys.argv[2])
server.socket = context.wrap_socket(server.socket, server_side=True)
print(server.server_address[1], flush=True)
server.serve_forever()
";
        let mut process = Command::new("python3")
            .args(["-c", SERVER])
            .args([folder, certificate])
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 runs");
        let mut line = String::new();
        BufReader::new(process.stdout.as_mut().expect("its output")).read_line(&mut line).expect("its port");
        Self { port: line.trim().parse().expect("a port"), process }
    }
}

impl Drop for Web {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
fn one_line_of_curl_installs_and_the_installed_skiff_runs() {
    let world = World::new();
    fs::copy(project().join("install.sh"), world.release().join("install.sh")).expect("the installer");
    let certificate = world.dir.path().join("web.pem");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout"])
        .arg(&certificate)
        .arg("-out")
        .arg(world.dir.path().join("web.crt"))
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", text(&made));
    let public = fs::read(world.dir.path().join("web.crt")).expect("a certificate");
    fs::File::options().append(true).open(&certificate).and_then(|mut f| f.write_all(&public)).expect("one file");
    let web = Web::serve(&world.release(), &certificate);

    let url = format!("https://localhost:{}", web.port);
    let line = format!("curl -sfL {url}/install.sh | SKIFF_INSTALL_URL={url} sh -s -");
    let output = Command::new("sh")
        .args(["-c", &line])
        .env("SKIFF_BIN_DIR", world.dir.path().join("bin"))
        .env("CURL_CA_BUNDLE", world.dir.path().join("web.crt"))
        .output()
        .expect("a shell");
    assert!(output.status.success(), "{}", text(&output));

    let mut cluster = Cluster::prepare();
    cluster.use_binary(&world.installed());
    cluster.start_again();
    assert!(cluster.kubectl(&["get", "nodes"]).contains("Ready"));
    // The upgrade goes on beside it.
    assert!(world.install_from_folder().status.success());
    assert!(cluster.kubectl(&["get", "nodes"]).contains("Ready"));
    cluster.interrupt();
}
