//! Looks for secrets in a text, as they are and in other encodings.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

/// Everything in which this secret would show: itself, escaped for JSON and for URLs, and in base64
/// wherever it may begin.
fn encodings(secret: &str) -> Vec<String> {
    let percent = utf8_percent_encode(secret, NON_ALPHANUMERIC).to_string();
    let json =
        serde_json::to_string(secret).expect("a string is JSON").trim_matches('"').to_owned();
    let mut encodings = vec![
        secret.to_owned(),
        json,
        secret.replace('/', "\\/"),
        format!("{secret:?}").trim_matches('"').to_owned(),
    ];
    // Of the characters that a URL may leave alone some encoders leave some; the letters go by
    // either case.
    let some = |keep: &str| {
        secret
            .chars()
            .map(
                |letter| {
                    if keep.contains(letter) { letter.to_string() } else { percent_of(letter) }
                },
            )
            .collect::<String>()
    };
    encodings.extend([
        percent.clone(),
        lower_hex(&percent),
        some("-_.~"),
        some("-_.~/"),
        some("-_.~+"),
        some("-_.~/+="),
    ]);
    encodings.push(some("-_.~").replace("%20", "+"));
    // Three alignments: what stands before the secret decides how its letters are cut. Only what is
    // wholly of it counts.
    for before in 0..3usize {
        let padded = [&b"\0\0"[..before], secret.as_bytes()].concat();
        for encoded in [STANDARD_NO_PAD.encode(&padded), URL_SAFE_NO_PAD.encode(&padded)] {
            let (from, to) = ((before * 8).div_ceil(6), padded.len() * 8 / 6);
            encodings.push(encoded[from..to].to_owned());
        }
    }
    encodings.push(hex::encode(secret));
    encodings.push(hex::encode_upper(secret));
    encodings.push(secret.bytes().map(|byte| byte.to_string()).collect::<Vec<_>>().join(", "));
    encodings.sort();
    encodings.dedup();
    encodings
}

fn percent_of(letter: char) -> String {
    if letter.is_ascii_alphanumeric() {
        letter.to_string()
    } else {
        utf8_percent_encode(&letter.to_string(), NON_ALPHANUMERIC).to_string()
    }
}

/// `%2F` as `%2f`.
fn lower_hex(percent: &str) -> String {
    let mut parts = percent.split('%');
    let first = parts.next().unwrap_or_default().to_owned();
    parts.fold(first, |text, part| text + "%" + &part[..2].to_lowercase() + &part[2..])
}

/// The secrets that show in this text, each by its first letters and the encoding.
pub fn found(text: &str, secrets: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for secret in secrets {
        for encoding in
            encodings(secret).into_iter().filter(|encoding| text.contains(encoding.as_str()))
        {
            found.push(format!("{}… as {encoding}", &secret[..6]));
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_search_finds_a_secret_in_every_encoding() {
        let secret = "wJalr+XUtn/FEMI=K7MDENG/bPxRfi\"CY+EXAMPLE".to_owned();
        let all = [secret.clone()];
        let url = |text: &str| form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>();
        let hiding = [
            format!("AWS_SECRET_ACCESS_KEY={secret}"),
            serde_json::json!({ "value": secret }).to_string(),
            format!("{:?}", Some(&secret)),
            format!("value={}&masked=true", url(&secret)),
            format!("https://x/?q={}", utf8_percent_encode(&secret, NON_ALPHANUMERIC)),
            STANDARD_NO_PAD.encode(format!("user:{secret}")),
            STANDARD_NO_PAD.encode(format!("users:{secret}@")),
            STANDARD_NO_PAD.encode(format!("a user:{secret} and more")),
            URL_SAFE_NO_PAD.encode(format!("{{\"secret\": \"{}\"}}", &secret)),
            hex::encode(&secret),
            format!("{:?}", secret.as_bytes()),
        ];
        for text in hiding {
            assert!(!found(&text, &all).is_empty(), "not found in {text}");
            assert!(
                found(&text, &["wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY99".to_owned()]).is_empty(),
                "another one found in {text}"
            );
        }
        assert_eq!(found("nothing of it: wJalr, K7MDENG", &all), Vec::<String>::new());
    }
}
