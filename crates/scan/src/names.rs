//! What the name of a value says: whether it means a secret, and whose.

use std::ops::Range;

use crate::alphabet::{ALNUM, Alphabet, BASE64, DIGIT, HEX, HEX_PAIR, LOWER_ALNUM, TOKEN, URL};
use crate::finding::Kind;
use crate::structured::position;

/// A name, as it stands in a text.
#[derive(Clone, Debug)]
pub(crate) struct Name {
    pub(crate) place: Range<usize>,
    /// An option of a command or a clause of SQL: its value may follow a blank.
    pub(crate) is_option: bool,
}

/// The longest name, to each side of the word that it was found by.
const LONGEST: usize = 48;

/// What stands before a name whose value follows after a blank.
const OPTION_BEFORE: [&str; 4] = ["env ", "setx ", "config set ", "configure set "];

/// The whole name around a word of it.
pub(crate) fn around(bytes: &[u8], word: Range<usize>) -> Name {
    let is_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    let before = bytes[..word.start]
        .iter()
        .rev()
        .take(LONGEST)
        .take_while(is_part)
        .count();
    let after = bytes[word.end..]
        .iter()
        .take(LONGEST)
        .take_while(is_part)
        .count();
    let start = word.start - before;
    let end = word.end + after;
    let is_option = bytes[start..].starts_with(b"--")
        || bytes[word.clone()].eq_ignore_ascii_case(b"identified by")
        || has_option_before(bytes, word.clone(), start);
    Name {
        place: start..end,
        is_option,
    }
}

/// `ENV NAME value` of a Dockerfile, `setx NAME value`, `machine x login y password z` of a .netrc.
fn has_option_before(bytes: &[u8], word: Range<usize>, start: usize) -> bool {
    let before = &bytes[start.saturating_sub(120)..start];
    if !before.ends_with(b" ") || bytes.get(word.end) == Some(&b':') {
        return false;
    }
    let ends = |with: &str| {
        let end = &before[before.len().saturating_sub(with.len())..];
        end.eq_ignore_ascii_case(with.as_bytes())
    };
    let holds = |word: &str| position(before, word).is_some();
    OPTION_BEFORE.iter().any(|word| ends(word))
        || &bytes[word] == b"password" && holds("machine ") && holds("login ")
}

/// Words behind which stands no secret although their name has one in it.
const HARMLESS_ENDS: [&str; 47] = [
    "id",
    "_ids",
    "name",
    "type",
    "url",
    "uri",
    "endpoint",
    "path",
    "file",
    "filename",
    "dir",
    "count",
    "counts",
    "length",
    "len",
    "size",
    "limit",
    "limits",
    "ttl",
    "expiry",
    "expires",
    "expires_in",
    "expires_at",
    "hash",
    "digest",
    "checksum",
    "at",
    "version",
    "algorithm",
    "policy",
    "field",
    "label",
    "placeholder",
    "prefix",
    "header",
    "hint",
    "format",
    "arn",
    "ref",
    "reference",
    "izer",
    "ized",
    "status",
    "error",
    "usage",
    "provider",
    "mask",
];

/// The same for names that have it in their middle, whatever stands between its words.
const HARMLESS: [&str; 33] = [
    "public",
    "pubkey",
    "maxtoken",
    "mintoken",
    "numtoken",
    "pagetoken",
    "nexttoken",
    "synctoken",
    "continuation",
    "cursortoken",
    "foreign",
    "cachekey",
    "cachetoken",
    "partitionkey",
    "sortkey",
    "rowkey",
    "objectkey",
    "sitekey",
    "messagekey",
    "groupkey",
    "idempotency",
    "hostkey",
    "hotkey",
    "keyboard",
    "keyword",
    "csrf",
    "xsrf",
    "authenticitytoken",
    "lockkey",
    "locktoken",
    "translation",
    "i18n",
    "fingerprint",
];

/// What makes a key a secret one.
const KEYS: [&str; 37] = [
    "cred",
    "cookie",
    "consumer",
    "crypt",
    "api",
    "access",
    "secret",
    "private",
    "sign",
    "master",
    "auth",
    "app",
    "account",
    "admin",
    "deploy",
    "license",
    "service",
    "write",
    "read",
    "root",
    "storage",
    "shared",
    "client",
    "server",
    "subscription",
    "webhook",
    "bot",
    "integration",
    "ingest",
    "user",
    "function",
    "session",
    "jwt",
    "hmac",
    "aes",
    "wg",
    "preshared",
];

/// Whether a name with a word for a password in it means one.
pub(crate) fn means_password(name: &str) -> bool {
    let compass = [
        "compass",
        "bypass",
        "passed",
        "passing",
        "passenger",
        "passive",
        "passport",
        "passage",
        "pass_through",
        "passthrough",
        "overpass",
        "surpass",
        "passkey",
        "passes",
        "passion",
    ];
    let words = [
        "password",
        "passwd",
        "passphrase",
        "passcode",
        "passe",
        "pwd",
        "kennwort",
        "passwort",
        "contrase",
        "identified by",
        "senha",
        "wachtwoord",
        "lösenord",
        "hasło",
        "пароль",
        "Пароль",
        "密码",
        "パスワード",
    ];
    let named = words.iter().any(|word| name.contains(word));
    let end = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let short = ["pw", "psk"].iter().any(|word| {
        end.strip_suffix(word)
            .is_some_and(|before| before.is_empty() || before.ends_with(['_', '-', '.']))
    });
    !is_harmless(name)
        && (named || short || end.ends_with("pass"))
        && !compass.iter().any(|word| name.contains(word))
}

/// Whether a name with a word for a key in it means a secret one.
pub(crate) fn means_key(name: &str) -> bool {
    if is_harmless(name) {
        return false;
    }
    let other = [
        "token",
        "secret",
        "credential",
        "auth",
        "sess",
        "sid",
        "psk",
    ];
    let of_service = |(service, word): &(&str, &str)| name.contains(service) && name.contains(word);
    other.iter().any(|word| name.contains(word))
        || NAMED_OTHERWISE.iter().any(of_service)
        || has_key(name) && (KEYS.iter().any(|word| name.contains(word)) || is_of_vendor(name))
}

/// Whether it is some key, of which only the value tells that it is secret: `weatherKey`.
pub(crate) fn may_mean_key(name: &str) -> bool {
    let end = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '_');
    let before = end
        .strip_suffix("key")
        .map(|before| before.trim_end_matches(['_', '-', '.']));
    before.is_some_and(|before| before.len() >= 2) && has_key(name) && !is_harmless(name)
}

fn has_key(name: &str) -> bool {
    name.replace("monkey", "")
        .replace("turkey", "")
        .contains("key")
}

/// Services that call a secret neither key nor token.
const NAMED_OTHERWISE: [(&str, &str); 3] = [
    ("sonar", "login"),
    ("sumo", "access"),
    ("contribsys", "__com"),
];

fn is_harmless(name: &str) -> bool {
    let end = name.trim_end_matches(['_', '-', '.']);
    let ends = |word: &str| {
        end.strip_suffix(word).is_some_and(|before| {
            // `secretName` was put in lower case: no sign stands before its last word.
            before.ends_with(['_', '-', '.'])
                || ["token", "key", "secret", "password", "credential"]
                    .iter()
                    .any(|w| before.trim_end_matches('s').ends_with(w))
        })
    };
    let flat = end.replace(['_', '-', '.', ' '], "");
    let counted =
        end.starts_with("n_token") || end.ends_with("tokens") && !end.ends_with("_secret_tokens");
    counted
        || HARMLESS_ENDS.iter().any(|word| ends(word))
            && !end.ends_with("sessionid")
            && !end.ends_with("session_id")
            && !end.ends_with("connect.sid")
            && !NAMED_OTHERWISE
                .iter()
                .any(|(service, _)| end.contains(service))
        || HARMLESS.iter().any(|word| flat.contains(word))
}

/// A service whose keys have no sign of their own, and what they look like.
struct Vendor {
    words: &'static [&'static str],
    kind: Kind,
    alphabet: Alphabet,
    lengths: &'static [usize],
}

const fn vendor_row(
    words: &'static [&'static str],
    kind: &'static str,
    alphabet: Alphabet,
    lengths: &'static [usize],
) -> Vendor {
    Vendor {
        words,
        kind: Kind(kind),
        alphabet,
        lengths,
    }
}

/// The services. Lengths and letters as their own pages and the public rule sets give them.
#[rustfmt::skip] // One row a service is easier to read and to compare.
const VENDORS: &[Vendor] = &[
    vendor_row(&["heroku"], "heroku_api_key", URL, &[36]),
    vendor_row(&["datadog", "dd_api", "dd_app", "dd-api", "dd-app"], "datadog_key", ALNUM, &[32, 40]),
    vendor_row(&["cloudflare", "cf_api", "cf-api"], "cloudflare_key", URL, &[37, 40]),
    vendor_row(&["fastly"], "fastly_key", URL, &[32]),
    vendor_row(&["twilio"], "twilio_key", HEX, &[32]),
    vendor_row(&["cohere", "co_api_key"], "cohere_key", ALNUM, &[40]),
    vendor_row(&["mistral"], "mistral_key", ALNUM, &[32]),
    vendor_row(&["together"], "together_key", HEX, &[64]),
    vendor_row(&["assemblyai", "assembly_ai"], "assemblyai_key", HEX, &[32]),
    vendor_row(&["azure_openai", "azure-openai", "openai"], "azure_openai_key", ALNUM, &[32, 84]),
    vendor_row(&["algolia"], "algolia_key", HEX, &[32]),
    vendor_row(&["pagerduty", "pager_duty"], "pagerduty_key", URL, &[20, 32]),
    vendor_row(&["okta"], "okta_token", URL, &[42]),
    vendor_row(&["sentry"], "sentry_token", HEX, &[64]),
    vendor_row(&["newrelic", "new_relic", "new-relic"], "newrelic_key", ALNUM, &[40, 47, 64]),
    vendor_row(&["dropbox"], "dropbox_key", ALNUM, &[15]),
    vendor_row(&["atlassian", "jira", "confluence"], "atlassian_token", ALNUM, &[24]),
    vendor_row(&["bitbucket"], "bitbucket_secret", URL, &[32, 64]),
    vendor_row(&["zendesk"], "zendesk_token", ALNUM, &[40]),
    vendor_row(&["travis"], "travis_token", ALNUM, &[20, 22]),
    vendor_row(&["circle"], "circleci_token", HEX, &[40]),
    vendor_row(&["netlify"], "netlify_token", URL, &[40, 43, 44, 45, 46]),
    vendor_row(&["contentful"], "contentful_token", URL, &[43]),
    vendor_row(&["intercom"], "intercom_token", BASE64, &[60]),
    vendor_row(&["snyk"], "snyk_token", URL, &[36]),
    vendor_row(&["sonar"], "sonar_token", HEX, &[40]),
    vendor_row(&["confluent"], "confluent_secret", BASE64, &[64]),
    vendor_row(&["plaid"], "plaid_secret", HEX, &[30]),
    vendor_row(&["asana"], "asana_secret", HEX, &[32]),
    vendor_row(&["airtable"], "airtable_key", ALNUM, &[17]),
    vendor_row(&["vercel"], "vercel_token", ALNUM, &[24]),
    vendor_row(&["linear"], "linear_secret", HEX, &[32]),
    vendor_row(&["discord"], "discord_secret", URL, &[32]),
    vendor_row(&["facebook", "fb_app"], "facebook_secret", HEX, &[32]),
    vendor_row(&["twitter"], "twitter_secret", ALNUM, &[25, 45, 50]),
    vendor_row(&["twitch"], "twitch_secret", LOWER_ALNUM, &[30]),
    vendor_row(&["spotify"], "spotify_secret", HEX, &[32]),
    vendor_row(&["linkedin"], "linkedin_secret", ALNUM, &[16]),
    vendor_row(&["mattermost"], "mattermost_token", LOWER_ALNUM, &[26]),
    vendor_row(&["paypal"], "paypal_secret", URL, &[80]),
    vendor_row(&["braintree"], "braintree_key", HEX, &[32]),
    vendor_row(&["coinbase"], "coinbase_key", URL, &[64]),
    vendor_row(&["etsy"], "etsy_key", LOWER_ALNUM, &[24]),
    vendor_row(&["linode"], "linode_token", HEX, &[64]),
    vendor_row(&["digitalocean"], "digitalocean_key", HEX, &[64]),
    vendor_row(&["hetzner", "hcloud"], "hetzner_token", ALNUM, &[64]),
    vendor_row(&["vultr"], "vultr_key", ALNUM, &[36]),
    vendor_row(&["wandb"], "wandb_key", HEX, &[40]),
    vendor_row(&["sumo"], "sumologic_key", ALNUM, &[64]),
    vendor_row(&["rollbar"], "rollbar_token", HEX, &[32]),
    vendor_row(&["opsgenie", "loggly", "splunk", "postmark"], "service_token", URL, &[36]),
    vendor_row(&["mailchimp", "mandrill"], "mailchimp_key", URL, &[22, 36, 37]),
    vendor_row(&["adafruit"], "adafruit_key", URL, &[32]),
    vendor_row(&["adobe"], "adobe_key", HEX, &[32]),
    vendor_row(&["alibaba", "aliyun"], "alibaba_secret", LOWER_ALNUM, &[30]),
    vendor_row(&["beamer"], "beamer_key", TOKEN, &[46]),
    vendor_row(&["bittrex"], "bittrex_key", LOWER_ALNUM, &[32]),
    vendor_row(&["meraki"], "meraki_key", HEX, &[40]),
    vendor_row(&["codecov"], "codecov_token", LOWER_ALNUM, &[32]),
    vendor_row(&["confluent"], "confluent_key", ALNUM, &[16, 64]),
    vendor_row(&["contentful"], "contentful_token", TOKEN, &[43]),
    vendor_row(&["discord"], "discord_secret", HEX, &[64]),
    vendor_row(&["discord"], "discord_client", DIGIT, &[17, 18, 19]),
    vendor_row(&["discord"], "discord_secret", TOKEN, &[32]),
    vendor_row(&["asana"], "asana_client", DIGIT, &[16]),
    vendor_row(&["asana"], "asana_secret", LOWER_ALNUM, &[32]),
    vendor_row(&["droneci", "drone_ci"], "drone_token", LOWER_ALNUM, &[32]),
    vendor_row(&["dropbox"], "dropbox_token", TOKEN, &[64, 138]),
    vendor_row(&["fastly"], "fastly_key", TOKEN, &[32]),
    vendor_row(&["finicity"], "finicity_key", ALNUM, &[20, 32]),
    vendor_row(&["finnhub"], "finnhub_token", LOWER_ALNUM, &[20]),
    vendor_row(&["flickr"], "flickr_key", LOWER_ALNUM, &[32]),
    vendor_row(&["freshbooks"], "freshbooks_token", LOWER_ALNUM, &[64]),
    vendor_row(&["gitter"], "gitter_token", URL, &[40]),
    vendor_row(&["gocardless"], "gocardless_token", TOKEN, &[45]),
    vendor_row(&["hubspot", "sendbird", "squarespace", "kucoin"], "service_key", URL, &[24, 36, 40]),
    vendor_row(&["intercom"], "intercom_token", TOKEN, &[60]),
    vendor_row(&["jfrog", "artifactory", "bintray", "xray"], "artifactory_key", ALNUM, &[64, 73]),
    vendor_row(&["kraken"], "kraken_key", TOKEN, &[80, 81, 82, 83, 84, 85, 86, 87, 88, 89, 90]),
    vendor_row(&["launchdarkly"], "launchdarkly_key", TOKEN, &[40]),
    vendor_row(&["linkedin", "linked_in", "linked-in"], "linkedin_secret", ALNUM, &[14, 16]),
    vendor_row(&["looker"], "looker_key", LOWER_ALNUM, &[20, 24]),
    vendor_row(&["messagebird", "message_bird", "message-bird"], "messagebird_key", URL, &[25, 36]),
    vendor_row(&["netlify"], "netlify_token", TOKEN, &[40, 41, 42, 43, 44, 45, 46]),
    vendor_row(&["nytimes", "newyorktimes", "new-york-times"], "nytimes_key", TOKEN, &[32]),
    vendor_row(&["okta"], "okta_token", TOKEN, &[42]),
    vendor_row(&["plaid"], "plaid_secret", LOWER_ALNUM, &[24, 30]),
    vendor_row(&["privateai", "private_ai", "private-ai"], "privateai_key", LOWER_ALNUM, &[32]),
    vendor_row(&["rapidapi"], "rapidapi_key", URL, &[50]),
    vendor_row(&["sonar"], "sonar_token", TOKEN, &[40, 44]),
    vendor_row(&["sourcegraph"], "sourcegraph_token", HEX, &[40]),
    vendor_row(&["sumo"], "sumologic_key", ALNUM, &[14]),
    vendor_row(&["contribsys"], "sidekiq_secret", HEX_PAIR, &[17]),
    vendor_row(&["yandex"], "yandex_key", URL, &[40]),
];

fn of_vendor(name: &str) -> impl Iterator<Item = &'static Vendor> {
    VENDORS
        .iter()
        .filter(move |vendor| vendor.words.iter().any(|word| name.contains(word)))
}

fn is_of_vendor(name: &str) -> bool {
    of_vendor(name).next().is_some()
}

/// Whether a value has the form that the service in the name gives its keys.
pub(crate) fn vendor_fits(name: &str, value: &str) -> bool {
    of_vendor(name).any(|vendor| vendor.fits(value))
}

/// The kind of a value by the service that is named before it in its line.
pub(crate) fn vendor_kind(line: &str, value: &str) -> Option<Kind> {
    of_vendor(line)
        .find(|vendor| vendor.fits(value))
        .map(|vendor| vendor.kind)
}

impl Vendor {
    fn fits(&self, value: &str) -> bool {
        let letters = value.bytes().any(|b| b.is_ascii_alphabetic());
        let varied = letters && value.bytes().any(|b| b.is_ascii_digit());
        (varied || self.alphabet == DIGIT)
            && self.lengths.contains(&value.len())
            && value.bytes().all(|b| self.alphabet.has(b))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_mean_what_they_say() {
        for name in [
            "api_key",
            "apikey",
            "x-api-key",
            "client_secret",
            "access_token",
            "stripe_secret_key",
            "datadog_key",
            "sessionid",
        ] {
            assert!(means_key(name), "{name}");
        }
        for name in [
            "key",
            "cache_key",
            "public_key",
            "token_type",
            "max_tokens",
            "tokens",
            "secret_name",
            "api_key_id",
            "secretname",
            "nextpagetoken",
            "tokenizer",
            "csrf_token",
        ] {
            assert!(!means_key(name), "{name}");
        }
        for name in ["password", "db_password", "pgpassword", "smtp_pass"] {
            assert!(means_password(name), "{name}");
        }
        for name in [
            "password_hash",
            "compass",
            "bypass",
            "password_length",
            "passportnumber",
        ] {
            assert!(!means_password(name), "{name}");
        }
    }

    #[test]
    fn a_service_is_known_by_its_name_and_the_form_of_its_keys() {
        let uuid = "7f1c9a52-3d80-4be6-a1f4-90c2d7e8b635";
        assert_eq!(
            vendor_kind("heroku_api_key=", uuid),
            Some(Kind("heroku_api_key"))
        );
        assert_eq!(vendor_kind("heroku_api_key=", "short"), None);
        assert_eq!(vendor_kind("other_key=", uuid), None);
    }
}
