//! The report of a collection, as text.

use registry::collection::Report;
use registry::store::blobs::DeletedObjects;
use registry::store::collection::{GracePeriods, UNTIL_IMPORTED};

use crate::text::{count, size};

/// A time in the largest unit that divides it, as an operator writes a grace period: `36 hours`. `humantime` splits it into
/// several units in short form: `1day 12h`.
fn duration(millis: u64) -> String {
    for (unit, one, several) in [
        (86_400_000, "day", "days"),
        (3_600_000, "hour", "hours"),
        (60_000, "minute", "minutes"),
        (1_000, "second", "seconds"),
    ] {
        if millis.is_multiple_of(unit) {
            return count(millis / unit, one, several);
        }
    }
    format!("{millis} ms")
}

/// The report of a pass with these grace periods, as text for people: a line for each kind of thing, with its size, and
/// with what follows and when.
#[must_use]
pub fn describe(report: &Report, grace_periods: GracePeriods) -> String {
    let metadata = &report.metadata;
    let mut lines = Vec::new();
    if report.busy_until.is_none() || metadata.seen > 0 {
        lines.extend(metadata_lines(report, grace_periods));
    }
    lines.push(format!(
        "{} {}; up to {} (size not known) {} for deletion in {} at the earliest",
        count(report.sessions_swept, "expired upload", "expired uploads"),
        done(report, "ended"),
        count(report.objects_scheduled, "object", "objects"),
        done(report, "scheduled"),
        duration(grace_periods.deletion_ms),
    ));
    let importing = report.busy_until.is_some_and(|until| until >= UNTIL_IMPORTED);
    if !importing {
        let line = format!(
            "{} {}",
            count(report.objects_deleted, "pending deletion", "pending deletions"),
            done(report, "carried out")
        );
        lines.push(line + &deleted(report));
    }
    if report.busy_until.is_some() {
        lines.push(
            if importing {
                "an import is not complete: only expired uploads were handled"
            } else {
                "another process is examining the metadata: only expired uploads and pending deletions were handled"
            }
            .to_owned(),
        );
    }
    if report.failed > 0 {
        lines.push(count(report.failed, "operation", "operations") + " failed");
    }
    if report.stopped {
        lines.push("stopped before the end; the next pass continues from here".to_owned());
    }
    lines.join("\n")
}

/// What was done, or would be done by a run that is no dry run.
fn done(report: &Report, participle: &str) -> String {
    if report.dry_run {
        format!("would be {participle}")
    } else {
        participle.to_owned()
    }
}

/// The word for one thing, or the word for none or several.
fn one_or_more(number: u64, one: &'static str, several: &'static str) -> &'static str {
    if number == 1 { one } else { several }
}

/// What a pass over the metadata has found and done.
fn metadata_lines(report: &Report, grace_periods: GracePeriods) -> Vec<String> {
    let metadata = &report.metadata;
    let (marked, will, is) = if report.dry_run {
        ("would be marked as unreferenced", "would", "would be")
    } else {
        ("newly marked as unreferenced", "will", "is")
    };
    let mut lines = vec![
        count(metadata.seen, "record", "records")
            + " examined"
            + if report.resumed {
                ", from where an earlier pass was interrupted"
            } else {
                ""
            },
        format!(
            "{} (up to {}) {marked}: {} {will} be deleted in {} at the earliest, unless {} used again; {} space {is} free \
             {} after that",
            count(metadata.marked, "link to a blob", "links to blobs"),
            size(metadata.marked_bytes),
            one_or_more(metadata.marked, "it", "they"),
            duration(grace_periods.link_ms),
            one_or_more(metadata.marked, "it is", "they are"),
            one_or_more(metadata.marked, "its", "their"),
            duration(grace_periods.deletion_ms),
        ),
        format!(
            "{} (up to {}) marked by an earlier pass: {} will be deleted {} after that pass at the earliest, unless {} \
             used again",
            count(metadata.waiting, "link to a blob", "links to blobs"),
            size(metadata.waiting_bytes),
            one_or_more(metadata.waiting, "it", "they"),
            duration(grace_periods.link_ms),
            one_or_more(metadata.waiting, "it is", "they are"),
        ),
        format!(
            "{} {} ({} size is not counted)",
            count(metadata.unlinked, "unreferenced link", "unreferenced links"),
            done(report, "deleted"),
            one_or_more(metadata.unlinked, "its", "their"),
        ),
        format!(
            "{} ({}) without links {} for deletion in {} at the earliest",
            count(metadata.scheduled, "blob", "blobs"),
            size(metadata.scheduled_bytes),
            done(report, "scheduled"),
            duration(grace_periods.deletion_ms),
        ),
    ];
    if metadata.repositories > 0 {
        lines.push(format!(
            "{} without manifests and blobs {} from the catalog",
            count(metadata.repositories, "repository", "repositories"),
            done(report, "removed")
        ));
    }
    if report.deep {
        lines.push(format!(
            "{} {}",
            count(metadata.orphaned_records, "orphaned record", "orphaned records"),
            done(report, "deleted")
        ));
    }
    lines
}

/// The objects that were deleted, with their size. They are fewer than the deletions, since an upload may have left
/// nothing under a key.
fn deleted(report: &Report) -> String {
    match report.deleted {
        _ if report.objects_deleted == 0 => String::new(),
        _ if report.dry_run => " (size not known)".to_owned(),
        Some(DeletedObjects { objects, bytes }) => {
            let objects = count(objects, "object", "objects");
            format!(": {objects} deleted, {} freed", size(bytes))
        }
        None => ": the freed space is not known".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use registry::store::Timestamp;
    use registry::store::collection::PassStatistics;

    use super::*;

    fn text(report: &Report) -> String {
        describe(report, GracePeriods::default())
    }

    /// One of each thing, or several of each.
    fn report(of_each: u64) -> Report {
        Report {
            metadata: PassStatistics {
                seen: of_each,
                marked: of_each,
                marked_bytes: 20 * of_each,
                waiting: of_each,
                waiting_bytes: 30 * of_each,
                unlinked: of_each,
                scheduled: of_each,
                scheduled_bytes: 10 * of_each,
                orphaned_records: of_each,
                repositories: of_each,
            },
            sessions_swept: of_each,
            objects_scheduled: of_each,
            objects_deleted: of_each,
            deleted: Some(DeletedObjects {
                objects: of_each,
                bytes: 100 * of_each,
            }),
            ..Report::default()
        }
    }

    #[test]
    fn one_of_each() {
        let report = Report {
            deep: true,
            failed: 1,
            ..report(1)
        };
        assert_eq!(
            text(&report),
            "1 record examined\n\
             1 link to a blob (up to 20 B) newly marked as unreferenced: it will be deleted in 1 day at the earliest, \
             unless it is used again; its space is free 25 hours after that\n\
             1 link to a blob (up to 30 B) marked by an earlier pass: it will be deleted 1 day after that pass at the \
             earliest, unless it is used again\n\
             1 unreferenced link deleted (its size is not counted)\n\
             1 blob (10 B) without links scheduled for deletion in 25 hours at the earliest\n\
             1 repository without manifests and blobs removed from the catalog\n\
             1 orphaned record deleted\n\
             1 expired upload ended; up to 1 object (size not known) scheduled for deletion in 25 hours at the earliest\n\
             1 pending deletion carried out: 1 object deleted, 100 B freed\n\
             1 operation failed"
        );
    }

    #[test]
    fn several_of_each_of_which_a_part_was_there() {
        let report = Report {
            resumed: true,
            deep: true,
            busy_until: Some(Timestamp(1)),
            failed: 2,
            stopped: true,
            deleted: Some(DeletedObjects { objects: 2, bytes: 7 }),
            ..report(3)
        };
        assert_eq!(
            text(&report),
            "3 records examined, from where an earlier pass was interrupted\n\
             3 links to blobs (up to 60 B) newly marked as unreferenced: they will be deleted in 1 day at the earliest, \
             unless they are used again; their space is free 25 hours after that\n\
             3 links to blobs (up to 90 B) marked by an earlier pass: they will be deleted 1 day after that pass at the \
             earliest, unless they are used again\n\
             3 unreferenced links deleted (their size is not counted)\n\
             3 blobs (30 B) without links scheduled for deletion in 25 hours at the earliest\n\
             3 repositories without manifests and blobs removed from the catalog\n\
             3 orphaned records deleted\n\
             3 expired uploads ended; up to 3 objects (size not known) scheduled for deletion in 25 hours at the earliest\n\
             3 pending deletions carried out: 2 objects deleted, 7 B freed\n\
             another process is examining the metadata: only expired uploads and pending deletions were handled\n\
             2 operations failed\n\
             stopped before the end; the next pass continues from here"
        );
    }

    #[test]
    fn what_was_not_examined_is_not_reported() {
        let report = Report {
            busy_until: Some(UNTIL_IMPORTED),
            ..Report::default()
        };
        assert_eq!(
            text(&report),
            "0 expired uploads ended; up to 0 objects (size not known) scheduled for deletion in 25 hours at the earliest\n\
             an import is not complete: only expired uploads were handled"
        );
        let report = Report {
            busy_until: Some(Timestamp(1)),
            ..Report::default()
        };
        assert_eq!(
            text(&report),
            "0 expired uploads ended; up to 0 objects (size not known) scheduled for deletion in 25 hours at the earliest\n\
             0 pending deletions carried out\n\
             another process is examining the metadata: only expired uploads and pending deletions were handled"
        );
    }

    #[test]
    fn what_a_store_does_not_report_is_not_made_up() {
        let report = Report {
            deleted: None,
            ..report(2)
        };
        let line = "\n2 pending deletions carried out: the freed space is not known";
        assert!(text(&report).ends_with(line), "{}", text(&report));
        assert!(text(&Report::default()).ends_with("\n0 pending deletions carried out"));
    }

    #[test]
    fn times_are_in_the_largest_unit_that_divides_them() {
        for (millis, expected) in [
            (1, "1 ms"),
            (1_000, "1 second"),
            (90_000, "90 seconds"),
            (120_000, "2 minutes"),
            (3_600_000, "1 hour"),
            (172_800_000, "2 days"),
            (90_000_000, "25 hours"),
        ] {
            assert_eq!(duration(millis), expected);
        }
    }

    #[test]
    fn a_dry_run_does_not_say_that_anything_was_done() {
        let report = Report {
            dry_run: true,
            deep: true,
            deleted: None,
            ..report(2)
        };
        assert_eq!(
            text(&report),
            "2 records examined\n\
             2 links to blobs (up to 40 B) would be marked as unreferenced: they would be deleted in 1 day at the earliest, \
             unless they are used again; their space would be free 25 hours after that\n\
             2 links to blobs (up to 60 B) marked by an earlier pass: they will be deleted 1 day after that pass at the \
             earliest, unless they are used again\n\
             2 unreferenced links would be deleted (their size is not counted)\n\
             2 blobs (20 B) without links would be scheduled for deletion in 25 hours at the earliest\n\
             2 repositories without manifests and blobs would be removed from the catalog\n\
             2 orphaned records would be deleted\n\
             2 expired uploads would be ended; up to 2 objects (size not known) would be scheduled for deletion in 25 \
             hours at the earliest\n\
             2 pending deletions would be carried out (size not known)"
        );
    }
}
