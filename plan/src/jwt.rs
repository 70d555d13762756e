//! JSON web tokens (RFC 7519) as clients send them, taken apart as Envoy does it; nothing here is verified.
//!
//! Pure. In: the text of a token. Out: what it says, and what is to be verified. What goes wrong is said in Envoy's words, which
//! clients are told.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Map, Value};

/// The longest token, in bytes: no longer one fits into a request's headers.
const LONGEST: usize = 60 << 10;

/// Why a token is not good, in Envoy's words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[expect(missing_docs, reason = "the words say it")]
pub enum JwtError {
    #[error("Jwt is missing")]
    Missing,
    #[error("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")]
    BadFormat,
    #[error("Jwt header is an invalid Base64url encoded")]
    HeaderBase64,
    #[error("Jwt header is an invalid JSON")]
    HeaderJson,
    #[error("Jwt header [alg] field is required and must be a string")]
    HeaderAlg,
    #[error("Jwt header [alg] is not supported")]
    HeaderUnknownAlg,
    #[error("Jwt header [kid] field is not a string")]
    HeaderKid,
    #[error("Jwt payload is an invalid Base64url encoded")]
    PayloadBase64,
    #[error("Jwt payload is an invalid JSON")]
    PayloadJson,
    #[error("Jwt payload [iss] field is not a string")]
    PayloadIss,
    #[error("Jwt payload [sub] field is not a string")]
    PayloadSub,
    #[error("Jwt payload [iat] field is not an integer")]
    PayloadIat,
    #[error("Jwt payload [nbf] field is not an integer")]
    PayloadNbf,
    #[error("Jwt payload [exp] field is not an integer")]
    PayloadExp,
    #[error("Jwt payload [jti] field is not a string")]
    PayloadJti,
    #[error("Jwt payload [aud] field is not a string or string list")]
    PayloadAud,
    #[error("Jwt signature is an invalid Base64url encoded")]
    SignatureBase64,
    #[error("Jwt issuer is not configured")]
    UnknownIssuer,
    #[error("Jwt not yet valid")]
    NotYetValid,
    #[error("Jwt is expired")]
    Expired,
    #[error("Audiences in Jwt are not allowed")]
    Audience,
    #[error("Jwks doesn't have any valid public key")]
    NoKeys,
    #[error("Jwks doesn't have key to match kid or alg from Jwt")]
    NoMatchingKey,
    #[error("Jwt verification fails")]
    Signature,
}

/// `alg` of a token (RFC 7518); those that are verified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "the names are the standard's")]
pub enum Algorithm {
    Hs256,
    Hs384,
    Hs512,
    Rs256,
    Rs384,
    Rs512,
    Ps256,
    Ps384,
    Ps512,
    Es256,
    Es384,
    EdDsa,
}

/// A token, taken apart.
#[derive(Debug)]
pub struct Token<'a> {
    /// `alg`, and as it is written.
    pub algorithm: (Algorithm, String),
    /// `kid`; empty where there is none.
    pub kid: String,
    /// `iss`; empty where there is none.
    pub issuer: String,
    /// `aud`
    pub audiences: Vec<String>,
    /// `nbf`, in seconds since 1970; 0 where there is none.
    pub not_before: u64,
    /// `exp`, in seconds since 1970; `None` where there is none.
    pub expires: Option<u64>,
    /// Everything that it says.
    pub payload: Map<String, Value>,
    /// The payload as it was written.
    pub encoded_payload: &'a str,
    /// What is signed.
    pub signed: &'a [u8],
    /// The signature.
    pub signature: Vec<u8>,
}

impl<'a> Token<'a> {
    /// Takes a token apart.
    pub fn parse(text: &'a str) -> Result<Self, JwtError> {
        let mut sections = text.split('.');
        let (Some(header), Some(payload), Some(signature), None) =
            (sections.next(), sections.next(), sections.next(), sections.next())
        else {
            return Err(JwtError::BadFormat);
        };
        if text.len() > LONGEST || header.is_empty() || payload.is_empty() || signature.is_empty() {
            return Err(JwtError::BadFormat);
        }
        let encoded_payload = payload;
        let header = object(header, JwtError::HeaderBase64, JwtError::HeaderJson)?;
        let alg = header.get("alg").and_then(Value::as_str).ok_or(JwtError::HeaderAlg)?;
        let algorithm = (Algorithm::named(alg).ok_or(JwtError::HeaderUnknownAlg)?, alg.to_owned());
        let kid = text_of(&header, "kid", JwtError::HeaderKid)?;
        let payload = object(payload, JwtError::PayloadBase64, JwtError::PayloadJson)?;
        let issuer = text_of(&payload, "iss", JwtError::PayloadIss)?;
        text_of(&payload, "sub", JwtError::PayloadSub)?;
        seconds(&payload, "iat", JwtError::PayloadIat)?;
        let not_before = seconds(&payload, "nbf", JwtError::PayloadNbf)?.unwrap_or_default();
        let expires = seconds(&payload, "exp", JwtError::PayloadExp)?;
        text_of(&payload, "jti", JwtError::PayloadJti)?;
        let audiences = audiences(&payload)?;
        let signed = text.as_bytes().get(..text.len() - signature.len() - 1).ok_or(JwtError::BadFormat)?;
        let signature = URL_SAFE_NO_PAD.decode(signature).map_err(|_| JwtError::SignatureBase64)?;
        Ok(Self {
            algorithm,
            kid,
            issuer,
            audiences,
            not_before,
            expires,
            payload,
            encoded_payload,
            signed,
            signature,
        })
    }
}

impl Algorithm {
    fn named(alg: &str) -> Option<Self> {
        Some(match alg {
            "HS256" => Self::Hs256,
            "HS384" => Self::Hs384,
            "HS512" => Self::Hs512,
            "RS256" => Self::Rs256,
            "RS384" => Self::Rs384,
            "RS512" => Self::Rs512,
            "PS256" => Self::Ps256,
            "PS384" => Self::Ps384,
            "PS512" => Self::Ps512,
            "ES256" => Self::Es256,
            "ES384" => Self::Es384,
            "EdDSA" => Self::EdDsa,
            _ => return None,
        })
    }
}

fn object(text: &str, not_base64: JwtError, not_json: JwtError) -> Result<Map<String, Value>, JwtError> {
    let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| not_base64)?;
    serde_json::from_slice(&bytes).map_err(|_| not_json)
}

fn text_of(object: &Map<String, Value>, key: &str, wrong: JwtError) -> Result<String, JwtError> {
    object.get(key).map_or(Ok(String::new()), |value| value.as_str().map(str::to_owned).ok_or(wrong))
}

/// Any number that is not negative; a fraction of a second is none.
fn seconds(object: &Map<String, Value>, key: &str, wrong: JwtError) -> Result<Option<u64>, JwtError> {
    let Some(value) = object.get(key) else { return Ok(None) };
    if let Some(seconds) = value.as_u64() {
        return Ok(Some(seconds));
    }
    let seconds = value.as_f64().filter(|seconds| *seconds >= 0.0).ok_or(wrong)?;
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
    Ok(Some(seconds as u64))
}

fn audiences(payload: &Map<String, Value>) -> Result<Vec<String>, JwtError> {
    match payload.get("aud") {
        None => Ok(Vec::new()),
        Some(Value::String(one)) => Ok(vec![one.clone()]),
        Some(Value::Array(list)) => {
            list.iter().map(|one| one.as_str().map(str::to_owned).ok_or(JwtError::PayloadAud)).collect()
        }
        Some(_) => Err(JwtError::PayloadAud),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: &str, payload: &str) -> String {
        format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(payload))
    }

    #[test]
    fn a_token_is_taken_apart() {
        let text = encoded(r#"{"alg":"RS256","kid":"k"}"#, r#"{"iss":"i","aud":["a","b"],"exp":7.9}"#);
        let token = Token::parse(&text).unwrap();
        assert_eq!(token.algorithm.0, Algorithm::Rs256);
        assert_eq!((token.kid.as_str(), token.issuer.as_str()), ("k", "i"));
        assert_eq!((token.audiences, token.expires), (vec!["a".to_owned(), "b".to_owned()], Some(7)));
        assert_eq!(token.signature, b"sig");
        assert_eq!(token.signed, text.strip_suffix(".c2ln").unwrap().as_bytes());
    }

    #[test]
    fn what_is_wrong_is_said() {
        let rs256 = r#"{"alg":"RS256"}"#;
        for (text, error) in [
            ("a.b".to_owned(), JwtError::BadFormat),
            ("a.b.c.d".to_owned(), JwtError::BadFormat),
            ("a.b.".to_owned(), JwtError::BadFormat),
            ("*.b.c".to_owned(), JwtError::HeaderBase64),
            (encoded("[]", "{}"), JwtError::HeaderJson),
            (encoded("{}", "{}"), JwtError::HeaderAlg),
            (encoded(r#"{"alg":"none"}"#, "{}"), JwtError::HeaderUnknownAlg),
            (encoded(r#"{"alg":"RS256","kid":1}"#, "{}"), JwtError::HeaderKid),
            (encoded(rs256, "1"), JwtError::PayloadJson),
            (encoded(rs256, r#"{"iss":1}"#), JwtError::PayloadIss),
            (encoded(rs256, r#"{"exp":"1"}"#), JwtError::PayloadExp),
            (encoded(rs256, r#"{"nbf":-1}"#), JwtError::PayloadNbf),
            (encoded(rs256, r#"{"aud":[1]}"#), JwtError::PayloadAud),
            (encoded(rs256, "{}") + "!", JwtError::SignatureBase64),
            ("a".repeat(LONGEST) + ".b.c", JwtError::BadFormat),
        ] {
            assert_eq!(Token::parse(&text).map(|_| ()), Err(error), "{text:.80}");
        }
    }
}
