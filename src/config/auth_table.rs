//! The configuration keys of `[auth]`, in the order of the documentation.
//!
//! Defaults stand in [`super::AuthSettings`] and what it is made of, not here.

use super::{
    Chain, Header,
    auth_rules::{add_method, parse_url},
    key_set::KeySet,
    keys::{Key, Kind, List},
    table::{property_text, shown},
};

/// A number of `AuthSettings`.
macro_rules! auth_number {
    ($part:ident . $field:ident, $name:literal, $range:expr, $doc:literal) => {
        Key {
            name: $name,
            kind: Kind::Number($range, |settings, number| {
                settings.auth.$part.$field = number.try_into().ok()?;
                Some(())
            }),
            show: |settings| settings.auth.$part.$field.to_string(),
            doc: $doc,
        }
    };
}

/// The value or name of a claim; some may be empty, and then are none.
macro_rules! claim {
    ($field:ident, $name:literal, $doc:literal) => {
        Key {
            name: $name,
            kind: Kind::Text(|settings, text| {
                settings.auth.tokens.$field = property_text(text)?;
                Ok(())
            }),
            show: |settings| shown(settings.auth.tokens.$field.as_deref()),
            doc: $doc,
        }
    };
    ($field:ident required, $name:literal, $doc:literal) => {
        Key {
            name: $name,
            kind: Kind::Text(|settings, text| {
                settings.auth.tokens.$field = property_text(text)?.ok_or("is empty")?;
                Ok(())
            }),
            show: |settings| settings.auth.tokens.$field.to_string(),
            doc: $doc,
        }
    };
}

pub(super) static KEYS: &[Key] = &[
    Key {
        name: "auth.chain",
        kind: Kind::List(List {
            form: "the methods certificate, password, jwt, http, anonymous, each at most once",
            clear: |settings| settings.auth.chain = None,
            add: |settings, name| {
                add_method(settings.auth.chain.get_or_insert_with(|| Chain(Vec::new())), name)
            },
        }),
        show: |settings| settings.auth.chain.clone().unwrap_or_default().to_string(),
        doc: "The methods that are tried for each client, in their order, as far as there are settings for \
              them. The first that knows the client decides; one that nobody knows is refused.",
    },
    Key {
        name: "auth.jwt_keys_file",
        kind: Kind::Text(|settings, path| {
            settings.auth.keys_file = (!path.is_empty()).then(|| path.into());
            Ok(())
        }),
        show: |settings| match &settings.auth.keys_file {
            None => "none".to_owned(),
            Some(path) => path.display().to_string(),
        },
        doc: "JSON Web Key Set (RFC 7517) of the keys that tokens are signed with; a client sends its token \
              as Password. HS, RS, PS, ES256, ES384 and EdDSA are understood. Read at start; empty is none.",
    },
    Key {
        name: "auth.jwt_secret",
        kind: Kind::Secret(|settings, secret| {
            settings.auth.tokens.keys = KeySet::default();
            if secret.is_empty() { Ok(()) } else { settings.auth.tokens.keys.add_secret(secret) }
        }),
        show: |_| "none".to_owned(),
        doc: "A secret of at least 32 bytes that tokens may be signed with (HS256, HS384, HS512), beside the \
              keys of `auth.jwt_keys_file`. Better in a file that `RINGMQ_AUTH_JWT_SECRET_FILE` names.",
    },
    claim!(issuer, "auth.jwt_issuer", "What `iss` of a token has to be; empty is anything."),
    claim!(
        audience,
        "auth.jwt_audience",
        "What `aud` of a token has to be, or to have among others; empty is anything."
    ),
    claim!(
        user_claim required,
        "auth.jwt_user_claim",
        "The claim that is the user's name, whatever User Name stands in CONNECT; a token without is \
         refused."
    ),
    claim!(
        client_id_claim,
        "auth.jwt_client_id_claim",
        "The claim that the Client Identifier has to be equal to; empty is none."
    ),
    claim!(
        groups_claim required,
        "auth.jwt_groups_claim",
        "The claim that names the user's groups: a list, or one text with blanks between them. It may lack."
    ),
    Key {
        name: "auth.jwt_requires_exp",
        kind: Kind::Switch(|settings, on| settings.auth.tokens.requires_exp = on),
        show: |settings| settings.auth.tokens.requires_exp.to_string(),
        doc: "Whether a token has to say when it ends (`exp`). A client is disconnected when its token ends \
              (0xA0).",
    },
    auth_number!(
        tokens.leeway_secs,
        "auth.jwt_leeway_secs",
        0..=3600,
        "Seconds that the clock of whoever makes tokens may differ: `exp`, `nbf` and `iat` count with it."
    ),
    Key {
        name: "auth.http_url",
        kind: Kind::Text(|settings, text| {
            settings.auth.http.url = parse_url(text)?;
            Ok(())
        }),
        show: |settings| match &*settings.auth.http.url {
            "" => "none".to_owned(),
            url => url.to_owned(),
        },
        doc: "`http://` or `https://` URL that is asked with POST and JSON whether a client with a User Name \
              or Password may connect; empty is none.",
    },
    Key {
        name: "auth.http_header",
        kind: Kind::Secret(|settings, text| {
            let header = (!text.is_empty()).then(|| Header::parse(text));
            settings.auth.http.header = header.transpose()?;
            Ok(())
        }),
        show: |_| "none".to_owned(),
        doc: "A header field `NAME: VALUE` of these requests, such as `Authorization: Bearer ...`. Better in a \
              file that `RINGMQ_AUTH_HTTP_HEADER_FILE` names.",
    },
    auth_number!(
        http.timeout_millis,
        "auth.http_timeout_millis",
        1..=60_000,
        "Milliseconds for an answer."
    ),
    auth_number!(
        http.cache_secs,
        "auth.http_cache_secs",
        0..=86_400,
        "Seconds that a client that was allowed is remembered with its credentials, or less if the answer \
         says so; 0 asks each time."
    ),
    auth_number!(
        http.failures_max,
        "auth.http_failures_max",
        1..=1000,
        "Failures in a row (no answer, or none that makes sense) after which nobody is asked for \
         `auth.http_retry_secs`; then one client is to find out."
    ),
    auth_number!(http.retry_secs, "auth.http_retry_secs", 1..=3600, "Seconds of such a pause."),
    Key {
        name: "auth.http_failing",
        kind: Kind::Choice(&["deny", "next"], |settings, index| {
            settings.auth.http.failing_is_next = index == 1;
        }),
        show: |settings| match settings.auth.http.failing_is_next {
            true => "next".to_owned(),
            false => "deny".to_owned(),
        },
        doc: "What becomes of a client while there is no answer: it is refused with reason code 0x88, or the \
              next method of `auth.chain` is tried.",
    },
];
