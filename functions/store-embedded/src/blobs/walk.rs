//! Walks over all objects, in the order of their names.
//!
//! A directory is read in no order that another process, or another moment, would find again. So a look at one
//! collects the names that come next, a bounded number of them, and the slices that follow are served from those.

use std::collections::{BinaryHeap, VecDeque};
use std::io;
use std::sync::{Mutex, PoisonError};

use registry::store::blobs::Stored;
use registry::store::{Cursor, Slice, StoreError};

use super::location;
use crate::files::{Files, Name};

/// How many names are collected at a time: 2 MiB of them. A directory of more is read once for each so many.
const AHEAD: usize = 1 << 16;

/// The names that the last look at a directory has found, for whoever goes on where it has begun.
#[derive(Debug)]
pub(super) struct Walk {
    most: usize,
    ahead: Mutex<Option<Ahead>>,
}

impl Default for Walk {
    fn default() -> Self {
        Self::collecting(AHEAD)
    }
}

#[derive(Debug)]
struct Ahead {
    /// The last name that was given out.
    after: Option<Name>,
    /// The names behind it, in order.
    names: VecDeque<Name>,
    /// The directory they come from.
    directory: usize,
    /// Whether that directory holds more behind them.
    more: bool,
}

/// The name behind which a slice begins.
pub(super) fn place(cursor: &Cursor) -> Result<Name, StoreError> {
    Name::parse(&cursor.0).ok_or_else(|| StoreError::failed(format!("{:?} is no place in this store", cursor.0)))
}

impl Walk {
    fn collecting(most: usize) -> Self {
        Self {
            most,
            ahead: Mutex::new(None),
        }
    }

    /// The objects behind `after`, at most `limit`. Blocks.
    pub(super) fn slice(&self, files: &dyn Files, after: Option<Name>, limit: usize) -> io::Result<Slice<Stored>> {
        let ahead = self.ahead.lock().unwrap_or_else(PoisonError::into_inner).take();
        let mut ahead = match ahead.filter(|ahead| ahead.after == after) {
            Some(ahead) => ahead,
            None => Ahead {
                after,
                names: VecDeque::new(),
                directory: after.map_or(0, Name::directory),
                more: true,
            },
        };
        let mut items = Vec::new();
        while items.len() < limit.max(1) {
            let Some(name) = ahead.next(files, self.most)? else {
                return Ok(Slice { items, next: None });
            };
            // What was removed meanwhile is no object any more.
            if let Some(size) = files.look(name)? {
                items.push(Stored {
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

impl Ahead {
    fn next(&mut self, files: &dyn Files, most: usize) -> io::Result<Option<Name>> {
        while self.names.is_empty() {
            if !self.more {
                self.directory += 1;
            }
            if !self.look(files, most)? {
                return Ok(None);
            }
        }
        self.after = self.names.pop_front();
        Ok(self.after)
    }

    /// Collects the first names of the directory that come next. `false`: there is no such directory.
    fn look(&mut self, files: &dyn Files, most: usize) -> io::Result<bool> {
        // The last of those that were kept is on top, and makes room for what comes before it.
        let mut first = BinaryHeap::new();
        self.more = false;
        let found = files.names(self.directory, &mut |name| {
            if Some(name) > self.after {
                first.push(name);
                if first.len() > most {
                    first.pop();
                    self.more = true;
                }
            }
        })?;
        self.names = first.into_sorted_vec().into();
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    #![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

    use registry::store::sessions::SessionId;

    use super::*;
    use crate::Sync;
    use crate::files::{Disk, Form};

    fn names() -> Vec<Name> {
        let sessions = [1, 2, 5 << 124, (5 << 124) + 9, 15 << 124];
        let mut names: Vec<_> = sessions
            .into_iter()
            .flat_map(|session| (1..=3).map(move |number| Name::new(SessionId(session), number, Form::Segment)))
            .collect();
        names.push(Name::new(SessionId(2), 2, Form::Joined));
        names.sort();
        names
    }

    #[test]
    fn every_object_is_met_in_slices_of_any_size() {
        let root = tempfile::tempdir().unwrap();
        let files = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        for name in names() {
            let file = files.create(name).unwrap();
            file.set_len(u64::from(name.number)).unwrap();
        }
        // What is no object is not met.
        files.create_or_open(names()[0].joining()).unwrap();
        std::fs::write(root.path().join("blobs/5/notes.txt"), "mine").unwrap();

        let expected: Vec<_> = names()
            .into_iter()
            .map(|name| (location(name), u64::from(name.number)))
            .collect();
        for most in [1, 2, 4, 100] {
            for limit in [1, 3, 16, 100] {
                let walk = Walk::collecting(most);
                let (mut met, mut after) = (Vec::new(), None);
                loop {
                    let slice = walk.slice(&files, after, limit).unwrap();
                    assert!(slice.items.len() <= limit);
                    met.extend(slice.items.into_iter().map(|stored| (stored.location, stored.size)));
                    match slice.next {
                        Some(cursor) => after = Some(place(&cursor).unwrap()),
                        None => break,
                    }
                }
                assert_eq!(met, expected, "{most} ahead, {limit} in a slice");
            }
        }
    }

    #[test]
    fn a_walk_goes_on_where_another_process_came_to() {
        let root = tempfile::tempdir().unwrap();
        let files = Disk::open(&root.path().join("blobs"), Sync::Off).unwrap();
        for name in names() {
            files.create(name).unwrap();
        }
        let walk = Walk::default();
        let first = walk.slice(&files, None, 7).unwrap();
        // Removed after it was collected: it is not met, and what comes behind it is.
        files.remove(names()[8]).unwrap();
        let place = place(&first.next.unwrap()).unwrap();
        for walk in [walk, Walk::default()] {
            let rest = walk.slice(&files, Some(place), 100).unwrap();
            assert_eq!(rest.items.len(), names().len() - 8);
            assert_eq!(rest.next, None);
        }
    }

    #[test]
    fn a_cursor_of_something_else_is_refused() {
        for text in ["", "links a b", "../../metadata.db"] {
            assert!(place(&Cursor(text.to_owned())).is_err(), "{text:?}");
        }
    }
}
