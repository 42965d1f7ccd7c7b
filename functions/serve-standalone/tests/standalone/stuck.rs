//! Reads that wait for another process, or for a file that does not answer: everything else goes on.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::support::{EMPTY, MANIFEST_TYPE, Server, digest, eventually, manifest};

/// How many requests are stuck at a time: more than there are threads that run requests, on most machines.
const STUCK: usize = 24;

/// How often the server is asked meanwhile whether it lives.
const ASKED: usize = 40;

/// Far less than the stuck requests take, far more than an answer does on a busy machine.
const SOON: Duration = Duration::from_secs(3);

/// A process that holds every lock by which readers of `SQLite` find what to read. Whoever wants to read tries again and
/// again, inside `SQLite`, for some ten seconds.
struct Locks(Child);

impl Locks {
    fn take(metadata: &Path) -> Self {
        let program = "import fcntl, sys\n\
            shared = open(sys.argv[1] + '-shm', 'r+b')\n\
            fcntl.lockf(shared, fcntl.LOCK_EX, 5, 123)\n\
            print('taken', flush=True)\n\
            sys.stdin.readline()\n";
        let mut child = Command::new("python3")
            .args(["-c", program])
            .arg(metadata)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3, as all tests need it");
        let mut line = String::new();
        let mut told = BufReader::new(child.stdout.take().unwrap());
        told.read_line(&mut line).unwrap();
        assert_eq!(line, "taken\n", "the locks are not free");
        Self(child)
    }

    fn release(mut self) {
        self.0.stdin.take().unwrap().write_all(b"\n").unwrap();
        assert!(self.0.wait().unwrap().success());
    }
}

impl Drop for Locks {
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

    let locks = Locks::take(&server.data().join("metadata.db"));
    thread::scope(|scope| {
        let stuck: Vec<_> = (0..STUCK)
            .map(|_| scope.spawn(|| server.request("HEAD", &path, &[], b"").status))
            .collect();
        assert_eq!(lives(&server), ASKED);
        let still = stuck.iter().filter(|request| !request.is_finished()).count();
        assert!(still > 0, "nobody was stuck");
        locks.release();
        for request in stuck {
            let status = request.join().unwrap();
            // Who has waited for too long was told to come again.
            assert!(matches!(status, 200 | 503), "{status}");
        }
    });
    assert_eq!(server.request("HEAD", &path, &[], b"").status, 200);
}

#[test]
fn readers_of_a_file_that_does_not_answer_stop_nothing_else() {
    let server = Server::start(&[]);
    let blob = server.push_blob("app", b"some bytes");
    let path = format!("/v2/app/blobs/{blob}");
    assert_eq!(server.request("GET", &path, &[], b"").body, b"some bytes");

    // Opening a pipe waits until somebody opens its other end.
    let directories = std::fs::read_dir(server.data().join("blobs")).unwrap();
    let files = directories.flat_map(|directory| std::fs::read_dir(directory.unwrap().path()).unwrap());
    let files: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    let [file] = files.as_slice() else {
        panic!("one object: {files:?}")
    };
    std::fs::remove_file(file).unwrap();
    assert!(Command::new("mkfifo").arg(file).status().unwrap().success());
    thread::scope(|scope| {
        let stuck: Vec<_> = (0..STUCK)
            .map(|_| {
                scope.spawn(|| {
                    let mut client = server.connect();
                    client.send_head("GET", &path, &[], 0);
                    client.try_response("GET").map(|response| response.status)
                })
            })
            .collect();
        assert_eq!(lives(&server), ASKED);
        // Lets go of those that wait for it, if any does.
        drop(eventually("the other end is opened", || {
            if stuck.iter().all(thread::ScopedJoinHandle::is_finished) {
                return Some(None);
            }
            let other = std::fs::OpenOptions::new().read(true).write(true).open(file);
            thread::sleep(Duration::from_millis(100));
            Some(Some(other.unwrap()))
        }));
        for request in stuck {
            assert_ne!(request.join().unwrap(), Some(200));
        }
    });
}
