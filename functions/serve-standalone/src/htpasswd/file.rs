//! The text of a htpasswd file: one `user:hash` per line.
//!
//! The parser accepts what common editors and tools write: UTF-8, or UTF-16 with a byte order mark; lines that end in LF, CRLF
//! or CR, the last one possibly without an end; blanks around everything; byte order marks within the text, from files that
//! were concatenated; empty lines and comments (`#`); a third field, which other servers treat as a comment. If a user has
//! several lines, the last one counts.
//!
//! Accepted hashes are bcrypt (`$2y$`, `$2b$`, `$2a$`) and argon2id (a PHC string, `$argon2id$…`). Others are not safe (DES,
//! MD5, SHA-1) or no hashes, and are refused when the file is read. Otherwise the server would start, and refuse this user's
//! password without a visible reason.

use std::collections::HashMap;

use registry::auth::AccountName;

use super::hash::Hash;
use super::problem::{LineProblem, MAX_NAME};

/// Some editors write it at the beginning of a file. If such files are concatenated, it is at the beginning of a line.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Why a file cannot be used. Its text never contains a password or a hash, only a name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct LineError {
    /// Counted from 1.
    pub(crate) line: usize,
    pub(crate) problem: LineProblem,
}

/// A line that has no effect, because a later one is for the same user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Overridden {
    pub(crate) user: String,
    /// The line without effect, counted from 1.
    pub(crate) line: usize,
    /// The line that counts.
    pub(crate) by: usize,
}

/// The users of a file.
#[derive(Debug, PartialEq, Eq, Default)]
pub(crate) struct Users {
    hashes: Vec<Hash>,
    names: HashMap<String, usize>,
    overridden: Vec<Overridden>,
}

impl Users {
    /// Parses the text of a file.
    pub(crate) fn parse(text: &str) -> Result<Self, LineError> {
        let mut users = Self::default();
        // The line of each of `hashes`.
        let mut lines = Vec::new();
        for (number, line) in (1..).zip(UserLines(text)) {
            let at = |problem| LineError { line: number, problem };
            let Some((name, hash)) = line.user().map_err(at)? else {
                continue;
            };
            check_name(name).map_err(at)?;
            let hash = Hash::parse(hash, name).map_err(at)?;
            if let Some(&index) = users.names.get(name) {
                users.overridden.push(Overridden {
                    user: name.into(),
                    line: lines[index],
                    by: number,
                });
                users.hashes[index] = hash;
                lines[index] = number;
            } else {
                users.names.insert(name.into(), users.hashes.len());
                users.hashes.push(hash);
                lines.push(number);
            }
        }
        // A line may be overridden by a line that is overridden itself.
        for overridden in &mut users.overridden {
            overridden.by = lines[users.names[&overridden.user]];
        }
        Ok(users)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.hashes.len()
    }

    pub(super) fn contains(&self, name: &str) -> bool {
        self.names.contains_key(name)
    }

    /// Whether every user of `others` is one of these.
    pub(super) fn include(&self, others: &Self) -> bool {
        others.names.keys().all(|name| self.contains(name))
    }

    /// The lines without effect, in the order of the lines that override them.
    pub(crate) fn overridden(&self) -> &[Overridden] {
        &self.overridden
    }

    /// The names of users who cannot log in, because clients send these names with credentials of another kind.
    pub(super) fn reserved(&self) -> Vec<&'static str> {
        let names = AccountName::RESERVED.into_iter();
        names.filter(|name| self.contains(name)).collect()
    }

    pub(super) fn hash(&self, name: &str) -> Option<&Hash> {
        self.names.get(name).map(|index| &self.hashes[*index])
    }

    /// The hash of an existing user, chosen by `seed`, to be used for a user who does not exist. So the time of a refusal does
    /// not tell whether a user exists: an unknown user takes the time of a certain known one. `None` if there are no users.
    pub(super) fn decoy(&self, seed: u64) -> Option<&Hash> {
        let count = u64::try_from(self.hashes.len()).ok()?;
        let index = seed.checked_rem(count)?;
        self.hashes.get(usize::try_from(index).ok()?)
    }
}

/// Whether a user may have this name: it must be unambiguous in a file and in a client's credentials.
pub(crate) fn check_name(name: &str) -> Result<(), LineProblem> {
    let legal = !name.is_empty()
        && name.len() <= MAX_NAME
        && name.trim() == name
        && !name.starts_with('#')
        && !name
            .chars()
            .any(|character| matches!(character, ':' | BYTE_ORDER_MARK) || character.is_control());
    if legal { Ok(()) } else { Err(LineProblem::Name) }
}

/// Decodes the bytes of a file.
pub(crate) fn decode(bytes: &[u8]) -> Result<String, LineError> {
    let rest = match bytes {
        [0xff, 0xfe, rest @ ..] => return decode_utf16(rest, u16::from_le_bytes),
        [0xfe, 0xff, rest @ ..] => return decode_utf16(rest, u16::from_be_bytes),
        [0xef, 0xbb, 0xbf, rest @ ..] | rest => rest,
    };
    std::str::from_utf8(rest).map(str::to_owned).map_err(|error| {
        let before = std::str::from_utf8(&rest[..error.valid_up_to()]).unwrap_or_default();
        not_text(before)
    })
}

/// Decodes UTF-16, which Windows PowerShell writes for `>`.
fn decode_utf16(bytes: &[u8], unit: fn([u8; 2]) -> u16) -> Result<String, LineError> {
    let (pairs, odd) = bytes.as_chunks::<2>();
    let mut text = String::with_capacity(pairs.len());
    for character in char::decode_utf16(pairs.iter().map(|pair| unit(*pair))) {
        let Ok(character) = character else {
            return Err(not_text(&text));
        };
        text.push(character);
    }
    if odd.is_empty() { Ok(text) } else { Err(not_text(&text)) }
}

/// The error that the bytes after `before` are not text.
fn not_text(before: &str) -> LineError {
    let ended = UserLines(before).filter(|line| !line.end.is_empty()).count();
    LineError {
        line: ended + 1,
        problem: LineProblem::NotText,
    }
}

/// `text` without the blanks and byte order marks around it.
pub(super) fn trim(text: &str) -> &str {
    text.trim_matches(|character: char| character.is_whitespace() || character == BYTE_ORDER_MARK)
}

/// One line and its line end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct UserLine<'a> {
    pub(super) text: &'a str,
    /// `\n`, `\r\n`, `\r`, or nothing at the end of the text.
    pub(super) end: &'a str,
}

impl<'a> UserLine<'a> {
    /// The user's name and hash as text; `None` for an empty line or a comment.
    fn user(&self) -> Result<Option<(&'a str, &'a str)>, LineProblem> {
        // Old DOS programs end a file with ^Z.
        let line = trim(self.text.trim_end_matches('\u{1a}'));
        if line.is_empty() || line.starts_with('#') {
            return Ok(None);
        }
        let (name, rest) = line.split_once(':').ok_or(LineProblem::NoColon)?;
        let rest = rest.trim_start();
        let hash = rest.split([':', ' ', '\t']).next().unwrap_or_default();
        // A comment may follow. Any other text after a blank belongs to the hash, which is then malformed.
        let comment = rest[hash.len()..].trim_start();
        let hash = if comment.is_empty() || comment.starts_with([':', '#']) {
            hash
        } else {
            rest
        };
        Ok(Some((name.trim_end(), hash)))
    }

    /// Whether it is a line of `user`, even if the rest of it is malformed.
    pub(super) fn is_for(&self, user: &str) -> bool {
        let line = trim(self.text);
        !line.starts_with('#') && line.split_once(':').is_some_and(|(name, _)| name.trim_end() == user)
    }
}

/// The lines of a text.
pub(super) struct UserLines<'a>(pub(super) &'a str);

impl<'a> Iterator for UserLines<'a> {
    type Item = UserLine<'a>;

    fn next(&mut self) -> Option<UserLine<'a>> {
        if self.0.is_empty() {
            return None;
        }
        let length = self.0.find(['\r', '\n']).unwrap_or(self.0.len());
        let (text, rest) = self.0.split_at(length);
        let end = ["\r\n", "\n", "\r"].into_iter().find(|end| rest.starts_with(end));
        let (end, rest) = rest.split_at(end.map_or(0, str::len));
        self.0 = rest;
        Some(UserLine { text, end })
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::super::hash::{ARGON2_LANES, ARGON2_MEMORY};
    use super::*;

    /// A hash of `secret`, and of `other`.
    const BCRYPT: &str = "$2b$04$f0KKuKfMBYPPAPpKTuvV0uABKzNXNvTJtSHAGJMFpMIOnFmWUw.f6";

    fn argon2id(m: u32, t: u32, p: u32) -> String {
        format!("$argon2id$v=19$m={m},t={t},p={p}$c29tZXNhbHQxMjM0$Af4IfuKpVg7JyPBoFDe0xTCWh9vCGJc5r2wEZqSHqX0")
    }

    fn problem(line: &str) -> LineProblem {
        Users::parse(line).unwrap_err().problem
    }

    fn names(users: &Users) -> Vec<&str> {
        let mut names: Vec<_> = users.names.keys().map(String::as_str).collect();
        names.sort_unstable();
        names
    }

    /// The same two users, in each form that editors and tools write.
    #[test]
    fn a_file_is_read_as_every_editor_and_tool_writes_it() {
        let argon2id = argon2id(64, 1, 1);
        let plain = format!("alice:{BCRYPT}\nzo\u{eb}:{argon2id}\n");
        let utf16 = |unit: fn(u16) -> [u8; 2]| -> Vec<u8> {
            format!("\u{feff}{plain}").encode_utf16().flat_map(unit).collect()
        };
        let forms: [(&str, Vec<u8>); 16] = [
            ("as it should be", plain.clone().into_bytes()),
            ("no end of the last line", plain.trim_end().into()),
            ("CRLF", plain.replace('\n', "\r\n").into()),
            ("CR", plain.replace('\n', "\r").into()),
            ("CRLF and LF", plain.replacen('\n', "\r\n", 1).into()),
            ("a byte order mark", format!("\u{feff}{plain}").into()),
            (
                "byte order marks of files that were put together",
                format!("\u{feff}# notes\n\u{feff}{}", plain.replacen('\n', "\n\u{feff}", 1)).into(),
            ),
            ("UTF-16, little end first", utf16(u16::to_le_bytes)),
            ("UTF-16, big end first", utf16(u16::to_be_bytes)),
            (
                "blanks at the ends",
                plain.replace('\n', " \t \n").replace("alice", " \talice").into(),
            ),
            ("blanks around the colons", plain.replace(':', " : ").into()),
            (
                "empty lines",
                format!("\n\r\n  \n{}\n\n", plain.replace('\n', "\n\n")).into(),
            ),
            ("comments", format!("# users\n#bob:x\n  # {plain}{plain}# end").into()),
            ("comments after the hash", plain.replace('\n', "  # since May\n").into()),
            ("a third field", plain.replace('\n', ":the admin: since May\n").into()),
            ("an end as in DOS", format!("{plain}\u{1a}").into()),
        ];
        for (form, bytes) in forms {
            let users = Users::parse(&decode(&bytes).unwrap()).expect(form);
            assert_eq!(names(&users), ["alice", "zo\u{eb}"], "{form}");
            assert_eq!(users.hash("alice").unwrap().text(), BCRYPT, "{form}");
            assert_eq!(users.hash("zo\u{eb}").unwrap().text(), argon2id, "{form}");
        }
        assert_eq!(Users::parse(&plain).unwrap().hash("carol"), None);
    }

    #[test]
    fn a_line_that_is_not_text_is_reported_with_its_number() {
        for (bytes, line) in [
            (&b"zo\xeb:x"[..], 1),
            (b"\xef\xbb\xbfa:x\r\nzo\xeb:x\n", 2),
            (b"a:x\rb:x\r\xff", 3),
            (b"\xff\xfea\0\n\0b", 2),
            (b"\xfe\xff\xd8\x00\x00a", 1),
        ] {
            let expected = LineError {
                line,
                problem: LineProblem::NotText,
            };
            assert_eq!(decode(bytes), Err(expected), "{bytes:?}");
        }
        // UTF-16 without its mark is text, of zero bytes.
        let text = decode(b"a\0:\0x\0").unwrap();
        assert!(Users::parse(&text).is_err());
    }

    #[test]
    fn hashes_of_the_other_bcrypt_versions_are_taken() {
        for version in ["$2y$", "$2a$", "$2b$"] {
            let hash = BCRYPT.replacen("$2b$", version, 1);
            assert!(Users::parse(&format!("alice:{hash}")).is_ok(), "{version}");
        }
        assert!(matches!(
            problem(&format!("alice:{}", BCRYPT.replacen("$2b$", "$2x$", 1))),
            LineProblem::Weak { .. }
        ));
    }

    #[test]
    fn unsafe_kinds_are_refused_with_the_line_and_what_to_do() {
        let text = format!("alice:{BCRYPT}\n\nbob:$apr1$x$y\n");
        let error = Users::parse(&text).unwrap_err();
        assert_eq!(error.line, 3);
        let text = error.to_string();
        assert!(
            text.contains("line 3") && text.contains("roadstead htpasswd bob"),
            "{text}"
        );
        for hash in [
            "{SHA}fEqNCco3Yq9h5ZUglD3CZJT4lBs=",
            "$1$a$b",
            "$5$a$b",
            "$6$a$b",
            "hunter2",
            "correct horse battery",
            "",
            "$argon2i$v=19$m=8",
        ] {
            let problem = problem(&format!("alice:{hash}"));
            assert!(matches!(problem, LineProblem::Weak { .. }), "{hash}");
            assert!(
                hash.is_empty() || !problem.to_string().contains(hash),
                "{hash} is repeated"
            );
        }
    }

    #[test]
    fn costs_beyond_reason_are_refused() {
        assert!(Users::parse(&format!("alice:{}", argon2id(ARGON2_MEMORY, 16, ARGON2_LANES))).is_ok());
        for hash in [
            argon2id(ARGON2_MEMORY + 1, 1, 1),
            argon2id(4 << 20, 1, 1),
            argon2id(ARGON2_MEMORY, 17, 1),
            argon2id(1 << 10, 1, ARGON2_LANES + 1),
            BCRYPT.replacen("$04$", "$17$", 1),
            BCRYPT.replacen("$04$", "$31$", 1),
            BCRYPT.replacen("$04$", "$03$", 1),
            "$2b$04$short".into(),
            format!("{BCRYPT} x"),
            "$argon2id$v=19$m=64,t=1,p=1".into(),
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQxMjM0".into(),
            // 30 bytes of hash, 4 of salt.
            "$argon2id$v=19$m=64,t=1,p=1$c29tZXNhbHQxMjM0$Af4IfuKpVg7JyPBoFDe0xTCWh9vCGJc5r2wEZqSH".into(),
            "$argon2id$v=19$m=64,t=1,p=1$c29tZQ$Af4IfuKpVg7JyPBoFDe0xTCWh9vCGJc5r2wEZqSHqX0".into(),
        ] {
            assert!(
                matches!(problem(&format!("alice:{hash}")), LineProblem::Malformed { .. }),
                "{hash}"
            );
        }
    }

    #[test]
    fn lines_without_a_user_are_refused() {
        assert_eq!(problem("alice"), LineProblem::NoColon);
        assert_eq!(problem(&format!(":{BCRYPT}")), LineProblem::Name);
        assert_eq!(problem(&format!("a\u{1b}b:{BCRYPT}")), LineProblem::Name);
        assert!(Users::parse(&format!("{}:{BCRYPT}", "x".repeat(255))).is_ok());
        assert_eq!(problem(&format!("{}:{BCRYPT}", "x".repeat(256))), LineProblem::Name);
    }

    #[test]
    fn names_that_would_be_read_otherwise_than_they_were_written() {
        for name in ["a", "a b", "zo\u{eb}", "a#b", "a@b.example"] {
            assert_eq!(check_name(name), Ok(()), "{name:?}");
        }
        for name in [
            "",
            " a",
            "a ",
            "#a",
            "a:b",
            "a\nb",
            "a\0",
            "\u{a0}a",
            "\u{feff}a",
            "a\u{feff}b",
        ] {
            assert_eq!(check_name(name), Err(LineProblem::Name), "{name:?}");
        }
    }

    /// Such a file stays usable: its other users log in.
    #[test]
    fn users_with_reserved_names_are_known() {
        let names = ["oidc", "alice", "key", "Key", "keys", "anonymous", "bootstrap"];
        let text = names.map(|name| format!("{name}:{BCRYPT}\n")).concat();
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.reserved(), ["anonymous", "bootstrap", "key", "oidc"]);
        assert!(Users::parse(&format!("alice:{BCRYPT}")).unwrap().reserved().is_empty());
    }

    /// The order of two lines decides which one is used, as with other programs that read such files.
    #[test]
    fn of_several_lines_of_a_user_the_last_one_counts() {
        let argon2id = argon2id(64, 1, 1);
        let other = BCRYPT.replacen("$04$", "$05$", 1);
        let text = format!("a:{BCRYPT}\nb:{BCRYPT}\na:{other}\n\na:{argon2id}\n");
        let users = Users::parse(&text).unwrap();
        assert_eq!(users.len(), 2);
        assert_eq!(users.hash("a").unwrap().text(), argon2id);
        let overridden = |line| Overridden {
            user: "a".into(),
            line,
            by: 5,
        };
        assert_eq!(users.overridden(), [overridden(1), overridden(3)]);
        assert_eq!(Users::parse(&format!("b:{BCRYPT}")).unwrap().overridden(), []);
    }

    #[test]
    fn s20_an_unknown_user_always_meets_the_same_decoy() {
        let users = Users::parse(&format!("a:{BCRYPT}\nb:{}", argon2id(64, 1, 1))).unwrap();
        assert_eq!(users.decoy(7), users.decoy(7));
        assert_ne!(users.decoy(0), users.decoy(1));
        assert_eq!(Users::default().decoy(7), None);
    }
}
