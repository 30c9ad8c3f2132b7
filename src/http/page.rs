//! A page as it is answered, and the values of a query.

/// A page as it is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The HTTP status.
    pub status: u16,
    /// The type of the body.
    pub content_type: &'static str,
    /// The methods that the page has, for a 405.
    pub allow: Option<&'static str>,
    /// The whole body.
    pub body: String,
}

impl Page {
    /// A line of text for people.
    pub fn text(status: u16, line: impl Into<String>) -> Page {
        let mut body = line.into();
        body.push('\n');
        Page { status, content_type: "text/plain; charset=utf-8", allow: None, body }
    }
}

/// A value of a query, whose bytes may be written as `%` and two digits; `None` if it is not one value, or no text.
pub(super) fn decoded(value: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes().iter();
    while let Some(&byte) = rest.next() {
        bytes.push(match byte {
            b'&' => return None,
            b'%' => {
                let mut digit = || char::from(*rest.next()?).to_digit(16);
                u8::try_from(digit()? * 16 + digit()?).ok()?
            }
            byte => byte,
        });
    }
    String::from_utf8(bytes).ok()
}
