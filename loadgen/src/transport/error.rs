//! Why bytes do not get through, in words for whoever runs the load.
//!
//! Owns the wording of what rustls and tungstenite report; knows nothing of how they are driven.

use std::{
    io,
    path::{Path, PathBuf},
};

use rustls::{AlertDescription, CertificateError, InvalidMessage, pki_types::pem};
use tungstenite::{
    error::ProtocolError,
    http::StatusCode,
    protocol::{CloseFrame, frame::coding::CloseCode},
};

use super::EARLY_BYTES_MAX;

/// Why a transport cannot be set up, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TransportError {
    // The operator is at fault.
    #[error("cannot read {}: {source}", path.display())]
    File { path: PathBuf, source: io::Error },
    #[error("{} is not a PEM file: {reason}", path.display())]
    Pem { path: PathBuf, reason: &'static str },
    #[error("{} contains no certificate in PEM form", path.display())]
    NoCertificate { path: PathBuf },
    #[error("{} contains no certificate of a CA that can be used", path.display())]
    NoCa { path: PathBuf },
    #[error("{} contains no private key in PEM form without a passphrase", path.display())]
    NoKey { path: PathBuf },
    #[error("--certfile needs --keyfile, the private key of the certificate")]
    KeyMissing,
    #[error("--keyfile needs --certfile, the certificate of the private key")]
    CertificateMissing,
    #[error(
        "the certificate in {} and the key in {} cannot be used together: {source}",
        cert_file.display(),
        key_file.display()
    )]
    KeyPair { cert_file: PathBuf, key_file: PathBuf, source: rustls::Error },
    #[error(
        "this machine has no CA certificates: --cafile names one, --insecure trusts every server"
    )]
    NoSystemCa,
    #[error("{0:?} is neither a host name nor an IP address")]
    ServerName(String),
    #[error("{0:?} is not the path of a WebSocket, which looks like \"/mqtt\"")]
    WebSocketPath(String),
    #[error("{0:?} cannot be the host of a WebSocket")]
    WebSocketHost(String),
    #[error("cannot prepare TLS: {0}")]
    TlsSetup(#[source] rustls::Error),
    #[error("cannot prepare the WebSocket handshake: {0}")]
    WebSocketSetup(#[source] tungstenite::Error),

    // The caller is.
    #[error("more than {EARLY_BYTES_MAX} bytes to be sent before the handshake is done")]
    TooMuchTooEarly,

    // The server is.
    #[error(
        "the server's certificate is not trusted: {0}; --cafile names the CA to trust, --insecure \
         trusts every server"
    )]
    NotTrusted(String),
    #[error("the server ended TLS with the alert {alert:?}{}", alert_meaning(*alert))]
    Alert { alert: AlertDescription },
    #[error("the server does not speak TLS on this port")]
    NotTls,
    #[error("the server broke the rules of TLS: {0}")]
    Tls(#[source] rustls::Error),
    #[error("the server ended the connection within the TLS handshake: is this its TLS port?")]
    EndedInTlsHandshake,
    #[error("the server does not speak WebSocket on this port{0}")]
    NotWebSocket(&'static str),
    #[error(
        "the server does not offer a WebSocket here, it answers \"{status}\"{}",
        status_meaning(*status)
    )]
    WebSocketRefused { status: StatusCode },
    #[error(
        "the server does not offer MQTT on this WebSocket: it refused the subprotocol \"mqtt\""
    )]
    SubprotocolRefused,
    #[error("the server's answer to the WebSocket handshake has no end")]
    WebSocketHeadTooLong,
    #[error("the server broke the rules of WebSocket: {0}")]
    WebSocket(String),
    #[error("the server sent a WebSocket text frame, but MQTT takes binary ones")]
    TextFrame,
    #[error("the server sent too long a WebSocket message: {0}")]
    MessageTooLong(String),
    #[error("the server closed the WebSocket with {code} ({reason:?})")]
    WebSocketClosed { code: u16, reason: String },
    #[error(
        "the server ended the connection within the WebSocket handshake: is this its WebSocket \
         port?"
    )]
    EndedInWebSocketHandshake,
}

impl TransportError {
    /// What is wrong with a PEM file of which `none` says what it lacks.
    pub(super) fn pem(path: &Path, error: pem::Error, none: fn(PathBuf) -> Self) -> Self {
        let path = path.to_owned();
        match error {
            pem::Error::Io(source) => Self::File { path, source },
            pem::Error::NoItemsFound => none(path),
            pem::Error::MissingSectionEnd { .. } => Self::Pem { path, reason: "an END is missing" },
            pem::Error::IllegalSectionStart { .. } => {
                Self::Pem { path, reason: "a BEGIN is wrong" }
            }
            pem::Error::Base64Decode(_) => Self::Pem { path, reason: "the base64 is wrong" },
            _ => Self::Pem { path, reason: "a section is too large" },
        }
    }

    /// What a failed TLS connection failed of.
    pub(super) fn tls(error: rustls::Error, handshaking: bool) -> Self {
        match error {
            rustls::Error::InvalidCertificate(error) => Self::NotTrusted(distrust(&error)),
            rustls::Error::AlertReceived(alert) => Self::Alert { alert },
            rustls::Error::InvalidMessage(
                InvalidMessage::InvalidContentType | InvalidMessage::UnknownProtocolVersion,
            ) if handshaking => Self::NotTls,
            error => Self::Tls(error),
        }
    }

    /// What a failed WebSocket handshake failed of.
    pub(super) fn websocket_handshake(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Http(answer) => Self::WebSocketRefused { status: answer.status() },
            tungstenite::Error::Protocol(ProtocolError::SecWebSocketSubProtocolError(_)) => {
                Self::SubprotocolRefused
            }
            error => Self::websocket(error),
        }
    }

    /// What a failed WebSocket failed of.
    pub(super) fn websocket(error: tungstenite::Error) -> Self {
        match error {
            tungstenite::Error::Capacity(error) => Self::MessageTooLong(error.to_string()),
            tungstenite::Error::Protocol(error) => Self::WebSocket(error.to_string()),
            error => Self::WebSocket(error.to_string()),
        }
    }

    /// What the first byte of an answer that is not HTTP tells.
    pub(super) fn not_websocket(first: Option<&u8>) -> Self {
        Self::NotWebSocket(match first {
            Some(0x14..=0x17) => ": it speaks TLS",
            Some(0x20 | 0xE0) => ": it speaks MQTT without WebSocket",
            _ => "",
        })
    }

    /// Why the server closed a WebSocket, unless it did so in the ordinary course of things.
    pub(super) fn websocket_closed(frame: Option<&CloseFrame>) -> Result<(), Self> {
        match frame {
            Some(frame) if !matches!(frame.code, CloseCode::Normal | CloseCode::Away) => {
                let (code, reason) = (frame.code.into(), frame.reason.to_string());
                Err(Self::WebSocketClosed { code, reason })
            }
            _ => Ok(()),
        }
    }
}

fn distrust(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer => "no trusted CA has signed it".to_owned(),
        CertificateError::BadSignature => {
            "it is signed with another key than that of the CA".to_owned()
        }
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => {
            format!("it is for {}, not for {}", presented.join(", "), expected.to_str())
        }
        // An error of a crate behind rustls that is known by its text only.
        CertificateError::Other(other) if other.0.to_string() == "CaUsedAsEndEntity" => {
            "it is the certificate of a CA, such as a self-signed one, not of a server".to_owned()
        }
        error => error.to_string(),
    }
}

fn alert_meaning(alert: AlertDescription) -> &'static str {
    match alert {
        AlertDescription::CertificateRequired | AlertDescription::NoCertificate => {
            ": it wants a client certificate, see --certfile"
        }
        AlertDescription::HandshakeFailure => {
            ": perhaps it wants a client certificate, see --certfile"
        }
        AlertDescription::UnknownCA
        | AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateRevoked
        | AlertDescription::CertificateExpired
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied => ": it does not accept the certificate of --certfile",
        AlertDescription::ProtocolVersion => ": it has neither TLS 1.2 nor TLS 1.3",
        AlertDescription::UnrecognisedName => ": it does not have that name",
        _ => "",
    }
}

fn status_meaning(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => ": is the path right?",
        _ => "",
    }
}
