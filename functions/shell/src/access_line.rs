//! The log line for each request. It contains no secrets, and no text that could forge another line.
//!
//! It contains the method, the path, the status, the number of bytes sent, the duration, the id of a request that may change
//! something, the principal, the id of its key, the client's address and the `User-Agent`. It does not contain other header
//! values, upload tokens or the query (a digest in the query is also in the answer; the rest may be any text). It contains the
//! principal only after the credentials were verified, because users sometimes type a password into the field for the name.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::net::IpAddr;
use std::time::Duration;

use http::header::USER_AGENT;
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use percent_encoding::percent_decode_str;
use registry::auth::CredentialId;
use registry::store::Timestamp;
use registry::{Principal, RequestId, RequestRecord};

use crate::log::LogFormat;
use crate::timestamp;

/// The target by which these lines are filtered: `--log-level info,access=off`.
const TARGET: &str = "access";
/// Maximum length of a path and of an agent; longer ones are cut.
const MAX_TEXT: usize = 300;
/// A segment of a path of at least this length may be an upload token, unless it is a digest. It may be anywhere in the path:
/// a token in a wrong path is still valid. Names and tags are hardly ever this long.
const MAYBE_TOKEN: usize = 80;

/// An unfinished line.
#[derive(Debug)]
pub struct AccessLine {
    method: Method,
    uri: Uri,
    agent: Option<HeaderValue>,
    client: IpAddr,
    status: StatusCode,
    request: Option<RequestId>,
    user: Option<Principal>,
    credential: Option<CredentialId>,
}

impl AccessLine {
    /// Begins a line; `None` if access lines are not logged. `client` is the client's address, as far as it is known.
    pub fn begin<B>(request: &Request<B>, client: IpAddr) -> Option<Self> {
        if !tracing::enabled!(target: TARGET, tracing::Level::INFO) {
            return None;
        }
        Some(Self {
            method: request.method().clone(),
            uri: request.uri().clone(),
            agent: request.headers().get(USER_AGENT).cloned(),
            client,
            status: StatusCode::OK,
            request: None,
            user: None,
            credential: None,
        })
    }

    /// Adds the status of the answer, the id of the request, the principal and its key.
    pub fn answered(&mut self, status: StatusCode, record: Option<&RequestRecord>) {
        self.status = status;
        self.request = record.and_then(|record| record.id);
        let principal = record.and_then(|record| record.principal.clone());
        self.user = principal.filter(|principal| !principal.is_anonymous());
        self.credential = record.and_then(|record| record.credential);
    }

    /// Appends the line, with its line feed, to `line`.
    ///
    /// This function formats the line itself, because the formatter of events takes longer than many requests.
    pub fn write(&self, line: &mut String, format: LogFormat, end: &AnswerEnd) {
        let mut fields = Fields::begin(line, format, end.at);
        fields.text("method", self.method.as_str());
        fields.text("path", &path(self.uri.path()));
        fields.number("status", self.status.as_u16());
        fields.number("bytes", end.sent);
        let micros = end.took.as_micros();
        fields.number("ms", format_args!("{}.{:03}", micros / 1000, micros % 1000));
        if let Some(request) = self.request {
            fields.quoted("request", request);
        }
        if let Some(user) = &self.user {
            fields.text("user", &printable(user.as_str()));
        }
        if let Some(credential) = self.credential {
            fields.quoted("credential", credential);
        }
        fields.quoted("peer", self.client);
        if let Some(agent) = &self.agent {
            fields.text("agent", &printable(&String::from_utf8_lossy(agent.as_bytes())));
        }
        if !end.is_whole {
            fields.number("cut", true);
        }
        fields.end();
    }
}

/// How the answer to a request ended.
#[derive(Clone, Copy, Debug)]
pub struct AnswerEnd {
    /// When it ended.
    pub at: Timestamp,
    /// From the request's head to that time.
    pub took: Duration,
    /// Bytes of its body that were sent.
    pub sent: u64,
    /// Whether that was the whole body.
    pub is_whole: bool,
}

/// The fields of a line, in the format of other log lines.
struct Fields<'a> {
    line: &'a mut String,
    format: LogFormat,
}

impl<'a> Fields<'a> {
    fn begin(line: &'a mut String, format: LogFormat, at: Timestamp) -> Self {
        if format == LogFormat::Json {
            line.push_str("{\"timestamp\":\"");
        }
        timestamp::milliseconds(line, at);
        line.push_str(match format {
            LogFormat::Json => "\",\"level\":\"INFO\"",
            LogFormat::Text => "  INFO access:",
        });
        Self { line, format }
    }

    fn name(&mut self, name: &str) {
        let (before, after) = match self.format {
            LogFormat::Json => (",\"", "\":"),
            LogFormat::Text => (" ", "="),
        };
        self.line.push_str(before);
        self.line.push_str(name);
        self.line.push_str(after);
    }

    /// Adds text that is [`printable`]. In both formats it needs only quotes.
    fn text(&mut self, name: &str, text: &str) {
        self.name(name);
        self.line.push('"');
        self.line.push_str(text);
        self.line.push('"');
    }

    /// Adds a value whose text is always printable.
    fn quoted(&mut self, name: &str, value: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.line, "\"{value}\"");
    }

    /// Adds a number or a boolean.
    fn number(&mut self, name: &str, number: impl std::fmt::Display) {
        self.name(name);
        let _ = write!(self.line, "{number}");
    }

    fn end(self) {
        self.line.push_str(match self.format {
            LogFormat::Json => ",\"target\":\"access\"}\n",
            LogFormat::Text => "\n",
        });
    }
}

/// The path as it is logged, without upload tokens.
fn path(path: &str) -> Cow<'_, str> {
    // Most paths are logged unchanged: those without an upload, a long segment or an escape.
    let is_ordinary = |segment: &[u8]| {
        segment != b"uploads"
            && (segment.len() < MAYBE_TOKEN || segment.contains(&b':'))
            && segment.iter().all(|byte| is_plain(*byte) && *byte != b'%')
    };
    if path.as_bytes().split(|byte| *byte == b'/').all(is_ordinary) {
        return if path.len() <= MAX_TEXT {
            Cow::Borrowed(path)
        } else {
            printable(path)
        };
    }
    // As the core parses it: an escaped slash separates segments, and every other escape belongs to its segment.
    let path = path.replace("%2F", "/").replace("%2f", "/");
    let mut shown = String::with_capacity(path.len());
    let mut before = [Cow::Borrowed(""), Cow::Borrowed("")];
    for (index, segment) in path.split('/').enumerate() {
        if shown.len() >= MAX_TEXT {
            shown.push('…');
            break;
        }
        if index > 0 {
            shown.push('/');
        }
        if segment.is_empty() {
            continue;
        }
        let plain = percent_decode_str(segment).decode_utf8_lossy();
        if before == ["blobs", "uploads"] || (plain.len() >= MAYBE_TOKEN && !plain.contains(':')) {
            shown.push('…');
        } else {
            shown.push_str(&printable(segment));
        }
        before.rotate_left(1);
        before[1] = plain;
    }
    Cow::Owned(shown)
}

/// Whether a character is logged unchanged.
fn is_plain(byte: u8) -> bool {
    matches!(byte, 0x20..=0x7e) && !matches!(byte, b'"' | b'\\')
}

/// Escapes text so that it cannot move a cursor, begin a line or look like another field. Printable ASCII stays; everything
/// else is escaped as in JSON. Long text is cut.
fn printable(text: &str) -> Cow<'_, str> {
    if text.len() <= MAX_TEXT && text.bytes().all(is_plain) {
        return Cow::Borrowed(text);
    }
    let mut shown = String::with_capacity(text.len().min(MAX_TEXT));
    for character in text.chars() {
        if shown.len() >= MAX_TEXT {
            shown.push('…');
            break;
        }
        match character {
            '"' | '\\' => {
                shown.push('\\');
                shown.push(character);
            }
            ' '..='~' => shown.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    let _ = write!(shown, "\\u{unit:04x}");
                }
            }
        }
    }
    Cow::Owned(shown)
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
            "/v2/a/blobs%2Fuploads/TOKEN",
            "/v2/a/blobs/uploads/TOKEN/x",
            "/TOKEN",
        ] {
            let raw = raw.replace("TOKEN", TOKEN);
            let shown = path(&raw);
            assert!(!shown.contains(&TOKEN[..16]), "{shown}");
            assert!(shown.contains('…'), "{shown}");
        }
        // Whatever their length is.
        for (raw, shown) in [
            ("/v2/a/blobs/uploads/short", "/v2/a/blobs/uploads/…"),
            ("/v2/a/blobs%2Fuploads/short", "/v2/a/blobs/uploads/…"),
            ("/v2/a/blobs%2fuploads%2fshort", "/v2/a/blobs/uploads/…"),
            ("/v2/a/blobs%2F%75ploads/short", "/v2/a/blobs/%75ploads/…"),
            // Once: the core does not decode what was decoded.
            ("/v2/a/blobs%252Fuploads/short", "/v2/a/blobs%252Fuploads/short"),
        ] {
            assert_eq!(path(raw), shown);
        }
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
            printable("a\nb\r\u{1b}[31m\0\u{9b}\"\\ë😀\u{202e}"),
            r#"a\u000ab\u000d\u001b[31m\u0000\u009b\"\\\u00eb\ud83d\ude00\u202e"#
        );
        for long in [
            "x".repeat(10_000),
            "\n".repeat(10_000),
            "/y".repeat(10_000),
            "/%00".repeat(10_000),
        ] {
            for shown in [printable(&long), path(&long)] {
                assert!(shown.len() <= MAX_TEXT + MAYBE_TOKEN, "{shown}");
                // No escape is cut in two.
                let read: String = serde_json::from_str(&format!("\"{shown}\"")).expect("it is JSON");
                assert!(read.ends_with('…'));
            }
        }
    }

    #[test]
    fn a_line_names_the_request_the_principal_and_its_key() {
        let record = |principal: Option<Principal>, credential: &str| RequestRecord {
            principal,
            credential: credential.parse().ok(),
            ..RequestRecord::default()
        };
        for (record, expected) in [
            (
                record(Principal::robot("ci").ok(), "3f9aK2dQ"),
                r#" user="robot:ci" credential="3f9aK2dQ" peer="#,
            ),
            (record(Principal::user("alice").ok(), ""), r#" user="alice" peer="#),
            (record(Some(Principal::ANONYMOUS), ""), " ms=1.000 peer="),
            (record(None, ""), " ms=1.000 peer="),
            (
                RequestRecord {
                    id: Some(RequestId::new(0xabc)),
                    ..record(Principal::user("alice").ok(), "")
                },
                r#" ms=1.000 request="0000000000000abc" user="alice" peer="#,
            ),
        ] {
            let mut line = AccessLine {
                method: Method::GET,
                uri: Uri::from_static("/v2/"),
                agent: None,
                client: IpAddr::from([192, 0, 2, 1]),
                status: StatusCode::OK,
                request: None,
                user: None,
                credential: None,
            };
            line.answered(StatusCode::OK, Some(&record));
            let end = AnswerEnd {
                at: Timestamp(0),
                took: Duration::from_millis(1),
                sent: 2,
                is_whole: true,
            };
            let mut text = String::new();
            line.write(&mut text, LogFormat::Text, &end);
            assert!(text.contains(expected), "{text}");
        }
    }

    #[test]
    fn a_line_is_json_or_text() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let mut line = String::new();
            let mut fields = Fields::begin(&mut line, format, Timestamp(0));
            fields.text("path", "/v2/");
            fields.number("status", 200);
            fields.end();
            let whole = line.strip_suffix('\n').expect("a line");
            if format == LogFormat::Json {
                let read: serde_json::Value = serde_json::from_str(whole).expect("it is JSON");
                assert_eq!((&read["path"], &read["status"]), (&"/v2/".into(), &200.into()));
                assert_eq!((&read["level"], &read["target"]), (&"INFO".into(), &"access".into()));
            } else {
                assert!(whole.ends_with("Z  INFO access: path=\"/v2/\" status=200"), "{whole}");
            }
        }
    }
}
