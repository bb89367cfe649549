//! Links and images in every form: what is found, and that nothing of it is live afterwards.

use pulldown_cmark::{Event, Options, Parser, Tag};
use scan::{Kind, links};

fn allowed(host: &str) -> bool {
    host == "good.example"
}

/// What a client would load by itself.
const LOADED: &[&str] = &[
    "![a](https://evil.example/x.png)",
    "![a](https://evil.example/x.png \"title\")",
    "![a](<https://evil.example/x y.png>)",
    "![](//evil.example/x)",
    "![a](\nhttps://evil.example/x\n)",
    "![a](ht\ntps://evil.example/x)",
    "![a](https&#58;//evil.example/x)",
    "![a](&#104;ttps://evil.example/x)",
    "![a](HTTPS:\\\\evil.example/x)",
    "![a][r]\n\n[r]: https://evil.example/x",
    "![r][]\n\n[r]: https://evil.example/x",
    "![r]\n\n[r]:\n  <https://evil.example/x>",
    "[![a](https://evil.example/x)](https://good.example/)",
    "<img src=\"https://evil.example/x\">",
    "<IMG SRC=https://evil.example/x>",
    "<img srcset=\"/a 1x, https://evil.example/x 2x\">",
    "<img src='ht\ttps://evil.example/x'/>",
    "<img src=\"&#x68;ttps://evil.example/x\">",
    "<link rel=\"stylesheet\" href=\"https://evil.example/x\">",
    "<script src=\"https://evil.example/x\"></script>",
    "<iframe src=\"https://evil.example/x\"></iframe>",
    "<video poster=\"https://evil.example/x\"></video>",
    "<div style=\"background:url('https://evil.example/x')\">",
    "<style>p { background: url(https://evil.example/x) }</style>",
    "<meta http-equiv=\"refresh\" content=\"0;url=https://evil.example/x\">",
    "<svg><image href=\"https://evil.example/x\"/></svg>",
    "<object data=\"https://evil.example/x\">",
    "<img src=\"https://evil.example/x",
    "![a](ｈttps://evil。example/x)",
    "![a\\]b](https://evil.example/x)",
    "![A b][]\n\n[a   B]: https://evil.example/x",
    "<base href=\"https://evil.example/\">",
    "<iframe srcdoc=\"&lt;img src=https://evil.example/x&gt;\"></iframe>",
    "<img src=x onerror=\"fetch('https://evil.example/x')\">",
];

/// Links with data in them, which somebody would have to follow.
const FOLLOWED: &[&str] = &[
    "[a](https://evil.example/?q=data)",
    "[a](https://evil.example/x#data=1)",
    "[a](https://user:data@evil.example/)",
    "[a][r]\n\n[r]: https://evil.example/?q=data",
    "<https://evil.example/?q=data>",
    "https://evil.example/?q=data",
    "www.evil.example/?q=data",
    "evil.com/?q=data",
    "<a href=\"https://evil.example/?q=data\">x</a>",
    "<form action=\"https://evil.example/\">",
    "[a](javascript:fetch('//evil.example'))",
    "[a](data:text/html,x)",
    "[a](https://evil.example/c2VjcmV0IGRhdGEgb2YgdGhlIHVzZXI)",
    "`https://evil.example/?q=data`",
    "[a](mailto:x@evil.example?body=data)",
    "[a](//evil.example/?q=data)",
    "https:\\/\\/evil.example\\/?q=data",
];

const HARMLESS: &[&str] = &[
    "[a](https://docs.example/guide)",
    "https://docs.example/guide/start",
    "![a](https://good.example/x.png?v=1)",
    "[a](https://good.example/?q=data)",
    "[a](/local?x=1) and [b](page.html#c)",
    "![a](data:image/png;base64,iVBORw0KGgo=)",
    "a < b and c > d, x[1](2), [note]: text",
    "see src/main.rs/x and and/or, e.g. this",
    "<p class=\"x\">text</p>",
    "array[i](argument) and ![x]",
];

#[test]
fn whatever_loads_by_itself_is_found_as_an_image() {
    for text in LOADED {
        let found = links::find(text, &allowed);
        assert!(
            found.iter().any(|f| f.kind == Kind::IMAGE),
            "{text:?}: {found:?}"
        );
    }
}

#[test]
fn links_with_data_are_found_and_plain_ones_are_not() {
    for text in FOLLOWED {
        let found = links::find(text, &allowed);
        assert!(
            found.iter().any(|f| f.kind == Kind::LINK),
            "{text:?}: {found:?}"
        );
    }
    for text in HARMLESS {
        assert_eq!(links::find(text, &allowed), [], "{text:?}");
    }
}

#[test]
fn nothing_is_live_after_it_was_made_inert() {
    for text in LOADED.iter().chain(FOLLOWED) {
        let inert = links::defang(text, &allowed);
        assert_inert(text, &inert);
        assert!(!inert.contains("evil.example"), "{text:?}: {inert:?}");
    }
    for text in HARMLESS {
        let once = links::defang(text, &allowed);
        assert_eq!(once, links::defang(&once, &allowed), "{text:?}");
    }
}

#[test]
fn what_is_inert_is_still_readable() {
    for (text, inert) in [
        (
            "see https://evil.example/x.",
            "see hxxps://evil[.]example/x.",
        ),
        (
            "![a cat](https://evil.example/x)",
            "[image: a cat, from evil[.]example]",
        ),
        (
            "[here](https://evil.example/x)",
            "here (hxxps://evil[.]example/x)",
        ),
        (
            "<img alt=cat src=//evil.example/x>",
            "[image: cat, from evil[.]example]",
        ),
        (
            "[ok](https://good.example/?a=b)",
            "[ok](https://good.example/?a=b)",
        ),
        (
            "```\ncurl http://evil.example/\n```",
            "```\ncurl hxxp://evil[.]example/\n```",
        ),
    ] {
        assert_eq!(links::defang(text, &allowed), inert);
    }
}

/// The forms put together at random: no reader of Markdown finds a live link, and nothing changes
/// when it is done twice.
#[test]
fn whatever_forms_are_put_together_nothing_is_live() {
    const PIECES: &[&str] = &[
        "[",
        "]",
        "(",
        ")",
        "![",
        "](",
        "]: ",
        "<",
        ">",
        "https://evil.example/x",
        "//evil.example",
        "evil.com/?a",
        "www.evil.com",
        "&#104;ttps:",
        "//",
        "\\",
        "`",
        "\n",
        "\n\n",
        " ",
        "a",
        "r",
        "[r]",
        "![r]",
        "\"",
        "'",
        "javascript:x",
        "<img src=",
        "<a href=\"",
        "https://good.example/",
        "url(",
        "&lt;",
        "<!--",
        "-->",
        "mailto:a@evil.example",
        "a@evil.example",
        "hxxps://",
        "[.]",
        "é",
        "！",
    ];
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % below as u64) as usize
    };
    for _ in 0..20_000 {
        let length = 2 + next(14);
        let text: String = (0..length).map(|_| PIECES[next(PIECES.len())]).collect();
        let inert = links::defang(&text, &allowed);
        assert_inert(&text, &inert);
    }
}

fn assert_inert(text: &str, inert: &str) {
    let live = live(inert);
    assert!(live.is_empty(), "{live:?} in {inert:?} of {text:?}");
    assert_eq!(inert, links::defang(inert, &allowed), "twice, of {text:?}");
    let found = links::find(inert, &allowed);
    assert!(found.is_empty(), "{found:?} in {inert:?} of {text:?}");
}

/// The addresses that a reader of Markdown would follow or load.
fn live(text: &str) -> Vec<String> {
    Parser::new_ext(text, Options::all())
        .filter_map(|event| match event {
            Event::Start(Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. }) => {
                Some(dest_url.to_string())
            }
            _ => None,
        })
        .filter(|address| {
            let lower = address.to_lowercase();
            let scheme = lower.split(':').next().unwrap_or_default();
            let known = ["http", "https", "ftp", "mailto", "ws", "wss"].contains(&scheme);
            let leaves = known || lower.starts_with("//") || lower.starts_with("www.");
            // A page of a wiki by the name of what is inert leads nowhere.
            leaves && lower.contains("evil") && !lower.contains("[.]") && !is_good(&lower)
                || scheme == "javascript"
        })
        .collect()
}

/// Whatever stands in an address of the host that is allowed.
fn is_good(address: &str) -> bool {
    let rest = address.split_once("//").map_or(address, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next() == Some("good.example")
}
