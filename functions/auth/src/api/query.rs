//! What lists are asked for.

use std::str::FromStr;

use registry::api_endpoint::{ApiRefusal, ApiRequest};

use super::refusal::invalid;

/// The maximum number of items in a page, and the number without `n`.
pub(super) const MAX_ITEMS: usize = 1000;
const ITEMS: usize = 100;

/// The query of a request.
pub(super) struct ListQuery<'a>(&'a str);

impl<'a> ListQuery<'a> {
    pub(super) fn of(request: &ApiRequest<'a>) -> Self {
        Self(request.query)
    }

    /// A parameter that is not empty. The first one counts.
    pub(super) fn text(&self, name: &str) -> Option<String> {
        let mut all = form_urlencoded::parse(self.0.as_bytes());
        let found = all.find(|(key, _)| key == name);
        found
            .map(|(_, value)| value.into_owned())
            .filter(|value| !value.is_empty())
    }

    /// A parameter as a value.
    pub(super) fn value<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiRefusal> {
        self.read(name, |text| text.parse().ok())
    }

    /// A parameter as a value, which must be there.
    pub(super) fn required<T: FromStr>(&self, name: &str) -> Result<T, ApiRefusal> {
        let value = self.value(name)?;
        value.ok_or_else(|| invalid(format!("the parameter {name} is missing")))
    }

    /// A parameter as `read` reads it.
    pub(super) fn read<T>(&self, name: &str, read: impl Fn(&str) -> Option<T>) -> Result<Option<T>, ApiRefusal> {
        let read = |text: String| read(&text).ok_or_else(|| invalid(format!("the parameter {name} cannot be read")));
        self.text(name).map(read).transpose()
    }

    /// How many items the page has at most.
    pub(super) fn limit(&self) -> Result<usize, ApiRefusal> {
        let n = self.value::<usize>("n")?.unwrap_or(ITEMS);
        if n == 0 {
            return Err(invalid("the parameter n must be 1 or more"));
        }
        Ok(n.min(MAX_ITEMS))
    }
}
