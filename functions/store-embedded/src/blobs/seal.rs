//! Makes one object of a session's segments.
//!
//! One segment is the object already. Several are joined in a file of their own, which takes the name of the last one
//! when it is complete and synced: so every object has the name of an attempt, by which the session's row leads to it.
//! The file of a segment therefore holds that segment, or everything up to its end, which its length tells. The other
//! segments stay: a seal may be lost, because its claim is, and then the session goes on behind the same segments.
//!
//! Sealing again, also beside another that is under way or after a crash at any point, writes the same bytes to the
//! same places, or meets the finished object.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use registry::budget::ClientKey;
use registry::store::blobs::Upload;
use registry::store::sessions::SessionId;
use registry::store::{Location, StoreError};

use super::segments::{self, Segment};
use super::{DiskBlobs, blocking, failure, location};
use crate::files::{Files, Form, Name};

impl DiskBlobs {
    pub(super) async fn seal_upload(&self, client: ClientKey, upload: &Upload) -> Result<Location, StoreError> {
        let session = upload.session;
        let segments = segments::collect(&upload.parts, &upload.state, upload.size)?;
        let name = if let [only] = segments.as_slice() {
            // One look at a directory entry that was just made: not worth another thread.
            in_place(&*self.files, session, *only)?
        } else {
            let files = Arc::clone(&self.files);
            blocking(&self.writes, client, move || seal(&*files, session, &segments)).await?
        };
        Ok(location(name))
    }
}

/// Whether a file is written: there are several segments that hold something.
pub(super) fn joins(upload: &Upload) -> bool {
    let segments = segments::collect(&upload.parts, &upload.state, upload.size);
    segments.is_ok_and(|segments| segments.iter().filter(|segment| segment.length > 0).nth(1).is_some())
}

fn seal(files: &dyn Files, session: SessionId, segments: &[Segment]) -> Result<Name, StoreError> {
    let filled: Vec<_> = segments.iter().filter(|segment| segment.length > 0).copied().collect();
    match (segments, filled.as_slice()) {
        ([first, ..], []) => in_place(files, session, *first),
        (_, [only]) => in_place(files, session, *only),
        (_, [.., last]) => join(files, session, *last, &filled),
        ([], []) => Err(StoreError::failed("nothing was appended")),
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

fn join(files: &dyn Files, session: SessionId, last: Segment, segments: &[Segment]) -> Result<Name, StoreError> {
    let object = last.name(session);
    let total = segments.iter().map(|segment| segment.length).sum();
    if !is_joined(files, object, last, total)? {
        match copy_all(files, object, segments) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Another seal was faster, and has given the file its name, so that this one may have begun a new one.
                // Or a segment is gone.
                files.remove(object.joining()).map_err(failure)?;
                if !is_joined(files, object, last, total)? {
                    return Err(damaged(object));
                }
            }
            Err(error) => {
                // A full disk, most likely. What was copied is not left to fill it; a seal beside this one meets the
                // same fault or copies anew.
                let _ = files.remove(object.joining());
                return Err(failure(error));
            }
        }
    }
    // Also when it was found joined: whoever named it may not have come to this line.
    files.sync_directory(object).map_err(failure)?;
    Ok(object)
}

/// Whether the last segment's file holds all of them.
fn is_joined(files: &dyn Files, object: Name, last: Segment, total: u64) -> Result<bool, StoreError> {
    match files.look(object).map_err(failure)? {
        Some(size) if size == total => Ok(true),
        Some(size) if size == last.length => Ok(false),
        _ => Err(damaged(object)),
    }
}

fn copy_all(files: &dyn Files, object: Name, segments: &[Segment]) -> io::Result<()> {
    let joining = object.joining();
    // Not emptied: another seal of the same segments may be writing the same bytes to it.
    let file = files.create_or_open(joining)?;
    let mut offset = 0;
    for segment in segments {
        let part = files.open(segment.name(object.session))?;
        files.copy(joining, &part, bytes_of(*segment, &part, offset)?, &file, offset)?;
        offset += segment.length;
    }
    files.sync_file(joining, &file)?;
    files.rename(joining, object)
}

/// Where in its file a segment lies, before which the others have `before` bytes. The open file tells, not its name:
/// a seal beside this one, or one that was lost, may give the name to what it has joined.
fn bytes_of(segment: Segment, file: &File, before: u64) -> io::Result<Range<u64>> {
    let length = file.metadata()?.len();
    if length == segment.length {
        Ok(0..length)
    } else if length == before + segment.length {
        Ok(before..length)
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

/// Removes what the attempts of a session have left, but for the object that is kept.
pub(super) fn remove_all(files: &dyn Files, session: SessionId, attempts: u32, keep: Option<Name>) -> io::Result<()> {
    for number in 1..=attempts {
        [Form::Joining, Form::Joined, Form::Segment]
            .into_iter()
            .map(|form| Name::new(session, number, form))
            .filter(|name| Some(*name) != keep)
            .try_for_each(|name| files.remove(name))?;
    }
    // The session will be said to have left nothing: what came back with a loss of power would stay for ever.
    files.sync_directory(Name::new(session, attempts, Form::Segment))
}

fn damaged(object: Name) -> StoreError {
    StoreError::failed(format!(
        "the segments of {object} are missing or do not have the length they were stored with"
    ))
}
