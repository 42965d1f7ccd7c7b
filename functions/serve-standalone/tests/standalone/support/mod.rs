//! A server of one's own, and a client that can misbehave.

pub(crate) mod cloud;
pub(crate) mod content;
pub(crate) mod crowd;
pub(crate) mod h2;
pub(crate) mod objects;
pub(crate) mod ordinary;
pub(crate) mod tls;

use std::fmt::Write as _;
use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine as _;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;

/// The maximum time that a test waits for one event. No event here takes as long, even on a busy machine.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(30);

/// The program, with nothing of this process's environment.
pub(crate) fn roadstead() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_roadstead"));
    command.env_clear().stdin(Stdio::null());
    command
}

/// Runs a command line to its end.
pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(arguments: impl IntoIterator<Item = I>) -> Output {
    roadstead().args(arguments).output().unwrap()
}

/// Waits until `done` gives something.
pub(crate) fn eventually<T>(what: &str, mut done: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(value) = done() {
            return value;
        }
        assert!(start.elapsed() < MAX_WAIT, "waited in vain: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// A running server, killed at the end if it has not ended by then.
pub(crate) struct Server {
    child: Child,
    pub(crate) address: SocketAddr,
    pub(crate) folder: Arc<TempDir>,
    log: Arc<Mutex<String>>,
    reader: Option<thread::JoinHandle<()>>,
}

impl Server {
    /// `roadstead serve` on a free port of loopback unless `flags` say another, with a log in JSON, and `flags`.
    pub(crate) fn start(flags: &[&str]) -> Self {
        Self::start_in(Arc::new(TempDir::new().unwrap()), flags)
    }

    /// The same, with data (and perhaps users) in `folder`.
    pub(crate) fn start_in(folder: Arc<TempDir>, flags: &[&str]) -> Self {
        let data = folder.path().join("data");
        let data = data.to_str().unwrap().to_owned();
        Self::start_on(folder, &[&["--data", &data], flags].concat(), &[])
    }

    /// The same, on the stores that `flags` name, with changes to its empty environment.
    pub(crate) fn start_on(folder: Arc<TempDir>, flags: &[&str], variables: &[(String, String)]) -> Self {
        Self::start_by(roadstead(), folder, flags, variables)
    }

    /// `roadstead serve` with data in a folder of its own, and a soft limit of as few open files as there often is.
    pub(crate) fn start_with_few_files(flags: &[&str]) -> Self {
        let mut shell = Command::new("sh");
        shell.env_clear().stdin(Stdio::null());
        shell.args([
            "-c",
            "ulimit -S -n 256 && exec \"$0\" \"$@\"",
            env!("CARGO_BIN_EXE_roadstead"),
        ]);
        Self::start_by(shell, Arc::new(TempDir::new().unwrap()), flags, &[])
    }

    fn start_by(mut program: Command, folder: Arc<TempDir>, flags: &[&str], variables: &[(String, String)]) -> Self {
        let mut child = program
            .args(["serve", "--log", "json", "--sync", "off"])
            .args(flags)
            .env("ROADSTEAD_LISTEN", "127.0.0.1:0")
            .envs(variables.iter().cloned())
            .current_dir(folder.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let stderr = child.stderr.take().unwrap();
        let log = Arc::new(Mutex::new(String::new()));
        let reader = thread::spawn({
            let log = log.clone();
            move || {
                let mut reader = BufReader::new(stderr);
                let mut line = Vec::new();
                while reader.read_until(b'\n', &mut line).is_ok_and(|read| read > 0) {
                    log.lock().unwrap().push_str(&String::from_utf8_lossy(&line));
                    line.clear();
                }
            }
        });
        let mut server = Self {
            child,
            address: ([0, 0, 0, 0], 0).into(),
            folder,
            log,
            reader: Some(reader),
        };
        server.address = eventually("the address is printed", || {
            assert!(server.child.try_wait().unwrap().is_none(), "it ended: {}", server.log());
            server.lines().iter().find(|line| line["message"] == "listening")?["address"]
                .as_str()?
                .parse()
                .ok()
        });
        server
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.log.lock().unwrap().clone()
    }

    /// Every whole line so far; each must be JSON.
    pub(crate) fn lines(&self) -> Vec<Value> {
        let log = self.log();
        let whole = &log[..log.rfind('\n').map_or(0, |end| end + 1)];
        whole
            .lines()
            .map(|line| serde_json::from_str(line).expect(line))
            .collect()
    }

    /// Waits for a line that `matches`.
    pub(crate) fn wait_for_line(&self, what: &str, matches: impl Fn(&Value) -> bool) -> Value {
        eventually(what, || self.lines().into_iter().find(&matches))
    }

    /// Waits until the log has a message that contains `what`.
    pub(crate) fn says(&self, what: &str) {
        self.wait_for_line(what, |line| {
            line["message"].as_str().is_some_and(|text| text.contains(what))
        });
    }

    /// Sends SIGHUP, and waits until the log reports its `effect` once more.
    pub(crate) fn hang_up(&self, effect: &str) {
        let count = || self.log().matches(effect).count();
        let before = count();
        self.signal(Signal::HUP);
        eventually(effect, || (count() > before).then_some(()));
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// Waits for the end; the log is whole then.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        let status = eventually("the server ends", || self.child.try_wait().unwrap());
        if let Some(reader) = self.reader.take() {
            reader.join().unwrap();
        }
        status
    }

    pub(crate) fn connect(&self) -> Http1Client {
        Http1Client::connect(self.address)
    }

    /// One request on a connection of its own.
    pub(crate) fn request(&self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.connect().request(method, path, headers, body)
    }

    /// Opens an upload and returns its path.
    pub(crate) fn open_upload(&self, repository: &str, headers: &[(&str, &str)]) -> String {
        let response = self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), headers, b"");
        assert_eq!(response.status, 202, "{response:?}");
        response.header("location").unwrap().to_owned()
    }

    /// Pushes a blob and returns its digest.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> String {
        let digest = digest(bytes);
        let location = self.open_upload(repository, &[]);
        let response = self.request("PUT", &format!("{location}?digest={digest}"), &[], bytes);
        assert_eq!(response.status, 201, "{response:?}");
        digest
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        // `tests/run` searches there for secrets.
        if let Some(folder) = std::env::var_os("ROADSTEAD_TEST_WRITTEN") {
            if let Some(reader) = self.reader.take() {
                let _ = reader.join();
            }
            let written = Path::new(&folder).join(format!("{}-{}", self.pid(), self.address.port()));
            let _ = std::fs::create_dir(&written);
            let _ = std::fs::write(written.join("log"), self.log());
            for file in ["metadata.db", "metadata.db-wal"] {
                // There is none if the metadata is elsewhere.
                let _ = std::fs::copy(self.data().join(file), written.join(file));
            }
        }
    }
}

/// A manifest that refers to nothing but the empty object, and what must be pushed before it.
pub(crate) const EMPTY: &[u8] = b"{}";
pub(crate) const MANIFEST_TYPE: (&str, &str) = ("Content-Type", "application/vnd.oci.image.manifest.v1+json");

/// A policy by which the group `payments` pulls and pushes `payments/**`, where tags that are versions are immutable.
pub(crate) const PAYMENTS_POLICY: &str = "syntax = 1

[[allow]]
name = \"payments team\"
who = [\"group:payments\"]
repositories = [\"payments/**\"]
actions = [\"pull\", \"push\"]

[[immutable]]
name = \"releases\"
repositories = [\"payments/**\"]
tags = [\"semver\"]
";

/// A manifest with an annotation that makes it differ from others.
pub(crate) fn manifest(note: &str) -> Vec<u8> {
    let config = serde_json::json!({
        "mediaType": "application/vnd.oci.empty.v1+json",
        "digest": digest(EMPTY),
        "size": EMPTY.len(),
    });
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": MANIFEST_TYPE.1,
        "artifactType": "application/x.test",
        "config": config,
        "layers": [],
        "annotations": { "note": note },
    });
    manifest.to_string().into_bytes()
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

pub(crate) fn basic(user: &str, password: &str) -> String {
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{user}:{password}"));
    format!("Basic {encoded}")
}

/// Writes users with the cheapest hashes.
pub(crate) fn write_users(file: &Path, users: &[(&str, &str)]) {
    let lines: Vec<_> = users
        .iter()
        .map(|(user, password)| format!("{user}:{}", bcrypt::hash(password, 4).unwrap()))
        .collect();
    std::fs::write(file, lines.join("\n")).unwrap();
}

/// A folder with a file `users`.
pub(crate) fn folder_with_users(users: &[(&str, &str)]) -> Arc<TempDir> {
    let folder = TempDir::new().unwrap();
    write_users(&folder.path().join("users"), users);
    Arc::new(folder)
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
}

impl Response {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let found = self
            .headers
            .iter()
            .find(|(header, _)| header.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.as_str())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }
}

/// One HTTP/1.1 connection, spoken by hand.
pub(crate) struct Http1Client<S: Read = TcpStream> {
    reader: BufReader<S>,
}

impl Http1Client {
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect_timeout(&address, MAX_WAIT).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
        stream.set_write_timeout(Some(MAX_WAIT)).unwrap();
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        self.reader.get_ref()
    }

    /// Whether nothing comes for a moment.
    pub(crate) fn is_silent_for(&mut self, time: Duration) -> bool {
        self.stream().set_read_timeout(Some(time)).unwrap();
        let silent = self
            .reader
            .fill_buf()
            .is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock);
        self.stream().set_read_timeout(Some(MAX_WAIT)).unwrap();
        silent
    }

    pub(crate) fn hang_up(self) {
        let _ = self.stream().shutdown(Shutdown::Both);
    }
}

impl<S: Read + Write> Http1Client<S> {
    /// Over a connection that is there.
    pub(crate) fn over(stream: S) -> Self {
        Self {
            reader: BufReader::new(stream),
        }
    }

    pub(crate) fn transport(&mut self) -> &mut S {
        self.reader.get_mut()
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        self.reader.get_mut().write_all(bytes).unwrap();
    }

    /// Sends as much as the server takes.
    pub(crate) fn send_what_goes(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Sends a request's head; a body of `length` bytes is to follow.
    pub(crate) fn send_head(&mut self, method: &str, path: &str, headers: &[(&str, &str)], length: usize) {
        let mut head = format!("{method} {path} HTTP/1.1\r\nHost: localhost\r\n");
        for (name, value) in headers {
            write!(head, "{name}: {value}\r\n").unwrap();
        }
        if length > 0 || matches!(method, "PUT" | "POST" | "PATCH") {
            write!(head, "Content-Length: {length}\r\n").unwrap();
        }
        self.send(format!("{head}\r\n").as_bytes());
    }

    pub(crate) fn request(&mut self, method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Response {
        self.send_head(method, path, headers, body.len());
        self.send(body);
        self.response(method)
    }

    /// Reads the response to a request with `method`.
    pub(crate) fn response(&mut self, method: &str) -> Response {
        self.try_response(method).expect("a response")
    }

    /// The response, or `None` when the connection ends instead, or before the response does.
    pub(crate) fn try_response(&mut self, method: &str) -> Option<Response> {
        let mut line = String::new();
        if self.reader.read_line(&mut line).unwrap_or(0) == 0 {
            return None;
        }
        let status = line.split(' ').nth(1).unwrap().parse().unwrap();
        let mut headers = Vec::new();
        loop {
            line.clear();
            self.reader.read_line(&mut line).ok()?;
            let Some((name, value)) = line.trim_end().split_once(':') else {
                break;
            };
            headers.push((name.to_owned(), value.trim().to_owned()));
        }
        let mut response = Response {
            status,
            headers,
            body: Vec::new(),
        };
        let empty = method == "HEAD" || matches!(status, 100 | 204 | 304);
        if !empty {
            let length: usize = response.header("content-length").expect("a length").parse().unwrap();
            response.body.resize(length, 0);
            self.reader.read_exact(&mut response.body).ok()?;
        }
        Some(response)
    }

    /// Whether the server has closed the connection, or does within `MAX_WAIT`.
    pub(crate) fn is_closed(&mut self) -> bool {
        let mut rest = Vec::new();
        match self.reader.read_to_end(&mut rest) {
            Ok(_) => true,
            Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
        }
    }
}

/// A file or directory that was bound over itself, until this is dropped.
pub(crate) struct Mounted(PathBuf);

impl Mounted {
    /// `None`, with the reason, where this user cannot mount.
    pub(crate) fn over_itself(path: &Path) -> Option<Self> {
        let bound = Self::mount(path, &["--bind", path.to_str().unwrap()]);
        if let Err(reported) = bound {
            assert!(
                std::env::var("CI").as_deref() != Ok("true"),
                "needs to mount: {reported}"
            );
            println!("not run: {reported}");
            return None;
        }
        Some(Self(path.to_owned()))
    }

    /// The same, and nothing can be written there.
    pub(crate) fn read_only(path: &Path) -> Option<Self> {
        let mounted = Self::over_itself(path)?;
        Self::mount(path, &["-o", "remount,bind,ro"]).unwrap();
        Some(mounted)
    }

    fn mount(path: &Path, arguments: &[&str]) -> Result<(), String> {
        let output = Command::new("mount").args(arguments).arg(path).output().unwrap();
        let reported = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        output.status.success().then_some(()).ok_or(reported)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let status = Command::new("umount").arg(&self.0).status();
        assert!(
            status.is_ok_and(|status| status.success()),
            "{} stays mounted",
            self.0.display()
        );
    }
}
