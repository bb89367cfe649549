//! What of a request is looked through for secrets, whoever makes it.

use outbound::Url;

use crate::sigv4::decode;

/// The address and the headers of a request, as one text.
pub(crate) fn head_text<'a>(
    url: &Url,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> String {
    let mut text = url.to_string();
    for (name, value) in headers {
        text.push('\n');
        text.push_str(name);
        text.push_str(": ");
        text.push_str(&String::from_utf8_lossy(value));
    }
    text
}

/// The values of a query, or the end of the path.
pub(crate) fn essence_of_address(url: &Url) -> String {
    let text = match url.query() {
        Some(query) => query
            .split('&')
            .map(|pair| pair.split_once('=').map_or(pair, |(_, value)| value))
            .collect(),
        None => url.path().rsplit('/').next().unwrap_or_default().to_owned(),
    };
    String::from_utf8_lossy(&decode(&text)).into_owned()
}
