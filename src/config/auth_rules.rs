//! How clients are authenticated, as an operator says it: the chain of methods, and what tokens and answers
//! over HTTP have to be like.
//!
//! Values and their checks; knows not how a client is checked.

use std::fmt;

use super::key_set::KeySet;

/// One way to authenticate a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Method {
    /// Its certificate, which its listener has verified.
    Certificate,
    /// A password file: passwords, and SCRAM-SHA-256.
    Password,
    /// A JSON Web Token as Password.
    Jwt,
    /// Somebody else says so over HTTP.
    Http,
    /// Not at all.
    Anonymous,
}

impl Method {
    /// All, in the order in which they are tried unless told otherwise.
    pub const ALL: [Self; 5] =
        [Self::Certificate, Self::Password, Self::Jwt, Self::Http, Self::Anonymous];

    /// Its name in the configuration.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Certificate => "certificate",
            Self::Password => "password",
            Self::Jwt => "jwt",
            Self::Http => "http",
            Self::Anonymous => "anonymous",
        }
    }
}

/// The methods that are tried, in their order; those that nothing is configured for are passed over.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Chain(pub Vec<Method>);

impl Default for Chain {
    fn default() -> Self {
        Self(Method::ALL.into())
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, method) in self.0.iter().enumerate() {
            write!(f, "{}{}", if index == 0 { "" } else { ", " }, method.name())?;
        }
        Ok(())
    }
}

/// Adds the next method of the chain.
pub(super) fn add_method(chain: &mut Chain, name: &str) -> Result<(), String> {
    let method = Method::ALL.into_iter().find(|method| method.name() == name);
    let method = method.ok_or("is no method")?;
    if chain.0.contains(&method) {
        return Err("stands there twice".to_owned());
    }
    chain.0.push(method);
    Ok(())
}

/// What a token has to be like, and what it says by which claims.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TokenRules {
    /// What it may be signed with.
    pub keys: KeySet,
    /// `iss`, if it matters.
    pub issuer: Option<Box<str>>,
    /// What `aud` has to be or hold, if it matters.
    pub audience: Option<Box<str>>,
    /// The claim that is the user's name; there has to be one.
    pub user_claim: Box<str>,
    /// The claim that the Client Identifier has to be, if there is such a rule.
    pub client_id_claim: Option<Box<str>>,
    /// The claim that names the user's groups.
    pub groups_claim: Box<str>,
    /// Whether it has to say when it ends.
    pub requires_exp: bool,
    /// How far clocks may differ, in seconds.
    pub leeway_secs: u16,
}

impl Default for TokenRules {
    fn default() -> Self {
        Self {
            keys: KeySet::default(),
            issuer: None,
            audience: None,
            user_claim: "sub".into(),
            client_id_claim: None,
            groups_claim: "groups".into(),
            requires_exp: true,
            leeway_secs: 60,
        }
    }
}

/// Who is asked over HTTP about clients, and how.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HttpRules {
    /// Where requests go to.
    pub url: Box<str>,
    /// A field that every request has.
    pub header: Option<Header>,
    /// Time for an answer.
    pub timeout_millis: u32,
    /// How long a client that was let in is remembered; 0 is not at all.
    pub cache_secs: u32,
    /// Failures in a row after which nobody is asked for a while.
    pub failures_max: u32,
    /// How long that while is.
    pub retry_secs: u32,
    /// Whether the next method is tried when there is no answer; otherwise the client is refused.
    pub failing_is_next: bool,
}

impl Default for HttpRules {
    fn default() -> Self {
        Self {
            url: "".into(),
            header: None,
            timeout_millis: 2_000,
            cache_secs: 60,
            failures_max: 5,
            retry_secs: 10,
            failing_is_next: false,
        }
    }
}

/// A field of a request, whose value is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Header {
    /// Its name.
    pub name: Box<str>,
    /// Its value.
    pub value: Box<str>,
}

impl Header {
    /// Reads `NAME: VALUE`.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let (name, value) = text.split_once(':').ok_or("has no colon")?;
        let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
        let value = value.trim();
        if name.is_empty() || !name.chars().all(is_token) {
            return Err("has no name of a header field before the colon".to_owned());
        }
        if value.is_empty() || !value.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic()) {
            return Err("has no value of printable ASCII behind the colon".to_owned());
        }
        Ok(Self { name: name.into(), value: value.into() })
    }
}

/// Shows no value.
impl fmt::Debug for Header {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Header({})", self.name)
    }
}

/// Checks where requests go to; none if it is empty.
pub(super) fn parse_url(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() {
        return Ok("".into());
    }
    let rest = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let rest = rest.ok_or("begins with neither http:// nor https://")?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if authority.is_empty() || !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("has no host, or holds blanks or other characters".to_owned());
    }
    if authority.contains('@') {
        return Err("holds a password; use auth.http_header for that".to_owned());
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_each_method_once() {
        let mut chain = Chain(Vec::new());
        assert_eq!(add_method(&mut chain, "jwt"), Ok(()));
        assert_eq!(add_method(&mut chain, "anonymous"), Ok(()));
        assert_eq!(add_method(&mut chain, "jwt"), Err("stands there twice".to_owned()));
        assert_eq!(add_method(&mut chain, "ldap"), Err("is no method".to_owned()));
        assert_eq!(chain.to_string(), "jwt, anonymous");
        assert_eq!(Chain::default().to_string(), "certificate, password, jwt, http, anonymous");
    }

    #[test]
    fn urls_and_header_fields() {
        for right in ["", "http://a", "https://a.b:1/c?d=e", "http://[::1]:80/"] {
            assert_eq!(&*parse_url(right).unwrap(), right);
        }
        for wrong in ["a", "ftp://a", "http://", "http:///x", "http://a b", "http://u:p@h/"] {
            assert!(parse_url(wrong).is_err(), "{wrong}");
        }
        let header = Header::parse("Authorization:  Bearer abc ").unwrap();
        assert_eq!((&*header.name, &*header.value), ("Authorization", "Bearer abc"));
        assert_eq!(format!("{header:?}"), "Header(Authorization)");
        for wrong in ["", "a", ":x", "a:", "a b: c", "a: \u{e9}", "a: b\r\nc: d"] {
            assert!(Header::parse(wrong).is_err(), "{wrong:?}");
        }
    }
}
