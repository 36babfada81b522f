//! Making and reading single certificates: authorities, and the leaves of nodes and gateways. Pure but for fresh keys.
//!
//! Keys are ECDSA P-256. Validity begins a little in the past, because the clocks of machines differ. Every authority has
//! a name of its own, so that two of them in one bundle are told apart. Not here: when a certificate is due.

use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, PublicKeyData as _,
};
use sha2::{Digest as _, Sha256};
use time::OffsetDateTime;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, pem::Pem, prelude::FromDer as _,
};
use zimcache_types::Timestamp;

use crate::names::Component;

/// Validity begins so long before the certificate is made.
const BACKDATED: Duration = Duration::from_hours(1);

/// Why a certificate could not be made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The library refused.
    #[error("the certificate could not be made")]
    Make(#[source] rcgen::Error),
    /// A time outside what certificates can say.
    #[error("a certificate cannot begin or end at {0} s of Unix time")]
    Time(i64),
}

/// A certificate and its key, both PEM.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its private key.
    pub key: String,
}

impl std::fmt::Debug for Pair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Pair(..)")
    }
}

/// What is read out of a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Its names, sorted.
    pub names: Vec<String>,
    /// When its validity begins and ends, in seconds of Unix time.
    pub valid_seconds: (i64, i64),
}

impl Facts {
    /// The facts of the certificate in this PEM text; `None` when it is none.
    pub fn read(certificate: &str) -> Option<Facts> {
        let der = der(certificate)?;
        let (_, parsed) = X509Certificate::from_der(&der).ok()?;
        let named = parsed.subject_alternative_name().ok().flatten();
        let named = named.into_iter().flat_map(|it| &it.value.general_names);
        let mut names: Vec<String> = named
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some((*name).to_owned()),
                _ => None,
            })
            .collect();
        names.sort();
        let validity = parsed.validity();
        Some(Facts {
            names,
            valid_seconds: (
                validity.not_before.timestamp(),
                validity.not_after.timestamp(),
            ),
        })
    }

    /// When it should be replaced, in seconds of Unix time: a third of its life is left then.
    pub const fn due_seconds(&self) -> i64 {
        let (begins, ends) = self.valid_seconds;
        ends - (ends - begins) / 3
    }
}

/// A new authority.
///
/// # Errors
/// [`Error`].
pub fn authority(now: Timestamp, validity: Duration) -> Result<Pair, Error> {
    let key = KeyPair::generate().map_err(Error::Make)?;
    let digest = Sha256::digest(key.subject_public_key_info());
    let id = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
    let mut params = params(now, validity, &format!("zimcache authority {id:08x}"))?;
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    let made = params.self_signed(&key).map_err(Error::Make)?;
    Ok(Pair {
        certificate: made.pem(),
        key: key.serialize_pem(),
    })
}

/// A new leaf that the authority signs. It never outlives it.
///
/// # Errors
/// [`Error`], also when the authority is unusable.
pub fn leaf(
    authority: &Pair,
    component: Component,
    names: &[String],
    now: Timestamp,
    validity: Duration,
) -> Result<Pair, Error> {
    let signer = KeyPair::from_pem(&authority.key).map_err(Error::Make)?;
    let issuer = Issuer::from_ca_cert_pem(&authority.certificate, signer).map_err(Error::Make)?;
    let key = KeyPair::generate().map_err(Error::Make)?;
    let mut params = params(now, validity, &format!("zimcache {}", component.as_str()))?;
    if let Some(facts) = Facts::read(&authority.certificate) {
        params.not_after = params.not_after.min(moment(facts.valid_seconds.1)?);
    }
    let unnamed = CertificateParams::new(names).map_err(Error::Make)?;
    params.subject_alt_names = unnamed.subject_alt_names;
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    // A node is called by gateways and nodes, and calls nodes itself.
    params.extended_key_usages = match component {
        Component::Node => vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ],
        Component::Gateway => vec![ExtendedKeyUsagePurpose::ClientAuth],
    };
    let made = params.signed_by(&key, &issuer).map_err(Error::Make)?;
    Ok(Pair {
        certificate: made.pem(),
        key: key.serialize_pem(),
    })
}

/// Whether the authority signed the certificate.
pub fn is_signed_by(certificate: &str, authority: &str) -> bool {
    let (Some(certificate), Some(authority)) = (der(certificate), der(authority)) else {
        return false;
    };
    let parsed = X509Certificate::from_der(&certificate);
    let authority = X509Certificate::from_der(&authority);
    let (Ok((_, parsed)), Ok((_, authority))) = (parsed, authority) else {
        return false;
    };
    parsed.issuer() == authority.subject()
        && parsed
            .verify_signature(Some(authority.public_key()))
            .is_ok()
}

/// Whether the key is that of the certificate.
pub fn belong_together(pair: &Pair) -> bool {
    let (Ok(key), Some(der)) = (KeyPair::from_pem(&pair.key), der(&pair.certificate)) else {
        return false;
    };
    let parsed = X509Certificate::from_der(&der);
    parsed.is_ok_and(|(_, parsed)| parsed.public_key().raw == key.subject_public_key_info())
}

/// The single certificates in a bundle, each as it stands there.
pub fn split(bundle: &str) -> Vec<String> {
    const END: &str = "-----END CERTIFICATE-----";
    let pieces = bundle.split_inclusive(END);
    pieces
        .filter(|piece| piece.ends_with(END))
        .map(|piece| format!("{}\n", piece.trim_start()))
        .collect()
}

fn params(
    now: Timestamp,
    validity: Duration,
    common_name: &str,
) -> Result<CertificateParams, Error> {
    let now = seconds(now);
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = moment(now.saturating_sub_unsigned(BACKDATED.as_secs()))?;
    params.not_after = moment(now.saturating_add_unsigned(validity.as_secs()))?;
    Ok(params)
}

fn moment(seconds: i64) -> Result<OffsetDateTime, Error> {
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Time(seconds))
}

/// Seconds of Unix time.
pub(super) fn seconds(at: Timestamp) -> i64 {
    i64::try_from(at.0 / 1000).unwrap_or(i64::MAX)
}

fn der(certificate: &str) -> Option<Vec<u8>> {
    let pem = Pem::iter_from_buffer(certificate.as_bytes()).next()?.ok()?;
    (pem.label == "CERTIFICATE").then_some(pem.contents)
}
