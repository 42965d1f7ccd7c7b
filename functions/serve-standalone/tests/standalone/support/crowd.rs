//! What a test needs to be a crowd of clients, and to see whether a server bears it: many sockets from chosen addresses,
//! ordinary requests whose time is taken, and the memory and the files of the server's process.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::h2::{Socket, dial_with};
use super::{MAX_WAIT, Server};

/// Where those come from who misuse the server, and those who do not.
pub(crate) const CROWD: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
pub(crate) const ORDINARY: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 3);

/// What is expected of an ordinary request.
const PROMPT: Duration = Duration::from_secs(2);

/// Lets this process open as many sockets as it may.
pub(crate) fn many_files() {
    let limit = getrlimit(Resource::Nofile);
    let _ = setrlimit(
        Resource::Nofile,
        Rlimit {
            current: limit.maximum,
            maximum: limit.maximum,
        },
    );
}

/// One request over HTTP/1.1 on a connection of its own; the status and the body.
pub(crate) async fn ask(server: SocketAddr, from: Ipv4Addr, path: &str) -> std::io::Result<(u16, Vec<u8>)> {
    let mut socket = dial_with(server, from, Socket::default()).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    socket.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    timeout(MAX_WAIT, socket.read_to_end(&mut answer)).await??;
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n");
    let status = std::str::from_utf8(answer.get(9..12).unwrap_or_default()).unwrap_or_default();
    match (status.parse(), end) {
        (Ok(status), Some(end)) => Ok((status, answer.split_off(end + 4))),
        _ => Err(std::io::ErrorKind::UnexpectedEof.into()),
    }
}

/// Sends `count` ordinary requests one after the other, and tells how many of them were answered with 200 in time, and
/// what became of the others.
pub(crate) async fn ordinary(server: SocketAddr, from: Ipv4Addr, paths: &[&str], count: usize) -> (usize, Vec<String>) {
    let mut good = 0;
    let mut others = Vec::new();
    for index in 0..count {
        let path = paths[index % paths.len()];
        let start = Instant::now();
        match ask(server, from, path).await {
            Ok((200, _)) if start.elapsed() <= PROMPT => good += 1,
            Ok((status, _)) => others.push(format!("{path}: {status} after {:?}", start.elapsed())),
            Err(error) => others.push(format!("{path}: {error} after {:?}", start.elapsed())),
        }
    }
    (good, others)
}

/// Asserts that at least 95 of 100 ordinary requests are answered promptly.
pub(crate) async fn assert_ordinary(server: SocketAddr, from: Ipv4Addr, paths: &[&str], count: usize) {
    let (good, others) = ordinary(server, from, paths, count).await;
    assert!(good * 100 >= count * 95, "{good} of {count} were prompt: {others:#?}");
}

/// A client that is to be met at the socket: it asks for something and then does as the test likes.
pub(crate) async fn begin(
    server: SocketAddr,
    from: Ipv4Addr,
    socket: Socket,
    text: impl AsRef<[u8]>,
) -> std::io::Result<TcpStream> {
    let mut stream = dial_with(server, from, socket).await?;
    stream.write_all(text.as_ref()).await?;
    Ok(stream)
}

/// The head of a GET.
pub(crate) fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nUser-Agent: crowd\r\n\r\n")
}

/// A client that asks for something over HTTP/2, reads the head of the answer, and then nothing any more: it never answers
/// when it is asked whether it is there, or asked to leave.
pub(crate) async fn deaf(server: SocketAddr, from: Ipv4Addr) -> std::io::Result<TcpStream> {
    let mut stream = begin(server, from, Socket::default(), deaf_request()).await?;
    let mut frame = [0; 9];
    // HEADERS (RFC 9113, 6.2).
    while frame[3] != 1 {
        timeout(MAX_WAIT, stream.read_exact(&mut frame)).await??;
        let mut content = vec![0; u32::from_be_bytes([0, frame[0], frame[1], frame[2]]) as usize];
        timeout(MAX_WAIT, stream.read_exact(&mut content)).await??;
    }
    Ok(stream)
}

/// The beginning of a connection of HTTP/2, with a request for `/v2/`.
pub(crate) fn deaf_request() -> Vec<u8> {
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    // GET, http, /v2/, localhost (RFC 7541, appendix A).
    let fields = [b"\x82\x86\x44\x04/v2/\x41\x09localhost".as_slice()].concat();
    let head = [0, 0, u8::try_from(fields.len()).unwrap(), 1, 0x5, 0, 0, 0, 1];
    [
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".as_slice(),
        &settings,
        &head,
        &fields,
    ]
    .concat()
}

/// Bytes of memory that a process has, and the most that it ever had.
pub(crate) fn memory(server: &Server) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let field = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// How many threads a process has.
pub(crate) fn threads(server: &Server) -> usize {
    std::fs::read_dir(format!("/proc/{}/task", server.pid()))
        .unwrap()
        .count()
}

/// How many files a process has open, but for those of the metadata: `SQLite` keeps as many descriptors of its file as it
/// ever used at once, since to close one would drop the locks of all (`close(2)` of POSIX), and uses them again.
pub(crate) fn files(server: &Server) -> usize {
    let open = std::fs::read_dir(format!("/proc/{}/fd", server.pid())).unwrap();
    // One may be closed while this looks.
    let names = open.filter_map(|file| std::fs::read_link(file.unwrap().path()).ok());
    names.filter(|name| !name.ends_with("metadata.db")).count()
}

/// 512 MiB for a server and no byte more, where this process may say so. The tests measure its memory in any case; this
/// makes sure that the system would have noticed, too.
pub(crate) struct Cage(Option<Group>);

struct Group {
    folder: PathBuf,
    pid: String,
}

impl Cage {
    pub(crate) fn around(server: &Server) -> Self {
        let pid = server.pid().to_string();
        for (root, limit) in [
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
            ("/sys/fs/cgroup", "memory.max"),
        ] {
            let folder = PathBuf::from(root).join(format!("roadstead-test-{pid}"));
            // An earlier run may have been killed before it could remove its own.
            let _ = std::fs::remove_dir(&folder);
            if std::fs::create_dir(&folder).is_err() {
                continue;
            }
            let made = std::fs::write(folder.join(limit), (512_u64 << 20).to_string())
                .and_then(|()| std::fs::write(folder.join("cgroup.procs"), &pid));
            if made.is_ok() {
                return Self(Some(Group { folder, pid }));
            }
            let _ = std::fs::remove_dir(&folder);
        }
        eprintln!("no group of processes can be made here: the server's memory is measured, and not limited");
        Self(None)
    }
}

impl Drop for Cage {
    fn drop(&mut self) {
        let Some(Group { folder, pid }) = &self.0 else { return };
        // A group with a process in it cannot be removed, and the server may still run.
        if let Some(above) = folder.parent() {
            let _ = std::fs::write(above.join("cgroup.procs"), pid);
        }
        if let Err(error) = std::fs::remove_dir(folder) {
            eprintln!("{} is left behind: {error}", folder.display());
        }
    }
}

/// Waits until `done`, for as long as the server may take to have everything back.
pub(crate) async fn within_20_s(what: &str, mut done: impl AsyncFnMut() -> bool) {
    let start = Instant::now();
    while !done().await {
        assert!(start.elapsed() < Duration::from_secs(20), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
