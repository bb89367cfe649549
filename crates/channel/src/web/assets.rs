//! The files of the page, inside the program.

/// A file of the page.
pub(super) struct Asset {
    pub(super) media_type: &'static str,
    pub(super) bytes: &'static [u8],
}

impl Asset {
    /// Whether it is the page itself.
    pub(super) fn is_page(&self) -> bool {
        self.media_type == HTML
    }
}

/// The page's own media type.
const HTML: &str = "text/html; charset=utf-8";

/// The file at this path. The page is the same for everybody; what it shows is behind the login.
pub(super) fn at(path: &str) -> Option<Asset> {
    let (media_type, bytes): (_, &[u8]) = match path {
        "/" | "/login" | "/passkey" => (HTML, include_bytes!("../../assets/index.html")),
        "/app.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/app.js"),
        ),
        "/approvals.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/approvals.js"),
        ),
        "/cards.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/cards.js"),
        ),
        "/freeze.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/freeze.js"),
        ),
        "/passkeys.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/passkeys.js"),
        ),
        "/link.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/link.js"),
        ),
        "/markdown.js" => (
            "text/javascript; charset=utf-8",
            include_bytes!("../../assets/markdown.js"),
        ),
        "/style.css" => (
            "text/css; charset=utf-8",
            include_bytes!("../../assets/style.css"),
        ),
        "/mark.svg" => ("image/svg+xml", include_bytes!("../../assets/mark.svg")),
        _ => return None,
    };
    Some(Asset { media_type, bytes })
}
