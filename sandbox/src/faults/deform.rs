//! Bodies that are too long, broken or bombs.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;

const BOMB_BYTES: usize = 10 * 1024 * 1024;

/// Makes a body long and leaves it valid JSON where it was.
pub(super) fn pad(body: &mut Vec<u8>, bytes: usize) {
    let is_object = body.last() == Some(&b'}');
    let missing = bytes.saturating_sub(body.len());
    if !is_object {
        body.resize(body.len() + missing, b' ');
        return;
    }
    body.pop();
    let is_empty = body.iter().all(|byte| b"{ ".contains(byte));
    body.extend_from_slice(if is_empty {
        b"\"padding\":\""
    } else {
        b",\"padding\":\""
    });
    body.resize(body.len() + missing, b'x');
    body.extend_from_slice(b"\"}");
}

/// Ten megabytes of zeros, compressed.
pub(super) fn bomb() -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    let written = encoder.write_all(&vec![0; BOMB_BYTES]);
    written.and_then(|()| encoder.finish()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padded_bodies_stay_valid() {
        for body in ["{}", "{\"id\":7}", "[1]"] {
            let mut bytes = body.as_bytes().to_vec();
            pad(&mut bytes, 1000);
            assert!(bytes.len() >= 1000);
            assert!(
                serde_json::from_slice::<serde_json::Value>(&bytes).is_ok(),
                "{body}"
            );
        }
    }
}
