//! The faults of a line of a htpasswd file. The texts never contain a password or a hash, only a user's name.

/// Maximum length of a name, in bytes. Upload tokens contain the name.
pub(super) const MAX_NAME: usize = 255;

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum LineProblem {
    #[error("it is not UTF-8 text; save the file as UTF-8")]
    NotText,
    #[error("expected user:hash")]
    NoColon,
    #[error(
        "a user's name must be 1 to {MAX_NAME} bytes long, cannot begin with # or blanks, cannot end with blanks, and \
         cannot contain a colon, a control character or a byte order mark"
    )]
    Name,
    #[error(
        "the password of `{user}` is stored as {what}, which is not safe; replace the line by the output of \
         `roadstead htpasswd {user}` or `htpasswd -nB {user}`"
    )]
    Weak { user: String, what: &'static str },
    #[error(
        "the hash of `{user}` is not a valid {kind} hash ({reason}); replace the line by the output of \
         `roadstead htpasswd {user}`"
    )]
    Malformed {
        user: String,
        kind: &'static str,
        reason: String,
    },
}
