//! The keys of `[auth]`, and that no message shows a secret.

use super::*;

const SECRET: &str = "a secret of more than thirty-two bytes";

fn keys_file(text: &str) -> (TempFile, String) {
    let file = TempFile::new(text.as_bytes());
    let path = file.0.display().to_string();
    (file, path)
}

#[test]
fn every_key_of_auth_can_stand_in_the_file() {
    let (_keys, path) = keys_file(include_str!("../../../tests/tokens/keys.json"));
    let config = file(&format!(
        r#"
        [auth]
        chain = ["http", "jwt"]
        jwt_keys_file = "{path}"
        jwt_secret = "{SECRET}"
        jwt_issuer = "i"
        jwt_audience = "a"
        jwt_user_claim = "u"
        jwt_client_id_claim = "c"
        jwt_groups_claim = "g"
        jwt_requires_exp = false
        jwt_leeway_secs = 0
        http_url = "https://auth.example/mqtt"
        http_header = "X-Key: abc"
        http_timeout_millis = 1
        http_cache_secs = 0
        http_failures_max = 1
        http_retry_secs = 1
        http_failing = "next"
        "#
    ));
    let policy = config.unwrap().policy;
    assert_eq!(policy.chain.0, [Method::Http, Method::Jwt]);
    let tokens = policy.tokens.clone().unwrap();
    assert_eq!(tokens.keys.iter().count(), 6);
    let expected = TokenRules {
        keys: tokens.keys.clone(),
        issuer: Some("i".into()),
        audience: Some("a".into()),
        user_claim: "u".into(),
        client_id_claim: Some("c".into()),
        groups_claim: "g".into(),
        requires_exp: false,
        leeway_secs: 0,
    };
    assert_eq!(*tokens, expected);
    let expected = HttpRules {
        url: "https://auth.example/mqtt".into(),
        header: Some(Header { name: "X-Key".into(), value: "abc".into() }),
        timeout_millis: 1,
        cache_secs: 0,
        failures_max: 1,
        retry_secs: 1,
        failing_is_next: true,
    };
    assert_eq!(*policy.http.clone().unwrap(), expected);
    let shown = format!("{policy:?}");
    assert!(!shown.contains("abc") && !shown.contains("thirty"), "{shown}");
}

#[test]
fn a_variable_can_name_the_file_of_a_value() {
    let (_secret, path) = keys_file(&format!("\"{SECRET}\"\n"));
    let (_shards, shards) = keys_file("2\n");
    let given = Given {
        environment: &[
            ("RINGMQ_AUTH_JWT_SECRET_FILE", &path),
            ("RINGMQ_SHARDS_FILE", &shards),
            ("RINGMQ_AUTH_HTTP_URL", "http://localhost"),
        ],
        ..Given::default()
    };
    let config = given.load().unwrap();
    assert_eq!(config.shards.get(), 2);
    let mut quoted = KeySet::default();
    quoted.add_secret(&format!("\"{SECRET}\"")).unwrap();
    assert_eq!(config.policy.tokens.unwrap().keys, quoted);
    check_errors(
        &Given {
            environment: &[
                ("RINGMQ_AUTH_JWT_SECRET_FILE", "/nonexistent"),
                ("RINGMQ_SHARD_FILE", "/x"),
            ],
            ..Given::default()
        },
        &[
            "RINGMQ_AUTH_JWT_SECRET_FILE: the file named by the variable cannot be read: No such file or \
             directory (os error 2)",
            "RINGMQ_SHARD_FILE: unknown variable; did you mean RINGMQ_PASSWORD_FILE (text)?",
        ],
    );
}

#[test]
fn a_wrong_secret_is_not_shown() {
    for (text, why) in [
        (
            "jwt_secret = \"short\"",
            "auth.jwt_secret: the value a secret must have at least 32 bytes, or it can be guessed from any token",
        ),
        ("jwt_secret = 12345678", "auth.jwt_secret: the value must be text"),
        ("http_header = \"s3cr3t\"", "auth.http_header: the value has no colon"),
    ] {
        let expected = format!("F:2: {why} (it is a secret and not shown)");
        check_errors(&Given { file: &format!("[auth]\n{text}"), ..Given::default() }, &[&expected]);
    }
}

#[test]
fn the_chain_names_what_there_is() {
    let must = "it must be a list of the methods certificate, password, jwt, http, anonymous, each at most once";
    let secret = format!("jwt_secret = \"{SECRET}\"");
    for (text, expected) in [
        (
            "chain = [\"ldap\"]".to_owned(),
            format!("F:2: auth.chain: \"ldap\": is no method; {must}"),
        ),
        (
            "chain = [\"http\"]".to_owned(),
            "configuration: auth.chain has \"http\", but nothing is set that it could check clients with"
                .to_owned(),
        ),
        (
            format!("chain = [\"anonymous\"]\n{secret}"),
            "configuration: auth.chain lacks \"jwt\", but there are settings for it, which would do nothing"
                .to_owned(),
        ),
    ] {
        check_errors(
            &Given { file: &format!("[auth]\n{text}"), ..Given::default() },
            &[&expected],
        );
    }
    for (listener, expected) in [
        (
            "auth = [\"certificate\"]",
            "F:1: auth of listener \"mqtt://127.0.0.1:1\" has \"certificate\", but nothing is set that it could check clients with",
        ),
        (
            "auth = [\"jwt\"]",
            "F:1: auth of listener \"mqtt://127.0.0.1:1\" has \"jwt\", but nothing is set that it could check clients with",
        ),
    ] {
        let file = format!("[[listener]]\nurl = \"mqtt://127.0.0.1:1\"\n{listener}");
        check_errors(&Given { file: &file, ..Given::default() }, &[expected]);
    }
    // Whoever can be told from others may come from anywhere.
    let open = |auth: &str| file(&format!("listen = [\"0.0.0.0:1\"]\n[auth]\n{auth}"));
    assert!(open("").is_err());
    assert!(open(&secret).is_ok());
    assert!(open("http_url = \"http://localhost\"").is_ok());
    assert!(open("chain = [\"certificate\"]").is_ok());
    assert!(open("chain = [\"certificate\", \"anonymous\"]").is_err());
}

#[test]
fn a_wrong_key_set_is_told() {
    let (_keys, path) = keys_file(r#"{"keys": [{"kty": "oct", "k": "AAAA"}]}"#);
    check_errors(
        &Given { file: &format!("auth.jwt_keys_file = \"{path}\""), ..Given::default() },
        &[&format!(
            "{path}: key 1: a secret must have at least 32 bytes, or it can be guessed from any token"
        )],
    );
    check_errors(
        &Given { file: "auth.jwt_keys_file = \"/nonexistent\"", ..Given::default() },
        &[
            "/nonexistent: the file named by auth.jwt_keys_file cannot be read: No such file or directory (os error 2)",
        ],
    );
}
