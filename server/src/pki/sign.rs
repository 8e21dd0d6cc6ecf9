//! Making and judging certificates.

use std::{net::IpAddr, time::Duration};

use jiff::Timestamp;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PublicKeyData, SanType,
};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate, parse_x509_pem};

use super::{Identity, Subject};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long an authority lasts.
const AUTHORITY_DAYS: u32 = 10 * 365;

/// How long what it signs lasts.
const LEAF_DAYS: u32 = 365;

/// How long before its end a certificate is made anew.
const RENEW_DAYS: u32 = 90;

/// Certificates begin this long before now, so that a client whose clock is behind takes them.
pub(super) const CLOCK_SKEW: Duration = DAY;

/// An authority of its own.
pub(super) fn make_authority(name: &str, now: Timestamp) -> Result<Identity, rcgen::Error> {
    let mut params = params(now, AUTHORITY_DAYS);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::CrlSign];
    let key = KeyPair::generate()?;
    let cert = params.self_signed(&key)?;
    Ok(Identity { cert: cert.pem(), key: key.serialize_pem() })
}

/// A certificate for a subject, signed by an authority.
pub(super) fn sign(
    subject: &Subject<'_>,
    issuer: &Issuer<'static, KeyPair>,
    now: Timestamp,
) -> Result<Identity, rcgen::Error> {
    let mut params = params(now, LEAF_DAYS);
    params.distinguished_name.push(DnType::CommonName, subject.common_name);
    if let Some(organization) = subject.organization {
        params.distinguished_name.push(DnType::OrganizationName, organization);
    }
    for name in &subject.dns_names {
        params.subject_alt_names.push(SanType::DnsName(name.as_str().try_into()?));
    }
    params.subject_alt_names.extend(subject.addresses.iter().copied().map(SanType::IpAddress));
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    let usage =
        if subject.is_server() { ExtendedKeyUsagePurpose::ServerAuth } else { ExtendedKeyUsagePurpose::ClientAuth };
    params.extended_key_usages = vec![usage];
    params.use_authority_key_identifier_extension = true;
    let key = KeyPair::generate()?;
    let cert = params.signed_by(&key, issuer)?;
    Ok(Identity { cert: cert.pem(), key: key.serialize_pem() })
}

fn params(now: Timestamp, days: u32) -> CertificateParams {
    let now = Duration::from_secs(u64::try_from(now.as_second()).unwrap_or(0));
    let epoch = rcgen::date_time_ymd(1970, 1, 1);
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.not_before = epoch + now.saturating_sub(CLOCK_SKEW);
    params.not_after = epoch + now + DAY * days;
    params
}

/// Whether the key is that of the certificate.
pub(super) fn belong_together(identity: &Identity) -> bool {
    let Ok(key) = KeyPair::from_pem(&identity.key) else { return false };
    with_certificate(&identity.cert, |cert| cert.public_key().raw == key.subject_public_key_info()).unwrap_or(false)
}

/// Whether a pair can be used again: whole, signed by this authority, for this subject, and not about to end.
pub(super) fn still_fits(identity: &Identity, subject: &Subject<'_>, authority: &str, now: Timestamp) -> bool {
    let signed = with_certificate(authority, |authority| {
        with_certificate(&identity.cert, |cert| cert.verify_signature(Some(authority.public_key())).is_ok())
    });
    let renew_from = |end: i64| end - i64::from(RENEW_DAYS) * i64::try_from(DAY.as_secs()).unwrap_or_default();
    let says_so = with_certificate(&identity.cert, |cert| {
        now.as_second() < renew_from(cert.validity().not_after.timestamp()) && says(cert, subject)
    });
    belong_together(identity) && signed.flatten() == Some(true) && says_so == Some(true)
}

/// Whether a certificate names this subject and all its hosts.
fn says(cert: &X509Certificate<'_>, subject: &Subject<'_>) -> bool {
    let common_name = cert.subject().iter_common_name().next().and_then(|name| name.as_str().ok());
    let organization = cert.subject().iter_organization().next().and_then(|name| name.as_str().ok());
    let names = cert.subject_alternative_name().ok().flatten().map_or(&[][..], |ext| &ext.value.general_names);
    let has_name = |wanted: &String| names.iter().any(|name| matches!(name, GeneralName::DNSName(n) if n == wanted));
    let has_address = |wanted: &IpAddr| {
        let octets = match wanted {
            IpAddr::V4(address) => address.octets().to_vec(),
            IpAddr::V6(address) => address.octets().to_vec(),
        };
        names.iter().any(|name| matches!(name, GeneralName::IPAddress(bytes) if *bytes == octets))
    };
    common_name == Some(subject.common_name)
        && organization == subject.organization
        && subject.dns_names.iter().all(has_name)
        && subject.addresses.iter().all(has_address)
}

/// Reads a PEM certificate; `None` where it is none.
fn with_certificate<T>(pem: &str, read: impl FnOnce(&X509Certificate<'_>) -> T) -> Option<T> {
    let (_, pem) = parse_x509_pem(pem.as_bytes()).ok()?;
    let (_, cert) = X509Certificate::from_der(&pem.contents).ok()?;
    Some(read(&cert))
}
