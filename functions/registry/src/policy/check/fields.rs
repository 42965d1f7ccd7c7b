//! The members of one table, with the mistakes in their types.

use std::error::Error;
use std::str::FromStr;

use super::super::mistake::{Mistakes, quoted};
use super::super::tree::{Member, Node, NodeValue, Position};

/// A value has a mistake, which was added to the others.
pub(super) struct Wrong;

/// The members of a table.
pub(super) struct Fields<'t> {
    at: Position,
    members: &'t [Member],
}

impl<'t> Fields<'t> {
    /// The members of `node`, which is a `kind` and may have the members `known`. Each other member is a mistake.
    pub(super) fn open(node: &'t Node, kind: &str, known: &[&str], mistakes: &mut Mistakes) -> Option<Self> {
        let NodeValue::Table(members) = &node.value else {
            let found = node.value.kind();
            mistakes.add(node.at, format!("{kind}: expected a table, found {found}"));
            return None;
        };
        for member in members {
            if !known.contains(&&*member.name) {
                let text = format!(
                    "{kind} has no member {}: expected one of {}",
                    quoted(&member.name),
                    known.join(", ")
                );
                mistakes.add(member.at, text);
            }
        }
        Some(Self { at: node.at, members })
    }

    fn find(&self, name: &str) -> Option<&'t Node> {
        let member = self.members.iter().find(|member| member.name == name);
        member.map(|member| &member.node)
    }

    /// Whether there is such a member.
    pub(super) fn has(&self, name: &str) -> bool {
        self.find(name).is_some()
    }

    /// A member that has to be there.
    pub(super) fn required(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'t Node> {
        let node = self.find(name);
        if node.is_none() {
            mistakes.add(self.at, format!("the member `{name}` is missing"));
        }
        node
    }

    /// The entries of a member that is a list of tables; none if it is not there.
    pub(super) fn nodes(&self, name: &str, mistakes: &mut Mistakes) -> &'t [Node] {
        match self.find(name) {
            None => &[],
            Some(Node {
                value: NodeValue::List(nodes),
                ..
            }) => nodes,
            Some(other) => {
                let found = other.value.kind();
                mistakes.add(other.at, format!("`{name}`: expected a list of tables, found {found}"));
                &[]
            }
        }
    }

    /// A text that has to be there, and is not empty.
    pub(super) fn text(&self, name: &str, mistakes: &mut Mistakes) -> Option<(Position, &'t str)> {
        text(name, self.required(name, mistakes)?, mistakes)
    }

    /// A text that need not be there.
    pub(super) fn optional_text(
        &self,
        name: &str,
        mistakes: &mut Mistakes,
    ) -> Result<Option<(Position, &'t str)>, Wrong> {
        match self.find(name) {
            None => Ok(None),
            Some(node) => text(name, node, mistakes).map(Some).ok_or(Wrong),
        }
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self, name: &str, default: bool, mistakes: &mut Mistakes) -> Option<bool> {
        match self.find(name).map(|node| (node.at, &node.value)) {
            None => Some(default),
            Some((_, NodeValue::Boolean(value))) => Some(*value),
            Some((at, other)) => {
                let found = other.kind();
                mistakes.add(at, format!("`{name}`: expected true or false, found {found}"));
                None
            }
        }
    }

    /// A list that has to be there, and is not empty.
    fn list(&self, name: &str, mistakes: &mut Mistakes) -> Option<&'t [Node]> {
        let node = self.required(name, mistakes)?;
        let NodeValue::List(nodes) = &node.value else {
            let found = node.value.kind();
            mistakes.add(node.at, format!("`{name}`: expected a list of texts, found {found}"));
            return None;
        };
        if nodes.is_empty() {
            mistakes.add(node.at, format!("`{name}` is empty"));
            return None;
        }
        Some(nodes)
    }

    /// The texts of such a list.
    pub(super) fn texts(&self, name: &str, mistakes: &mut Mistakes) -> Option<Vec<(Position, &'t str)>> {
        let nodes = self.list(name, mistakes)?.iter();
        // Each text is looked at, also after one with a mistake.
        let texts: Vec<_> = nodes.map(|node| text(name, node, mistakes)).collect();
        texts.into_iter().collect()
    }

    /// The texts of such a list, each parsed.
    pub(super) fn parsed<T>(&self, name: &str, mistakes: &mut Mistakes) -> Option<Vec<T>>
    where
        T: FromStr<Err: Error>,
    {
        let nodes = self.list(name, mistakes)?.iter();
        let parsed = nodes.map(|node| {
            let (at, text) = text(name, node, mistakes)?;
            match text.parse() {
                Ok(value) => Some(value),
                Err(error) => {
                    mistakes.add(at, format!("`{name}`: {}: {error}", quoted(text)));
                    None
                }
            }
        });
        let parsed: Vec<_> = parsed.collect();
        parsed.into_iter().collect()
    }

    /// The positions of the entries of a list.
    pub(super) fn at_each(&self, name: &str) -> Option<Vec<Position>> {
        match &self.find(name)?.value {
            NodeValue::List(nodes) => Some(nodes.iter().map(|node| node.at).collect()),
            _ => None,
        }
    }
}

fn text<'t>(name: &str, node: &'t Node, mistakes: &mut Mistakes) -> Option<(Position, &'t str)> {
    match &node.value {
        NodeValue::Text(text) if text.is_empty() => {
            mistakes.add(node.at, format!("`{name}`: the text is empty"));
            None
        }
        NodeValue::Text(text) => Some((node.at, text)),
        other => {
            mistakes.add(node.at, format!("`{name}`: expected a text, found {}", other.kind()));
            None
        }
    }
}
