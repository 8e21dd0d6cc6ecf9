//! What names of objects, labels, ports and keys may look like, with Kubernetes' sentences for those that may not.
//!
//! Each function returns what is wrong with a text; an empty list means nothing is. The rules and words are those
//! of `k8s.io/apimachinery/pkg/util/validation`.

/// The longest DNS label (RFC 1123).
pub const MAX_LABEL_CHARS: usize = 63;
/// The longest DNS subdomain (RFC 1123).
pub const MAX_SUBDOMAIN_CHARS: usize = 253;
/// The longest name of a port (RFC 6335).
pub const MAX_PORT_NAME_CHARS: usize = 15;

const LABEL: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const SUBDOMAIN: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*";
const LABEL_1035: &str = "[a-z]([-a-z0-9]*[a-z0-9])?";
const QUALIFIED: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
const QUALIFIED_WORDS: &str =
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";

/// What is wrong with a text; empty where nothing is.
pub type Faults = Vec<String>;

/// The sentence for a text that does not match a pattern.
fn pattern(words: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    format!("{words} (e.g. {}regex used for validation is '{regex}')", examples.join(" or "))
}

fn too_long(max: usize) -> String {
    format!("must be no more than {max} characters")
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let inner = |byte: &u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || *byte == b'-';
    !bytes.is_empty() && bytes.iter().all(inner) && !text.starts_with('-') && !text.ends_with('-')
}

fn is_qualified(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    let edge = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    text.bytes().all(inner) && edge(text.as_bytes().first()) && edge(text.as_bytes().last())
}

/// A DNS label as RFC 1123 has it, e.g. the name of a namespace or a container.
pub fn dns_label(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > MAX_LABEL_CHARS {
        faults.push(too_long(MAX_LABEL_CHARS));
    }
    if !is_label(text) {
        let words = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must \
                     start and end with an alphanumeric character";
        faults.push(pattern(words, LABEL, &["my-name", "123-abc"]));
    }
    faults
}

/// A DNS subdomain as RFC 1123 has it: the name of most objects.
pub fn dns_subdomain(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > MAX_SUBDOMAIN_CHARS {
        faults.push(too_long(MAX_SUBDOMAIN_CHARS));
    }
    if !text.split('.').all(is_label) {
        let words = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', \
                     and must start and end with an alphanumeric character";
        faults.push(pattern(words, SUBDOMAIN, &["example.com"]));
    }
    faults
}

/// A DNS label as RFC 1035 has it: the name of a Service.
pub fn dns_1035_label(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > MAX_LABEL_CHARS {
        faults.push(too_long(MAX_LABEL_CHARS));
    }
    if !is_label(text) || !text.starts_with(|first: char| first.is_ascii_lowercase()) {
        let words = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an \
                     alphabetic character, and end with an alphanumeric character";
        faults.push(pattern(words, LABEL_1035, &["my-name", "abc-123"]));
    }
    faults
}

/// A name with an optional DNS subdomain and a slash before it: keys of labels and annotations, resources, finalizers.
pub fn qualified_name(text: &str) -> Faults {
    let examples = ["MyName", "my.name", "123-abc"];
    let (prefix, name) = match text.split('/').collect::<Vec<_>>()[..] {
        [name] => (None, name),
        [prefix, name] => (Some(prefix), name),
        _ => {
            let words = pattern(QUALIFIED_WORDS, QUALIFIED, &examples);
            return vec![format!(
                "a qualified name {words} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
            )];
        }
    };
    let mut faults = Vec::new();
    match prefix {
        Some("") => faults.push("prefix part must be non-empty".to_owned()),
        Some(prefix) => faults.extend(dns_subdomain(prefix).into_iter().map(|fault| format!("prefix part {fault}"))),
        None => {}
    }
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_LABEL_CHARS {
        faults.push(format!("name part {}", too_long(MAX_LABEL_CHARS)));
    }
    if !is_qualified(name) {
        faults.push(format!("name part {}", pattern(QUALIFIED_WORDS, QUALIFIED, &examples)));
    }
    faults
}

/// The value of a label.
pub fn label_value(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > MAX_LABEL_CHARS {
        faults.push(too_long(MAX_LABEL_CHARS));
    }
    if !text.is_empty() && !is_qualified(text) {
        let words = format!(
            "a valid label must be an empty string or consist of {}",
            &QUALIFIED_WORDS["must consist of ".len()..]
        );
        faults.push(pattern(&words, &format!("({QUALIFIED})?"), &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// A segment of a path: the name of a Role and of the others of its group.
pub fn path_segment(text: &str) -> Faults {
    match text {
        "." | ".." => vec![format!("may not be '{text}'")],
        _ => {
            ["/", "%"].iter().filter(|bad| text.contains(**bad)).map(|bad| format!("may not contain '{bad}'")).collect()
        }
    }
}

/// The name of a port of a container or Service (an IANA service name).
pub fn port_name(text: &str) -> Faults {
    let mut faults = Vec::new();
    let mut fault = |is_wrong: bool, words: &str| {
        if is_wrong {
            faults.push(words.to_owned());
        }
    };
    fault(text.len() > MAX_PORT_NAME_CHARS, &too_long(MAX_PORT_NAME_CHARS));
    let known = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    fault(!text.bytes().all(known), "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)");
    fault(!text.bytes().any(|byte| byte.is_ascii_lowercase()), "must contain at least one letter (a-z)");
    fault(text.contains("--"), "must not contain consecutive hyphens");
    fault(text.starts_with('-') || text.ends_with('-'), "must not begin or end with a hyphen");
    faults
}

/// A port.
pub fn port_number(port: i64) -> Faults {
    if (1..=65_535).contains(&port) { Vec::new() } else { vec!["must be between 1 and 65535, inclusive".to_owned()] }
}

/// The key of an entry of a ConfigMap or Secret.
pub fn config_key(text: &str) -> Faults {
    let mut faults = Vec::new();
    if text.len() > MAX_SUBDOMAIN_CHARS {
        faults.push(too_long(MAX_SUBDOMAIN_CHARS));
    }
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    if text.is_empty() || !text.bytes().all(inner) {
        let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(pattern(words, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." | ".." => faults.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// The name of an environment variable (KEP-4369: any printable ASCII but `=`).
pub fn env_name(text: &str) -> Faults {
    let inner = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b'=';
    if !text.is_empty() && text.bytes().all(inner) {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_told_apart() {
        let long = "a".repeat(64);
        for good in ["a", "a-b", "1", "123-abc"] {
            assert!(dns_label(good).is_empty(), "{good}");
            assert!(dns_subdomain(good).is_empty(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", "\u{e9}", long.as_str()] {
            assert!(!dns_label(bad).is_empty(), "{bad}");
        }
        for bad in ["", ".", "a..b", "a.", "a/b", "A"] {
            assert!(!dns_subdomain(bad).is_empty(), "{bad}");
        }
        assert!(!dns_1035_label("1a").is_empty());
        for good in ["a", "A.b_c", "example.com/name"] {
            assert!(qualified_name(good).is_empty(), "{good}");
        }
        for bad in ["", "/a", "a/", "a/b/c", "Ex.com/a", "a b"] {
            assert!(!qualified_name(bad).is_empty(), "{bad}");
        }
        assert!(label_value("").is_empty() && label_value("a_b.C").is_empty() && !label_value("-").is_empty());
        assert!(
            path_segment("system:node").is_empty() && !path_segment("a/b").is_empty() && !path_segment("..").is_empty()
        );
        assert!(port_name("http").is_empty() && !port_name("1").is_empty() && !port_name("a--b").is_empty());
        assert!(config_key("a.b-c_D").is_empty() && !config_key("..a").is_empty() && !config_key("a b").is_empty());
        assert!(env_name("a.b").is_empty() && !env_name("a=b").is_empty());
    }

    #[test]
    fn sentences_are_kubernetes_own() {
        assert_eq!(
            dns_label("A"),
            [
                "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and \
              end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
              '[a-z0-9]([-a-z0-9]*[a-z0-9])?')"
            ]
        );
        assert_eq!(
            label_value("-"),
            ["a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must \
              start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used \
              for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"]
        );
    }
}
