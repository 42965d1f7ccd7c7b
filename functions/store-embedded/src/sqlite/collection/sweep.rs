//! The end of a session that has expired.

use oci::Digest;
use registry::store::Context;
use registry::store::collection::remains;
use registry::store::sessions::{Session, SessionKey};
use rusqlite::params;

use super::super::rows::{Failure, Rows};
use super::super::sessions::get;
use super::super::values::session_key;
use super::graveyard::bury;

/// Buries what the attempts of a session may have left, and removes its rows. The number of graves; `None`: the
/// session is not as given, or gone.
pub(super) fn session(
    rows: &Rows<'_>,
    cx: Context,
    key: SessionKey,
    session: &Session,
) -> Result<Option<u64>, Failure> {
    // The whole of it: a renewed claim changes no version.
    if get(rows, key)?.as_ref() != Some(session) {
        return Ok(None);
    }
    let mut graves = 0;
    for grave in remains(key, session, cx.now) {
        let digest = grave.digest.as_ref().map(Digest::to_string);
        bury(rows, cx.now, &grave.location, digest.as_deref(), grave.unfinished)?;
        graves += 1;
    }
    let (expires, id) = session_key(key);
    rows.change(
        "DELETE FROM session_part WHERE expires = ?1 AND id = ?2",
        params![expires, id],
    )?;
    rows.change(
        "DELETE FROM session WHERE expires = ?1 AND id = ?2",
        params![expires, id],
    )?;
    Ok(Some(graves))
}
