//! Reads that wait for another process, or for a file that does not answer: everything else goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::crowd::CROWD;
use crate::support::h2::{H2, runtime};
use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, manifest, ordinary};

/// How many requests are stuck at a time: more than there are threads that run requests, on most machines.
const STUCK: usize = 24;

/// How often the server is asked meanwhile whether it lives.
const ASKED: usize = 40;

/// Far less than the stuck requests take, far more than an answer does on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// A process that keeps others from a file until it is released.
struct FileBlocker(Child);

/// Every lock by which readers of `SQLite` find what to read. A reader tries again and again, inside `SQLite`, for some
/// ten seconds.
const LOCKS: &str = "file = open(sys.argv[1] + '-shm', 'r+b')\nfcntl.lockf(file, fcntl.LOCK_EX, 5, 123)\n";

/// A lease: whoever opens the file waits until it is released, or for 45 seconds (`fcntl(2)`, `F_SETLEASE`).
const LEASE: &str = "import signal\nsignal.signal(signal.SIGIO, signal.SIG_IGN)\nfile = open(sys.argv[1], 'r+b')\n\
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)\n";

impl FileBlocker {
    fn take(what: &str, file: &Path) -> Self {
        let program = format!("import fcntl, sys\n{what}print('taken', flush=True)\nsys.stdin.readline()\n");
        let mut child = Command::new("python3")
            .args(["-c", &program])
            .arg(file)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, as all tests need it");
        let mut line = String::new();
        let mut output = BufReader::new(child.stdout.take().unwrap());
        output.read_line(&mut line).unwrap();
        assert_eq!(line, "taken\n", "{} is not free", file.display());
        Self(child)
    }

    fn release(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for FileBlocker {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Asks whether the server lives, on new connections; how often it said so soon enough.
fn lives(server: &Server) -> usize {
    let answers = (0..ASKED).map(|_| {
        let asked = Instant::now();
        let mut client = server.connect();
        client.stream().set_read_timeout(Some(SOON)).unwrap();
        client.send_head("GET", "/livez", &[], 0);
        let answer = client.try_response("GET");
        answer.is_some_and(|answer| answer.status == 200) && asked.elapsed() < SOON
    });
    answers.filter(|is_alive| *is_alive).count()
}

#[test]
fn readers_that_wait_for_a_lock_of_the_metadata_stop_nothing_else() {
    let server = Server::start(&[]);
    server.push_blob("app", EMPTY);
    let image = manifest("one");
    let path = format!("/v2/app/manifests/{}", digest(&image));
    assert_eq!(server.request("PUT", &path, &[MANIFEST_TYPE], &image).status, 201);

    let locks = FileBlocker::take(LOCKS, &server.data().join("metadata.db"));
    thread::scope(|scope| {
        let stuck: Vec<_> = (0..STUCK)
            .map(|_| scope.spawn(|| server.request("HEAD", &path, &[], b"").status))
            .collect();
        assert_eq!(lives(&server), ASKED);
        let still = stuck.iter().filter(|request| !request.is_finished()).count();
        assert!(still > 0, "no request was stuck");
        locks.release();
        for request in stuck {
            let status = request.join().unwrap();
            // A client that waited for too long was asked to retry.
            assert!(matches!(status, 200 | 503), "{status}");
        }
    });
    assert_eq!(server.request("HEAD", &path, &[], b"").status, 200);
}

/// Makes everybody wait who opens the only object.
fn stick(server: &Server) -> FileBlocker {
    let directories = std::fs::read_dir(server.data().join("blobs")).unwrap();
    let files = directories.flat_map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap());
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let [file] = files.as_slice() else {
        panic!("one object: {files:?}")
    };
    FileBlocker::take(LEASE, file)
}

#[test]
fn readers_of_a_file_that_does_not_answer_stop_nothing_else() {
    let server = Server::start(&[]);
    let blob = server.push_blob("app", b"some bytes");
    let path = format!("/v2/app/blobs/{blob}");
    assert_eq!(server.request("GET", &path, &[], b"").body, b"some bytes");
    let holder = stick(&server);
    thread::scope(|scope| {
        let stuck: Vec<_> = (0..STUCK)
            .map(|_| scope.spawn(|| server.request("GET", &path, &[], b"")))
            .collect();
        assert_eq!(lives(&server), ASKED);
        assert!(
            stuck.iter().all(|request| !request.is_finished()),
            "a request was not stuck"
        );
        holder.release();
        for request in stuck {
            assert_eq!(request.join().unwrap().body, b"some bytes");
        }
    });
}

/// More readers of it than there are threads that may block, all of one client: another one pushes and pulls.
#[test]
fn s31_readers_of_a_file_that_does_not_answer_take_no_threads_from_others() {
    let server = Server::start(&[]);
    let blob = server.push_blob("app", b"some bytes");
    let path = format!("/v2/app/blobs/{blob}");
    let holder = stick(&server);
    runtime().block_on(async {
        let (mut clients, mut stuck) = (Vec::new(), Vec::new());
        for _ in 0..20 {
            let client = H2::connect(server.address, CROWD).await;
            for _ in 0..60 {
                stuck.push(client.open("GET", &path, &[], true).await.unwrap());
            }
            clients.push(client);
        }
        let address = server.address;
        let pushed = tokio::task::spawn_blocking(move || ordinary::push(address, 20));
        pushed.await.unwrap().assert_well(SOON);
        holder.release();
        for request in stuck {
            let answer = request.answer().await.unwrap().read().await.unwrap();
            assert_eq!((answer.status, &*answer.body), (200, &b"some bytes"[..]));
        }
        drop(clients);
    });
}
