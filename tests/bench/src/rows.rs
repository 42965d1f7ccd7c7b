//! The rows of the benchmark: their names, what one operation of each is, and how much of it is done.
//!
//! A size in a name is binary, as in the load tool `zb`: 1MB is 2^20 bytes.

use std::time::Duration;

/// 1 KiB.
const KIB: u64 = 1 << 10;
/// 1 MiB.
pub(crate) const MIB: u64 = 1 << 20;

/// How a blob is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// POST, then one PUT with the whole body and its length.
    Put,
    /// POST, one PATCH with a chunked body, an empty PUT.
    Patch,
}

/// Sizes and how many of each hundred or so operations use them.
pub(crate) type Mix = &'static [(u64, u64)];

/// What one operation of a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Work {
    /// From the start of the process to its first answer, with so many tags stored.
    Start(u64),
    /// Pushes a blob no one has seen before.
    PushBlob(u64, How),
    /// Reads a blob.
    PullBlob(u64),
    /// HEAD of a blob.
    HeadBlob,
    /// GET or HEAD of a manifest.
    Manifest {
        /// HEAD rather than GET.
        head: bool,
        /// By digest rather than by tag.
        by_digest: bool,
    },
    /// Puts a manifest under a new tag, so many of them in one repository.
    PutTags(u64),
    /// A page of 100 tags somewhere in a repository of so many.
    TagsPage(u64),
    /// A page of 100 repositories, of so many.
    CatalogPage(u64),
    /// The catalog as it is answered without a query, with so many repositories.
    Catalog(u64),
    /// Pushes an image of one layer and its own config into a new repository; layers of one size are the same bytes.
    PushImage(Mix, How),
    /// HEAD and GET of the manifest, the config and the layer of an image.
    PullImage(Mix),
    /// Three pulls of an image for each push of one.
    PullAndPush(u64),
}

/// A row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Row {
    /// Its name.
    pub(crate) name: &'static str,
    /// Rows of one group that follow each other share one life of the servers and their data.
    pub(crate) group: &'static str,
    /// One operation.
    pub(crate) work: Work,
}

impl Row {
    /// The rows that are compared on an S3 server: what goes to the store, and what lists and looks up. To show that
    /// it works, `smoke`, a push of one part and one of several are enough.
    pub(crate) fn for_s3(smoke: bool) -> Vec<Self> {
        let wanted = |row: &&Self| match row.work {
            Work::PushBlob(size, _) if smoke => size == MIB || size == 1024 * MIB,
            Work::PullBlob(size) if smoke => size == 1024 * MIB,
            Work::PushBlob(size, _) | Work::PullBlob(size) => size >= MIB,
            Work::HeadBlob | Work::TagsPage(10_000) | Work::PutTags(_) => true,
            Work::Manifest { head, by_digest } => !head && !by_digest,
            _ => false,
        };
        ROWS.iter().filter(wanted).copied().collect()
    }

    /// The rows whose name contains one of `only`, whatever the case; all if there is none.
    pub(crate) fn chosen(only: &[String]) -> Vec<Self> {
        let only: Vec<String> = only.iter().map(|part| part.to_lowercase()).collect();
        let wanted = |row: &&Self| only.is_empty() || only.iter().any(|part| row.name.to_lowercase().contains(part));
        ROWS.iter().filter(wanted).copied().collect()
    }

    /// Whether it needs a server that can be stopped and started.
    pub(crate) fn starts_server(&self) -> bool {
        matches!(self.work, Work::Start(_))
    }

    /// The largest blob it moves, in bytes.
    fn largest(&self) -> u64 {
        match self.work {
            Work::PushBlob(size, _) | Work::PullBlob(size) | Work::PullAndPush(size) => size,
            Work::PushImage(mix, _) | Work::PullImage(mix) => mix.iter().map(|(_, size)| *size).max().unwrap_or(0),
            _ => 0,
        }
    }

    /// Whether each operation sends blobs, which go to the store.
    pub(crate) fn pushes_blobs(&self) -> bool {
        matches!(self.work, Work::PushBlob(..) | Work::PushImage(..))
    }

    fn writes(&self) -> bool {
        self.pushes_blobs() || matches!(self.work, Work::PullAndPush(_) | Work::PutTags(_))
    }
}

/// How much is done.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Scale {
    /// No operation of a pass begins later than this after its first.
    pub(crate) time: Duration,
    /// Everything as small as it can be while each row still does its work.
    pub(crate) smoke: bool,
}

/// The bounds of one pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bound {
    /// Operations.
    pub(crate) count: u64,
    /// No operation begins later than this after the first.
    pub(crate) time: Duration,
}

impl Scale {
    /// The bounds of a pass of `row`. What is written is bounded in bytes too, so that a fast disk is not filled.
    pub(crate) fn bound(self, row: &Row) -> Bound {
        const WRITTEN: u64 = 2048 * MIB;
        const MOST: u64 = 40_000;
        match row.work {
            // All of the tags, since other rows read them; the time only ends a pass that got stuck.
            Work::PutTags(count) => Bound {
                count: self.number(count),
                time: self.time * 20,
            },
            Work::Start(_) => Bound {
                count: if self.smoke { 1 } else { 5 },
                time: self.time,
            },
            _ if self.smoke => {
                let count = (32 * MIB / self.size(row.largest()).max(1)).clamp(2, 8);
                Bound { count, time: self.time }
            }
            _ if row.writes() => Bound {
                count: (WRITTEN / row.largest().max(1)).clamp(2, MOST),
                time: self.time,
            },
            _ => Bound {
                count: MOST,
                time: self.time,
            },
        }
    }

    /// The size to use for a blob that a row calls `size`.
    pub(crate) fn size(self, size: u64) -> u64 {
        if self.smoke {
            size.min(4 * MIB + size / 64).min(size)
        } else {
            size
        }
    }

    /// The number to use for so many tags or repositories.
    pub(crate) fn number(self, number: u64) -> u64 {
        if self.smoke {
            (number / 50).clamp(20, 200)
        } else {
            number
        }
    }

    /// Entries of a page.
    pub(crate) fn page(self) -> u64 {
        if self.smoke { 10 } else { 100 }
    }
}

const MIX_70: Mix = &[(20, MIB), (70, 10 * MIB), (10, 100 * MIB)];
const MIX_33: Mix = &[(33, MIB), (33, 10 * MIB), (33, 100 * MIB)];
const ONE: Mix = &[(1, MIB)];
const TEN: Mix = &[(1, 10 * MIB)];
const HUNDRED: Mix = &[(1, 100 * MIB)];

const fn row(group: &'static str, name: &'static str, work: Work) -> Row {
    Row { name, group, work }
}

const fn manifest(head: bool, by_digest: bool) -> Work {
    Work::Manifest { head, by_digest }
}

/// All rows: first ours, then the tests of `zb` under their names.
pub(crate) const ROWS: &[Row] = &[
    row("start", "start, empty", Work::Start(0)),
    row("put", "push 1 KiB, PUT", Work::PushBlob(KIB, How::Put)),
    row("put", "push 1 MB, PUT", Work::PushBlob(MIB, How::Put)),
    row("put", "push 10 MB, PUT", Work::PushBlob(10 * MIB, How::Put)),
    row("put", "push 100 MB, PUT", Work::PushBlob(100 * MIB, How::Put)),
    row("put", "push 1 GiB, PUT", Work::PushBlob(1024 * MIB, How::Put)),
    row("patch", "push 1 KiB, PATCH", Work::PushBlob(KIB, How::Patch)),
    row("patch", "push 1 MB, PATCH", Work::PushBlob(MIB, How::Patch)),
    row("patch", "push 10 MB, PATCH", Work::PushBlob(10 * MIB, How::Patch)),
    row("patch", "push 100 MB, PATCH", Work::PushBlob(100 * MIB, How::Patch)),
    row("patch", "push 1 GiB, PATCH", Work::PushBlob(1024 * MIB, How::Patch)),
    row("read", "pull blob 1 KiB", Work::PullBlob(KIB)),
    row("read", "pull blob 1 MB", Work::PullBlob(MIB)),
    row("read", "pull blob 10 MB", Work::PullBlob(10 * MIB)),
    row("read", "pull blob 100 MB", Work::PullBlob(100 * MIB)),
    row("read", "pull blob 1 GiB", Work::PullBlob(1024 * MIB)),
    row("read", "HEAD blob", Work::HeadBlob),
    row("read", "GET manifest by tag", manifest(false, false)),
    row("read", "GET manifest by digest", manifest(false, true)),
    row("read", "HEAD manifest by tag", manifest(true, false)),
    row("read", "HEAD manifest by digest", manifest(true, true)),
    row("tags", "PUT 10,000 tags", Work::PutTags(10_000)),
    row("tags", "tags page of 100", Work::TagsPage(100)),
    row("tags", "tags page of 10,000", Work::TagsPage(10_000)),
    row("tags", "start, 10,000 tags stored", Work::Start(10_000)),
    row("catalog", "catalog page", Work::CatalogPage(1000)),
    row("zb catalog", "Get Catalog", Work::Catalog(100)),
    row("zb push", "Push Monolith 1MB", Work::PushImage(ONE, How::Put)),
    row("zb push", "Push Monolith 10MB", Work::PushImage(TEN, How::Put)),
    row("zb push", "Push Monolith 100MB", Work::PushImage(HUNDRED, How::Put)),
    row("zb chunk", "Push Chunk Streamed 1MB", Work::PushImage(ONE, How::Patch)),
    row("zb chunk", "Push Chunk Streamed 10MB", Work::PushImage(TEN, How::Patch)),
    row(
        "zb chunk",
        "Push Chunk Streamed 100MB",
        Work::PushImage(HUNDRED, How::Patch),
    ),
    row("zb pull", "Pull 1MB", Work::PullImage(ONE)),
    row("zb pull", "Pull 10MB", Work::PullImage(TEN)),
    row("zb pull", "Pull 100MB", Work::PullImage(HUNDRED)),
    row(
        "zb pull",
        "Pull Mixed 20% 1MB, 70% 10MB, 10% 100MB",
        Work::PullImage(MIX_70),
    ),
    row(
        "zb mixed",
        "Push Monolith Mixed 20% 1MB, 70% 10MB, 10% 100MB",
        Work::PushImage(MIX_70, How::Put),
    ),
    row(
        "zb mixed",
        "Push Chunk Mixed 33% 1MB, 33% 10MB, 33% 100MB",
        Work::PushImage(MIX_33, How::Patch),
    ),
    row("zb both", "Pull 75% and Push 25% Mixed 1MB", Work::PullAndPush(MIB)),
    row(
        "zb both",
        "Pull 75% and Push 25% Mixed 10MB",
        Work::PullAndPush(10 * MIB),
    ),
    row(
        "zb both",
        "Pull 75% and Push 25% Mixed 100MB",
        Work::PullAndPush(100 * MIB),
    ),
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    const FULL: Scale = Scale {
        time: Duration::from_secs(4),
        smoke: false,
    };
    const SMOKE: Scale = Scale {
        time: Duration::from_secs(1),
        smoke: true,
    };

    #[test]
    fn names_are_unique_and_groups_are_contiguous() {
        let names: HashSet<_> = ROWS.iter().map(|row| row.name).collect();
        assert_eq!(names.len(), ROWS.len());
        let mut groups = Vec::new();
        for row in ROWS {
            if groups.last() != Some(&row.group) {
                assert!(!groups.contains(&row.group), "{}", row.group);
                groups.push(row.group);
            }
        }
    }

    #[test]
    fn rows_are_chosen_by_a_part_of_their_name() {
        assert_eq!(Row::chosen(&[]).len(), ROWS.len());
        let chosen = Row::chosen(&["HEAD manifest".to_owned(), "push monolith 1mb".to_owned()]);
        let names: Vec<_> = chosen.iter().map(|row| row.name).collect();
        assert_eq!(
            names,
            ["HEAD manifest by tag", "HEAD manifest by digest", "Push Monolith 1MB"]
        );
        assert!(Row::chosen(&["no such row".to_owned()]).is_empty());
    }

    #[test]
    fn on_s3_every_size_is_pushed_both_ways_and_pulled() {
        let names: Vec<_> = Row::for_s3(false).iter().map(|row| row.name).collect();
        for size in ["1 MB", "10 MB", "100 MB", "1 GiB"] {
            for name in [
                format!("push {size}, PUT"),
                format!("push {size}, PATCH"),
                format!("pull blob {size}"),
            ] {
                assert!(names.contains(&name.as_str()), "{name}");
            }
        }
        assert!(names.contains(&"tags page of 10,000") && names.contains(&"GET manifest by tag"));
        assert_eq!(names.len(), 16);
        assert_eq!(Row::for_s3(true).len(), 9);
    }

    #[test]
    fn no_pass_writes_more_than_its_bound() {
        for row in ROWS.iter().filter(|row| row.writes()) {
            let full = FULL.bound(row);
            assert!(full.count * row.largest() <= 2048 * MIB, "{}", row.name);
            let smoke = SMOKE.bound(row);
            assert!(smoke.count * SMOKE.size(row.largest()) <= 64 * MIB, "{}", row.name);
        }
    }

    #[test]
    fn smoke_keeps_small_sizes_and_enough_to_page() {
        assert_eq!(SMOKE.size(KIB), KIB);
        assert_eq!(SMOKE.size(MIB), MIB);
        assert!(SMOKE.size(1024 * MIB) < 32 * MIB);
        assert!(SMOKE.number(100) > SMOKE.page() && SMOKE.number(10_000) > SMOKE.page());
        assert_eq!(FULL.number(10_000), 10_000);
    }
}
