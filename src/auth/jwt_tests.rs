//! Tokens of every algorithm, made by other code, and all that can be wrong with one.

use super::*;
use crate::config::KeySet;

const KEYS: &str = include_str!("../../tests/tokens/keys.json");
const TOKENS: &str = include_str!("../../tests/tokens/tokens.tsv");

/// Long after the tokens were issued, long before they end.
const NOW: u64 = 1_800_000_000;

fn rules() -> TokenRules {
    TokenRules { keys: KeySet::parse(KEYS).unwrap(), ..TokenRules::default() }
}

fn tokens() -> impl Iterator<Item = (&'static str, &'static str)> {
    TOKENS.lines().map(|line| line.split_once('\t').unwrap())
}

fn token(algorithm: &str) -> &'static str {
    tokens().find(|(name, _)| *name == algorithm).unwrap().1
}

fn check(rules: &TokenRules, token: &str) -> Result<Verified, TokenError> {
    verify(rules, token.as_bytes(), "sensor-1", NOW)
}

/// The secret of the key set.
fn secret() -> Vec<u8> {
    match &rules().keys.iter().next().unwrap().material {
        KeyMaterial::Secret(secret) => secret.to_vec(),
        _ => unreachable!("the first key is the secret"),
    }
}

fn signed_with(secret: &[u8], header: &str, claims: &str) -> String {
    let [header, claims] =
        [header, claims].map(|part| Base64UrlUnpadded::encode_string(part.as_bytes()));
    let signed = format!("{header}.{claims}");
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    let signature = hmac::sign(&key, signed.as_bytes());
    format!("{signed}.{}", Base64UrlUnpadded::encode_string(signature.as_ref()))
}

/// A token with these claims that is signed rightly.
fn made(claims: &str) -> String {
    signed_with(&secret(), r#"{"alg":"HS256"}"#, claims)
}

#[test]
fn every_algorithm_is_verified() {
    let groups = ["plant".into(), "night".into()].into();
    let valid_secs = Some(4_102_444_800 + 60 - NOW);
    let expected = Verified { user: "ann".into(), groups, valid_secs };
    assert_eq!(tokens().count(), 12);
    for (algorithm, token) in tokens() {
        assert!(is_token(token.as_bytes()), "{algorithm}");
        assert_eq!(check(&rules(), token).as_ref(), Ok(&expected), "{algorithm}");
    }
}

#[test]
fn a_token_that_is_changed_anywhere_is_refused() {
    for (algorithm, token) in tokens() {
        for at in (0..token.len()).step_by(7) {
            let mut damaged = token.as_bytes().to_vec();
            damaged[at] = if damaged[at] == b'A' { b'B' } else { b'A' };
            if damaged == token.as_bytes() {
                continue;
            }
            let outcome = verify(&rules(), &damaged, "sensor-1", NOW);
            assert!(outcome.is_err(), "{algorithm} changed at {at}");
        }
        for cut in [1, 2, 20, token.len() / 2] {
            assert!(check(&rules(), &token[..token.len() - cut]).is_err(), "{algorithm}");
        }
    }
}

/// RFC 8725 section 3.1 and 3.2.
#[test]
fn the_token_does_not_choose_how_it_is_checked() {
    let claims = r#"{"sub":"eve","exp":4102444800}"#;
    let part = |text: &str| Base64UrlUnpadded::encode_string(text.as_bytes());
    for alg in ["none", "None", "NONE", "nOnE", "", "HS1", "RS1", "ES512", "A128KW"] {
        let header = format!(r#"{{"alg":"{alg}"}}"#);
        let bare = format!("{}.{}.", part(&header), part(claims));
        assert_eq!(check(&rules(), &bare), Err(TokenError::NoKey(alg.to_owned())), "{alg}");
        let signed = signed_with(&secret(), &header, claims);
        assert_eq!(check(&rules(), &signed), Err(TokenError::NoKey(alg.to_owned())), "{alg}");
    }
    // What is public signs nothing, in whichever form somebody takes it for a secret.
    for key in rules().keys.iter() {
        let public = match &key.material {
            KeyMaterial::Secret(_) => continue,
            KeyMaterial::Rsa { n, .. } => n,
            KeyMaterial::P256(key) | KeyMaterial::P384(key) | KeyMaterial::Ed25519(key) => key,
        };
        for kid in ["", &format!(r#","kid":"{}""#, key.id.as_deref().unwrap())] {
            let header = format!(r#"{{"alg":"HS256"{kid}}}"#);
            let forged = signed_with(public, &header, claims);
            assert!(check(&rules(), &forged).is_err(), "{key:?} {kid}");
        }
    }
    let headers = [
        (r#"{"kid":"secret"}"#, TokenError::NoKey(String::new())),
        (r#"{"alg":256}"#, TokenError::NoKey(String::new())),
        (r#"{"alg":"HS256","kid":"rsa"}"#, TokenError::NoKey("HS256".to_owned())),
        (r#"{"alg":"HS256","kid":"other"}"#, TokenError::NoKey("HS256".to_owned())),
        (
            r#"{"alg":"HS256","crit":["exp"]}"#,
            TokenError::Malformed("crit names what is not understood here"),
        ),
        (r#"["alg"]"#, TokenError::Malformed("header")),
        ("", TokenError::Malformed("header")),
    ];
    for (header, expected) in headers {
        let signed = signed_with(&secret(), header, claims);
        assert_eq!(check(&rules(), &signed), Err(expected), "{header}");
    }
    // An empty signature is none.
    let (signed, _) = token("HS256").rsplit_once('.').unwrap();
    assert_eq!(check(&rules(), &format!("{signed}.")), Err(TokenError::Signature));
}

#[test]
fn a_key_is_for_its_algorithm_and_id_alone() {
    let mut keys: Value = serde_json::from_str(KEYS).unwrap();
    keys["keys"][1]["alg"] = "RS256".into();
    let only = TokenRules { keys: KeySet::parse(&keys.to_string()).unwrap(), ..rules() };
    assert!(check(&only, token("RS256")).is_ok());
    assert_eq!(check(&only, token("PS256")), Err(TokenError::NoKey("PS256".to_owned())));
    // After a change of keys there are two for a while; a key without an id is tried for each.
    let other = signed_with(&[1; 32], r#"{"alg":"HS256"}"#, r#"{"sub":"ann","exp":4102444800}"#);
    assert_eq!(check(&rules(), &other), Err(TokenError::Signature));
    let mut keys: Value = serde_json::from_str(KEYS).unwrap();
    let new = serde_json::json!({"kty": "oct", "k": Base64UrlUnpadded::encode_string(&[1; 32])});
    keys["keys"].as_array_mut().unwrap().push(new);
    let both = TokenRules { keys: KeySet::parse(&keys.to_string()).unwrap(), ..rules() };
    assert!(check(&both, &other).is_ok() && check(&both, token("HS256")).is_ok());
}

#[test]
fn claims_have_to_hold() {
    let claim = |name: &str, why| TokenError::Claim(name.to_owned(), why);
    let no_time = |name: &str| claim(name, "is no time");
    for (claims, expected) in [
        (r#"{"sub":"a","exp":1799999941}"#, Ok(Some(1))),
        (r#"{"sub":"a","exp":1799999940}"#, Err(TokenError::Expired)),
        (r#"{"sub":"a","exp":0}"#, Err(TokenError::Expired)),
        (r#"{"sub":"a","exp":1e300}"#, Ok(Some(u64::MAX - NOW))),
        (r#"{"sub":"a","exp":1800000000.9}"#, Ok(Some(60))),
        (r#"{"sub":"a"}"#, Err(claim("exp", "is missing"))),
        (r#"{"sub":"a","exp":"4102444800"}"#, Err(no_time("exp"))),
        (r#"{"sub":"a","exp":null}"#, Err(no_time("exp"))),
        (r#"{"sub":"a","exp":-1}"#, Err(no_time("exp"))),
        (r#"{"sub":"a","exp":1800000000,"nbf":1800000060}"#, Ok(Some(60))),
        (r#"{"sub":"a","exp":1800000000,"nbf":1800000061}"#, Err(TokenError::NotYet)),
        (r#"{"sub":"a","exp":1800000000,"iat":1800000061}"#, Err(TokenError::NotYet)),
        (r#"{"sub":"a","exp":1800000000,"nbf":true}"#, Err(no_time("nbf"))),
        (r#"{"exp":1800000000}"#, Err(claim("sub", "is no text"))),
        (r#"{"sub":7,"exp":1800000000}"#, Err(claim("sub", "is no text"))),
        (
            r#"{"sub":"","exp":1800000000}"#,
            Err(TokenError::Unusable(
                "the user name is empty, too long or holds control characters",
            )),
        ),
        (
            r#"{"sub":"a","exp":1800000000,"groups":[1]}"#,
            Err(claim("groups", "is no list of texts")),
        ),
        ("[]", Err(TokenError::Malformed("claims"))),
        ("", Err(TokenError::Malformed("claims"))),
    ] {
        let found = check(&rules(), &made(claims)).map(|identity| identity.valid_secs);
        assert_eq!(found, expected, "{claims}");
    }
    let lenient = TokenRules { requires_exp: false, ..rules() };
    assert_eq!(check(&lenient, &made(r#"{"sub":"a"}"#)), Ok(Verified::of_user("a")));
}

#[test]
fn what_is_configured_has_to_be_there() {
    let name = |text: &str| Some(text.into());
    let rules = TokenRules {
        issuer: name("https://issuer.example"),
        audience: name("broker"),
        client_id_claim: name("client_id"),
        ..rules()
    };
    assert!(check(&rules, token("ES256")).is_ok());
    for wrong in [
        TokenRules { issuer: name("https://issuer.example/"), ..rules.clone() },
        TokenRules { audience: name("brok"), ..rules.clone() },
        TokenRules { client_id_claim: name("device"), ..rules.clone() },
        TokenRules { user_claim: "aud".into(), ..rules.clone() },
        TokenRules { groups_claim: "exp".into(), ..rules.clone() },
    ] {
        assert!(matches!(check(&wrong, token("ES256")), Err(TokenError::Claim(..))), "{wrong:?}");
    }
    let other = verify(&rules, token("ES256").as_bytes(), "sensor-2", NOW);
    assert_eq!(
        other,
        Err(TokenError::Claim("client_id".to_owned(), "is not the Client Identifier"))
    );
    let one = TokenRules { audience: name("a b"), groups_claim: "scope".into(), ..self::rules() };
    let identity = check(&one, &made(r#"{"sub":"x","exp":2e9,"aud":"a b","scope":" p  q "}"#));
    assert_eq!(identity.unwrap().groups, ["p".into(), "q".into()].into());
    assert!(check(&one, &made(r#"{"sub":"x","exp":2e9,"aud":"b"}"#)).is_err());
    assert!(check(&one, &made(r#"{"sub":"x","exp":2e9}"#)).is_err());
}

#[test]
fn what_is_no_token_is_told_from_one() {
    for text in ["", "secret", "e.y", "e.y.z.w", "eyJ.a=.b", "abc.def.ghi", "e\u{e9}.a.b"] {
        assert!(!is_token(text.as_bytes()), "{text:?}");
    }
    assert!(is_token(b"eyJ9.e30.") && !is_token(&[0xff; 9]));
    let deep = Base64UrlUnpadded::encode_string("[".repeat(3000).as_bytes());
    let long = format!("e{}.a.b", "y".repeat(TOKEN_BYTES_MAX));
    for text in ["", ".", "..", "a.b.c", "e30.e30", &format!("{deep}.{deep}.AAAA"), &long] {
        assert!(matches!(
            check(&rules(), text),
            Err(TokenError::Malformed(_) | TokenError::NoKey(_))
        ));
    }
}
