//! What a collection has done, in words.

use std::fmt::Write as _;

use registry::collection::Report;
use registry::store::blobs::Freed;
use registry::store::collection::UNTIL_IMPORTED;

/// So many of a thing, by its name and the name of several.
fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}

/// What a pass has done, or would do, for people.
pub(crate) fn describe(report: &Report, size: impl Fn(u64) -> String) -> String {
    let names = &report.names;
    let done = |participle: &str| {
        if report.dry_run {
            format!("would be {participle}")
        } else {
            participle.to_owned()
        }
    };
    let them = if names.marked == 1 { "it" } else { "them" };
    let (whose, left_by) = if report.sessions_swept == 1 {
        ("its", "it")
    } else {
        ("their", "they")
    };
    let mut text = count(names.seen, "record", "records") + " seen";
    if report.resumed {
        text += ", from where an earlier pass was interrupted";
    }
    let _ = write!(
        text,
        "\n{} {}: nothing refers to {them}, and a later pass removes {them} if that is still so\n\
         {} {}, {} ({}) without a name {}\n\
         {} past {whose} end {}, {} {} for what {left_by} may have left\n\
         {} {}",
        count(names.marked, "link", "links"),
        done("marked"),
        count(names.unlinked, "link", "links"),
        done("removed"),
        count(names.buried, "object", "objects"),
        size(names.buried_bytes),
        done("buried"),
        count(report.sessions_swept, "upload", "uploads"),
        done("ended"),
        count(report.session_graves, "grave", "graves"),
        done("dug"),
        count(report.objects_deleted, "grave", "graves"),
        done("emptied"),
    );
    if !report.dry_run && report.objects_deleted > 0 {
        match report.freed {
            Some(Freed { objects, bytes }) => {
                let objects = count(objects, "object", "objects");
                let _ = write!(text, ": {objects} deleted, {} freed", size(bytes));
            }
            None => text += ": the store does not tell how much was in there",
        }
    }
    if names.repositories > 0 {
        let _ = write!(
            text,
            "\n{} with neither manifests nor blobs {} from the catalog",
            count(names.repositories, "repository", "repositories"),
            done("removed")
        );
    }
    if report.deep {
        let _ = write!(
            text,
            "\n{} among the names {}",
            count(names.leftovers, "leftover", "leftovers"),
            done("removed")
        );
    }
    if let Some(until) = report.busy_until {
        text += if until >= UNTIL_IMPORTED {
            "\nan import is not through: only uploads were seen to"
        } else {
            "\nanother process is going through the names: only uploads and the graveyard were seen to"
        };
    }
    if report.failed > 0 {
        let _ = write!(text, "\n{} could not be done", count(report.failed, "thing", "things"));
    }
    if report.stopped {
        text += "\nstopped before the end; the next pass goes on from here";
    }
    text
}

#[cfg(test)]
mod tests {
    use registry::store::Timestamp;
    use registry::store::collection::Tally;

    use super::*;

    fn told(report: &Report) -> String {
        describe(report, |bytes| format!("{bytes} B"))
    }

    /// One of each thing, or several of each.
    fn report(of_each: u64) -> Report {
        Report {
            names: Tally {
                seen: of_each,
                marked: of_each,
                unlinked: of_each,
                buried: of_each,
                buried_bytes: 10 * of_each,
                leftovers: of_each,
                repositories: of_each,
            },
            sessions_swept: of_each,
            session_graves: of_each,
            objects_deleted: of_each,
            freed: Some(Freed {
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
            told(&report),
            "1 record seen\n\
             1 link marked: nothing refers to it, and a later pass removes it if that is still so\n\
             1 link removed, 1 object (10 B) without a name buried\n\
             1 upload past its end ended, 1 grave dug for what it may have left\n\
             1 grave emptied: 1 object deleted, 100 B freed\n\
             1 repository with neither manifests nor blobs removed from the catalog\n\
             1 leftover among the names removed\n\
             1 thing could not be done"
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
            freed: Some(Freed { objects: 2, bytes: 7 }),
            ..report(3)
        };
        assert_eq!(
            told(&report),
            "3 records seen, from where an earlier pass was interrupted\n\
             3 links marked: nothing refers to them, and a later pass removes them if that is still so\n\
             3 links removed, 3 objects (30 B) without a name buried\n\
             3 uploads past their end ended, 3 graves dug for what they may have left\n\
             3 graves emptied: 2 objects deleted, 7 B freed\n\
             3 repositories with neither manifests nor blobs removed from the catalog\n\
             3 leftovers among the names removed\n\
             another process is going through the names: only uploads and the graveyard were seen to\n\
             2 things could not be done\n\
             stopped before the end; the next pass goes on from here"
        );
    }

    #[test]
    fn half_of_an_import_is_told_from_another_pass() {
        let report = Report {
            busy_until: Some(UNTIL_IMPORTED),
            ..Report::default()
        };
        let last = "an import is not through: only uploads were seen to";
        assert!(told(&report).ends_with(last), "{}", told(&report));
    }

    #[test]
    fn what_a_store_does_not_tell_is_not_made_up() {
        let report = Report {
            freed: None,
            ..report(2)
        };
        let line = "\n2 graves emptied: the store does not tell how much was in there\n";
        assert!(told(&report).contains(line), "{}", told(&report));
        assert!(told(&Report::default()).ends_with("\n0 graves emptied"));
    }

    #[test]
    fn a_dry_run_does_not_say_that_anything_was_done() {
        let report = Report {
            dry_run: true,
            deep: true,
            freed: None,
            ..report(2)
        };
        assert_eq!(
            told(&report),
            "2 records seen\n\
             2 links would be marked: nothing refers to them, and a later pass removes them if that is still so\n\
             2 links would be removed, 2 objects (20 B) without a name would be buried\n\
             2 uploads past their end would be ended, 2 graves would be dug for what they may have left\n\
             2 graves would be emptied\n\
             2 repositories with neither manifests nor blobs would be removed from the catalog\n\
             2 leftovers among the names would be removed"
        );
    }
}
