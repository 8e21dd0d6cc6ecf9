//! Requirements on labels.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde_json::Value;

use super::{
    lexer::{Token, scan},
    rules,
};
use crate::{object::Object, status::FieldError};

/// Something that has labels.
pub trait Labels {
    /// The value of a label.
    fn label(&self, key: &str) -> Option<&str>;
}

impl Labels for BTreeMap<String, String> {
    fn label(&self, key: &str) -> Option<&str> {
        self.get(key).map(String::as_str)
    }
}

impl<T: Labels> Labels for Option<T> {
    fn label(&self, key: &str) -> Option<&str> {
        self.as_ref()?.label(key)
    }
}

impl Labels for Vec<(String, String)> {
    /// Works on pairs in any order; there are few.
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str())
    }
}

impl Labels for [(&str, &str)] {
    fn label(&self, key: &str) -> Option<&str> {
        self.iter().find(|(k, _)| *k == key).map(|(_, v)| *v)
    }
}

impl Labels for Object {
    fn label(&self, key: &str) -> Option<&str> {
        self.str_at(&["metadata", "labels", key])
    }
}

/// How a requirement relates a label to its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "the names are those of the selector syntax")]
pub enum Operator {
    Equals,
    DoubleEquals,
    NotEquals,
    In,
    NotIn,
    Exists,
    DoesNotExist,
    Greater,
    Less,
}

/// One requirement on one label.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// How the label relates to the values.
    pub operator: Operator,
    /// The values, sorted, each once.
    pub values: Vec<String>,
}

impl Requirement {
    /// A requirement, if key and values are such as labels can have; else what Kubernetes says of them.
    pub fn new(key: &str, operator: Operator, mut values: Vec<String>) -> Result<Self, String> {
        values.sort();
        values.dedup();
        let mut errors = Vec::new();
        let problems = rules::key_problems(key);
        if !problems.is_empty() {
            errors.push(FieldError::invalid("key", key, problems.join("; ")));
        }
        errors.extend(count_error(operator, &values));
        for (index, value) in values.iter().enumerate() {
            let problems = rules::value_problems(value);
            if !problems.is_empty() {
                errors.push(FieldError::invalid(
                    format!("values[{index}][{key}]"),
                    value.as_str(),
                    problems.join("; "),
                ));
            }
        }
        match errors.as_slice() {
            [] => Ok(Self { key: key.to_owned(), operator, values }),
            [one] => Err(one.to_string()),
            many => Err(format!("[{}]", many.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "))),
        }
    }

    /// Whether labels satisfy it.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        let value = labels.label(&self.key);
        let is_listed = |value: &str| self.values.iter().any(|listed| listed == value);
        match self.operator {
            Operator::Equals | Operator::DoubleEquals | Operator::In => value.is_some_and(is_listed),
            Operator::NotEquals | Operator::NotIn => !value.is_some_and(is_listed),
            Operator::Exists => value.is_some(),
            Operator::DoesNotExist => value.is_none(),
            Operator::Greater => self.numbers(value).is_some_and(|(label, bound)| label > bound),
            Operator::Less => self.numbers(value).is_some_and(|(label, bound)| label < bound),
        }
    }

    fn numbers(&self, value: Option<&str>) -> Option<(i64, i64)> {
        Some((value?.parse().ok()?, self.values.first()?.parse().ok()?))
    }
}

/// What is wrong with the number (and for `gt` and `lt` the form) of the values.
fn count_error(operator: Operator, values: &[String]) -> Option<FieldError> {
    let list = || Value::from(values.to_vec());
    let detail = match (operator, values) {
        (Operator::In | Operator::NotIn, []) => "for 'in', 'notin' operators, values set can't be empty",
        (Operator::In | Operator::NotIn, _) | (Operator::Exists | Operator::DoesNotExist, []) => return None,
        (Operator::Exists | Operator::DoesNotExist, _) => "values set must be empty for exists and does not exist",
        (Operator::Greater | Operator::Less, [one]) => {
            let detail = "for 'Gt', 'Lt' operators, the value must be an integer";
            return one.parse::<i64>().is_err().then(|| FieldError::invalid("values[0]", one.as_str(), detail));
        }
        (Operator::Greater | Operator::Less, _) => "for 'Gt', 'Lt' operators, exactly one value is required",
        (_, [_]) => return None,
        _ => "exact-match compatibility requires one single value",
    };
    Some(FieldError::invalid("values", list(), detail))
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let values = self.values.join(",");
        match self.operator {
            Operator::Exists => write!(f, "{}", self.key),
            Operator::DoesNotExist => write!(f, "!{}", self.key),
            Operator::Equals => write!(f, "{}={values}", self.key),
            Operator::DoubleEquals => write!(f, "{}=={values}", self.key),
            Operator::NotEquals => write!(f, "{}!={values}", self.key),
            Operator::In => write!(f, "{} in ({values})", self.key),
            Operator::NotIn => write!(f, "{} notin ({values})", self.key),
            Operator::Greater => write!(f, "{}>{values}", self.key),
            Operator::Less => write!(f, "{}<{values}", self.key),
        }
    }
}

/// Requirements on labels that must all hold. Without any it matches everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LabelSelector {
    requirements: Vec<Requirement>,
    /// Matches no object whatever its labels: what an absent `LabelSelector` object means.
    nothing: bool,
}

impl LabelSelector {
    /// The selector that matches everything.
    pub fn everything() -> Self {
        Self::default()
    }

    /// The selector that matches nothing.
    pub fn nothing() -> Self {
        Self { requirements: Vec::new(), nothing: true }
    }

    /// The selector of these requirements, in the order of their keys.
    pub fn new(mut requirements: Vec<Requirement>) -> Self {
        requirements.sort_by(|a, b| a.key.cmp(&b.key));
        Self { requirements, nothing: false }
    }

    /// Parses the string syntax: `a=b,c!=d,e in (x,y),f notin (z),g,!h,i>1,j<2`. Errors are worded as by Kubernetes.
    pub fn parse(text: &str) -> Result<Self, String> {
        Parser { tokens: scan(text), at: 0 }.parse().map(Self::new)
    }

    /// The selector whose labels must all be equal (a Service's `spec.selector`); an empty map matches everything.
    pub fn from_pairs<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let equal = |(key, value): (&str, &str)| Requirement {
            key: key.to_owned(),
            operator: Operator::Equals,
            values: vec![value.to_owned()],
        };
        Self::new(pairs.into_iter().map(equal).collect())
    }

    /// The selector of a `LabelSelector` object as JSON; null or absent matches nothing, an empty one everything.
    pub fn from_value(value: Option<&Value>) -> Result<Self, String> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(Self::nothing()) };
        let typed: meta::LabelSelector = serde::Deserialize::deserialize(value).map_err(|error| error.to_string())?;
        Self::try_from(&typed)
    }

    /// Whether labels satisfy all requirements.
    pub fn matches<L: Labels + ?Sized>(&self, labels: &L) -> bool {
        !self.nothing && self.requirements.iter().all(|requirement| requirement.matches(labels))
    }

    /// Whether there is no requirement.
    pub fn is_everything(&self) -> bool {
        !self.nothing && self.requirements.is_empty()
    }

    /// Whether nothing can match.
    pub fn is_nothing(&self) -> bool {
        self.nothing
    }

    /// The requirements, in the order of their keys.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }
}

impl TryFrom<&meta::LabelSelector> for LabelSelector {
    type Error = String;

    fn try_from(object: &meta::LabelSelector) -> Result<Self, String> {
        let mut requirements = Vec::new();
        for (key, value) in object.match_labels.iter().flatten() {
            requirements.push(Requirement::new(key, Operator::Equals, vec![value.clone()])?);
        }
        for expression in object.match_expressions.iter().flatten() {
            let operator = match expression.operator.as_str() {
                "In" => Operator::In,
                "NotIn" => Operator::NotIn,
                "Exists" => Operator::Exists,
                "DoesNotExist" => Operator::DoesNotExist,
                other => return Err(format!("{other:?} is not a valid label selector operator")),
            };
            let values = expression.values.clone().unwrap_or_default();
            requirements.push(Requirement::new(&expression.key, operator, values)?);
        }
        Ok(Self::new(requirements))
    }
}

impl fmt::Display for LabelSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.requirements.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{requirement}")?;
        }
        Ok(())
    }
}

/// A recursive-descent parser over the words of a selector.
struct Parser<'a> {
    tokens: Vec<(Token, &'a str)>,
    at: usize,
}

impl<'a> Parser<'a> {
    /// The next word, as an operator may be found there.
    fn peek_raw(&self) -> (Token, &'a str) {
        self.tokens.get(self.at).copied().unwrap_or((Token::End, ""))
    }

    /// The next word where a key or a value is expected: `in` and `notin` are then words like any other.
    fn peek(&self) -> (Token, &'a str) {
        match self.peek_raw() {
            (Token::In | Token::NotIn, literal) => (Token::Identifier, literal),
            other => other,
        }
    }

    fn next(&mut self) -> (Token, &'a str) {
        let token = self.peek();
        self.at += 1;
        token
    }

    fn parse(mut self) -> Result<Vec<Requirement>, String> {
        let mut requirements = Vec::new();
        loop {
            match self.peek() {
                (Token::Identifier | Token::Not, _) => {
                    let requirement = self.requirement();
                    requirements.push(requirement.map_err(|e| format!("unable to parse requirement: {e}"))?);
                }
                (Token::End, _) => return Ok(requirements),
                (_, lit) => return Err(format!("found '{lit}', expected: !, identifier, or 'end of string'")),
            }
            match self.next() {
                (Token::End, _) => return Ok(requirements),
                (Token::Comma, _) => {}
                (_, lit) => return Err(format!("found '{lit}', expected: ',' or 'end of string'")),
            }
            let (token, lit) = self.peek();
            if !matches!(token, Token::Identifier | Token::Not) {
                return Err(format!("found '{lit}', expected: identifier after ','"));
            }
        }
    }

    fn requirement(&mut self) -> Result<Requirement, String> {
        let (mut token, mut key) = self.next();
        let negated = token == Token::Not;
        if negated {
            (token, key) = self.next();
        }
        if token != Token::Identifier {
            return Err(format!("found '{key}', expected: identifier"));
        }
        let problems = rules::key_problems(key);
        if !problems.is_empty() {
            return Err(FieldError::invalid("<nil>", key, problems.join("; ")).to_string());
        }
        if negated {
            return Requirement::new(key, Operator::DoesNotExist, Vec::new());
        }
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Requirement::new(key, Operator::Exists, Vec::new());
        }
        let operator = self.operator()?;
        let values = match operator {
            Operator::In | Operator::NotIn => self.values()?,
            _ => vec![self.exact_value()?],
        };
        Requirement::new(key, operator, values)
    }

    fn operator(&mut self) -> Result<Operator, String> {
        let (token, lit) = self.peek_raw();
        self.at += 1;
        Ok(match token {
            Token::In => Operator::In,
            Token::NotIn => Operator::NotIn,
            Token::Equals => Operator::Equals,
            Token::DoubleEquals => Operator::DoubleEquals,
            Token::NotEquals => Operator::NotEquals,
            Token::Greater => Operator::Greater,
            Token::Less => Operator::Less,
            _ => return Err(format!("found '{lit}', expected: in, notin, =, ==, !=, gt, lt")),
        })
    }

    fn exact_value(&mut self) -> Result<String, String> {
        if matches!(self.peek().0, Token::End | Token::Comma) {
            return Ok(String::new());
        }
        match self.next() {
            (Token::Identifier, lit) => Ok(lit.to_owned()),
            (_, lit) => Err(format!("found '{lit}', expected: identifier")),
        }
    }

    /// `(a,b)`: an empty place between commas or parentheses is the empty value.
    fn values(&mut self) -> Result<Vec<String>, String> {
        match self.next() {
            (Token::Open, _) => {}
            (_, lit) => return Err(format!("found '{lit}' expected: '('")),
        }
        let mut values = Vec::new();
        loop {
            if self.peek().0 == Token::Identifier {
                values.push(self.next().1.to_owned());
            } else {
                values.push(String::new());
            }
            match self.next() {
                (Token::Close, _) => return Ok(values),
                (Token::Comma, _) => {}
                (_, lit) => return Err(format!("found '{lit}', expected: ',' or ')'")),
            }
        }
    }
}
