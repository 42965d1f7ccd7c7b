//! Makes one object of a session's segments.
//!
//! One segment is the object already. Several are joined in a file of their own, which gets its name when it is
//! complete and synced: what has that name is whole. The segments stay: a seal may be lost, because its claim is, and
//! then another attempt is sealed behind the same segments.
//!
//! Sealing again, also beside another that is under way or after a crash at any point, writes the same bytes to the
//! same places, or meets the finished object.

use std::io;
use std::sync::Arc;

use registry::store::blobs::Upload;
use registry::store::sessions::SessionId;
use registry::store::{Location, StoreError};

use super::segments::{self, Segment};
use super::{DiskBlobs, blocking, failure, location};
use crate::files::{Files, Form, Name};

impl DiskBlobs {
    pub(super) async fn seal_upload(&self, upload: &Upload) -> Result<Location, StoreError> {
        let session = upload.session;
        let segments = segments::collect(&upload.parts, &upload.state, upload.size)?;
        let name = if let [only] = segments.as_slice() {
            // One look at a directory entry that was just made: not worth another thread.
            in_place(&*self.files, session, *only)?
        } else {
            let files = Arc::clone(&self.files);
            blocking(move || seal(&*files, session, &segments)).await?
        };
        Ok(location(name))
    }
}

fn seal(files: &dyn Files, session: SessionId, segments: &[Segment]) -> Result<Name, StoreError> {
    let filled: Vec<_> = segments.iter().filter(|segment| segment.length > 0).copied().collect();
    match (segments, filled.as_slice()) {
        ([first, ..], []) => in_place(files, session, *first),
        (_, [only]) => in_place(files, session, *only),
        ([.., last], filled) => join(files, session, last.number, filled),
        ([], _) => Err(StoreError::failed("nothing was appended")),
    }
}

/// Its bytes and its name were synced when it was appended.
fn in_place(files: &dyn Files, session: SessionId, segment: Segment) -> Result<Name, StoreError> {
    let object = segment.name(session);
    match files.look(object).map_err(failure)? {
        Some(size) if size == segment.length => Ok(object),
        _ => Err(damaged(object)),
    }
}

fn join(files: &dyn Files, session: SessionId, last: u32, segments: &[Segment]) -> Result<Name, StoreError> {
    let object = Name::new(session, last, Form::Joined);
    let total = segments.iter().map(|segment| segment.length).sum();
    if !is_complete(files, object, total)? {
        match copy_all(files, object, segments) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another seal was faster, and has given the file its name, so that this one may have begun a new one.
                // Or a segment is gone.
                files
                    .remove(Name {
                        form: Form::Joining,
                        ..object
                    })
                    .map_err(failure)?;
                if !is_complete(files, object, total)? {
                    return Err(damaged(object));
                }
            }
            Err(error) => {
                // A full disk, most likely. What was copied is not left to fill it; a seal beside this one meets the
                // same fault or copies anew.
                let _ = files.remove(Name {
                    form: Form::Joining,
                    ..object
                });
                return Err(failure(error));
            }
        }
    }
    // Also when it was found complete: whoever named it may not have come to this line.
    files.sync_directory(object).map_err(failure)?;
    Ok(object)
}

fn is_complete(files: &dyn Files, object: Name, total: u64) -> Result<bool, StoreError> {
    match files.look(object).map_err(failure)? {
        Some(size) if size == total => Ok(true),
        Some(_) => Err(damaged(object)),
        None => Ok(false),
    }
}

fn copy_all(files: &dyn Files, object: Name, segments: &[Segment]) -> io::Result<()> {
    let joining = Name {
        form: Form::Joining,
        ..object
    };
    // Not emptied: another seal of the same segments may be writing the same bytes to it.
    let file = files.create_or_open(joining)?;
    let mut offset = 0;
    for segment in segments {
        let part = files.open(segment.name(object.session))?;
        files.copy(joining, &part, &file, offset, segment.length)?;
        offset += segment.length;
    }
    files.sync_file(joining, &file)?;
    files.rename(joining, object)
}

/// Removes what an attempt has left, but for the object that is kept.
pub(super) fn remove_all(files: &dyn Files, session: SessionId, number: u32, keep: Option<Name>) -> io::Result<()> {
    [Form::Joining, Form::Joined, Form::Segment]
        .into_iter()
        .map(|form| Name::new(session, number, form))
        .filter(|name| Some(*name) != keep)
        .try_for_each(|name| files.remove(name))
}

fn damaged(object: Name) -> StoreError {
    StoreError::failed(format!(
        "the segments of {object} are missing or do not have the length they were stored with"
    ))
}
