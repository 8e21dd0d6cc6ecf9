#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;

use super::*;

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()
}

#[test]
fn selectors_match_as_in_kubernetes() {
    let web = labels(&[("app", "web"), ("tier", "front"), ("gen", "7")]);
    let cases = [
        ("", true),
        ("app=web", true),
        ("app==web,tier=front", true),
        ("app=db", false),
        ("app!=db", true),
        ("absent!=x", true),
        ("absent notin (x,y)", true),
        ("app in (db, web)", true),
        ("app notin (db,web)", false),
        ("app", true),
        ("!app", false),
        ("!absent", true),
        ("gen>6,gen<8", true),
        ("gen>7", false),
        ("app>1", false),
        ("absent=", false),
        (" app = web , tier in ( front ) ", true),
        ("in=x", false),
        ("app in (,web)", true),
    ];
    for (text, expected) in cases {
        assert_eq!(LabelSelector::parse(text).unwrap().matches(&web), expected, "{text}");
    }
}

#[test]
fn label_selectors_print_back() {
    for (text, printed) in [
        ("b=c,a", "a,b=c"),
        ("x in (z,y,y)", "x in (y,z)"),
        ("!k,j!=1,i notin (2)", "i notin (2),j!=1,!k"),
        ("a>1,b<2,c==3", "a>1,b<2,c==3"),
        ("x in (a,,b)", "x in (,a,b)"),
        ("x in ()", "x in ()"),
    ] {
        let selector = LabelSelector::parse(text).unwrap();
        assert_eq!(selector.to_string(), printed);
        assert_eq!(LabelSelector::parse(printed).unwrap(), selector);
    }
}

#[test]
fn label_selector_errors_are_worded_as_by_kubernetes() {
    for (text, expected) in [
        ("a=b,", "found '', expected: identifier after ','"),
        (",a", "found ',', expected: !, identifier, or 'end of string'"),
        ("a b", "unable to parse requirement: found 'b', expected: in, notin, =, ==, !=, gt, lt"),
        ("a=b c", "found 'c', expected: ',' or 'end of string'"),
        ("a in b", "unable to parse requirement: found 'b' expected: '('"),
        (
            "a>x",
            "unable to parse requirement: values[0]: Invalid value: \"x\": for 'Gt', 'Lt' operators, the value must be an integer",
        ),
    ] {
        assert_eq!(LabelSelector::parse(text).unwrap_err(), expected, "{text}");
    }
    let bad_key = LabelSelector::parse("-a=b").unwrap_err();
    assert!(
        bad_key.starts_with("unable to parse requirement: <nil>: Invalid value: \"-a\": name part must consist of"),
        "{bad_key}"
    );
    let bad_value = LabelSelector::parse("a=-b").unwrap_err();
    assert!(
        bad_value
            .starts_with("unable to parse requirement: values[0][a]: Invalid value: \"-b\": a valid label must be"),
        "{bad_value}"
    );
}

#[test]
fn label_selector_objects() {
    let object = meta::LabelSelector {
        match_labels: Some(labels(&[("app", "web")])),
        match_expressions: Some(vec![meta::LabelSelectorRequirement {
            key: "tier".to_owned(),
            operator: "NotIn".to_owned(),
            values: Some(vec!["back".to_owned()]),
        }]),
    };
    let selector = LabelSelector::try_from(&object).unwrap();
    assert_eq!(selector.to_string(), "app=web,tier notin (back)");
    assert!(!LabelSelector::from_value(None).unwrap().matches(&labels(&[])));
    assert!(LabelSelector::from_value(Some(&serde_json::json!({}))).unwrap().matches(&labels(&[("a", "b")])));
}

fn head() -> Head {
    Head {
        name: "web-0".to_owned(),
        namespace: "default".to_owned(),
        fields: vec![("spec.nodeName", "n1".to_owned()), ("spec.unschedulable", String::new())],
        ..Head::default()
    }
}

#[test]
fn field_selectors_match_and_are_checked() {
    let selectable = ["spec.nodeName", "spec.unschedulable"];
    for (text, expected) in [
        ("metadata.name=web-0", true),
        ("metadata.name!=web-0", false),
        ("metadata.namespace==default,spec.nodeName=n1", true),
        ("spec.nodeName=", false),
        ("spec.unschedulable=false", true),
        ("spec.unschedulable!=true", true),
    ] {
        assert_eq!(Selector::parse(None, Some(text), &selectable).unwrap().matches(&head()), expected, "{text}");
    }
    let error = Selector::parse(None, Some("status.x=y"), &selectable).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (400, "field label not supported: status.x"));
    let error = Selector::parse(None, Some("status.x=y"), &[]).unwrap_err();
    assert!(error.message.starts_with("\"status.x\" is not a known field selector"));
    assert!(Selector::parse(None, Some("nonsense"), &[]).is_err());
}

#[test]
fn field_selector_values_are_escaped() {
    let selector = FieldSelector::parse(r"a=b\,c\=d\\,e!=f").unwrap();
    assert_eq!(selector.pinned("a"), Some(r"b,c=d\"));
    assert_eq!(selector.pinned("e"), None);
    assert_eq!(selector.to_string(), r"a=b\,c\=d\\,e!=f");
    assert!(FieldSelector::parse(r"a=\x").is_err());
    assert!(FieldSelector::parse("a=b=c").is_err());
}

#[test]
fn a_selector_tells_the_name_it_pins() {
    let pinned = |text| Selector::parse(None, Some(text), &[]).unwrap().pinned_name().map(str::to_owned);
    assert_eq!(pinned("metadata.name=x"), Some("x".to_owned()));
    assert_eq!(pinned("metadata.name!=x"), None);
    assert!(Selector::parse(Some(""), Some(""), &[]).unwrap().is_everything());
}
