//! Certificates of an authority of our own, good ones and others.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair, date_time_ymd};
use rustls::pki_types::PrivateKeyDer;
use rustls::{ServerConfig, SupportedProtocolVersion};

/// For `localhost`.
#[derive(Clone)]
pub(crate) struct Certificates {
    /// The authority, in PEM.
    pub(crate) authority: String,
    pub(crate) good: Arc<ServerConfig>,
    /// As good, and no newer protocol than TLS 1.2.
    pub(crate) old_protocol: Arc<ServerConfig>,
    pub(crate) expired: Arc<ServerConfig>,
    pub(crate) of_tomorrow: Arc<ServerConfig>,
    pub(crate) wrong_name: Arc<ServerConfig>,
    /// Of an authority that nobody knows.
    pub(crate) unknown: Arc<ServerConfig>,
    /// Of somebody who uses the known authority's name.
    pub(crate) forged: Arc<ServerConfig>,
}

type Authority = Issuer<'static, KeyPair>;

impl Certificates {
    pub(crate) fn made() -> Certificates {
        let (pem, known) = authority("Authority");
        let (_, unknown) = authority("Nobody");
        let (_, forger) = authority("Authority");
        let all = rustls::ALL_VERSIONS;
        Certificates {
            authority: pem,
            good: server("localhost", NOW, &known, all),
            old_protocol: server("localhost", NOW, &known, &[&rustls::version::TLS12]),
            expired: server("localhost", (2020, 2021), &known, all),
            of_tomorrow: server("localhost", (2090, 2100), &known, all),
            wrong_name: server("elsewhere.example", NOW, &known, all),
            unknown: server("localhost", NOW, &unknown, all),
            forged: server("localhost", NOW, &forger, all),
        }
    }
}

/// From the beginning of one year to that of another.
type Years = (i32, i32);

const NOW: Years = (2020, 2100);

fn authority(name: &str) -> (String, Authority) {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().unwrap();
    let pem = params.self_signed(&key).unwrap().pem();
    (pem, Issuer::new(params, key))
}

fn server(
    name: &str,
    (from, to): Years,
    issuer: &Authority,
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ServerConfig> {
    let mut params = CertificateParams::new([name.to_owned()]).unwrap();
    params.not_before = date_time_ymd(from, 1, 1);
    params.not_after = date_time_ymd(to, 1, 1);
    let key = KeyPair::generate().unwrap();
    let certificate = params.signed_by(&key, issuer).unwrap();
    let key = PrivateKeyDer::Pkcs8(key.serialize_der().into());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(versions)
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate.der().clone()], key)
        .unwrap();
    Arc::new(config)
}
