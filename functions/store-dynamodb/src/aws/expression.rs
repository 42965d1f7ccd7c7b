//! Conditions and updates in DynamoDB's expression syntax. All names and values are placeholders: some attribute names
//! are reserved words, and the list of reserved words grows.

use std::collections::HashMap;

use aws_sdk_dynamodb::types::AttributeValue;

use super::values::to_sdk_value;
use crate::table::{PARTITION, Value, WriteCondition};

/// The placeholders of one request.
#[derive(Default)]
pub(super) struct Expression {
    names: Vec<&'static str>,
    values: Vec<AttributeValue>,
}

impl Expression {
    fn name(&mut self, name: &'static str) -> String {
        let known = self.names.iter().position(|known| *known == name);
        let number = known.unwrap_or_else(|| {
            self.names.push(name);
            self.names.len() - 1
        });
        format!("#n{number}")
    }

    fn value(&mut self, value: &Value) -> String {
        self.values.push(to_sdk_value(value));
        format!(":v{}", self.values.len() - 1)
    }

    /// The condition as an expression; `None`: it always holds.
    pub(super) fn condition(&mut self, condition: &WriteCondition) -> Option<String> {
        // An item exists if its key attribute exists.
        match condition {
            WriteCondition::Always => None,
            WriteCondition::Exists => Some(format!("attribute_exists({})", self.name(PARTITION))),
            WriteCondition::Absent => Some(format!("attribute_not_exists({})", self.name(PARTITION))),
            WriteCondition::Is(name, value) => Some(format!("{} = {}", self.name(name), self.value(value))),
            // A comparison with a missing attribute is false.
            WriteCondition::Below(name, number) => {
                Some(format!("{} < {}", self.name(name), self.value(&Value::N(*number))))
            }
            WriteCondition::Lacks(name) => {
                let (key, name) = (self.name(PARTITION), self.name(name));
                Some(format!("(attribute_exists({key}) AND attribute_not_exists({name}))"))
            }
            WriteCondition::All(all) => {
                let all: Vec<String> = all.iter().filter_map(|one| self.condition(one)).collect();
                (!all.is_empty()).then(|| format!("({})", all.join(" AND ")))
            }
            WriteCondition::Any(any) => {
                let any: Vec<String> = any.iter().map(|one| self.condition(one)).collect::<Option<_>>()?;
                (!any.is_empty()).then(|| format!("({})", any.join(" OR ")))
            }
        }
    }

    pub(super) fn update(&mut self, set: &[(&'static str, Value)], remove: &[&'static str]) -> String {
        let set = set
            .iter()
            .map(|(name, value)| format!("{} = {}", self.name(name), self.value(value)));
        let set: Vec<String> = set.collect();
        let remove: Vec<String> = remove.iter().map(|name| self.name(name)).collect();
        let clauses = [("SET", set), ("REMOVE", remove)];
        let clauses = clauses.iter().filter(|(_, parts)| !parts.is_empty());
        let clauses = clauses.map(|(word, parts)| format!("{word} {}", parts.join(", ")));
        clauses.collect::<Vec<_>>().join(" ")
    }

    /// `None` if there are no names: the service refuses an empty map.
    pub(super) fn names(&self) -> Option<HashMap<String, String>> {
        let names = self.names.iter().enumerate();
        let names: HashMap<_, _> = names
            .map(|(number, name)| (format!("#n{number}"), (*name).to_owned()))
            .collect();
        (!names.is_empty()).then_some(names)
    }

    pub(super) fn values(&self) -> Option<HashMap<String, AttributeValue>> {
        let values = self.values.iter().enumerate();
        let values: HashMap<_, _> = values
            .map(|(number, value)| (format!(":v{number}"), value.clone()))
            .collect();
        (!values.is_empty()).then_some(values)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(condition: &WriteCondition) -> (Option<String>, Expression) {
        let mut expression = Expression::default();
        (expression.condition(condition), expression)
    }

    #[test]
    fn a_condition_that_always_holds_gives_no_expression() {
        let always = [
            WriteCondition::Always,
            WriteCondition::All(vec![WriteCondition::Always]),
            WriteCondition::Any(vec![WriteCondition::Absent, WriteCondition::Always]),
        ];
        for condition in always {
            assert_eq!(rendered(&condition).0, None, "{condition:?}");
        }
    }

    #[test]
    fn nested_conditions_give_nested_expressions() {
        let one = WriteCondition::Is("state", Value::N(1));
        let other = WriteCondition::Lacks("state");
        let (text, expression) = rendered(&WriteCondition::All(vec![
            one,
            WriteCondition::Any(vec![other, WriteCondition::Absent]),
        ]));
        let expected =
            "(#n0 = :v0 AND ((attribute_exists(#n1) AND attribute_not_exists(#n0)) OR attribute_not_exists(#n1)))";
        assert_eq!(text.as_deref(), Some(expected));
        let names = HashMap::from([
            ("#n0".to_owned(), "state".to_owned()),
            ("#n1".to_owned(), PARTITION.to_owned()),
        ]);
        assert_eq!(expression.names(), Some(names));
        assert_eq!(
            expression.values(),
            Some(HashMap::from([(":v0".to_owned(), AttributeValue::N("1".to_owned()))]))
        );
    }

    #[test]
    fn a_comparison_is_with_a_number() {
        let (text, expression) = rendered(&WriteCondition::Any(vec![
            WriteCondition::Absent,
            WriteCondition::Below("day", 7),
        ]));
        assert_eq!(text.as_deref(), Some("(attribute_not_exists(#n0) OR #n1 < :v0)"));
        let values = HashMap::from([(":v0".to_owned(), AttributeValue::N("7".to_owned()))]);
        assert_eq!(expression.values(), Some(values));
    }

    #[test]
    fn an_update_expression_has_only_the_clauses_it_needs() {
        let mut expression = Expression::default();
        assert_eq!(expression.update(&[("at", Value::N(7))], &[]), "SET #n0 = :v0");
        assert_eq!(
            expression.update(&[("at", Value::N(8)), ("who", Value::N(9))], &["size"]),
            "SET #n0 = :v1, #n1 = :v2 REMOVE #n2"
        );
        assert_eq!(expression.update(&[], &["size"]), "REMOVE #n2");
    }

    #[test]
    fn an_empty_expression_has_no_placeholders() {
        let (_, expression) = rendered(&WriteCondition::Always);
        assert_eq!(expression.names(), None);
        assert_eq!(expression.values(), None);
    }
}
