//! What operators write: the configuration, and where the gateway is.

use std::net::IpAddr;
use std::path::PathBuf;

use apipayd::config::{Environment, Settings, Sources};

use crate::seeds::{Seeds, Tape, tapes};

/// All that a configuration must have.
pub(crate) const DATABASE: &[u8] = b"[database]\nurl = \"postgres://localhost/shop\"\n";

/// A file of this process for one target.
pub(crate) fn file(name: &str, text: &[u8]) -> PathBuf {
    let name = format!("fuzz-{}-{name}.toml", std::process::id());
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::write(&path, text).unwrap();
    path
}

#[test]
fn a_configuration_is_refused_with_its_place_or_holds_together() {
    let seeds = Seeds::of("settings");
    seeds.each(|tape, text| {
        // One reading tells everything: there are no choices in it.
        if tape.byte() == 0 {
            read(text);
        }
    });
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| read(&seeds.mutated(&mut Tape(input))));
    std::fs::remove_file(file("settings", b"")).unwrap();
}

fn read(text: &[u8]) {
    let path = file("settings", text);
    let sources = Sources {
        file: Some(path.clone()),
        environment: Environment::from([]),
    };
    match Settings::read(&sources) {
        Ok(settings) => {
            let (worker, http) = (&settings.worker, &settings.http);
            assert!(worker.lease > http.timeout && worker.grace > http.timeout);
            assert!((1_024..=16 << 20).contains(&http.max_body_bytes));
            for account in &settings.accounts {
                assert!(account.requests_per_minute > 0 && account.concurrency > 0);
                assert!(account.allow_insecure || account.base_url.scheme() == "https");
            }
            let rules = settings.rules();
            for curve in [
                rules.server_error,
                rules.network,
                rules.rate_limited,
                rules.async_error,
            ] {
                assert!(curve.multiplier >= 1.0 && (0.0..=1.0).contains(&curve.jitter));
                assert!(curve.initial <= curve.max, "{curve:?}");
            }
        }
        Err(error) => {
            let told = error.to_string();
            // A name that is wrong is quoted, and nothing twice.
            let most = text.len() + 4_000;
            assert!(
                !told.is_empty() && told.len() < most,
                "{} bytes",
                told.len()
            );
        }
    }
}

#[test]
fn a_base_url_is_refused_or_leads_by_tls_to_the_public_internet() {
    let path = file("urls", DATABASE);
    let seeds = Seeds::of("urls");
    seeds.each(|tape, written| base_url(tape.coin(), written, &path));
    bolero::check!()
        .with_generator(tapes())
        .for_each(|input: &Vec<u8>| {
            let mut tape = Tape(input);
            let insecure = tape.coin();
            base_url(insecure, &seeds.mutated(&mut tape), &path);
        });
    std::fs::remove_file(path).unwrap();
}

fn base_url(insecure: bool, written: &[u8], file: &std::path::Path) {
    let written = String::from_utf8_lossy(written);
    let sources = Sources {
        file: Some(file.to_owned()),
        environment: Environment::from([
            ("APIPAYD__ACCOUNTS__DEFAULT__BASE_URL", written.as_ref()),
            (
                "APIPAYD__ACCOUNTS__DEFAULT__ALLOW_INSECURE",
                if insecure { "true" } else { "false" },
            ),
        ]),
    };
    let settings = match Settings::read(&sources) {
        Ok(settings) => settings,
        Err(error) => {
            assert!(!error.to_string().contains("secret"), "{error}");
            return;
        }
    };
    let url = &settings.accounts[0].base_url;
    assert!(url.username().is_empty() && url.password().is_none());
    assert!(url.query().is_none() && url.fragment().is_none());
    assert_eq!(
        url.as_str().parse().as_ref(),
        Ok(url),
        "what is printed reads the same"
    );
    if insecure {
        return;
    }
    assert_eq!(url.scheme(), "https", "{url}");
    let host = url.host_str().unwrap().trim_matches(['[', ']']);
    let name = host.trim_end_matches('.');
    let is_local = name == "localhost" || name.ends_with(".localhost") || name.ends_with(".local");
    assert!(!is_local, "{url}");
    if let Ok(address) = host.parse::<IpAddr>() {
        let address = address.to_canonical();
        assert!(!address.is_loopback() && !address.is_unspecified() && !address.is_multicast());
        if let IpAddr::V4(v4) = address {
            assert!(
                !v4.is_private() && !v4.is_link_local() && v4.octets()[0] < 240,
                "{url}"
            );
        }
    }
}
