use std::collections::BTreeMap;
use std::ops::{Bound, RangeBounds};

use crate::document::{Node, Value};
use crate::{ConfigError, Origin, Problem, is_sha256, library_names};

/// Reads one table, collecting every mistake in it.
///
/// A getter that fails notes the problem and returns a placeholder, so that reading goes on to the
/// next mistake; [`Reader::finish`] lets no placeholder escape.
pub(crate) struct Reader<'a> {
    entries: Option<&'a BTreeMap<String, Node>>,
    origin: &'a Origin,
    path: String,
    known: Vec<String>,
    problems: Vec<Problem>,
}

/// A value that can be read from a node.
pub(crate) trait FromNode: Sized {
    /// What is expected, in words: "an integer from 0".
    fn expected() -> String;
    /// What a number within a range is, in words: "an integer".
    fn number() -> String {
        Self::expected()
    }
    fn from_node(node: &Node) -> Option<Self>;
    /// Of an array that this cannot be read from, the first item that is wrong, and what it should be.
    fn wrong_item(_node: &Node) -> Option<(usize, String)> {
        None
    }
    /// Stands in for a value that could not be read; never leaves the reader.
    fn placeholder() -> Self;
}

impl<'a> Reader<'a> {
    pub(crate) fn new(node: &'a Node) -> Self {
        Self::at(node, String::new())
    }

    fn at(node: &'a Node, path: String) -> Self {
        let mut reader = Self {
            entries: None,
            origin: &node.origin,
            path,
            known: Vec::new(),
            problems: Vec::new(),
        };
        match &node.value {
            Value::Table(entries) => reader.entries = Some(entries),
            _ => reader.problem_at(
                &node.origin,
                reader.path.clone(),
                format!("expected a table, found {}", node.describe()),
            ),
        }
        reader
    }

    fn key(&self, name: &str) -> String {
        if self.path.is_empty() { name.into() } else { format!("{}.{name}", self.path) }
    }

    fn problem_at(&mut self, origin: &Origin, key: String, message: String) {
        self.problems.push(Problem { origin: origin.clone(), key, message });
    }

    /// Notes a problem with `name`.
    pub(crate) fn problem(&mut self, name: &str, message: impl Into<String>) {
        let origin = self.node(name).map_or(self.origin, |node| &node.origin).clone();
        self.problem_at(&origin, self.key(name), message.into());
    }

    fn node(&self, name: &str) -> Option<&'a Node> {
        self.entries.and_then(|entries| entries.get(name))
    }

    fn know(&mut self, name: &str) {
        if !self.known.iter().any(|known| known == name) {
            self.known.push(name.into());
        }
    }

    /// Notes a problem with an item of the array `name`.
    pub(crate) fn problem_of_item(&mut self, name: &str, index: usize, message: String) {
        let item = self.node(name).and_then(|node| match &node.value {
            Value::Array(items) => items.get(index),
            _ => None,
        });
        let origin = item.map_or(self.origin, |item| &item.origin);
        self.problem_at(origin, self.key(&format!("{name}[{index}]")), message);
    }

    /// Whether what was read at the dotted key is what stands there, and no placeholder: what
    /// contradicts a placeholder is no mistake.
    pub(crate) fn is_sound(&self, name: &str) -> bool {
        let key = self.key(name);
        let holds = |outer: &str, inner: &str| {
            inner.strip_prefix(outer).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        self.problems.iter().all(|problem| {
            let array = problem.key.split_once('[').map_or(problem.key.as_str(), |(key, _)| key);
            !holds(&problem.key, &key) && array != key
        })
    }

    /// Whether the key is there. Makes it a known key.
    pub(crate) fn has(&mut self, name: &str) -> bool {
        self.know(name);
        self.node(name).is_some()
    }

    /// The node of a required key.
    fn required(&mut self, name: &str, expected: &str) -> Option<&'a Node> {
        self.know(name);
        let node = self.node(name);
        if node.is_none() && self.entries.is_some() {
            let message = format!("missing: expected {expected}");
            let origin = self.origin.clone();
            self.problem_at(&origin, self.key(name), message);
        }
        node
    }

    /// A required value.
    pub(crate) fn get<T: FromNode>(&mut self, name: &str) -> T {
        self.get_if(name, &T::expected(), |_| true)
    }

    /// A required number within `range`.
    pub(crate) fn within<T>(&mut self, name: &str, range: impl RangeBounds<T>) -> T
    where
        T: FromNode + PartialOrd + std::fmt::Display,
    {
        let expected = format!("{} {}", T::number(), describe_range(&range));
        self.get_if(name, &expected, |value| range.contains(value))
    }

    /// A required sha256.
    pub(crate) fn sha256(&mut self, name: &str) -> String {
        self.get_if(name, "64 lowercase hex digits", |text: &String| is_sha256(text))
    }

    /// A required value that passes `valid`; `expected` says what that means.
    pub(crate) fn get_if<T: FromNode>(
        &mut self,
        name: &str,
        expected: &str,
        valid: impl Fn(&T) -> bool,
    ) -> T {
        let Some(node) = self.required(name, expected) else {
            return T::placeholder();
        };
        if let Some(value) = T::from_node(node).filter(&valid) {
            return value;
        }
        let (quoted, written) = with_quotes(&self.key(name), node);
        let hint = match T::from_node(&quoted).filter(&valid) {
            Some(_) => format!("; strings have quotes: `{written}`"),
            None => String::new(),
        };
        let wrong = match (T::wrong_item(node), &node.value) {
            (Some((index, expected)), Value::Array(items)) => {
                (format!("{name}[{index}]"), expected, &items[index])
            }
            _ => (name.to_owned(), expected.to_owned(), node),
        };
        let (name, expected, node) = wrong;
        let message = format!("expected {expected}, found {}{hint}", node.describe());
        self.problem_at(&node.origin, self.key(&name), message);
        T::placeholder()
    }

    /// A required string that is one of `choices`.
    pub(crate) fn choice<T: Copy>(&mut self, name: &str, choices: &[(&str, T)]) -> T {
        let names: Vec<String> = choices.iter().map(|(name, _)| format!("\"{name}\"")).collect();
        let expected = match names.as_slice() {
            [only] => only.clone(),
            [first @ .., last] => format!("{} or {last}", first.join(", ")),
            [] => unreachable!("a choice has choices"),
        };
        let find = |text: &str| choices.iter().find(|(name, _)| *name == text);
        let text: String = self.get_if(name, &expected, |text: &String| find(text).is_some());
        find(&text).unwrap_or(&choices[0]).1
    }

    /// A required table, read by `read`.
    pub(crate) fn table<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        let node = self.required(name, "a table")?;
        let mut reader = Reader::at(node, self.key(name));
        let value = read(&mut reader);
        self.problems.extend(reader.close());
        Some(value)
    }

    /// A table that may be left out, read by `read`.
    pub(crate) fn table_if_any<T>(
        &mut self,
        name: &str,
        read: impl FnOnce(&mut Reader<'_>) -> T,
    ) -> Option<T> {
        if self.has(name) { self.table(name, read) } else { None }
    }

    /// The keys that stand here.
    pub(crate) fn keys(&self) -> Vec<String> {
        self.entries.into_iter().flatten().map(|(name, _)| name.clone()).collect()
    }

    /// A required array of tables, each read by `read`.
    pub(crate) fn tables<T>(&mut self, name: &str, read: impl Fn(&mut Reader<'_>) -> T) -> Vec<T> {
        let Some(node) = self.required(name, "an array of tables") else {
            return Vec::new();
        };
        let Value::Array(items) = &node.value else {
            let message = format!("expected an array of tables, found {}", node.describe());
            self.problem_at(&node.origin, self.key(name), message);
            return Vec::new();
        };
        let mut values = Vec::new();
        for (index, item) in items.iter().enumerate() {
            let mut reader = Reader::at(item, self.key(&format!("{name}[{index}]")));
            values.push(read(&mut reader));
            self.problems.extend(reader.close());
        }
        values
    }

    /// The entries of a table whose keys are free, for instance names or dotted overrides.
    pub(crate) fn entries(&mut self) -> Vec<(String, Node)> {
        let entries: Vec<_> = self
            .entries
            .into_iter()
            .flatten()
            .filter(|(name, _)| !self.known.contains(name))
            .map(|(name, node)| (name.clone(), node.clone()))
            .collect();
        self.known.extend(entries.iter().map(|(name, _)| name.clone()));
        entries
    }

    /// Every problem of this table, unknown keys included.
    fn close(mut self) -> Vec<Problem> {
        for (name, node) in self.entries.into_iter().flatten() {
            if self.known.contains(name) {
                continue;
            }
            let hint = library_names::hint(name, &self.path, &self.known);
            let message = match (hint, nearest(name, &self.known)) {
                (Some(hint), _) => format!("unknown key; {hint}"),
                (None, Some(known)) => format!("unknown key; did you mean `{known}`?"),
                (None, None) => {
                    format!("unknown key; the keys here are {}", self.known.join(", "))
                }
            };
            let key = self.key(name);
            self.problem_at(&node.origin, key, message);
        }
        self.problems
    }

    /// `value`, if reading it met no problem.
    pub(crate) fn finish<T>(self, value: Option<T>) -> Result<T, ConfigError> {
        let mut problems = self.close();
        problems.sort_by(|a, b| a.origin.cmp(&b.origin));
        match value {
            Some(value) if problems.is_empty() => Ok(value),
            _ => Err(ConfigError::Problems(problems)),
        }
    }
}

/// The one of `known` that `name` was most likely meant to be, if it is like one.
pub(crate) fn nearest<'a>(
    name: &str,
    known: impl IntoIterator<Item = &'a String>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|known| (strsim::jaro_winkler(known, name), known.as_str()))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(similarity, _)| *similarity > 0.8)
        .map(|(_, known)| known)
}

/// What stands at `key` with quotes around what has none, and how to write it.
fn with_quotes(key: &str, node: &Node) -> (Node, String) {
    let mut quoted = node.quoted();
    let assignment = match &node.origin {
        Origin::Argument(argument) => argument.strip_prefix("--set "),
        Origin::File { .. } => None,
    };
    let Some((set, value)) = assignment.and_then(|assignment| assignment.split_once('=')) else {
        let written = quoted.text();
        return (quoted, written);
    };
    let is_plain = !matches!(node.value, Value::String(_) | Value::Array(_) | Value::Table(_));
    if set.trim() == key && is_plain {
        // As it was written: TOML has more than one way to write a number.
        quoted.value = Value::String(value.trim().into());
    }
    // Without quotes around all, a shell would take these away.
    let written = format!("--set '{key}={}'", quoted.text());
    (quoted, written)
}

fn describe_range<T: std::fmt::Display>(range: &impl RangeBounds<T>) -> String {
    let low = match range.start_bound() {
        Bound::Included(low) => format!("from {low}"),
        Bound::Excluded(low) => format!("above {low}"),
        Bound::Unbounded => String::new(),
    };
    let high = match range.end_bound() {
        Bound::Included(high) => format!("to {high}"),
        Bound::Excluded(high) => format!("below {high}"),
        Bound::Unbounded => String::new(),
    };
    [low, high].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ")
}

impl FromNode for bool {
    fn expected() -> String {
        "true or false".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match node.value {
            Value::Boolean(value) => Some(value),
            _ => None,
        }
    }
    fn placeholder() -> Self {
        false
    }
}

impl FromNode for String {
    fn expected() -> String {
        "a string".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::String(text) => Some(text.clone()),
            _ => None,
        }
    }
    fn placeholder() -> Self {
        String::new()
    }
}

impl FromNode for f64 {
    fn expected() -> String {
        "a number".into()
    }
    fn from_node(node: &Node) -> Option<Self> {
        match node.value {
            // -0.0 is 0.0, and no other configuration.
            Value::Float(value) if value.is_finite() => Some(value + 0.0),
            Value::Integer(value) => Some(value as f64),
            _ => None,
        }
    }
    fn placeholder() -> Self {
        0.0
    }
}

macro_rules! from_integer {
    ($($type:ty),*) => {$(
        impl FromNode for $type {
            fn expected() -> String {
                "an integer from 0".into()
            }
            fn number() -> String {
                "an integer".into()
            }
            fn from_node(node: &Node) -> Option<Self> {
                match node.value {
                    Value::Integer(value) => value.try_into().ok(),
                    _ => None,
                }
            }
            fn placeholder() -> Self {
                0
            }
        }
    )*};
}
from_integer!(usize, u32, u64);

impl<T: FromNode> FromNode for Vec<T> {
    fn expected() -> String {
        format!("an array, each item {}", T::expected())
    }
    fn from_node(node: &Node) -> Option<Self> {
        match &node.value {
            Value::Array(items) => items.iter().map(T::from_node).collect(),
            _ => None,
        }
    }
    fn wrong_item(node: &Node) -> Option<(usize, String)> {
        let Value::Array(items) = &node.value else { return None };
        let wrong = items.iter().position(|item| T::from_node(item).is_none())?;
        Some((wrong, T::expected()))
    }
    fn placeholder() -> Self {
        Vec::new()
    }
}
