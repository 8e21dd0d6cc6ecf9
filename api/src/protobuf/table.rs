//! The table of messages, read once from `data/protobuf.txt`, whose text it borrows.

use std::sync::LazyLock;

/// What is written `apiVersion message` a message and ` number name type` a field; `cargo xtask-kinds` makes it.
static TEXT: &str = include_str!("../../data/protobuf.txt");

pub(super) static TABLE: LazyLock<Table> = LazyLock::new(|| Table::parse(TEXT));

/// Where the messages are that every group version shares.
const META: &str = "k8s.io.apimachinery.pkg.apis.meta.v1";

/// The type of one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    String,
    Int32,
    Int64,
    Bool,
    Double,
    Bytes,
    /// `meta.v1.Time` and `MicroTime`: seconds and nanoseconds; RFC 3339 in JSON.
    Time {
        micros: bool,
    },
    /// JSON text in field 1.
    Raw,
    /// The text in field 1.
    Quantity,
    /// Which of the two in field 1, a number in 2, a string in 3.
    IntOrString,
    /// A list in field 1.
    Strings,
    /// A boolean in field 1, a schema (this message) in 2.
    SchemaOrBool(u16),
    /// A schema in field 1, a list of them in 2.
    SchemaOrList(u16),
    /// A schema in field 1, a list of strings in 2.
    SchemaOrStrings(u16),
    /// A message of the table.
    Message(u16),
}

/// How many values a field has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    One,
    /// One whose fields are its parent's in JSON.
    Inline,
    List,
    /// Entries with a string in field 1 and the value in 2.
    Map,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    /// The name in JSON.
    pub name: &'static str,
    pub number: u32,
    pub ty: Type,
    pub shape: Shape,
    /// Whether a zero is a value of its own.
    pub keeps_zero: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    /// `-` where the message is no kind.
    api_version: &'static str,
    name: &'static str,
    fields: (u16, u16),
}

/// All messages, sorted by name, each with its fields sorted by number.
#[derive(Debug, Default)]
pub(super) struct Table {
    messages: Vec<Message>,
    fields: Vec<Field>,
}

impl Table {
    fn parse(text: &'static str) -> Self {
        let mut table = Self::default();
        for line in text.lines().filter(|line| !line.starts_with(' ')) {
            let (api_version, name) = line.split_once(' ').unwrap_or(("-", line));
            table.messages.push(Message { api_version, name, fields: (0, 0) });
        }
        let mut at = 0;
        for line in text.lines() {
            match line.strip_prefix(' ') {
                Some(field) => {
                    if let Some(field) = table.field(field, table.messages[at - 1].name) {
                        table.fields.push(field);
                        table.messages[at - 1].fields.1 += 1;
                    }
                }
                None => {
                    table.messages[at].fields = (index(table.fields.len()), index(table.fields.len()));
                    at += 1;
                }
            }
        }
        table.fields.shrink_to_fit();
        table
    }

    fn field(&self, line: &'static str, owner: &str) -> Option<Field> {
        let mut words = line.split(' ');
        let (number, name, word) = (words.next()?.parse().ok()?, words.next()?, words.next()?);
        let keeps_zero = word.starts_with(['*', '!']);
        let word = word.trim_start_matches(['*', '!']);
        let shapes = [("~", Shape::Inline), ("[]", Shape::List), ("{}", Shape::Map)];
        let (shape, word) = shapes
            .into_iter()
            .find_map(|(prefix, shape)| word.strip_prefix(prefix).map(|rest| (shape, rest)))
            .unwrap_or((Shape::One, word));
        Some(Field { name, number, ty: self.ty(word, owner)?, shape, keeps_zero })
    }

    fn ty(&self, word: &str, owner: &str) -> Option<Type> {
        let package = owner.rsplit_once('.').map_or("", |(package, _)| package);
        let message = |name: &str| {
            if name.contains('.') { self.named(name) } else { self.named(&format!("{package}.{name}")) }
        };
        Some(match word {
            "string" => Type::String,
            "int32" => Type::Int32,
            "int64" => Type::Int64,
            "bool" => Type::Bool,
            "double" => Type::Double,
            "bytes" => Type::Bytes,
            "time" => Type::Time { micros: false },
            "microtime" => Type::Time { micros: true },
            "raw" => Type::Raw,
            "quantity" => Type::Quantity,
            "intorstring" => Type::IntOrString,
            "strings" => Type::Strings,
            "schemaorbool" => Type::SchemaOrBool(message("JSONSchemaProps")?),
            "schemaorarray" => Type::SchemaOrList(message("JSONSchemaProps")?),
            "schemaorstrings" => Type::SchemaOrStrings(message("JSONSchemaProps")?),
            name => Type::Message(message(name)?),
        })
    }

    fn named(&self, name: &str) -> Option<u16> {
        self.messages.binary_search_by(|message| message.name.cmp(name)).ok().map(index)
    }

    /// The message of a kind. Every group version has its own `DeleteOptions`, all of one form.
    pub(super) fn kind(&self, api_version: &str, kind: &str) -> Option<Message> {
        let is_kind = |m: &&Message| m.name.rsplit('.').next() == Some(kind);
        let exact = self.messages.iter().filter(|m| m.api_version == api_version).find(is_kind);
        let shared =
            kind == "DeleteOptions" || (api_version == "meta.k8s.io/v1beta1" && kind == "PartialObjectMetadata");
        exact.copied().or_else(|| {
            let at = if shared { self.named(&format!("{META}.{kind}")) } else { None };
            at.map(|at| self.message(at))
        })
    }

    pub(super) fn message(&self, at: u16) -> Message {
        self.messages[usize::from(at)]
    }

    pub(super) fn fields(&self, message: Message) -> &[Field] {
        &self.fields[usize::from(message.fields.0)..usize::from(message.fields.1)]
    }

    /// The field with a number.
    pub(super) fn numbered(&self, message: Message, number: u32) -> Option<Field> {
        let fields = self.fields(message);
        fields.binary_search_by_key(&number, |field| field.number).ok().map(|at| fields[at])
    }

    #[cfg(test)]
    pub(super) fn kinds(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        let kinds = self.messages.iter().filter(|m| m.api_version != "-");
        kinds.map(|m| (m.api_version, m.name.rsplit('.').next().unwrap_or_default()))
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.messages.len(), self.fields.len())
    }
}

/// The table has a few thousand entries; its tests hold that none is lost.
fn index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}
