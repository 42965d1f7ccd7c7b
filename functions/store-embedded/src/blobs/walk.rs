//! Walks over all objects, in the order of their names.
//!
//! Reading a directory returns names in an order that another process, or a later read, does not repeat. So one read of
//! a directory collects a bounded number of the names that come next in sorted order, and the next slices are served
//! from these names.

use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::{Mutex, PoisonError};

use registry::store::blobs::StoredObject;
use registry::store::{Cursor, Slice, StoreError};

use super::location;
use crate::files::{FileName, Files};

/// The maximum number of names that are collected at a time: 2 MiB. A larger directory is read once for each such
/// number of names.
const AHEAD: usize = 1 << 16;

/// The names that the last read of a directory found. They serve the caller that continues after them.
#[derive(Debug)]
pub(super) struct ObjectWalk {
    maximum: usize,
    ahead: Mutex<Option<NamesAhead>>,
}

impl Default for ObjectWalk {
    fn default() -> Self {
        Self::collecting(AHEAD)
    }
}

#[derive(Debug)]
struct NamesAhead {
    /// The last name that was returned.
    after: Option<FileName>,
    /// The names after it, in order.
    names: VecDeque<FileName>,
    /// The directory of these names.
    directory: usize,
    /// Whether the directory has more names after them.
    more: bool,
}

/// The name after which a slice begins.
pub(super) fn position(cursor: &Cursor) -> Result<FileName, StoreError> {
    FileName::parse(&cursor.0)
        .ok_or_else(|| StoreError::failed(format!("{:?} is not a position in this store", cursor.0)))
}

impl ObjectWalk {
    fn collecting(maximum: usize) -> Self {
        Self {
            maximum,
            ahead: Mutex::new(None),
        }
    }

    /// Returns at most `limit` objects after `after`. Blocks.
    pub(super) fn slice(
        &self,
        files: &dyn Files,
        after: Option<FileName>,
        limit: usize,
    ) -> io::Result<Slice<StoredObject>> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut ahead = match ahead.filter(|ahead| ahead.after == after) {
            Some(ahead) => ahead,
            None => NamesAhead {
                after,
                names: VecDeque::new(),
                directory: after.map_or(0, FileName::directory),
                more: true,
            },
        };
        let mut items = Vec::new();
        while items.len() < limit.max(1) {
            let Some(name) = ahead.next(files, self.maximum)? else {
                return Ok(Slice { items, next: None });
            };
            // A file that was removed meanwhile is skipped.
            if let Some(size) = files.look(name)? {
                items.push(StoredObject {
                    location: location(name),
                    size,
                });
            }
        }
        let next = ahead.after.map(|name| Cursor(name.to_string()));
        *self.ahead.lock().unwrap_or_else(PoisonError::into_inner) = Some(ahead);
        Ok(Slice { items, next })
    }
}

impl NamesAhead {
    fn next(&mut self, files: &dyn Files, maximum: usize) -> io::Result<Option<FileName>> {
        while self.names.is_empty() {
            if !self.more {
                self.directory += 1;
            }
            if !self.look(files, maximum)? {
                return Ok(None);
            }
        }
        self.after = self.names.pop_front();
        Ok(self.after)
    }

    /// Collects the names of the directory that come next. `false`: the directory does not exist.
    fn look(&mut self, files: &dyn Files, maximum: usize) -> io::Result<bool> {
        // The heap keeps the smallest names. Its top is the largest of them, which is removed for a smaller one.
        let mut first = BinaryHeap::new();
        self.more = false;
        let exists = files.names(self.directory, &mut |name| {
            if Some(name) > self.after {
                first.push(name);
                if first.len() > maximum {
                    first.pop();
                    self.more = true;
                }
            }
        })?;
        self.names = first.into_sorted_vec().into();
        Ok(exists)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use registry::store::SessionId;

    use super::*;
    use crate::Sync;
    use crate::files::{Disk, FileForm};

    fn names() -> Vec<FileName> {
        let sessions = [1, 2, 5 << 124, (5 << 124) + 9, 15 << 124];
        let mut names: Vec<_> = sessions
            .into_iter()
            .flat_map(|session| (1..=3).map(move |number| FileName::new(SessionId(session), number, FileForm::Segment)))
            .collect();
        names.push(FileName::new(SessionId(2), 2, FileForm::Joined));
        names.sort();
        names
    }

    #[test]
    fn every_object_is_found_in_slices_of_any_size() {
        let root = tempfile::tempdir().unwrap();
        let files = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        for name in names() {
            let file = files.create(name).unwrap();
            file.set_len(u64::from(name.number)).unwrap();
        }
        // Files that are not objects are skipped.
        files.create_or_open(names()[0].joining()).unwrap();
        std::fs::write(root.path().join("blobs/5/notes.txt"), "mine").unwrap();

        let expected: Vec<_> = names()
            .into_iter()
            .map(|name| (location(name), u64::from(name.number)))
            .collect();
        for maximum in [1, 2, 4, 100] {
            for limit in [1, 3, 16, 100] {
                let walk = ObjectWalk::collecting(maximum);
                let (mut found, mut after) = (Vec::new(), None);
                loop {
                    let slice = walk.slice(&files, after, limit).unwrap();
                    assert!(slice.items.len() <= limit);
                    found.extend(slice.items.into_iter().map(|stored| (stored.location, stored.size)));
                    match slice.next {
                        Some(cursor) => after = Some(position(&cursor).unwrap()),
                        None => break,
                    }
                }
                assert_eq!(found, expected, "{maximum} ahead, {limit} in a slice");
            }
        }
    }

    #[test]
    fn a_walk_continues_where_another_process_stopped() {
        let root = tempfile::tempdir().unwrap();
        let files = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        for name in names() {
            files.create(name).unwrap();
        }
        let walk = ObjectWalk::default();
        let first = walk.slice(&files, None, 7).unwrap();
        // This file is removed after its name was collected: it is skipped, and the next ones are returned.
        files.remove(names()[8]).unwrap();
        let position = position(&first.next.unwrap()).unwrap();
        for walk in [walk, ObjectWalk::default()] {
            let rest = walk.slice(&files, Some(position), 100).unwrap();
            assert_eq!(rest.items.len(), names().len() - 8);
            assert_eq!(rest.next, None);
        }
    }

    #[test]
    fn a_foreign_cursor_is_refused() {
        for text in ["", "links a b", "../../metadata.db"] {
            assert!(position(&Cursor(text.to_owned())).is_err(), "{text:?}");
        }
    }
}
