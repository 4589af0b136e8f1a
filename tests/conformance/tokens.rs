//! JSON Web Tokens as Password. The tokens are those of `tests/tokens`, which other code has made; those that
//! have to end soon are made here with a secret.

use std::time::{SystemTime, UNIX_EPOCH};

use base64ct::{Base64UrlUnpadded, Encoding};
use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;

use crate::common::{Broker, RawClient, each, on_one_and_four_shards};

const SECRET: &str = "a secret of more than thirty-two bytes";

fn broker(shards: usize, settings: &[&str]) -> Broker {
    let keys =
        concat!("auth.jwt_keys_file=", env!("CARGO_MANIFEST_DIR"), "/tests/tokens/keys.json");
    let secret = format!("auth.jwt_secret={SECRET}");
    Broker::start(shards, &[&[keys, &secret, "auth.jwt_leeway_secs=0"], settings].concat())
}

fn tokens() -> impl Iterator<Item = (&'static str, &'static str)> {
    let lines = include_str!("../tokens/tokens.tsv").lines();
    lines.map(|line| line.split_once('\t').expect("an algorithm and a token"))
}

fn token(algorithm: &str) -> &'static str {
    tokens().find(|(name, _)| *name == algorithm).expect("a token of that algorithm").1
}

fn signed(header: &str, claims: &str, secret: &[u8]) -> String {
    let [header, claims] =
        [header, claims].map(|part| Base64UrlUnpadded::encode_string(part.as_bytes()));
    let mut mac = <Hmac<Sha256> as KeyInit>::new_from_slice(secret).expect("a key of any length");
    mac.update(format!("{header}.{claims}").as_bytes());
    let signature = Base64UrlUnpadded::encode_string(&mac.finalize().into_bytes());
    format!("{header}.{claims}.{signature}")
}

/// A right token that ends so many seconds from now.
fn ending_in(secs: i64, more: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let claims = format!(r#"{{"sub":"ann","exp":{}{more}}}"#, now as i64 + secs);
    signed(r#"{"alg":"HS256"}"#, &claims, SECRET.as_bytes())
}

fn connect(broker: &Broker, id: &str, token: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 c2 003c () '{id}' 'whoever' '{token}' )"));
    client
}

/// In every version, wherever the client's home is; the user is who the token says.
fn every_algorithm_is_taken(broker: &Broker) {
    for (algorithm, token) in tokens() {
        connect(broker, &format!("id-{algorithm}"), token).expect_accepted();
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 04 c2 003c '{algorithm}' '' '{token}' )"));
        client.expect("20 02 00 00");
        client.ping();
    }
    // A Password alone, which only v5 has.
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 05 42 003c () 'me' '{}' )", token("EdDSA")));
    client.expect_accepted();
    broker.wait_for_log(&["client connected", "user=\"ann\"", "groups=\"plant night\""]);
}

/// RFC 8725: what the token itself says of how it is checked counts for nothing.
fn wrong_tokens_are_refused(broker: &Broker) {
    let (signed_part, signature) = token("ES256").rsplit_once('.').expect("three parts");
    let none = Base64UrlUnpadded::encode_string(br#"{"alg":"none"}"#);
    let claims = signed_part.split_once('.').expect("two parts").1;
    let keys: serde_json::Value =
        serde_json::from_str(include_str!("../tokens/keys.json")).expect("JSON");
    let modulus = keys["keys"][1]["n"].as_str().expect("the RSA key's modulus");
    let modulus = Base64UrlUnpadded::decode_vec(modulus).expect("base64url");
    let right = r#"{"sub":"eve","exp":4102444800}"#;
    let header = r#"{"alg":"HS256"}"#;
    let cases = [
        ("not signed", format!("{none}.{claims}.")),
        ("alg none with a signature", format!("{none}.{claims}.{signature}")),
        ("signature cut off", format!("{signed_part}.")),
        (
            "signature of another",
            format!("{signed_part}.{}", token("ES384").rsplit_once('.').unwrap().1),
        ),
        ("public key as a secret", signed(r#"{"alg":"HS256","kid":"rsa"}"#, right, &modulus)),
        ("another secret", signed(header, right, &[7; 32])),
        ("over", ending_in(-1, "")),
        ("not yet", ending_in(1000, r#","nbf":4102444800"#)),
        ("no exp", signed(header, r#"{"sub":"ann"}"#, SECRET.as_bytes())),
        ("no sub", signed(header, r#"{"exp":4102444800}"#, SECRET.as_bytes())),
        ("critical", signed(r#"{"alg":"HS256","crit":["x"]}"#, right, SECRET.as_bytes())),
        ("no JSON", "eyJh.eyJh.eyJh".to_owned()),
        ("no token", "secret".to_owned()),
        ("too long", format!("e{}.e30.e30", "y".repeat(60_000))),
    ];
    each(cases, |(_, token)| {
        let mut client = connect(broker, "me", token);
        client.expect("20 ( 00 86 00 )");
        client.expect_closed();
    });
    let mut client = RawClient::connect(broker.port);
    client.send(&format!("10 ( 'MQTT' 04 c2 003c 'me' 'ann' '{}' )", ending_in(-1, "")));
    client.expect("20 02 00 04");
    client.expect_closed();
    broker.wait_for_log(&["the token has expired"]);
    broker.wait_for_log(&["the signature of the token is wrong"]);
}

/// 0xA0, Maximum connect time: what authorized the connection is over (section 3.14.2.1).
fn the_connection_ends_with_the_token(broker: &Broker) {
    let mut client = connect(broker, "me", &ending_in(2, ""));
    client.expect_accepted();
    client.ping();
    let mut old = RawClient::connect(broker.port);
    old.send(&format!("10 ( 'MQTT' 04 c2 0000 'old' '' '{}' )", ending_in(2, "")));
    old.expect("20 02 00 00");
    let mut other = connect(broker, "other", &ending_in(1000, ""));
    other.expect_accepted();
    client.expect_disconnect(0xa0);
    old.expect_closed();
    other.ping();
    broker.wait_for_log(&["credentials of the client have expired", "client=me"]);
}

fn claims_are_held_against_the_client(broker: &Broker) {
    connect(broker, "sensor-1", token("RS256")).expect_accepted();
    for id in ["sensor-2", "", "sensor-1 "] {
        connect(broker, id, token("RS256")).expect("20 ( 00 86 00 )");
    }
    connect(broker, "sensor-1", &ending_in(100, "")).expect("20 ( 00 86 00 )");
    let own = ending_in(
        100,
        r#","client_id":"x","iss":"https://issuer.example","aud":"broker","groups":["a"]"#,
    );
    connect(broker, "x", &own).expect_accepted();
}

on_one_and_four_shards! {
    by super::broker;
    every_algorithm_is_taken;
    wrong_tokens_are_refused;
    the_connection_ends_with_the_token;
    claims_are_held_against_the_client with
        "auth.jwt_client_id_claim=client_id",
        "auth.jwt_issuer=https://issuer.example",
        "auth.jwt_audience=broker";
}
