//! Certificates for requests of others. Subject, key and names are taken over byte by byte from the request: what was
//! approved is what is signed.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};
use rcgen::{KeyPair, SignatureAlgorithm, SigningKey};
use skiff_client::clock;
use skiff_controllers::certificates::{Authority, Order, Signer};
use x509_parser::{
    cri_attributes::ParsedCriAttribute,
    extensions::ParsedExtension,
    prelude::{FromDer, X509Certificate, X509CertificationRequest, parse_x509_pem},
};
use yasna::{DERWriter, Tag, models::ObjectIdentifier};

use super::{Pki, sign::CLOCK_SKEW};

const KEY_USAGE: [u64; 4] = [2, 5, 29, 15];
const ALTERNATIVE_NAMES: [u64; 4] = [2, 5, 29, 17];
const BASIC_CONSTRAINTS: [u64; 4] = [2, 5, 29, 19];
const AUTHORITY_KEY: [u64; 4] = [2, 5, 29, 35];
const EXTENDED_KEY_USAGE: [u64; 4] = [2, 5, 29, 37];

/// The bits of the key usage extension, in their order, by their names in the API.
const BITS: [(&str, usize); 10] = [
    ("digital signature", 0),
    ("signing", 0),
    ("content commitment", 1),
    ("key encipherment", 2),
    ("data encipherment", 3),
    ("key agreement", 4),
    ("cert sign", 5),
    ("crl sign", 6),
    ("encipher only", 7),
    ("decipher only", 8),
];

/// Extended usages by their names in the API.
const PURPOSES: [(&str, &[u64]); 13] = [
    ("any", &[2, 5, 29, 37, 0]),
    ("server auth", &[1, 3, 6, 1, 5, 5, 7, 3, 1]),
    ("client auth", &[1, 3, 6, 1, 5, 5, 7, 3, 2]),
    ("code signing", &[1, 3, 6, 1, 5, 5, 7, 3, 3]),
    ("email protection", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("s/mime", &[1, 3, 6, 1, 5, 5, 7, 3, 4]),
    ("ipsec end system", &[1, 3, 6, 1, 5, 5, 7, 3, 5]),
    ("ipsec tunnel", &[1, 3, 6, 1, 5, 5, 7, 3, 6]),
    ("ipsec user", &[1, 3, 6, 1, 5, 5, 7, 3, 7]),
    ("timestamping", &[1, 3, 6, 1, 5, 5, 7, 3, 8]),
    ("ocsp signing", &[1, 3, 6, 1, 5, 5, 7, 3, 9]),
    ("microsoft sgc", &[1, 3, 6, 1, 4, 1, 311, 10, 3, 3]),
    ("netscape sgc", &[2, 16, 840, 1, 113730, 4, 1]),
];

/// The authorities of the cluster as the controllers know them.
pub(crate) struct ClusterSigner(pub(crate) std::sync::Arc<Pki>);

impl Signer for ClusterSigner {
    fn sign(&self, order: &Order) -> Result<String, String> {
        self.0.certify(order, clock::now(), uuid::Uuid::new_v4().as_bytes())
    }
}

/// What signs: an authority's certificate and key.
pub(super) struct Issuing<'a> {
    /// The certificate, PEM.
    pub(super) cert: &'a str,
    /// Its key.
    pub(super) key: &'a KeyPair,
}

impl Pki {
    /// The certificate that was ordered, as PEM. `serial` is random.
    pub fn certify(&self, order: &Order, now: Timestamp, serial: &[u8; 16]) -> Result<String, String> {
        let authority = match order.authority {
            Authority::Client => &self.client,
            Authority::Node => &self.node,
            Authority::Server => &self.server,
        };
        certify(&Issuing { cert: &authority.cert, key: authority.issuer.key() }, order, now, serial)
    }
}

/// The certificate that was ordered, as PEM.
pub(super) fn certify(
    issuing: &Issuing<'_>,
    order: &Order,
    now: Timestamp,
    serial: &[u8; 16],
) -> Result<String, String> {
    let (_, request) = X509CertificationRequest::from_der(&order.request_der).map_err(|error| error.to_string())?;
    request.verify_signature().map_err(|_| "the request is not signed by the key that it is for".to_owned())?;
    let (_, block) = parse_x509_pem(issuing.cert.as_bytes()).map_err(|error| error.to_string())?;
    let authority = block.parse_x509().map_err(|error| error.to_string())?;
    let ends = authority.validity().not_after.timestamp().min(seconds_after(now, order.lifetime));
    let begins = now.as_second().saturating_sub(i64::try_from(CLOCK_SKEW.as_secs()).unwrap_or_default());
    let algorithm = algorithm(issuing.key.algorithm())?;
    let validity = (time(begins)?, time(ends)?);
    let content = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_tagged(Tag::context(0), |writer| writer.write_u8(2));
            writer.next().write_bigint_bytes(serial, true);
            writer.next().write_der(&algorithm);
            writer.next().write_der(authority.subject().as_raw());
            writer.next().write_sequence(|writer| {
                writer.next().write_der(&validity.0);
                writer.next().write_der(&validity.1);
            });
            writer.next().write_der(request.certification_request_info.subject.as_raw());
            writer.next().write_der(request.certification_request_info.subject_pki.raw);
            writer.next().write_tagged(Tag::context(3), |writer| extensions(writer, &request, &authority, order));
        });
    });
    let signature = issuing.key.sign(&content).map_err(|error| error.to_string())?;
    let der = yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_der(&content);
            writer.next().write_der(&algorithm);
            writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
        });
    });
    Ok(pem(&der))
}

fn seconds_after(now: Timestamp, lifetime: Duration) -> i64 {
    now.as_second().saturating_add(i64::try_from(lifetime.as_secs()).unwrap_or(i64::MAX))
}

/// The identifier of the algorithm that a key signs with.
fn algorithm(known: &'static SignatureAlgorithm) -> Result<Vec<u8>, String> {
    let (oid, null): (&[u64], bool) = if *known == rcgen::PKCS_ECDSA_P256_SHA256 {
        (&[1, 2, 840, 10045, 4, 3, 2], false)
    } else if *known == rcgen::PKCS_ECDSA_P384_SHA384 {
        (&[1, 2, 840, 10045, 4, 3, 3], false)
    } else if *known == rcgen::PKCS_ED25519 {
        (&[1, 3, 101, 112], false)
    } else if *known == rcgen::PKCS_RSA_SHA256 {
        (&[1, 2, 840, 113549, 1, 1, 11], true)
    } else {
        return Err(format!("the authority's key signs with {known:?}, which is not supported"));
    };
    Ok(yasna::construct_der(|writer| {
        writer.write_sequence(|writer| {
            writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
            if null {
                writer.next().write_null();
            }
        });
    }))
}

/// A time as RFC 5280 wants it: `UTCTime` until 2049, `GeneralizedTime` after that.
fn time(seconds: i64) -> Result<Vec<u8>, String> {
    let at = Timestamp::from_second(seconds).map_err(|error| error.to_string())?.to_zoned(TimeZone::UTC);
    let (tag, form) = if at.year() < 2050 { (0x17, "%y%m%d%H%M%SZ") } else { (0x18, "%Y%m%d%H%M%SZ") };
    let text = at.strftime(form).to_string();
    let length = u8::try_from(text.len()).map_err(|error| error.to_string())?;
    Ok([&[tag, length], text.as_bytes()].concat())
}

fn extensions(
    writer: DERWriter<'_>,
    request: &X509CertificationRequest<'_>,
    authority: &X509Certificate<'_>,
    order: &Order,
) {
    let extension = |oid: &[u64], critical: bool, value: &[u8]| {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                if critical {
                    writer.next().write_bool(true);
                }
                writer.next().write_bytes(value);
            });
        })
    };
    let mut all = Vec::new();
    if let Some(value) = key_usage(&order.usages) {
        all.push(extension(&KEY_USAGE, true, &value));
    }
    if let Some(value) = purposes(&order.usages) {
        all.push(extension(&EXTENDED_KEY_USAGE, false, &value));
    }
    let nothing = yasna::construct_der(|writer| writer.write_sequence(|_| ()));
    all.push(extension(&BASIC_CONSTRAINTS, true, &nothing));
    if let Some(id) = key_id(authority) {
        let value = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_bytes(id));
            });
        });
        all.push(extension(&AUTHORITY_KEY, false, &value));
    }
    if let Some((critical, value)) = alternative_names(request) {
        all.push(extension(&ALTERNATIVE_NAMES, critical, value));
    }
    writer.write_sequence(|writer| all.iter().for_each(|der| writer.next().write_der(der)));
}

fn key_id<'a>(authority: &'a X509Certificate<'_>) -> Option<&'a [u8]> {
    authority.extensions().iter().find_map(|extension| match extension.parsed_extension() {
        ParsedExtension::SubjectKeyIdentifier(id) => Some(id.0),
        _ => None,
    })
}

/// The names of a request, whether they are critical, and as they stand there.
fn alternative_names<'a>(request: &'a X509CertificationRequest<'_>) -> Option<(bool, &'a [u8])> {
    let attributes = request.certification_request_info.iter_attributes();
    let mut extensions = attributes.flat_map(|attribute| match attribute.parsed_attribute() {
        ParsedCriAttribute::ExtensionRequest(asked) => asked.extensions.as_slice(),
        _ => &[],
    });
    let is_names = |parsed: &ParsedExtension<'_>| matches!(parsed, ParsedExtension::SubjectAlternativeName(_));
    let names = extensions.find(|extension| is_names(extension.parsed_extension()))?;
    Some((names.critical, names.value))
}

/// The bit string of the key's usages; `None` where there are none.
fn key_usage(usages: &[String]) -> Option<Vec<u8>> {
    let bits: Vec<usize> =
        BITS.iter().filter(|(name, _)| usages.iter().any(|u| u == name)).map(|(_, bit)| *bit).collect();
    let last = bits.iter().max()?;
    let mut bytes = vec![0_u8; last / 8 + 1];
    bits.iter().for_each(|bit| bytes[bit / 8] |= 0x80 >> (bit % 8));
    Some(yasna::construct_der(|writer| writer.write_bitvec_bytes(&bytes, last + 1)))
}

/// What the certificate is for; `None` where that is not said.
fn purposes(usages: &[String]) -> Option<Vec<u8>> {
    let all: Vec<&[u64]> =
        PURPOSES.iter().filter(|(name, _)| usages.iter().any(|usage| usage == name)).map(|(_, oid)| *oid).collect();
    (!all.is_empty()).then(|| {
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                all.iter().for_each(|oid| writer.next().write_oid(&ObjectIdentifier::from_slice(oid)));
            });
        })
    })
}

pub(crate) fn pem(der: &[u8]) -> String {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let text = STANDARD.encode(der);
    let lines: Vec<&str> = (0..text.len()).step_by(64).map(|at| &text[at..text.len().min(at + 64)]).collect();
    format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n"))
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use rcgen::PublicKeyData;

    use super::*;

    const COMMON_NAME: [u64; 4] = [2, 5, 4, 3];
    const ORGANIZATION: [u64; 4] = [2, 5, 4, 10];

    /// A request with a subject of several attributes, made by hand: two organizations are two groups.
    fn request(subject: &[(&[u64], &str)], key: &KeyPair) -> Vec<u8> {
        let content = yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_u8(0);
                writer.next().write_sequence(|writer| {
                    for (oid, value) in subject {
                        writer.next().write_set(|writer| {
                            writer.next().write_sequence(|writer| {
                                writer.next().write_oid(&ObjectIdentifier::from_slice(oid));
                                writer.next().write_utf8_string(value);
                            });
                        });
                    }
                });
                writer.next().write_der(&key.subject_public_key_info());
                writer.next().write_tagged_implicit(Tag::context(0), |writer| writer.write_set(|_| ()));
            });
        });
        yasna::construct_der(|writer| {
            writer.write_sequence(|writer| {
                writer.next().write_der(&content);
                writer.next().write_der(&algorithm(key.algorithm()).unwrap());
                let signature = key.sign(&content).unwrap();
                writer.next().write_bitvec_bytes(&signature, signature.len() * 8);
            });
        })
    }

    #[test]
    fn a_subject_is_taken_over_as_it_stands() {
        let dir = tempfile::tempdir().unwrap();
        let now: Timestamp = "2026-06-01T12:00:00Z".parse().unwrap();
        let pki = Pki::open(dir.path().join("tls"), now).unwrap();
        let key = KeyPair::generate().unwrap();
        let subject: [(&[u64], &str); 3] = [(&COMMON_NAME, "jane"), (&ORGANIZATION, "dev"), (&ORGANIZATION, "ops")];
        let order = Order {
            authority: Authority::Client,
            request_der: request(&subject, &key),
            usages: vec!["digital signature".to_owned(), "client auth".to_owned()],
            lifetime: Duration::from_secs(3600),
        };
        let pem = pki.certify(&order, now, &[0x80; 16]).unwrap();
        let (_, block) = parse_x509_pem(pem.as_bytes()).unwrap();
        let cert = block.parse_x509().unwrap();
        assert_eq!(cert.subject().to_string(), "CN=jane, O=dev, O=ops");
        assert_eq!(cert.public_key().raw, key.subject_public_key_info());
        assert_eq!(cert.validity().not_after.timestamp(), now.as_second() + 3600);
        let usage = cert.key_usage().unwrap().unwrap().value;
        assert!(usage.digital_signature() && !usage.key_encipherment());
        let purposes = cert.extended_key_usage().unwrap().unwrap().value;
        assert!(purposes.client_auth && !purposes.server_auth);
        let forged = Order { request_der: request(&subject, &KeyPair::generate().unwrap()), ..order.clone() };
        let mut forged_der = forged.request_der;
        let last = forged_der.len() - 1;
        forged_der[last] ^= 1;
        assert!(pki.certify(&Order { request_der: forged_der, ..order }, now, &[1; 16]).is_err());
    }
}
