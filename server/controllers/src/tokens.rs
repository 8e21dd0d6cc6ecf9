//! Tokens in Secrets, for those who ask for them: a Secret of type `kubernetes.io/service-account-token` that names a
//! ServiceAccount is filled in with its token, and goes with its account. Source: `pkg/controller/serviceaccount`.

use std::{collections::BTreeMap, sync::Arc};

use async_trait::async_trait;
use k8s_openapi::{
    ByteString,
    api::core::v1::{Secret, ServiceAccount},
    apimachinery::pkg::apis::meta::v1::{DeleteOptions, Preconditions},
};
use skiff_api::status::ApiError;
use skiff_client::{Informer, Key};

use crate::{
    frame::{Again, Context, Controller, Frame},
    meta::{is_deleting, name, namespace, uid},
};

/// The name of the controller; it has the rights of the controller manager itself.
pub const NAME: &str = "serviceaccount-token-controller";

/// The type of the Secrets.
pub(crate) const TYPE: &str = "kubernetes.io/service-account-token";

/// The annotations that name the account.
pub(crate) const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";
pub(crate) const ACCOUNT_UID: &str = "kubernetes.io/service-account.uid";

/// The index of Secrets by the account that they name.
const BY_ACCOUNT: &str = "service-account";

/// Whose token is to be signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenOf {
    /// The account's namespace.
    pub namespace: String,
    /// The account's name.
    pub account: String,
    /// The account's UID.
    pub account_uid: String,
    /// The Secret that is to hold the token.
    pub secret: String,
}

/// Signs a token, or says why it cannot.
#[derive(Clone)]
pub struct Sign(pub Arc<dyn Fn(&TokenOf) -> Result<String, String> + Send + Sync>);

impl std::fmt::Debug for Sign {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sign(..)")
    }
}

struct Tokens {
    context: Context,
    accounts: Arc<Informer<ServiceAccount>>,
    secrets: Arc<Informer<Secret>>,
    root_ca: String,
    sign: Sign,
}

/// What is to be done about a Secret.
#[derive(Debug, PartialEq)]
enum Step {
    /// Nothing.
    Leave,
    /// Its account is gone: it goes too.
    Delete,
    /// It is filled in with this.
    Write(Box<Secret>),
}

/// Keeps the Secrets with tokens. `root_ca` (PEM) is put beside each token.
pub async fn run(context: Context, root_ca: String, sign: Sign) {
    let (accounts, secrets) = (context.informers.of::<ServiceAccount>(), context.informers.of::<Secret>());
    secrets.index(BY_ACCOUNT, |secret| account_key(secret).into_iter().collect());
    let cancel = context.cancel.clone();
    let controller = Tokens { context, accounts: Arc::clone(&accounts), secrets: Arc::clone(&secrets), root_ca, sign };
    let of_account = Arc::clone(&secrets);
    Frame::new(NAME, Arc::new(controller), &cancel)
        .watch(&secrets, |secret| if is_token(secret) { vec![Key::of(secret)] } else { Vec::new() })
        .watch(&accounts, move |account| {
            let key = format!("{}/{}", namespace(&account.metadata), name(&account.metadata));
            of_account.indexed(BY_ACCOUNT, &key).iter().map(|secret| Key::of(&**secret)).collect()
        })
        .run(1)
        .await;
}

fn is_token(secret: &Secret) -> bool {
    secret.type_.as_deref() == Some(TYPE)
}

fn annotation<'a>(secret: &'a Secret, key: &str) -> &'a str {
    secret.metadata.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str).unwrap_or_default()
}

/// `NAMESPACE/NAME` of the account that a Secret with a token names.
fn account_key(secret: &Secret) -> Option<String> {
    let account = annotation(secret, ACCOUNT_NAME);
    (is_token(secret) && !account.is_empty()).then(|| format!("{}/{account}", namespace(&secret.metadata)))
}

/// What is to be done about a Secret, its account being as it is.
fn decide(
    secret: &Secret,
    account: Option<&ServiceAccount>,
    root_ca: &str,
    sign: &dyn Fn(&TokenOf) -> Result<String, String>,
) -> Result<Step, String> {
    if !is_token(secret) || is_deleting(&secret.metadata) || annotation(secret, ACCOUNT_NAME).is_empty() {
        return Ok(Step::Leave);
    }
    let claimed = annotation(secret, ACCOUNT_UID);
    let Some(account) = account.filter(|account| claimed.is_empty() || claimed == uid(&account.metadata)) else {
        return Ok(Step::Delete);
    };
    let mut filled = secret.clone();
    let (namespace, account_uid) = (namespace(&secret.metadata), uid(&account.metadata));
    let annotations = filled.metadata.annotations.get_or_insert_default();
    annotations.insert(ACCOUNT_UID.to_owned(), account_uid.to_owned());
    let data: &mut BTreeMap<String, ByteString> = filled.data.get_or_insert_default();
    let wanted = [("ca.crt", root_ca.as_bytes()), ("namespace", namespace.as_bytes())];
    for (key, value) in wanted {
        data.insert(key.to_owned(), ByteString(value.to_vec()));
    }
    if data.get("token").is_none_or(|token| token.0.is_empty()) {
        let token = sign(&TokenOf {
            namespace: namespace.to_owned(),
            account: name(&account.metadata).to_owned(),
            account_uid: account_uid.to_owned(),
            secret: name(&secret.metadata).to_owned(),
        })?;
        data.insert("token".to_owned(), ByteString(token.into_bytes()));
    }
    Ok(if filled == *secret { Step::Leave } else { Step::Write(Box::new(filled)) })
}

#[async_trait]
impl Controller for Tokens {
    async fn pass(&self, key: &Key) -> Result<Again, ApiError> {
        let Some(secret) = self.secrets.get(&key.namespace, &key.name) else { return Ok(None) };
        let account = self.accounts.get(&key.namespace, annotation(&secret, ACCOUNT_NAME));
        let step = decide(&secret, account.as_deref(), &self.root_ca, &*self.sign.0).map_err(ApiError::internal)?;
        let done = match step {
            Step::Leave => return Ok(None),
            Step::Write(filled) => {
                self.context.client.update(&*filled).await.map(|secret| self.secrets.observe(secret))
            }
            Step::Delete => self.delete(&secret, key).await,
        };
        match done {
            Err(error) if error.is_not_found() => Ok(None),
            done => done.map(|()| None),
        }
    }
}

impl Tokens {
    /// Deletes a Secret whose account the API server, too, does not have: the informer may not know a new account yet.
    async fn delete(&self, secret: &Secret, key: &Key) -> Result<(), ApiError> {
        let account = annotation(secret, ACCOUNT_NAME);
        match self.context.client.get::<ServiceAccount>(&key.namespace, account).await {
            Ok(found) => {
                let same = annotation(secret, ACCOUNT_UID);
                if same.is_empty() || same == uid(&found.metadata) {
                    // The Secret is looked at again for the account that is new to the informer.
                    self.accounts.observe(found);
                    return Ok(());
                }
            }
            Err(error) if error.is_not_found() => {}
            Err(error) => return Err(error),
        }
        let preconditions = Preconditions {
            uid: secret.metadata.uid.clone(),
            resource_version: secret.metadata.resource_version.clone(),
        };
        let options = DeleteOptions { preconditions: Some(preconditions), ..DeleteOptions::default() };
        self.context.client.delete::<Secret>(&key.namespace, &key.name, &options).await.map(drop)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use serde_json::json;

    use super::*;

    fn account(uid: &str) -> ServiceAccount {
        serde_json::from_value(json!({"metadata": {"namespace": "n", "name": "a", "uid": uid}})).unwrap()
    }

    fn secret(annotations: serde_json::Value, kind: &str) -> Secret {
        serde_json::from_value(json!({"type": kind, "metadata": {"namespace": "n", "name": "s",
            "annotations": annotations}}))
        .unwrap()
    }

    fn look(secret: &Secret, account: Option<&ServiceAccount>) -> Step {
        decide(secret, account, "CA", &|of| Ok(format!("token of {}/{} in {}", of.account, of.account_uid, of.secret)))
            .unwrap()
    }

    #[test]
    fn a_secret_is_filled_in_once() {
        let asked = secret(json!({ACCOUNT_NAME: "a"}), TYPE);
        let Step::Write(filled) = look(&asked, Some(&account("u"))) else { unreachable!("it is to be written") };
        let data = filled.data.clone().unwrap();
        assert_eq!(data["token"].0, b"token of a/u in s");
        assert_eq!((data["ca.crt"].0.as_slice(), data["namespace"].0.as_slice()), (&b"CA"[..], &b"n"[..]));
        assert_eq!(annotation(&filled, ACCOUNT_UID), "u");
        assert_eq!(look(&filled, Some(&account("u"))), Step::Leave);
    }

    #[test]
    fn a_secret_goes_with_its_account() {
        assert_eq!(look(&secret(json!({ACCOUNT_NAME: "a"}), TYPE), None), Step::Delete);
        let old = secret(json!({ACCOUNT_NAME: "a", ACCOUNT_UID: "u"}), TYPE);
        assert_eq!(look(&old, Some(&account("another"))), Step::Delete);
    }

    #[test]
    fn other_secrets_are_left_alone() {
        assert_eq!(look(&secret(json!({ACCOUNT_NAME: "a"}), "Opaque"), None), Step::Leave);
        assert_eq!(look(&secret(json!({}), TYPE), None), Step::Leave);
    }
}
