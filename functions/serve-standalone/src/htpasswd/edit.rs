//! Changes one user in the text of a htpasswd file, and nothing else in it.

use super::file::{UserLine, UserLines, trim};

/// The text of a file without users. A server would take an empty file for a damaged one, and keep the users that it knows.
const NO_USERS: &str = "# no users: no client can log in";

/// A changed text, and the number of lines that the user had before.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Edited {
    pub(crate) text: String,
    pub(crate) before: usize,
}

/// `text` with the one line `line` for `user`: in place of the user's last line, or at the end.
pub(crate) fn set(text: &str, user: &str, line: &str) -> Edited {
    let before = lines_of(text, user);
    let mut seen = 0;
    let mut edited = String::with_capacity(text.len() + line.len() + 2);
    for old in UserLines(text) {
        if !old.is_for(user) {
            push(&mut edited, old);
            continue;
        }
        seen += 1;
        if seen == before {
            push(
                &mut edited,
                UserLine {
                    text: line,
                    end: old.end,
                },
            );
        }
    }
    if before == 0 {
        let end = usual_end(text);
        if !edited.is_empty() && !edited.ends_with(['\n', '\r']) {
            edited.push_str(end);
        }
        push(&mut edited, UserLine { text: line, end });
    }
    Edited { text: edited, before }
}

/// `text` without the lines for `user`.
pub(crate) fn remove(text: &str, user: &str) -> Edited {
    let before = lines_of(text, user);
    let mut edited = String::with_capacity(text.len());
    for line in UserLines(text).filter(|line| !line.is_for(user)) {
        push(&mut edited, line);
    }
    if before > 0 && trim(&edited).is_empty() {
        let end = usual_end(text);
        push(&mut edited, UserLine { text: NO_USERS, end });
    }
    Edited { text: edited, before }
}

fn lines_of(text: &str, user: &str) -> usize {
    UserLines(text).filter(|line| line.is_for(user)).count()
}

fn push(text: &mut String, line: UserLine<'_>) {
    text.push_str(line.text);
    text.push_str(line.end);
}

/// The line end of `text`, which is that of its first line.
fn usual_end(text: &str) -> &str {
    let first = UserLines(text).next().map(|line| line.end);
    first.filter(|end| !end.is_empty()).unwrap_or("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_replaced_or_added_and_the_rest_stays() {
        for (before, after, lines) in [
            ("", "bob:new\n", 0),
            ("# users\n", "# users\nbob:new\n", 0),
            ("alice:x", "alice:x\nbob:new\n", 0),
            ("alice:x\r\n", "alice:x\r\nbob:new\r\n", 0),
            ("alice:x\rcarol:y", "alice:x\rcarol:y\rbob:new\r", 0),
            ("bob:old\n", "bob:new\n", 1),
            ("a:x\n\u{feff}bob:old\n", "a:x\nbob:new\n", 1),
            ("bob:old", "bob:new", 1),
            ("a:x\n\n bob : old # since May\r\n# end", "a:x\n\nbob:new\r\n# end", 1),
            ("bob:1\na:x\nbob:2\nb:y\n", "a:x\nbob:new\nb:y\n", 2),
            (
                "#bob:old\nbobby:x\nbo:b:x\nbroken\n",
                "#bob:old\nbobby:x\nbo:b:x\nbroken\nbob:new\n",
                0,
            ),
        ] {
            let expected = Edited {
                text: after.into(),
                before: lines,
            };
            assert_eq!(set(before, "bob", "bob:new"), expected, "{before:?}");
        }
    }

    #[test]
    fn lines_are_removed_and_the_rest_stays() {
        for (before, after, lines) in [
            ("", "", 0),
            ("alice:x\n", "alice:x\n", 0),
            ("alice:x\r\nbob:y\r\n# end", "alice:x\r\n# end", 1),
            ("bob:1\na:x\nbob:2", "a:x\n", 2),
            ("bob:1\n", "# no users: no client can log in\n", 1),
            ("\r\nbob:1", "\r\n# no users: no client can log in\r\n", 1),
            ("# users\nbob:1\n", "# users\n", 1),
        ] {
            let expected = Edited {
                text: after.into(),
                before: lines,
            };
            assert_eq!(remove(before, "bob"), expected, "{before:?}");
        }
    }
}
