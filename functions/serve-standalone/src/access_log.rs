//! One line for each request, and nothing in it that could be used or that could forge another line.
//!
//! Written are the method, the path, the status, what was sent, how long it took, who asked, from where and with what
//! program. Not written are header values but `User-Agent`, the query (a digest in it also stands in the answer, the
//! rest may be anything), and upload tokens. A user's name is written only after the password was found right: people
//! type passwords into the wrong field.

use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Instant;

use http::header::USER_AGENT;
use http::{Method, Request, StatusCode, Uri};
use registry::{Principal, Record};

/// The target by which these lines are filtered: `--log-level info,access=off`.
const TARGET: &str = "access";
/// Longer paths and agents are cut.
const MAX_TEXT: usize = 300;
/// A path's segment this long that is no digest may be an upload token, wherever it stands: a client may have got the
/// path wrong, and the token in it works all the same. Names and tags are hardly ever this long.
const MAYBE_TOKEN: usize = 80;

/// A line in the making.
pub(crate) struct Entry {
    method: Method,
    uri: Uri,
    agent: String,
    peer: IpAddr,
    start: Instant,
    status: StatusCode,
    user: Option<String>,
}

impl Entry {
    /// Begins a line, if lines are written at all.
    pub(crate) fn begin<B>(request: &Request<B>, peer: IpAddr) -> Option<Self> {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return None;
        }
        let agent = request.headers().get(USER_AGENT);
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            agent: agent.map_or_else(String::new, |agent| printable(agent.as_bytes())),
            peer,
            start: Instant::now(),
            status: StatusCode::OK,
            user: None,
        })
    }

    /// Adds what the answer says.
    pub(crate) fn answered(&mut self, status: StatusCode, record: Option<&Record>) {
        self.status = status;
        self.user = match record.and_then(|record| record.principal.as_ref()) {
            Some(Principal::User(name)) => Some(printable(name.as_bytes())),
            Some(Principal::Anonymous) | None => None,
        };
    }

    /// Writes the line. `sent` is the length of the body as far as it was sent, `whole` whether that was all of it.
    pub(crate) fn write(self, sent: u64, whole: bool) {
        let ms = self.start.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            target: TARGET,
            method = self.method.as_str(),
            path = path(self.uri.path()),
            status = self.status.as_u16(),
            bytes = sent,
            ms = (ms * 1e3).round() / 1e3,
            user = self.user,
            peer = %self.peer,
            agent = self.agent,
            cut = (!whole).then_some(true),
        );
    }
}

/// The path as it may be written.
fn path(path: &str) -> String {
    let mut shown = String::with_capacity(path.len());
    let mut before = [String::new(), String::new()];
    for (index, segment) in path.split('/').enumerate() {
        if index > 0 {
            shown.push('/');
        }
        let plain = decoded(segment);
        let after_uploads = before == ["blobs", "uploads"] && !segment.is_empty();
        if after_uploads || (plain.len() >= MAYBE_TOKEN && !plain.contains(':')) {
            shown.push('…');
        } else {
            shown.push_str(&printable(segment.as_bytes()));
        }
        if !segment.is_empty() {
            before.rotate_left(1);
            before[1] = plain;
        }
    }
    cut(&mut shown);
    shown
}

/// A segment as the core reads it.
fn decoded(segment: &str) -> String {
    let hex = |byte: u8| char::from(byte).to_digit(16);
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        let escaped = match after {
            [high, low, ..] if *first == b'%' => hex(*high).zip(hex(*low)),
            _ => None,
        };
        if let Some(byte) = escaped.and_then(|(high, low)| u8::try_from(high * 16 + low).ok()) {
            bytes.push(byte);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Text that cannot move a cursor, begin a line, or be taken for another field.
fn printable(bytes: &[u8]) -> String {
    let mut shown = String::with_capacity(bytes.len().min(MAX_TEXT));
    for byte in bytes.iter().take(MAX_TEXT + 1) {
        match byte {
            b'"' | b'\\' => {
                shown.push('\\');
                shown.push(char::from(*byte));
            }
            0x20..=0x7e => shown.push(char::from(*byte)),
            _ => {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
    }
    cut(&mut shown);
    shown
}

fn cut(text: &mut String) {
    if let Some((end, _)) = text.char_indices().nth(MAX_TEXT) {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOKEN: &str = "AQAAAAEAAAGTXk3JAAAAAAAAAAAAAAAAAAAAAAAAABcAn3ZbRrHHT2E3cYyZEF_x-AQAAAAEAAAGTXk3JAAAA";

    #[test]
    fn tokens_are_left_out_however_the_path_is_written() {
        for raw in [
            "/v2/a/blobs/uploads/TOKEN",
            "/v2/a/blobs/uploads/TOKEN/",
            "/v2/a/blobs//uploads//TOKEN",
            "/v2/a/blobs/%75ploads/TOKEN",
            "/v2/a/blobs/uploads%2fTOKEN",
            "/v2/a/blobs/uploads/TOKEN/x",
            "/TOKEN",
        ] {
            let shown = path(&raw.replace("TOKEN", TOKEN));
            assert!(!shown.contains(&TOKEN[..16]), "{shown}");
            assert!(shown.contains('…'), "{shown}");
        }
        assert_eq!(path("/v2/a/blobs/uploads/short"), "/v2/a/blobs/uploads/…");
        assert_eq!(path("/v2/a/blobs/uploads/"), "/v2/a/blobs/uploads/");
    }

    #[test]
    fn what_helps_an_operator_is_kept() {
        let digest = format!("sha512:{}", "ab".repeat(64));
        for kept in [
            "/v2/".to_owned(),
            "/v2/team/app/manifests/latest".to_owned(),
            format!("/v2/team/app/blobs/{digest}"),
            format!("/v2/team/app/manifests/{}", "c".repeat(64)),
        ] {
            assert_eq!(path(&kept), kept);
        }
    }

    #[test]
    fn nothing_forges_a_line() {
        assert_eq!(
            printable(b"a\nb\r\x1b[31m\x00\xc2\x9b\"\\"),
            r#"a\x0ab\x0d\x1b[31m\x00\xc2\x9b\"\\"#
        );
        assert_eq!(printable("x".repeat(10_000).as_bytes()).chars().count(), MAX_TEXT + 1);
        assert!(path(&"/y".repeat(10_000)).chars().count() <= MAX_TEXT + 1);
    }
}
