//! Grants as people write them: `pull,create:payments/**`.

use registry::auth::{ActionKind, Actions, ActionsError, PatternError, RepositoryGrant, RepositoryPattern};

/// The text is not a grant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum GrantError {
    /// It has no colon, or nothing on one side of it.
    #[error("expected ACTIONS:REPOSITORIES, such as pull,create:payments/**")]
    Malformed,
    /// A word before the colon.
    #[error(transparent)]
    Action(#[from] ActionsError),
    /// The text after the colon.
    #[error(transparent)]
    Pattern(#[from] PatternError),
}

/// Reads a grant: actions with commas between them, a colon, a pattern for repositories. Neither actions nor patterns
/// contain colons.
///
/// ```
/// let grant = auth::grant::parse("pull,create:payments/**").unwrap();
/// assert_eq!(auth::grant::text(&grant), "pull,create:payments/**");
/// assert!(auth::grant::parse("read:payments/**").is_err());
/// ```
pub fn parse(text: &str) -> Result<RepositoryGrant, GrantError> {
    let (actions, repositories) = text.split_once(':').ok_or(GrantError::Malformed)?;
    if actions.is_empty() || repositories.is_empty() {
        return Err(GrantError::Malformed);
    }
    let actions = actions.split(',').try_fold(Actions::NONE, |all, word| {
        Ok::<_, ActionsError>(all.union(word.parse()?))
    })?;
    Ok(RepositoryGrant {
        repositories: repositories.parse()?,
        actions,
    })
}

/// The text of a grant, as [`parse`] reads it.
#[must_use]
pub fn text(grant: &RepositoryGrant) -> String {
    format!("{}:{}", grant.actions.words().join(","), grant.repositories)
}

/// Adds a grant to a list. A list has one grant for each pattern: actions for the same pattern become one set.
pub fn add(grants: &mut Vec<RepositoryGrant>, grant: &RepositoryGrant) {
    match grants.iter_mut().find(|old| old.repositories == grant.repositories) {
        Some(old) => old.actions = old.actions.union(grant.actions),
        None => grants.push(grant.clone()),
    }
}

/// Takes the actions of a grant away from the grant for the same pattern. `false`: the list allows none of them by a grant
/// for this pattern.
pub fn remove(grants: &mut Vec<RepositoryGrant>, grant: &RepositoryGrant) -> bool {
    let Some(old) = grants.iter_mut().find(|old| old.repositories == grant.repositories) else {
        return false;
    };
    if old.actions.intersection(grant.actions).is_empty() {
        return false;
    }
    old.actions = old.actions.without(grant.actions);
    grants.retain(|grant| !grant.actions.is_empty());
    true
}

/// The grants of a list that allow a push to repositories from which no grant of the list allows a pull. Most clients look for
/// what is there before they push. Wider patterns do not count, but for `**`.
pub fn pushes_without_pull(grants: &[RepositoryGrant]) -> impl Iterator<Item = &RepositoryGrant> {
    let may_pull = |from: &RepositoryPattern| {
        let mut pulls = grants.iter().filter(|grant| grant.actions.contains(ActionKind::Read));
        pulls.any(|grant| grant.repositories.is_everything() || grant.repositories == *from)
    };
    let pushes = grants
        .iter()
        .filter(|grant| !grant.actions.intersection(Actions::PUSH).is_empty());
    pushes.filter(move |grant| !may_pull(&grant.repositories))
}

/// Whether a list of grants allows, pattern by pattern, all that another list allows. A wider pattern does not count, so the
/// answer may be `false` where nothing is lost; never the other way round.
#[must_use]
pub fn keeps(after: &[RepositoryGrant], before: &[RepositoryGrant]) -> bool {
    before.iter().all(|old| {
        let same = after.iter().filter(|new| new.repositories == old.repositories);
        let actions = same.fold(Actions::NONE, |all, new| all.union(new.actions));
        old.actions.without(actions).is_empty()
    })
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn texts(grants: &[RepositoryGrant]) -> Vec<String> {
        grants.iter().map(text).collect()
    }

    #[test]
    fn grants_are_read_back() {
        for (written, normal) in [
            ("pull:a", "pull:a"),
            ("delete,move,create,pull:**", "pull,push,delete:**"),
            ("push:team/app-*", "push:team/app-*"),
            ("pull,pull:a/**", "pull:a/**"),
        ] {
            let grant = parse(written).unwrap();
            assert_eq!(text(&grant), normal);
            assert_eq!(parse(normal), Ok(grant));
        }
        for (wrong, error) in [
            ("", GrantError::Malformed),
            ("pull", GrantError::Malformed),
            (":a", GrantError::Malformed),
            ("pull:", GrantError::Malformed),
            ("read:a", GrantError::Action(ActionsError)),
            ("pull,:a", GrantError::Action(ActionsError)),
            ("pull, push:a", GrantError::Action(ActionsError)),
            ("pull:A", GrantError::Pattern(PatternError)),
            ("pull:a:b", GrantError::Pattern(PatternError)),
            ("pull:{name}", GrantError::Pattern(PatternError)),
        ] {
            assert_eq!(parse(wrong), Err(error), "{wrong:?}");
        }
    }

    #[test]
    fn a_push_without_a_pull_is_found() {
        for (list, found) in [
            (&["push:a", "pull:a"][..], &[][..]),
            (&["pull,create:a"], &[]),
            (&["create:a", "push:b/**", "pull:**"], &[]),
            (&["delete:a"], &[]),
            (&["push:a"], &["push:a"]),
            (&["create:a", "move:b", "pull:b", "pull:c"], &["create:a"]),
            (&["push,delete:a/b", "pull:a/**"], &["push,delete:a/b"]),
        ] {
            let grants: Vec<_> = list.iter().map(|text| parse(text).unwrap()).collect();
            let alone: Vec<_> = pushes_without_pull(&grants).map(text).collect();
            assert_eq!(alone, found, "{list:?}");
        }
    }

    #[test]
    fn a_list_has_one_grant_for_each_pattern() {
        let mut grants = Vec::new();
        for grant in ["pull:a/**", "pull:b", "create:a/**"] {
            add(&mut grants, &parse(grant).unwrap());
        }
        assert_eq!(texts(&grants), ["pull,create:a/**", "pull:b"]);
        let before = grants.clone();
        for (removed, found, left) in [
            ("delete:a/**", false, &["pull,create:a/**", "pull:b"][..]),
            ("pull:c", false, &["pull,create:a/**", "pull:b"]),
            ("push:a/**", true, &["pull:a/**", "pull:b"]),
            ("pull:b", true, &["pull:a/**"]),
        ] {
            assert_eq!(remove(&mut grants, &parse(removed).unwrap()), found, "{removed}");
            assert_eq!(texts(&grants), left, "{removed}");
            assert_eq!(keeps(&grants, &before), grants == before);
            assert!(keeps(&before, &grants));
        }
    }
}
