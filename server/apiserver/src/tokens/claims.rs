//! What a ServiceAccount's token says. Source: `pkg/serviceaccount` of Kubernetes 1.36.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};
use skiff_api::user::UserInfo;

use super::{LEGACY_ISSUER, account_user};

/// The claim under which Kubernetes' own claims are.
const KUBERNETES: &str = "kubernetes.io";

/// What the claims of tokens in Secrets begin with.
const LEGACY: &str = "kubernetes.io/serviceaccount/";

/// The prefix of what a token adds to its user.
const EXTRA: &str = "authentication.kubernetes.io/";

/// An object that a token names.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Reference {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// What a token says. Times are in seconds since 1970.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Claims {
    /// Who issued it.
    pub issuer: String,
    /// Whose it is: the user's name.
    pub subject: String,
    /// For whom it is; empty for the API server alone.
    pub audiences: Vec<String>,
    /// When it ends; `None` for tokens in Secrets, which end with their Secret.
    pub expires: Option<i64>,
    /// When it begins.
    pub not_before: Option<i64>,
    /// When it was issued.
    pub issued: Option<i64>,
    /// Its own id.
    pub id: String,
    /// The account's namespace.
    pub namespace: String,
    /// The account.
    pub account: Reference,
    /// The pod that it ends with.
    pub pod: Option<Reference>,
    /// The node that it ends with, or on which its pod runs.
    pub node: Option<Reference>,
    /// The Secret that it ends with.
    pub secret: Option<Reference>,
    /// From when on its use is worth a warning, since it lives longer than was asked for.
    pub warn_after: Option<i64>,
}

impl Claims {
    /// The claims as JSON.
    pub fn to_json(&self) -> Value {
        let reference = |of: &Reference| json!({"name": of.name, "uid": of.uid});
        let mut own = Map::new();
        own.insert("namespace".to_owned(), self.namespace.as_str().into());
        for (name, of) in [("node", &self.node), ("pod", &self.pod), ("secret", &self.secret)] {
            if let Some(of) = of {
                own.insert(name.to_owned(), reference(of));
            }
        }
        own.insert("serviceaccount".to_owned(), reference(&self.account));
        if let Some(warn_after) = self.warn_after {
            own.insert("warnafter".to_owned(), warn_after.into());
        }
        json!({
            "aud": self.audiences, "exp": self.expires, "iat": self.issued, "iss": self.issuer, "jti": self.id,
            KUBERNETES: own, "nbf": self.not_before, "sub": self.subject,
        })
    }

    /// The claims of a token that lies in a Secret.
    pub fn legacy_json(namespace: &str, account: &Reference, secret: &str) -> Value {
        let name = |last: &str| format!("{LEGACY}{last}");
        let claims = [
            ("iss".to_owned(), LEGACY_ISSUER.to_owned()),
            (name("namespace"), namespace.to_owned()),
            (name("secret.name"), secret.to_owned()),
            (name("service-account.name"), account.name.clone()),
            (name("service-account.uid"), account.uid.clone()),
            ("sub".to_owned(), super::account_user_name(namespace, &account.name)),
        ];
        Value::Object(claims.into_iter().map(|(name, value)| (name, value.into())).collect())
    }

    /// Reads claims; `None` where one that must be there is not.
    pub fn read(claims: &Value) -> Option<Self> {
        let issuer = text(claims, "iss")?;
        let read = if issuer == LEGACY_ISSUER { read_legacy(claims)? } else { read_own(claims)? };
        let said = super::account_user_name(&read.namespace, &read.account.name);
        let whole = !read.namespace.is_empty() && !read.account.name.is_empty() && !read.account.uid.is_empty();
        (whole && read.subject == said).then_some(Self { issuer, ..read })
    }

    /// Whether the token lies in a Secret.
    pub fn is_legacy(&self) -> bool {
        self.issuer == LEGACY_ISSUER
    }

    /// The token's user.
    pub fn user(&self) -> UserInfo {
        let mut extra = BTreeMap::new();
        let mut add = |name: &str, value: String| extra.insert(format!("{EXTRA}{name}"), vec![value]);
        if !self.id.is_empty() {
            add("credential-id", format!("JTI={}", self.id));
        }
        for (of, reference) in [("node", &self.node), ("pod", &self.pod)] {
            let Some(reference) = reference else { continue };
            add(&format!("{of}-name"), reference.name.clone());
            if !reference.uid.is_empty() {
                add(&format!("{of}-uid"), reference.uid.clone());
            }
        }
        UserInfo { extra, ..account_user(&self.namespace, &self.account.name, &self.account.uid) }
    }
}

fn text(claims: &Value, name: &str) -> Option<String> {
    claims.get(name)?.as_str().map(str::to_owned)
}

/// A time; fractions of a second are allowed and left out.
fn time(claims: &Value, name: &str) -> Option<i64> {
    let value = claims.get(name)?;
    #[allow(clippy::cast_possible_truncation, reason = "a number beyond the range becomes its end")]
    value.as_i64().or_else(|| value.as_f64().map(|seconds| seconds as i64))
}

fn reference(claims: &Value, name: &str) -> Option<Reference> {
    let of = claims.get(name)?;
    Some(Reference { name: text(of, "name")?, uid: text(of, "uid").unwrap_or_default() })
}

fn read_own(claims: &Value) -> Option<Claims> {
    let own = claims.get(KUBERNETES)?;
    let audiences = match claims.get("aud") {
        Some(Value::String(one)) => vec![one.clone()],
        Some(Value::Array(many)) => many.iter().filter_map(|one| one.as_str().map(str::to_owned)).collect(),
        _ => Vec::new(),
    };
    Some(Claims {
        issuer: String::new(),
        subject: text(claims, "sub")?,
        audiences,
        // Without an end it would live for ever; only those in Secrets may.
        expires: Some(time(claims, "exp")?),
        not_before: time(claims, "nbf"),
        issued: time(claims, "iat"),
        id: text(claims, "jti").unwrap_or_default(),
        namespace: text(own, "namespace")?,
        account: reference(own, "serviceaccount")?,
        pod: reference(own, "pod"),
        node: reference(own, "node"),
        secret: reference(own, "secret"),
        warn_after: time(own, "warnafter"),
    })
}

fn read_legacy(claims: &Value) -> Option<Claims> {
    let own = |last: &str| text(claims, &format!("{LEGACY}{last}"));
    let secret = own("secret.name").filter(|name| !name.is_empty())?;
    Some(Claims {
        subject: text(claims, "sub")?,
        namespace: own("namespace")?,
        account: Reference { name: own("service-account.name")?, uid: own("service-account.uid")? },
        secret: Some(Reference { name: secret, uid: String::new() }),
        ..Claims::default()
    })
}
