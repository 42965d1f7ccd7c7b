//! The list of repositories (`GET /v2/_catalog`), reduced to those that the client may pull.
//!
//! Only the ranges of names are read in which the client may pull something: those of the literal prefixes of the patterns
//! in its rules. So the cost depends on what the client may see, unless a pattern begins with `*`. A request reads a bounded
//! number of rows, and names no repository that the client may not see, also not in its Link.

use http::{HeaderValue, Response};
use oci::RepositoryName;
use serde::Serialize;

use crate::auth::{Identity, List, NameRanges};
use crate::body::ResponseBody;
use crate::call::Call;
use crate::error::Error;
use crate::memory::{Memory, Purpose};
use crate::query::PageRequest;
use crate::response;
use crate::store::{Page, StoreError};

/// The memory for one repository of a page: the name, as a value and as JSON.
const REPOSITORY_ROW: usize = 640;

/// How many rows are read at once at first, in a range that is not the last one: it may be short, and what is read behind it
/// may be of no use.
const FIRST_ROWS: usize = 16;

/// How many rows are read at once at most, beyond those that the page has space for, after a read that showed nothing.
const MAX_SKIPPED_ROWS: usize = 100;

/// A list that ends although it may go on: RFC 9111 (5.5) lets any text follow the code 299.
pub(super) const INCOMPLETE: HeaderValue = HeaderValue::from_static(
    "299 - \"the list may be incomplete: too many repositories were skipped that you may not pull\"",
);

#[derive(Serialize)]
struct RepositoryList {
    repositories: Vec<RepositoryName>,
}

impl Call<'_> {
    /// The repositories that the client may pull.
    pub(crate) async fn list_repositories(
        &self,
        identity: &Identity,
        page: PageRequest,
    ) -> Result<Response<ResponseBody>, Error> {
        if page.limit == 0 {
            let repositories = Vec::new();
            return self.list(Box::new(()), &RepositoryList { repositories }).await;
        }
        let (making, listed) = self.visible_repositories(identity, "", &page).await?;
        let last = listed.repositories.last().filter(|_| listed.more).cloned();
        let repositories = listed.repositories;
        let mut response = self.list(making, &RepositoryList { repositories }).await?;
        let headers = response.headers_mut();
        if let Some(last) = last {
            response::link_next(headers, "/v2/_catalog", page.limit, last.as_str(), None);
        }
        if listed.is_cut {
            headers.insert(http::header::WARNING, INCOMPLETE);
        }
        Ok(response)
    }

    /// One page, of 1 or more, of the repositories that the client may pull and whose names begin with `prefix`; and the memory
    /// with which it was made.
    pub(super) async fn visible_repositories(
        &self,
        identity: &Identity,
        prefix: &str,
        page: &PageRequest,
    ) -> Result<(Memory, Listed), StoreError> {
        let metadata = &self.stores.metadata;
        if prefix.is_empty() && identity.may_list_everything() {
            let making = self.memory_for(Purpose::Page, page.limit * REPOSITORY_ROW).await?;
            let found = metadata
                .repositories(self.cx(), page.last.as_deref(), page.limit)
                .await?;
            let listed = Listed {
                repositories: found.items,
                more: found.more,
                is_cut: false,
            };
            return Ok((making, listed));
        }
        let rows = page.limit + 1 + MAX_SKIPPED_ROWS;
        let making = self.memory_for(Purpose::Page, rows * REPOSITORY_ROW).await?;
        let mut scan = CatalogScan::new(identity, prefix, page, self.settings.limits.catalog_rows);
        while let Some((after, limit)) = scan.next_read() {
            let found = metadata.repositories(self.cx(), after.as_deref(), limit).await?;
            scan.take(found);
        }
        Ok((making, scan.end()))
    }
}

/// The repositories of one page.
#[derive(PartialEq, Eq, Debug)]
pub(super) struct Listed {
    pub(super) repositories: Vec<RepositoryName>,
    /// Whether there are further ones.
    pub(super) more: bool,
    /// Whether there may be further ones, but too many rows were read.
    pub(super) is_cut: bool,
}

/// Decides what to read for one page. It makes no calls itself.
struct CatalogScan<'a> {
    identity: &'a Identity,
    ranges: NameRanges,
    /// The range in which the next read is.
    range: usize,
    /// The names up to this one were read, or are before the page.
    after: Option<String>,
    limit: usize,
    /// What the client may see: at most one more than the page has space for.
    found: Vec<RepositoryName>,
    rows_left: usize,
    /// How many rows are read at once next.
    rows: usize,
    /// Whether the last read of the range showed nothing.
    is_skipping: bool,
    /// Whether there are no further rows.
    has_ended: bool,
    is_cut: bool,
}

impl<'a> CatalogScan<'a> {
    fn new(identity: &'a Identity, prefix: &str, page: &PageRequest, max_rows: usize) -> Self {
        Self {
            identity,
            ranges: identity.list_ranges_within(prefix),
            range: 0,
            after: page.last.clone(),
            limit: page.limit,
            found: Vec::new(),
            rows_left: max_rows,
            rows: FIRST_ROWS,
            is_skipping: false,
            has_ended: false,
            is_cut: false,
        }
    }

    /// After which name to read how many rows; `None`: nothing more.
    fn next_read(&mut self) -> Option<(Option<String>, usize)> {
        // One more than the page has space for tells whether there is another page.
        let needed = (self.limit + 1).saturating_sub(self.found.len());
        if needed == 0 || self.has_ended {
            return None;
        }
        let ranges = self.ranges.as_slice();
        while let Some(range) = ranges.get(self.range)
            && let Some(after) = &self.after
            && range.ends_by(after)
        {
            self.range += 1;
            self.rows = FIRST_ROWS;
            self.is_skipping = false;
        }
        let range = ranges.get(self.range)?;
        if self.rows_left == 0 {
            self.is_cut = true;
            return None;
        }
        let is_last = self.range + 1 == ranges.len();
        let rows = if range.is_one_name() {
            1
        } else if self.is_skipping {
            needed.max(self.rows.min(MAX_SKIPPED_ROWS))
        } else if is_last {
            needed
        } else {
            needed.min(self.rows)
        };
        self.rows = self.rows.saturating_mul(2);
        // A text is greater than no text.
        let after = self.after.clone().max(range.before());
        Some((after, rows.min(self.rows_left)))
    }

    /// Takes the rows of such a read.
    fn take(&mut self, page: Page<RepositoryName>) {
        self.rows_left = self.rows_left.saturating_sub(page.items.len());
        self.has_ended = !page.more || page.items.is_empty();
        if let Some(last) = page.items.last() {
            self.after = Some(last.to_string());
        }
        let before = self.found.len();
        let visible = page
            .items
            .into_iter()
            // A read goes on behind the last range, where the client may see names that do not have the prefix.
            .filter(|repository| self.ranges.contains(repository) && self.identity.may::<List>(repository));
        self.found.extend(visible.take(self.limit + 1 - before));
        self.is_skipping = self.found.len() == before;
    }

    fn end(mut self) -> Listed {
        let more = self.found.len() > self.limit;
        self.found.truncate(self.limit);
        Listed {
            repositories: self.found,
            more,
            is_cut: self.is_cut,
        }
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use std::collections::BTreeSet;
    use std::ops::Bound;

    use proptest::prelude::*;
    use proptest::sample::subsequence;

    use super::*;
    use crate::auth::{AccessRule, Actions, Principal, Rules};

    const MAX_ROWS: usize = 10_000;

    /// A table of names, read as the contract of the store says, and how much of it was read.
    struct Table {
        names: BTreeSet<RepositoryName>,
        reads: usize,
        rows: usize,
    }

    impl Table {
        fn new<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Self {
            Self {
                names: names.into_iter().map(|name| name.as_ref().parse().unwrap()).collect(),
                reads: 0,
                rows: 0,
            }
        }

        fn list(&mut self, identity: &Identity, last: Option<&str>, limit: usize) -> Listed {
            self.list_of(identity, "", last, limit)
        }

        fn list_of(&mut self, identity: &Identity, prefix: &str, last: Option<&str>, limit: usize) -> Listed {
            let page = PageRequest {
                limit,
                last: last.map(str::to_owned),
            };
            (self.reads, self.rows) = (0, 0);
            let mut scan = CatalogScan::new(identity, prefix, &page, MAX_ROWS);
            while let Some((after, limit)) = scan.next_read() {
                assert!(limit > 0, "a read without rows would never end");
                let after = after.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
                let mut rows = self.names.range::<str, _>((after, Bound::Unbounded)).cloned();
                let items: Vec<_> = rows.by_ref().take(limit).collect();
                self.reads += 1;
                self.rows += items.len();
                scan.take(Page {
                    items,
                    more: rows.next().is_some(),
                });
            }
            scan.end()
        }

        /// All pages, one after the other.
        fn all(&mut self, identity: &Identity, limit: usize) -> Vec<String> {
            let (mut all, mut last) = (Vec::new(), None);
            loop {
                let page = self.list(identity, last.as_deref(), limit);
                assert!(page.repositories.len() <= limit && !page.is_cut);
                all.extend(page.repositories.iter().map(ToString::to_string));
                if !page.more {
                    return all;
                }
                assert_eq!(page.repositories.len(), limit, "a page with a Link is full");
                last = all.last().cloned();
            }
        }
    }

    fn may_pull(patterns: &[&str], denied: &[&str]) -> Identity {
        let rule = |patterns: &[&str]| AccessRule {
            name: "a rule of the test".into(),
            repositories: patterns.iter().map(|pattern| pattern.parse().unwrap()).collect(),
            actions: Actions::PULL,
        };
        let rules = Rules::new(vec![rule(patterns)], vec![rule(denied)]);
        Identity::new(Principal::ANONYMOUS, rules)
    }

    /// 100,000 repositories, of which the client may see three.
    #[test]
    fn what_a_list_reads_is_bounded() {
        let numbers = (0..99_997).map(|number| format!("org{:03}/app{number}", number % 500));
        let three = ["team/a", "team/b", "team/c"].map(str::to_owned);
        let mut table = Table::new(numbers.chain(three.clone()));
        for (patterns, limit, max_rows, max_reads) in [
            // One literal prefix: the page, and what comes after it.
            (&["team/**"] as &[&str], 1000, 3, 1),
            (&["team/**"], 2, 3, 1),
            (&["team/a", "team/b", "team/c"], 1000, 3, 3),
            (&["org/**", "team/*", "zoo/**"], 1000, 1000, 3),
        ] {
            let listed = table.list(&may_pull(patterns, &[]), None, limit);
            assert_eq!(listed.repositories.len(), limit.min(3), "{patterns:?}");
            assert!(!listed.is_cut && listed.more == (limit < 3));
            let (rows, reads) = (table.rows, table.reads);
            assert!(rows <= max_rows && rows <= limit + 1, "{patterns:?}: {rows} rows");
            assert!(reads <= max_reads, "{patterns:?}: {reads} reads");
        }
        // No prefix to seek by: the request reads what it may, says that it did not finish, and names nothing.
        for limit in [1, 1000] {
            let listed = table.list(&may_pull(&["*/a", "*/b", "*/c"], &[]), None, limit);
            let nothing = Listed {
                repositories: Vec::new(),
                more: false,
                is_cut: true,
            };
            assert_eq!((listed, table.rows), (nothing, MAX_ROWS));
            assert!(table.reads <= 110, "{} reads", table.reads);
        }
        // What a deny rule hides is skipped within the same bound.
        let listed = table.list(&may_pull(&["**"], &["org000/**", "org001/**"]), None, 10);
        assert_eq!(listed.repositories.len(), 10);
        assert!(listed.more && table.rows <= 1000, "{} rows", table.rows);
    }

    /// A list of names that begin with a text reads those alone, and shows no others.
    #[test]
    fn a_prefix_bounds_what_is_read() {
        let numbers = (0..10_000).map(|number| format!("org{:03}/app{number}", number % 500));
        let mut table = Table::new(numbers.chain(["team/a", "team/ab", "team/b", "teams/x"].map(str::to_owned)));
        let all = may_pull(&["**"], &["team/ab"]);
        for (prefix, limit, expected, max_rows) in [
            ("team/a", 10, &["team/a"] as &[&str], 4),
            ("team", 10, &["team/a", "team/b", "teams/x"], 4),
            ("team/", 1, &["team/a"], 4),
            ("team/", 2, &["team/a", "team/b"], 4),
            ("zoo", 10, &[], 0),
            ("a", 10, &[], 11),
            ("org499/app999", 10, &["org499/app999", "org499/app9999"], 11),
        ] {
            let listed = table.list_of(&all, prefix, None, limit);
            let names: Vec<_> = listed.repositories.iter().map(ToString::to_string).collect();
            assert_eq!(names, expected, "{prefix}");
            assert!(!listed.is_cut && listed.more == (limit == 1), "{prefix}");
            assert!(table.rows <= max_rows, "{prefix}: {} rows", table.rows);
        }
        let nothing = table.list_of(&may_pull(&["team/**"], &[]), "org", None, 10);
        assert_eq!((nothing.repositories.len(), table.reads), (0, 0));
    }

    /// At the bound and one past it.
    #[test]
    fn a_list_that_ends_at_the_bound_is_complete() {
        for (others, is_cut) in [(MAX_ROWS - 1, false), (MAX_ROWS, true)] {
            let numbers = (0..others).map(|number| format!("a{number:05}"));
            let mut table = Table::new(numbers.chain(["z/x".to_owned()]));
            let listed = table.list(&may_pull(&["*/x"], &[]), None, 10);
            assert_eq!(
                (listed.is_cut, listed.repositories.len()),
                (is_cut, usize::from(!is_cut))
            );
            assert!(!listed.more);
        }
    }

    proptest! {
        /// The pages are together what the client may pull, in order.
        #[test]
        fn pages_show_all_that_may_be_pulled(
            names in subsequence(
                vec!["0", "a", "a-b", "a.b", "a/a", "a/b", "a/b/c", "aa", "ab", "b", "b/a", "b/b", "c/x", "c/y", "d"],
                0..=15,
            ),
            patterns in subsequence(vec!["**", "*", "a", "a*", "a/*", "a/**", "a/b", "b/**", "c/x", "*/b", "e"], 1..=4),
            denied in subsequence(vec!["a/**", "b", "*/b", "c*"], 0..=2),
            limit in 1..6_usize,
        ) {
            let identity = may_pull(&patterns, &denied);
            let mut table = Table::new(&names);
            let expected: Vec<_> = table.names.iter().filter(|name| identity.may::<List>(name)).map(ToString::to_string).collect();
            prop_assert_eq!(table.all(&identity, limit), expected);
        }
    }
}
