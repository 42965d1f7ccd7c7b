//! Makes one object from the segments of a session.
//!
//! A single segment is already the object. Several segments are joined in a separate file. The joined file is synced
//! and then renamed over the last segment. So every object has the name of an attempt, and the session's row leads to
//! it. A segment's file holds either that segment or the whole upload up to its end; its length shows which. The other
//! segments stay, because the session continues from them if its claim expires.
//! Sealing may be repeated: while another seal runs, or after a crash at any point. It writes the same bytes to the
//! same files, or finds the finished object.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use registry::budget::ClientKey;
use registry::store::blobs::Upload;
use registry::store::{Location, SessionId, StoreError};

use super::segments::{self, Segment};
use super::{DiskBlobs, blocking, failure, location};
use crate::files::{FileForm, FileName, Files};

impl DiskBlobs {
    pub(super) async fn seal_upload(&self, client: ClientKey, upload: &Upload) -> Result<Location, StoreError> {
        let session = upload.session;
        let segments = segments::collect(&upload.parts, &upload.state, upload.size)?;
        let name = if let [only] = segments.as_slice() {
            // This looks up one directory entry that was just created, which is not worth another thread.
            in_place(&*self.files, session, *only)?
        } else {
            let files = Arc::clone(&self.files);
            blocking(&self.writes, client, move || seal(&*files, session, &segments)).await?
        };
        Ok(location(name))
    }
}

/// Whether sealing writes a file: there are several segments that are not empty.
pub(super) fn joins(upload: &Upload) -> bool {
    let segments = segments::collect(&upload.parts, &upload.state, upload.size);
    segments.is_ok_and(|segments| segments.iter().filter(|segment| segment.length > 0).nth(1).is_some())
}

fn seal(files: &dyn Files, session: SessionId, segments: &[Segment]) -> Result<FileName, StoreError> {
    let filled: Vec<_> = segments.iter().filter(|segment| segment.length > 0).copied().collect();
    match (segments, filled.as_slice()) {
        ([first, ..], []) => in_place(files, session, *first),
        (_, [only]) => in_place(files, session, *only),
        (_, [.., last]) => join(files, session, *last, &filled),
        ([], []) => Err(StoreError::failed("the session has no segments")),
    }
}

/// Returns the segment as the object. Its bytes and its name were synced when it was appended.
fn in_place(files: &dyn Files, session: SessionId, segment: Segment) -> Result<FileName, StoreError> {
    let object = segment.name(session);
    match files.look(object).map_err(failure)? {
        Some(size) if size == segment.length => Ok(object),
        _ => Err(damaged(object)),
    }
}

fn join(files: &dyn Files, session: SessionId, last: Segment, segments: &[Segment]) -> Result<FileName, StoreError> {
    let object = last.name(session);
    let total = segments.iter().map(|segment| segment.length).sum();
    if !is_joined(files, object, last, total)? {
        match copy_all(files, object, segments) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // Either another seal was faster and has renamed the file; this one may then have created a new file.
                // Or a segment is missing.
                files.remove(object.joining()).map_err(failure)?;
                if !is_joined(files, object, last, total)? {
                    return Err(damaged(object));
                }
            }
            Err(error) => {
                // Most likely the disk is full, so the incomplete copy is removed. A seal that runs at the same time
                // fails in the same way or copies again.
                let _ = files.remove(object.joining());
                return Err(failure(error));
            }
        }
    }
    // Also if the file was already joined: the process that renamed it may have crashed before this line.
    files.sync_directory(object).map_err(failure)?;
    Ok(object)
}

/// Whether the last segment's file contains all segments.
fn is_joined(files: &dyn Files, object: FileName, last: Segment, total: u64) -> Result<bool, StoreError> {
    match files.look(object).map_err(failure)? {
        Some(size) if size == total => Ok(true),
        Some(size) if size == last.length => Ok(false),
        _ => Err(damaged(object)),
    }
}

fn copy_all(files: &dyn Files, object: FileName, segments: &[Segment]) -> io::Result<()> {
    let joining = object.joining();
    // Not truncated: another seal of the same segments may be writing the same bytes to it.
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

/// The range of a segment in its file, if the segments before it have `before` bytes. The length comes from the open
/// file and not from the name: another seal, or one whose claim has expired, may give the name to its joined file.
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

/// Removes all files of the attempts of a session, except for the object to keep.
pub(super) fn remove_all(
    files: &dyn Files,
    session: SessionId,
    attempts: u32,
    keep: Option<FileName>,
) -> io::Result<()> {
    for number in 1..=attempts {
        [FileForm::Joining, FileForm::Joined, FileForm::Segment]
            .into_iter()
            .map(|form| FileName::new(session, number, form))
            .filter(|name| Some(*name) != keep)
            .try_for_each(|name| files.remove(name))?;
    }
    // After this answer, the session is deleted. A file that returned after a power failure would stay forever.
    files.sync_directory(FileName::new(session, attempts, FileForm::Segment))
}

fn damaged(object: FileName) -> StoreError {
    StoreError::failed(format!(
        "the segments of {object} are missing or do not have their recorded lengths"
    ))
}
