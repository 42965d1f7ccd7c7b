//! An object store of a few lines, whose clock and whose bucket a test decides about.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::ops::Bound;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use super::MAX_WAIT;

/// What the store answers with.
#[derive(Debug, Default)]
struct ObjectsState {
    /// By how many seconds its clock is ahead of this machine's.
    ahead: i64,
    /// What it answers instead of doing what was asked: a status and a code of S3.
    refuses: Option<(u16, &'static str)>,
    /// The same, to what stores alone.
    refuses_writes: Option<(u16, &'static str)>,
    /// It takes requests and does not answer them until this is over.
    is_silent: bool,
    objects: BTreeMap<String, Vec<u8>>,
    deleted: u32,
}

/// Keeps whole objects of one bucket, as far as a registry asks for them.
pub(crate) struct Objects {
    pub(crate) address: SocketAddr,
    state: Arc<Mutex<ObjectsState>>,
    over: Arc<AtomicBool>,
}

impl Objects {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (state, over) = (Arc::<Mutex<ObjectsState>>::default(), Arc::<AtomicBool>::default());
        thread::spawn({
            let (state, over) = (state.clone(), over.clone());
            move || {
                for stream in listener.incoming() {
                    if over.load(Ordering::SeqCst) {
                        return;
                    }
                    let state = state.clone();
                    // It ends with its connection, at the latest when the program under test does.
                    thread::spawn(move || serve(stream.unwrap(), &state));
                }
            }
        });
        Self { address, state, over }
    }

    /// The flags and variables of a server over it.
    pub(crate) fn flags(&self) -> [String; 4] {
        let url = format!("http://{}", self.address);
        ["--blobs", "s3://bucket", "--s3-endpoint", &url].map(ToOwned::to_owned)
    }

    pub(crate) fn variables() -> [(String, String); 2] {
        let variables = [("AWS_ACCESS_KEY_ID", "nobody"), ("AWS_SECRET_ACCESS_KEY", "nothing")];
        variables.map(|(name, value)| (name.to_owned(), value.to_owned()))
    }

    /// From now on its clock is ahead by so many seconds.
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.state.lock().unwrap().ahead = seconds;
    }

    /// From now on it answers everything like this; `None`: as it should.
    pub(crate) fn refuse(&self, answer: Option<(u16, &'static str)>) {
        self.state.lock().unwrap().refuses = answer;
    }

    /// The same for what stores.
    pub(crate) fn refuse_writes(&self, answer: Option<(u16, &'static str)>) {
        self.state.lock().unwrap().refuses_writes = answer;
    }

    /// From now on it answers nothing, or again, also what was asked meanwhile.
    pub(crate) fn be_silent(&self, is_silent: bool) {
        self.state.lock().unwrap().is_silent = is_silent;
    }

    pub(crate) fn clear(&self) {
        self.state.lock().unwrap().objects.clear();
    }

    pub(crate) fn put(&self, key: &str) {
        self.state.lock().unwrap().objects.insert(key.to_owned(), Vec::new());
    }

    /// How many objects it was asked to delete.
    pub(crate) fn deleted(&self) -> u32 {
        self.state.lock().unwrap().deleted
    }
}

impl Drop for Objects {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes it.
        let _ = TcpStream::connect(self.address);
    }
}

fn serve(stream: TcpStream, state: &Mutex<ObjectsState>) {
    stream.set_read_timeout(Some(MAX_WAIT)).unwrap();
    let mut reader = BufReader::new(stream);
    while let Some((method, path, body)) = request(&mut reader) {
        let start = Instant::now();
        while state.lock().unwrap().is_silent && start.elapsed() < MAX_WAIT {
            thread::sleep(Duration::from_millis(10));
        }
        let answer = answer(&mut state.lock().unwrap(), &method, &path, body);
        if reader.get_mut().write_all(&answer).is_err() {
            return;
        }
    }
}

fn request(reader: &mut BufReader<TcpStream>) -> Option<(String, String, Vec<u8>)> {
    let mut line = String::new();
    if reader.read_line(&mut line).ok()? == 0 {
        return None;
    }
    let mut words = line.split(' ').map(ToOwned::to_owned);
    let (method, path) = (words.next()?, words.next()?);
    let mut length = 0;
    loop {
        line.clear();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        if name.eq_ignore_ascii_case("content-length") {
            length = value.trim().parse().ok()?;
        }
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((method, path, body))
}

fn answer(state: &mut ObjectsState, method: &str, path: &str, body: Vec<u8>) -> Vec<u8> {
    let (path, query) = path.split_once('?').unwrap_or((path, ""));
    let key = path.trim_start_matches("/bucket").trim_start_matches('/');
    let writes = method == "PUT" || (method == "POST" && !query.contains("delete"));
    let refused = state.refuses.or(state.refuses_writes.filter(|_| writes));
    if let Some((status, code)) = refused {
        return http(state.ahead, method, status, &error(code));
    }
    let found = state.objects.get(key).cloned();
    match (method, found) {
        ("GET", _) if query.contains("list-type=2") => {
            let asked = |name: &str| {
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                pairs.find_map(|(found, value)| (found == name).then_some(value))
            };
            // Keys of these tests need no escapes.
            let after = asked("start-after").unwrap_or_default().to_owned();
            let most = asked("max-keys").map_or(1_000, |most| most.parse().unwrap());
            let behind = (Bound::Excluded(after), Bound::Unbounded);
            let is_truncated = state.objects.range(behind.clone()).count() > most;
            let contents = state.objects.range(behind).take(most).map(|(key, bytes)| {
                let size = bytes.len();
                format!(
                    "<Contents><Key>{key}</Key><Size>{size}</Size>\
                     <LastModified>2030-01-01T00:00:00.000Z</LastModified></Contents>"
                )
            });
            let list = format!(
                "<ListBucketResult><IsTruncated>{is_truncated}</IsTruncated>{}</ListBucketResult>",
                contents.collect::<String>()
            );
            http(state.ahead, method, 200, list.as_bytes())
        }
        ("PUT", _) => {
            state.objects.insert(key.to_owned(), body);
            http(state.ahead, method, 200, b"")
        }
        ("POST", _) => {
            state.deleted += 1;
            http(state.ahead, method, 200, b"<DeleteResult></DeleteResult>")
        }
        ("GET" | "HEAD", Some(bytes)) => http(state.ahead, method, 200, &bytes),
        _ => http(state.ahead, method, 404, &error("NoSuchKey")),
    }
}

fn error(code: &str) -> Vec<u8> {
    format!("<Error><Code>{code}</Code><Message>as the test says</Message></Error>").into_bytes()
}

fn http(ahead: i64, method: &str, status: u16, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 {status} X\r\nDate: {}\r\nETag: \"0\"\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n",
        date(ahead),
        body.len()
    );
    let body = if method == "HEAD" { b"" } else { body };
    [head.as_bytes(), body].concat()
}

/// The time as HTTP writes it (RFC 9110, 5.6.7); days since the epoch become a date as in Howard Hinnant's
/// `civil_from_days`.
pub(crate) fn date(ahead: i64) -> String {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let seconds = i64::try_from(seconds).unwrap() + ahead;
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let weekday = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"][usize::try_from(days.rem_euclid(7)).unwrap()];
    let shifted = days + 719_468;
    let (era, of_era) = (shifted.div_euclid(146_097), shifted.rem_euclid(146_097));
    let year_of_era = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let months = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let month = months[usize::try_from(month - 1).unwrap()];
    format!(
        "{weekday}, {day:02} {month} {year} {:02}:{:02}:{:02} GMT",
        rest / 3_600,
        rest / 60 % 60,
        rest % 60
    )
}
