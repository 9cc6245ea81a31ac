use std::collections::BTreeMap;
use std::path::Path;

use toml::de::{DeTable, DeValue};

use crate::{ConfigError, Origin};

/// Bytes of the longest array that is quoted as it stands.
const SHOWN: usize = 80;

/// A TOML tree whose every value remembers where it came from, so that layers can be laid over one
/// another and a mistake still names its file and line.
#[derive(Clone, Debug)]
pub struct Document {
    pub(crate) root: Node,
}

#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub(crate) value: Value,
    pub(crate) origin: Origin,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    String(String),
    Integer(i64),
    Float(f64),
    Boolean(bool),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
    /// A date: no key takes one, but the parser knows them.
    Other(&'static str),
}

impl PartialEq for Node {
    fn eq(&self, other: &Self) -> bool {
        self.value == other.value
    }
}

impl Document {
    /// Reads a TOML file.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        Self::parse(&fs_err::read_to_string(path)?, path)
    }

    /// Parses TOML text; `path` is what mistakes are reported under.
    pub fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let table = DeTable::parse(text).map_err(|error| ConfigError::Syntax {
            path: path.into(),
            reason: error.to_string().trim_end().into(),
        })?;
        let line_starts: Vec<usize> =
            std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        let origin = |at: usize| Origin::File {
            path: path.into(),
            line: line_starts.partition_point(|&start| start <= at),
        };
        Ok(Self { root: Node::from_table(table.get_ref(), 0, &origin) })
    }

    /// An empty document.
    pub fn empty(origin: Origin) -> Self {
        Self { root: Node { value: Value::Table(BTreeMap::new()), origin } }
    }

    /// Lays `upper` over `self`: tables are merged, any other value is replaced.
    pub fn overlay(&mut self, upper: Self) {
        self.root.overlay(upper.root);
    }

    /// Sets one dotted key from a `key=value` argument. The value is TOML; a bare word is a string. A
    /// table is laid over what is there, and an empty one takes its place: it would change nothing.
    pub fn set(&mut self, assignment: &str) -> Result<(), ConfigError> {
        let (key, value) = assignment
            .split_once('=')
            .map(|(key, value)| (key.trim(), value.trim()))
            .filter(|(key, value)| !key.is_empty() && !value.is_empty())
            .ok_or_else(|| ConfigError::Override(assignment.into()))?;
        let origin = Origin::Argument(format!("--set {assignment}"));
        let parse = |text: &str| {
            DeValue::parse(text)
                .ok()
                .map(|value| Node::from_value(value.get_ref(), 0, &|_| origin.clone()))
        };
        let node = parse(value)
            .unwrap_or_else(|| Node { value: Value::String(value.into()), origin: origin.clone() });
        let key = parts(key);
        if matches!(&node.value, Value::Table(table) if table.is_empty()) {
            self.remove(&key.iter().map(String::as_str).collect::<Vec<_>>());
        }
        self.insert_at(key, node);
        Ok(())
    }

    pub(crate) fn insert(&mut self, key: &str, node: Node) {
        self.insert_at(key.split('.').map(str::to_owned).collect(), node);
    }

    fn insert_at(&mut self, key: Vec<String>, node: Node) {
        let origin = node.origin.clone();
        let nested = key.into_iter().rev().fold(node, |node, part| Node {
            value: Value::Table(BTreeMap::from([(part, node)])),
            origin: origin.clone(),
        });
        self.root.overlay(nested);
    }

    /// Puts a string at a dotted key.
    pub(crate) fn insert_text(&mut self, key: &str, text: &str) {
        let origin = self.root.origin.clone();
        self.insert(key, Node { value: Value::String(text.into()), origin });
    }

    /// The string at a dotted key, if there is one.
    pub(crate) fn string(&self, key: &str) -> Option<(String, Origin)> {
        let node = self.node(key)?;
        match &node.value {
            Value::String(text) => Some((text.clone(), node.origin.clone())),
            _ => None,
        }
    }

    /// The keys of the table at a dotted key.
    pub(crate) fn keys(&self, key: &str) -> Vec<String> {
        match self.node(key).map(|node| &node.value) {
            Some(Value::Table(table)) => table.keys().cloned().collect(),
            _ => Vec::new(),
        }
    }

    fn node(&self, key: &str) -> Option<&Node> {
        key.split('.').try_fold(&self.root, |node, part| match &node.value {
            Value::Table(table) => table.get(part),
            _ => None,
        })
    }

    /// Takes an entry out, if it is there.
    pub(crate) fn remove(&mut self, key: &[&str]) -> Option<Node> {
        let (last, tables) = key.split_last()?;
        let mut node = &mut self.root;
        for part in tables {
            let Value::Table(table) = &mut node.value else { return None };
            node = table.get_mut(*part)?;
        }
        match &mut node.value {
            Value::Table(table) => table.remove(*last),
            _ => None,
        }
    }
}

impl Node {
    /// Whether this is a table with such a key.
    pub(crate) fn has(&self, key: &str) -> bool {
        matches!(&self.value, Value::Table(table) if table.contains_key(key))
    }

    fn from_table(table: &DeTable<'_>, at: usize, origin: &dyn Fn(usize) -> Origin) -> Self {
        let entries = table.iter().map(|(key, value)| {
            // An implicit table (`[a.b]` without `[a]`) has its key's position.
            let node = Self::from_value(value.get_ref(), key.span().start, origin);
            (key.get_ref().to_string(), node)
        });
        Self { value: Value::Table(entries.collect()), origin: origin(at) }
    }

    fn from_value(value: &DeValue<'_>, at: usize, origin: &dyn Fn(usize) -> Origin) -> Self {
        let value = match value {
            DeValue::Table(table) => return Self::from_table(table, at, origin),
            DeValue::String(text) => Value::String(text.to_string()),
            DeValue::Boolean(value) => Value::Boolean(*value),
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix())
                .map_or(Value::Other("an integer beyond 64 bits"), Value::Integer),
            DeValue::Float(float) => {
                float.as_str().parse().map_or(Value::Other("a number"), Value::Float)
            }
            DeValue::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| Self::from_value(item.get_ref(), item.span().start, origin))
                    .collect(),
            ),
            DeValue::Datetime(_) => Value::Other("a date"),
        };
        Self { value, origin: origin(at) }
    }

    fn overlay(&mut self, upper: Self) {
        match (&mut self.value, upper.value) {
            (Value::Table(lower), Value::Table(entries)) => {
                for (key, node) in entries {
                    match lower.get_mut(&key) {
                        Some(existing) => existing.overlay(node),
                        None => {
                            lower.insert(key, node);
                        }
                    }
                }
            }
            (_, value) => *self = Self { value, origin: upper.origin },
        }
    }

    /// The value as TOML has it, or nearly so.
    pub(crate) fn text(&self) -> String {
        match &self.value {
            Value::String(text) => format!("\"{text}\""),
            Value::Integer(value) => value.to_string(),
            // The shortest form that reads back: 5e-5, 0.001.
            Value::Float(value) => format!("{value:?}"),
            Value::Boolean(value) => value.to_string(),
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(Self::text).collect();
                format!("[{}]", items.join(", "))
            }
            Value::Table(entries) => {
                let entries: Vec<String> =
                    entries.iter().map(|(key, node)| format!("{key} = {}", node.text())).collect();
                format!("{{ {} }}", entries.join(", "))
            }
            Value::Other(kind) => (*kind).into(),
        }
    }

    /// The same as a string, or as an array of strings, that a person may have meant by what they wrote
    /// without quotes.
    pub(crate) fn quoted(&self) -> Self {
        let origin = self.origin.clone();
        let value = match &self.value {
            Value::Array(items) => Value::Array(items.iter().map(Self::quoted).collect()),
            Value::Integer(_) | Value::Float(_) | Value::Boolean(_) => Value::String(self.text()),
            value => value.clone(),
        };
        Self { value, origin }
    }

    /// What the value is, in words.
    pub(crate) fn describe(&self) -> String {
        match &self.value {
            Value::String(text) => format!("the string {text:?}"),
            Value::Integer(value) => format!("the integer {value}"),
            Value::Float(value) => format!("the number {value}"),
            Value::Boolean(value) => format!("{value}"),
            Value::Array(items) => match self.text() {
                text if text.len() <= SHOWN => format!("the array {text}"),
                _ => format!("an array of {}", items.len()),
            },
            Value::Table(_) => "a table".into(),
            Value::Other(kind) => (*kind).into(),
        }
    }
}

/// The parts of a dotted key: of one as TOML has them, quoted where it must be, or of one like
/// `method.sources.ko,nsmc`, which TOML would want quoted.
fn parts(key: &str) -> Vec<String> {
    let Ok(table) = format!("{key} = 0").parse::<toml::Table>() else {
        return key.split('.').map(str::to_owned).collect();
    };
    let mut parts = Vec::new();
    let mut next = Some(table);
    while let Some((part, value)) = next.and_then(|table| table.into_iter().next()) {
        parts.push(part);
        next = match value {
            toml::Value::Table(table) => Some(table),
            _ => None,
        };
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document(text: &str) -> Document {
        Document::parse(text, Path::new("file.toml")).unwrap()
    }

    fn lookup<'a>(document: &'a Document, key: &str) -> &'a Node {
        key.split('.').fold(&document.root, |node, part| match &node.value {
            Value::Table(table) => &table[part],
            value => panic!("{value:?} is no table"),
        })
    }

    #[test]
    fn a_value_knows_its_line() {
        let document = document("# comment\n[a]\nx = 1\n\n[a.b]\ny = [1,\n  2]\n");
        let line = |key| match &lookup(&document, key).origin {
            Origin::File { line, .. } => *line,
            origin => panic!("{origin:?}"),
        };
        assert_eq!((line("a.x"), line("a.b"), line("a.b.y")), (3, 5, 6));
    }

    #[test]
    fn a_key_may_be_quoted_where_toml_has_it_quoted_and_need_not_be() {
        for (assignment, expected) in [
            ("a.b = 2", ["a", "b"].as_slice()),
            ("sources.\"ko,nsmc\".from=2", &["sources", "ko,nsmc", "from"]),
            ("sources.ko,nsmc.from=2", &["sources", "ko,nsmc", "from"]),
            ("rank_pattern.\"layer.0.query\"=2", &["rank_pattern", "layer.0.query"]),
        ] {
            let mut document = document("[a]\nx = 1\n");
            document.set(assignment).unwrap();
            let found = expected.iter().fold(&document.root, |node, &part| match &node.value {
                Value::Table(table) => &table[part],
                value => panic!("{assignment}: {value:?} is no table"),
            });
            assert_eq!(found.value, Value::Integer(2), "{assignment}");
            assert_eq!(lookup(&document, "a.x").value, Value::Integer(1));
        }
    }

    #[test]
    fn an_upper_layer_replaces_leaves_and_keeps_the_rest() {
        let mut lower = document("[a]\nx = 1\ny = 2\n[b]\nz = 3\n");
        lower.overlay(document("[a]\ny = \"two\"\n"));
        assert_eq!(lookup(&lower, "a.x").value, Value::Integer(1));
        assert_eq!(lookup(&lower, "a.y").value, Value::String("two".into()));
        assert_eq!(lookup(&lower, "b.z").value, Value::Integer(3));
    }

    #[test]
    fn a_syntax_error_is_told_once() {
        let error = Document::parse("seed = \n", Path::new("run.toml")).unwrap_err();
        let message = error.to_string();
        assert!(message.starts_with("run.toml: not valid TOML: TOML parse error at line 1"));
        assert_eq!(message.trim_end(), message);
        // A chain of errors is printed with all its links.
        assert!(std::error::Error::source(&error).is_none());
    }

    #[test]
    fn set_takes_toml_and_bare_words() {
        let mut document = document("[training]\nlearning_rate = 1.0\n");
        for assignment in ["training.learning_rate=2e-5", "model.name=mini", "a.list=[1, 2]"] {
            document.set(assignment).unwrap();
        }
        assert_eq!(lookup(&document, "training.learning_rate").value, Value::Float(2e-5));
        assert_eq!(lookup(&document, "model.name").value, Value::String("mini".into()));
        assert!(
            matches!(&lookup(&document, "a.list").value, Value::Array(items) if items.len() == 2)
        );
        assert!(matches!(document.set("no value"), Err(ConfigError::Override(_))));
        for (value, left) in [("{ model = 1 }", 2), ("{}", 0)] {
            document.set(&format!("model={value}")).unwrap();
            assert_eq!(document.keys("model").len(), left, "{value}");
        }
    }
}
