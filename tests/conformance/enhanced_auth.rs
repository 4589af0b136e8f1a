//! Enhanced authentication with SCRAM-SHA-256 (sections 3.15 and 4.12), users from a password
//! file that `ringmq passwd` wrote. The client's side of SCRAM is `tests/common/scram.rs`.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use base64ct::{Base64, Encoding};
use sha2::Sha256;

use crate::common::{
    Broker, ClientKeys, RawClient, each, fields, on_one_and_four_shards, set_password,
};

/// A broker that knows `ann` with the password `pencil` and `bob` with `rubber`.
fn broker(shards: usize, settings: &[&str]) -> Broker {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("enhanced-auth-{}-{number}.users", std::process::id());
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    for (user, password) in [("ann", "pencil"), ("bob", "rubber")] {
        set_password(&path, user, password);
    }
    let password_file = format!("password_file={:?}", path.to_str().expect("a path in UTF-8"));
    let broker = Broker::start(shards, &[&[password_file.as_str()], settings].concat());
    std::fs::remove_file(path).expect("the file is there");
    broker
}

/// The client's last message, and the server's that has to follow.
fn prove(user: &str, password: &str, server_first: &str) -> (String, String) {
    let nonce = server_first.split(',').next().expect("a nonce");
    sign_off(user, password, server_first, &format!("c=biws,{nonce}"))
}

/// The same with this before the proof, which is right for it.
fn sign_off(
    user: &str,
    password: &str,
    server_first: &str,
    without_proof: &str,
) -> (String, String) {
    let attribute = |name: &str| {
        let mut parts = server_first.split(',');
        parts.find_map(|part| part.strip_prefix(name)).expect("an attribute").to_owned()
    };
    let salt = Base64::decode_vec(&attribute("s=")).expect("base64");
    let iterations = attribute("i=").parse().expect("a number");
    let mut salted = [0; 32];
    pbkdf2::pbkdf2_hmac::<Sha256>(password.as_bytes(), &salt, iterations, &mut salted);
    let message = format!("n={user},r={NONCE},{server_first},{without_proof}");
    let (proof, server_signature) = ClientKeys::new(&salted).sign(&message);
    let base64 = |bytes: &[u8]| Base64::encode_string(bytes);
    (format!("{without_proof},p={}", base64(&proof)), format!("v={}", base64(&server_signature)))
}

/// Sends a CONNECT that begins the exchange of this user; returns the server's first message.
#[track_caller]
fn begin(client: &mut RawClient, id: &str, user: &str) -> String {
    client.send(&format!(
        "10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' 16 'n,,n={user},r={NONCE}' ) '{id}' )"
    ));
    challenge(client)
}

/// AUTH with reason code 0x18: the server's first message.
#[track_caller]
fn challenge(client: &mut RawClient) -> String {
    let (reason, message) = auth(client);
    assert_eq!(reason, 0x18);
    assert!(message.starts_with(&format!("r={NONCE}")), "{message}");
    assert!(message.len() > "r=,s=,i=4096".len() + NONCE.len() + 24 + 24, "{message}");
    message
}

/// An AUTH packet of the server: reason code and Authentication Data. MQTT-4.12.0-5
#[track_caller]
fn auth(client: &mut RawClient) -> (u8, String) {
    let packet = client.read_packet();
    assert_eq!(packet[0], 0xf0, "no AUTH: {packet:02x?}");
    let (properties, rest) = fields(&packet[3..]);
    assert!(rest.is_empty());
    let value = |id| &properties.iter().find(|(found, _)| *found == id).expect("a property").1[2..];
    assert_eq!(value(0x15), b"SCRAM-SHA-256");
    (packet[2], String::from_utf8(value(0x16).to_vec()).expect("text"))
}

/// AUTH of the client that continues with this message.
fn answer(client: &mut RawClient, message: &str) {
    client.send(&format!("f0 ( 18 ( 15 'SCRAM-SHA-256' 16 '{message}' ) )"));
}

/// The successful CONNACK that ends an exchange with this message.
#[track_caller]
fn expect_accepted(client: &mut RawClient, server_final: &str) {
    let connack = client.expect_accepted();
    assert_eq!(connack.property(0x15).expect("a method")[2..], *b"SCRAM-SHA-256");
    assert_eq!(connack.property(0x16).expect("data")[2..], *server_final.as_bytes());
}

/// A client that has authenticated as this user.
#[track_caller]
fn authenticated(broker: &Broker, id: &str, user: &str, password: &str) -> RawClient {
    let mut client = RawClient::connect(broker.port);
    let first = begin(&mut client, id, user);
    let (last, server_final) = prove(user, password, &first);
    answer(&mut client, &last);
    expect_accepted(&mut client, &server_final);
    client
}

const NONCE: &str = "fyko+d2lbbFgONRv9qkxdawL";

/// MQTT-4.12.0-2, MQTT-4.12.0-3, MQTT-4.12.0-5; wherever the client's home is.
fn the_right_password_lets_in(broker: &Broker) {
    for id in ["a", "b", "c", "d", "e", "f"] {
        authenticated(broker, id, "ann", "pencil").ping();
        broker.wait_for_log(&["client connected", &format!("client={id}"), "user=\"ann\""]);
    }
}

/// Section 4.12: the first message may also come after the server's AUTH.
fn the_first_message_may_be_asked_for(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' ) 'me' )");
    client.expect("f0 ( 18 ( 15 'SCRAM-SHA-256' ) )");
    answer(&mut client, &format!("n,,n=bob,r={NONCE}"));
    let first = challenge(&mut client);
    let (last, server_final) = prove("bob", "rubber", &first);
    answer(&mut client, &last);
    expect_accepted(&mut client, &server_final);
    client.ping();
}

/// MQTT-4.12.0-4. What a client sees of a user who does not exist is what it
/// sees of a wrong password.
fn a_wrong_password_and_an_unknown_user_are_refused_alike(broker: &Broker) {
    let attempt = |user: &str, password: &str| {
        let mut client = RawClient::connect(broker.port);
        let first = begin(&mut client, "me", user);
        let (last, _) = prove(user, password, &first);
        answer(&mut client, &last);
        client.expect("20 ( 00 87 00 )");
        client.expect_closed();
        let (nonce, rest) = first.split_once(",s=").expect("a salt");
        let (salt, iterations) = rest.split_once(',').expect("iterations");
        (nonce.len(), salt.to_owned(), iterations.to_owned())
    };
    let known = attempt("ann", "rubber");
    let unknown = attempt("eve", "rubber");
    assert_eq!((known.0, known.1.len(), &known.2), (unknown.0, unknown.1.len(), &unknown.2));
    assert_ne!(known.1, unknown.1);
    // The salt does not tell either: it is always the same, and another for each name.
    assert_eq!(attempt("ann", "x"), known);
    assert_eq!(attempt("eve", "x"), unknown);
    assert_ne!(attempt("mallory", "x").1, unknown.1);
    broker.wait_for_log(&["wrong password", "ann"]);
    broker.wait_for_log(&["unknown user", "eve"]);
}

/// MQTT-4.12.0-1
fn an_unknown_method_is_refused(broker: &Broker) {
    each(["SCRAM-SHA-1", "scram-sha-256", "SCRAM-SHA-256-PLUS", "PLAIN", ""], |method| {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!("10 ( 'MQTT' 05 02 003c ( 15 '{method}' 16 'x' ) 'me' )"));
        assert_eq!(client.connack().reason, 0x8c);
        client.expect_closed();
    });
}

/// The same where nobody has a password.
fn without_users_every_method_is_unknown(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' 16 'n,,n=ann,r=x' ) 'me' )");
    assert_eq!(client.connack().reason, 0x8c);
    client.expect_closed();
}

/// MQTT-4.12.0-6
fn without_a_method_there_is_no_auth(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 c2 003c () 'me' 'ann' 'pencil' )");
    let connack = client.expect_accepted();
    assert_eq!((connack.property(0x15), connack.property(0x16)), (None, None));
    client.ping();
}

/// 3.1.2.11.10
fn data_needs_a_method(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client.send("10 ( 'MQTT' 05 02 003c ( 16 'n,,n=ann,r=x' ) 'me' )");
    assert_eq!(client.connack().reason, 0x82);
    client.expect_closed();
}

/// RFC 5802 section 7.
fn malformed_first_messages_are_refused(broker: &Broker) {
    let long = format!("n,,n=ann,r={}", "x".repeat(60_000));
    let cases = [
        "",
        ",",
        "n",
        "n,",
        "n,,",
        "n,,,",
        "x,,n=ann,r=x",
        "p=tls-unique,,n=ann,r=x",
        "p=,,n=ann,r=x",
        "n,a=bob,n=ann,r=x",
        "n,b,n=ann,r=x",
        "n,,m=x,n=ann,r=x",
        "n,,n=,r=x",
        "n,,n=ann",
        "n,,n=ann,r=",
        "n,,n=ann,r=a b",
        "n,,n=a=nn,r=x",
        "n,,n=ann=,r=x",
        "n,,n=an\u{7f}n,r=x",
        "n,,n=\u{202e}ann,r=x",
        "n,,n=ann,r=\u{20ac}",
        &long,
    ];
    each(cases, |message| {
        for in_connect in [true, false] {
            let mut client = RawClient::connect(broker.port);
            let data = if in_connect { format!("16 '{message}'") } else { String::new() };
            let connect = format!("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' {data} ) 'me' )");
            client.send(&connect);
            if !in_connect {
                client.expect("f0 ( 18 ( 15 'SCRAM-SHA-256' ) )");
                answer(&mut client, message);
            }
            client.expect("20 ( 00 87 00 )");
            client.expect_closed();
        }
    });
    authenticated(broker, "me", "ann", "pencil").ping();
}

fn malformed_last_messages_are_refused(broker: &Broker) {
    type Damage = fn(&str) -> String;
    let cases: [(&str, Damage); 11] = [
        ("empty", |_| String::new()),
        ("proof only", |last| last[last.find("p=").expect("a proof")..].to_owned()),
        ("no proof", |last| last[..last.find(",p=").expect("a proof")].to_owned()),
        ("another nonce", |last| last.replace("r=fyko", "r=okyf")),
        ("the client's nonce alone", |last| {
            format!("c=biws,r={NONCE}{}", &last[last.find(",p=").expect("a proof")..])
        }),
        ("a longer nonce", |last| last.replace(",p=", "x,p=")),
        ("another channel binding", |last| last.replace("c=biws", "c=eSws")),
        ("an extension that is not signed", |last| last.replace(",p=", ",x=1,p=")),
        ("proof cut", |last| last[..last.len() - 4].to_owned()),
        ("proof not in base64", |last| last.replace(",p=", ",p=*")),
        ("proof of nothing", |last| {
            format!("{},p={}", &last[..last.find(",p=").expect("a proof")], "A".repeat(43) + "=")
        }),
    ];
    each(cases, |(_, damage)| {
        let mut client = RawClient::connect(broker.port);
        let first = begin(&mut client, "me", "ann");
        let (last, _) = prove("ann", "pencil", &first);
        answer(&mut client, &damage(&last));
        client.expect("20 ( 00 87 00 )");
        client.expect_closed();
    });
    // Not text at all, and no data at all.
    for data in ["16 0002 ff00", ""] {
        let mut client = RawClient::connect(broker.port);
        begin(&mut client, "me", "ann");
        client.send(&format!("f0 ( 18 ( 15 'SCRAM-SHA-256' {data} ) )"));
        client.expect("20 ( 00 87 00 )");
        client.expect_closed();
    }
}

/// RFC 5802 section 7: nonce and channel binding are checked beside the proof, which is right here.
fn signed_messages_have_to_fit_the_servers(broker: &Broker) {
    let cases = [
        ("the client's nonce alone", format!("c=biws,r={NONCE}")),
        ("another nonce", format!("c=biws,r={NONCE}AAAAAAAAAAAAAAAAAAAAAAAA")),
        ("a longer nonce", "c=biws,NONCEx".to_owned()),
        ("another channel binding", "c=eSws,NONCE".to_owned()),
        ("no channel binding", "NONCE".to_owned()),
        ("another order", "NONCE,c=biws".to_owned()),
    ];
    each(cases, |(_, without_proof)| {
        let mut client = RawClient::connect(broker.port);
        let first = begin(&mut client, "me", "ann");
        let nonce = first.split(',').next().expect("a nonce");
        let without_proof = without_proof.replace("NONCE", nonce);
        answer(&mut client, &sign_off("ann", "pencil", &first, &without_proof).0);
        client.expect("20 ( 00 87 00 )");
        client.expect_closed();
    });
}

/// A proof that was good once is not a second time.
fn a_proof_cannot_be_repeated(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    let first = begin(&mut client, "me", "ann");
    let (last, server_final) = prove("ann", "pencil", &first);
    answer(&mut client, &last);
    expect_accepted(&mut client, &server_final);
    let mut thief = RawClient::connect(broker.port);
    assert_ne!(begin(&mut thief, "thief", "ann"), first);
    answer(&mut thief, &last);
    thief.expect("20 ( 00 87 00 )");
    thief.expect_closed();
    client.ping();
}

/// MQTT-3.1.2-30, MQTT-4.12.0-5
fn only_auth_may_follow_connect(broker: &Broker) {
    let cases = [
        (0x82, "c0 00"),
        (0x82, "30 ( 'a' () `x` )"),
        (0x82, "30 ( '' ( 23 0000 ) `x` )"),
        (0x82, "82 ( 0001 () 'a' 00 )"),
        (0x82, "10 ( 'MQTT' 05 02 003c () 'me' )"),
        (0x82, "f0 00"),
        (0x81, "f1 ( 18 ( 15 'SCRAM-SHA-256' 16 'x' ) )"),
        (0x82, "f0 ( 18 ( 16 'x' ) )"),
        (0x82, "f0 ( 18 ( 15 'SCRAM-SHA-1' 16 'x' ) )"),
        (0x82, "f0 ( 19 ( 15 'SCRAM-SHA-256' 16 'x' ) )"),
        (0x82, "f0 ( 00 ( 15 'SCRAM-SHA-256' 16 'x' ) )"),
        (0x81, "e0 ( 00 ff )"),
    ];
    each(cases, |(reason, packet)| {
        let mut client = RawClient::connect(broker.port);
        begin(&mut client, "me", "ann");
        client.send(packet);
        assert_eq!(client.connack().reason, *reason, "{packet}");
        client.expect_closed();
    });
    // What ends in order, and what is no packet at all.
    each(["e0 00", "e0 ( 04 00 )", "00 00", "30 ffffffff7f"], |packet| {
        let mut client = RawClient::connect(broker.port);
        begin(&mut client, "me", "ann");
        client.send(packet);
        client.expect_closed();
    });
}

/// `limits.connect_timeout_secs` is for all of it, however far it got.
fn an_exchange_that_does_not_end_is_ended(broker: &Broker) {
    let began = Instant::now();
    let mut silent = RawClient::connect(broker.port);
    begin(&mut silent, "silent", "ann");
    let mut slow = RawClient::connect(broker.port);
    slow.send("10 ( 'MQTT' 05 02 003c ( 15 'SCRAM-SHA-256' ) 'slow' )");
    slow.expect("f0 ( 18 ( 15 'SCRAM-SHA-256' ) )");
    // Time itself is under test: an answer does not prolong it.
    slow.expect_silence(Duration::from_millis(700));
    answer(&mut slow, &format!("n,,n=ann,r={NONCE}"));
    challenge(&mut slow);
    silent.expect_closed();
    slow.expect_closed();
    let waited = began.elapsed().as_millis();
    assert!((900..1650).contains(&waited), "{waited} ms instead of a second");
    broker.wait_for_log(&["no end of its authentication"]);
}

/// Nothing of a CONNECT holds before its client is known: no take-over, no
/// clean start, no will.
fn connect_takes_effect_after_the_proof_only(broker: &Broker) {
    let mut watcher = RawClient::v5(broker.port, "watcher");
    watcher.send("82 ( 0001 () 'will' 00 )");
    watcher.expect("90 ( 0001 () 00 )");
    let (mut old, _) = RawClient::v5_resume(broker.port, "me");
    old.send("82 ( 0001 () 'a' 00 )");
    old.expect("90 ( 0001 () 00 )");

    let connect = |flags: &str| {
        format!(
            "10 ( 'MQTT' 05 {flags} 003c ( 11 0000012c 15 'SCRAM-SHA-256' 16 'n,,n=ann,r={NONCE}' )
                'me' () 'will' 'gone' )"
        )
    };
    let mut refused = RawClient::connect(broker.port);
    refused.send(&connect("06"));
    let first = challenge(&mut refused);
    old.ping();
    answer(&mut refused, &prove("ann", "wrong", &first).0);
    refused.expect("20 ( 00 87 00 )");
    refused.expect_closed();
    old.ping();

    let mut new = RawClient::connect(broker.port);
    new.send(&connect("04"));
    let first = challenge(&mut new);
    old.ping();
    answer(&mut new, &prove("ann", "pencil", &first).0);
    assert!(new.expect_accepted().session_present);
    old.expect_disconnect(0x8e);
    watcher.ping();
    new.send("30 ( 'a' () `subscribed before` )");
    new.expect("30 ( 'a' () `subscribed before` )");
    drop(new);
    watcher.expect("30 ( 'will' () `gone` )");
}

/// Who has not proven to be its user can neither take up a session nor end it.
fn a_session_is_of_the_user_who_has_proven_to_be_it(broker: &Broker) {
    let mut ann = authenticated(broker, "me", "ann", "pencil");
    for flags in ["00", "02"] {
        let mut bob = RawClient::connect(broker.port);
        bob.send(&format!(
            "10 ( 'MQTT' 05 {flags} 003c ( 15 'SCRAM-SHA-256' 16 'n,,n=bob,r={NONCE}' ) 'me' )"
        ));
        let first = challenge(&mut bob);
        answer(&mut bob, &prove("bob", "rubber", &first).0);
        bob.expect("20 ( 00 87 00 )");
        let mut nobody = RawClient::connect(broker.port);
        nobody.send("10 ( 'MQTT' 04 02 003c 'me' )");
        nobody.expect("20 02 00 05");
        ann.ping();
    }
    let mut again = authenticated(broker, "me", "ann", "pencil");
    ann.expect_disconnect(0x8e);
    // It ends with its connection, and then the name is free.
    again.send("e0 00");
    again.expect_closed();
    authenticated(broker, "me", "bob", "rubber").ping();
}

/// Section 3.2.2.3.7 goes together with authentication.
fn an_empty_id_gets_a_new_one(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    let first = begin(&mut client, "", "ann");
    answer(&mut client, &prove("ann", "pencil", &first).0);
    let connack = client.expect_accepted();
    assert!(connack.property(0x12).expect("an Assigned Client Identifier").len() > 2);
    client.ping();
}

fn a_user_name_beside_has_to_be_the_same(broker: &Broker) {
    for (name, reason) in [("ann", 0x00), ("bob", 0x86), ("", 0x86), ("a\u{ad}nn", 0x00)] {
        let mut client = RawClient::connect(broker.port);
        client.send(&format!(
            "10 ( 'MQTT' 05 c2 003c ( 15 'SCRAM-SHA-256' 16 'n,,n=ann,r={NONCE}' )
                'me' '{name}' 'any password' )"
        ));
        let first = challenge(&mut client);
        answer(&mut client, &prove("ann", "pencil", &first).0);
        assert_eq!(client.connack().reason, reason, "{name:?}");
        if reason != 0 {
            client.expect_closed();
        }
    }
}

/// `allow_anonymous = false` keeps out those who prove nothing, and only those.
fn anonymous_clients_can_be_kept_out(broker: &Broker) {
    let mut anonymous = RawClient::connect(broker.port);
    anonymous.send("10 ( 'MQTT' 05 02 003c () 'me' )");
    anonymous.expect("20 ( 00 87 00 )");
    anonymous.expect_closed();
    authenticated(broker, "me", "ann", "pencil").ping();
}

/// MQTT-3.1.2-24 holds for AUTH too.
fn a_challenge_that_is_too_large_for_the_client_ends_it(broker: &Broker) {
    let mut client = RawClient::connect(broker.port);
    client
        .send("10 ( 'MQTT' 05 02 003c ( 27 00000014 15 'SCRAM-SHA-256' 16 'n,,n=ann,r=x' ) 'me' )");
    client.expect_closed();
}

/// Section 4.12.1, and all else goes on meanwhile.
fn a_client_can_authenticate_again(broker: &Broker) {
    let mut client = authenticated(broker, "me", "ann", "pencil");
    client.send("82 ( 0001 () 'a' 01 )");
    client.expect("90 ( 0001 () 01 )");
    for round in 0..2 {
        // The first message at once, or when it is asked for.
        if round == 0 {
            client.send(&format!("f0 ( 19 ( 15 'SCRAM-SHA-256' 16 'n,,n=ann,r={NONCE}' ) )"));
        } else {
            client.send("f0 ( 19 ( 15 'SCRAM-SHA-256' ) )");
            client.expect("f0 ( 18 ( 15 'SCRAM-SHA-256' ) )");
            client.ping();
            answer(&mut client, &format!("n,,n=ann,r={NONCE}"));
        }
        let first = challenge(&mut client);
        client.send("30 ( 'a' () `meanwhile` )");
        client.expect("30 ( 'a' () `meanwhile` )");
        let mut other = RawClient::v311(broker.port, "other");
        other.send("32 ( 'a' 0007 `from another` )");
        other.expect("40 ( 0007 )");
        let id = client.expect("32 ( 'a' ???? () `from another` )");
        client.send(&format!("40 ( {id} )"));
        let (last, server_final) = prove("ann", "pencil", &first);
        answer(&mut client, &last);
        assert_eq!(auth(&mut client), (0x00, server_final));
        client.ping();
    }
    broker.wait_for_log(&["client authenticated again", "client=me", "user=ann"]);
}

/// MQTT-4.12.1-2
fn a_client_that_fails_to_authenticate_again_is_cut_off(broker: &Broker) {
    for (user, password) in [("ann", "wrong"), ("eve", "pencil"), ("bob", "rubber")] {
        let mut client = authenticated(broker, "me", "ann", "pencil");
        client.send(&format!("f0 ( 19 ( 15 'SCRAM-SHA-256' 16 'n,,n={user},r={NONCE}' ) )"));
        let first = challenge(&mut client);
        answer(&mut client, &prove(user, password, &first).0);
        client.expect("e0 ( 87 00 )");
        client.expect_closed();
    }
    let mut client = authenticated(broker, "me", "ann", "pencil");
    client.send("f0 ( 19 ( 15 'SCRAM-SHA-256' 16 'nonsense' ) )");
    client.expect_disconnect(0x87);
}

/// MQTT-4.12.0-7, MQTT-4.12.1-1
fn auth_out_of_place_is_a_protocol_error(broker: &Broker) {
    each(["19", "18"], |reason| {
        let mut client = RawClient::v5(broker.port, "me");
        client.send(&format!("f0 ( {reason} ( 15 'SCRAM-SHA-256' 16 'n,,n=ann,r=x' ) )"));
        client.expect_disconnect(0x82);
    });
    let begins = "f0 ( 19 ( 15 'SCRAM-SHA-256' ) )";
    each(
        [
            ("nothing to continue", "f0 ( 18 ( 15 'SCRAM-SHA-256' 16 'n,,n=ann,r=x' ) )"),
            ("another method", "f0 ( 19 ( 15 'SCRAM-SHA-1' 16 'n,,n=ann,r=x' ) )"),
            ("for the server to say", "f0 ( 00 ( 15 'SCRAM-SHA-256' ) )"),
        ],
        |(_, packet)| {
            let mut client = authenticated(broker, "me", "ann", "pencil");
            client.send(packet);
            client.expect_disconnect(0x82);
        },
    );
    each([begins, "f0 ( 18 ( 15 'SCRAM-SHA-1' 16 'n,,n=ann,r=x' ) )"], |packet| {
        let mut client = authenticated(broker, "me", "ann", "pencil");
        client.send(begins);
        client.expect("f0 ( 18 ( 15 'SCRAM-SHA-256' ) )");
        client.send(packet);
        client.expect_disconnect(0x82);
    });
}

on_one_and_four_shards! {
    by super::broker;
    the_right_password_lets_in;
    the_first_message_may_be_asked_for;
    a_wrong_password_and_an_unknown_user_are_refused_alike;
    an_unknown_method_is_refused;
    without_a_method_there_is_no_auth;
    data_needs_a_method;
    malformed_first_messages_are_refused;
    malformed_last_messages_are_refused;
    signed_messages_have_to_fit_the_servers;
    a_proof_cannot_be_repeated;
    only_auth_may_follow_connect;
    an_exchange_that_does_not_end_is_ended with "limits.connect_timeout_secs=1";
    connect_takes_effect_after_the_proof_only;
    a_session_is_of_the_user_who_has_proven_to_be_it;
    an_empty_id_gets_a_new_one;
    a_user_name_beside_has_to_be_the_same;
    anonymous_clients_can_be_kept_out with "allow_anonymous=false";
    a_challenge_that_is_too_large_for_the_client_ends_it;
    a_client_can_authenticate_again;
    a_client_that_fails_to_authenticate_again_is_cut_off;
    auth_out_of_place_is_a_protocol_error;
}

on_one_and_four_shards! {
    without_users_every_method_is_unknown;
}
