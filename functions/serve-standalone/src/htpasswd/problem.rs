//! What may be wrong with a line of a htpasswd file. Never holds a password or a hash, only a name.

/// The longest name, in bytes: it travels in upload tokens.
pub(super) const MAX_NAME: usize = 255;

/// Why a line cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    #[error("it is not UTF-8 text; save the file as UTF-8")]
    NotText,
    #[error("expected user:hash")]
    NoColon,
    #[error(
        "a user's name is 1 to {MAX_NAME} bytes long, does not begin with # or blanks, does not end with blanks, and \
         holds no colon, no control character and no byte order mark"
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
