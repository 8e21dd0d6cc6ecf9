//! Bootstrap tokens: `ID.SECRET`, kept as Secrets of type `bootstrap.kubernetes.io/token` in `kube-system`, by which
//! a node that joins asks for its certificate. Source: `plugin/pkg/auth/authenticator/token/bootstrap`.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;
use sha2::{Digest as _, Sha256};
use skiff_api::{object::Object, user::UserInfo};

use super::check::Records;

/// Where the Secrets are.
const NAMESPACE: &str = "kube-system";

/// What the Secrets' names begin with; the token's id follows.
const NAME_PREFIX: &str = "bootstrap-token-";

/// The Secrets' type.
const TYPE: &str = "bootstrap.kubernetes.io/token";

/// The group of all who come with such a token.
const GROUP: &str = "system:bootstrappers";

/// What the name of a further group must begin with, and how many characters may follow.
const GROUP_PREFIX: &str = "system:bootstrappers:";
const MAX_GROUP_CHARS: usize = 256;

/// The lengths of a token's two parts.
const ID_CHARS: usize = 6;
const SECRET_CHARS: usize = 16;

fn is_word(text: &str, chars: usize) -> bool {
    text.len() == chars && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

/// The id and the secret of what has the form of a bootstrap token.
fn parse(token: &str) -> Option<(&str, &str)> {
    token.split_once('.').filter(|(id, secret)| is_word(id, ID_CHARS) && is_word(secret, SECRET_CHARS))
}

/// The user of a bootstrap token; `None` for what is none, is not known, or is over.
pub fn user(token: &str, now: Timestamp, records: &dyn Records) -> Option<UserInfo> {
    let (id, given) = parse(token)?;
    let secret = records.object("secrets", NAMESPACE, &format!("{NAME_PREFIX}{id}"))?;
    let data =
        |key: &str| -> Option<String> { String::from_utf8(STANDARD.decode(secret.str_at(&["data", key])?).ok()?).ok() };
    let same = data("token-secret").is_some_and(|held| Sha256::digest(held) == Sha256::digest(given));
    let is_good = secret.str_at(&["type"]) == Some(TYPE)
        && !secret.is_deleting()
        && same
        && data("token-id").as_deref() == Some(id)
        && !is_over(&secret, data("expiration"), now)
        && data("usage-bootstrap-authentication").as_deref() == Some("true");
    if !is_good {
        return None;
    }
    let groups = groups(data("auth-extra-groups").as_deref().unwrap_or_default())?;
    Some(UserInfo { name: format!("system:bootstrap:{id}"), groups, ..UserInfo::default() })
}

/// Whether a token's time is over; a time that cannot be read is.
fn is_over(secret: &Object, expiration: Option<String>, now: Timestamp) -> bool {
    match expiration {
        None => secret.at(&["data", "expiration"]).is_some(),
        Some(text) if text.is_empty() => false,
        Some(text) => text.parse::<Timestamp>().map_or(true, |end| now >= end),
    }
}

/// The groups of a token; `None` where one of them is not to be had by a token.
fn groups(extra: &str) -> Option<Vec<String>> {
    let mut groups = vec![GROUP.to_owned()];
    for group in extra.split(',').map(str::trim).filter(|group| !group.is_empty()) {
        let rest = group.strip_prefix(GROUP_PREFIX)?;
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let all = rest.bytes().all(|byte| fits(byte) || byte == b':' || byte == b'-');
        if !all || rest.len() > MAX_GROUP_CHARS || !rest.bytes().last().is_some_and(fits) {
            return None;
        }
        groups.push(group.to_owned());
    }
    groups.sort();
    groups.dedup();
    Some(groups)
}
