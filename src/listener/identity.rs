//! Who a client's certificate says that it is.
//!
//! The certificate was verified before: what stands here is where its name is looked for.

use rustls::pki_types::CertificateDer;
use x509_parser::{extensions::GeneralName, prelude::FromDer, prelude::X509Certificate};

use super::Fault;
use crate::{
    base::{Text, limits::USER_NAME_BYTES_MAX},
    config::UserFrom,
};

/// The user that the certificate names; none if names do not count.
pub(super) fn user_of(
    certificate: &CertificateDer<'_>,
    from: UserFrom,
) -> Result<Option<Text>, Fault> {
    if from == UserFrom::None {
        return Ok(None);
    }
    let parsed = X509Certificate::from_der(certificate);
    let (_, parsed) = parsed.map_err(|_| Fault::Certificate("it cannot be read"))?;
    let name = match from {
        UserFrom::San => alternative_name(&parsed),
        _ => parsed.subject().iter_common_name().last().and_then(|name| name.as_str().ok()),
    };
    match name {
        None => Err(Fault::Certificate("it has no name that could be a user's")),
        Some(name) if !is_user_name(name) => {
            Err(Fault::Certificate("its name is empty, too long or has control characters"))
        }
        Some(name) => Ok(Some(name.into())),
    }
}

/// The first alternative name that is text.
fn alternative_name<'a>(certificate: &'a X509Certificate<'_>) -> Option<&'a str> {
    let names = &certificate.subject_alternative_name().ok()??.value.general_names;
    names.iter().find_map(|name| match name {
        GeneralName::DNSName(text) | GeneralName::RFC822Name(text) | GeneralName::URI(text) => {
            Some(*text)
        }
        _ => None,
    })
}

/// Whether it may be anybody's.
fn is_user_name(name: &str) -> bool {
    !name.is_empty() && name.len() <= USER_NAME_BYTES_MAX && !name.contains(char::is_control)
}
