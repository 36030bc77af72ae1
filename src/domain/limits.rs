//! Every limit of contract §9 in one table; served at `/v1/limits`.

/// Size of a request body, in bytes.
pub const BODY_BYTES: usize = 256 * 1024;
/// Size of an event's `data`, in bytes of JSON.
pub const DATA_BYTES: usize = 64 * 1024;
/// Events in one `POST /v1/events`.
pub const BATCH_EVENTS: usize = 100;
/// Size of a push: APNs "4 KB (4096 bytes)"; FCM "4096 bytes" of keys and values.
pub const PUSH_BYTES: usize = 4096;
/// Events on one page.
pub const PAGE_EVENTS: usize = 500;
/// Size of one page, in bytes.
pub const PAGE_BYTES: usize = 1024 * 1024;
/// Events on a page when the request does not say.
pub const PAGE_EVENTS_DEFAULT: usize = 100;
/// Longest `Prefer: wait`, in seconds.
pub const WAIT_S: u64 = 25;
/// After how many quiet seconds a stream may ask to be sent a comment.
pub const PING_S: std::ops::RangeInclusive<u64> = 30..=300;
/// Feeds a device follows by request.
pub const EXPLICIT_FEEDS: usize = 200;
/// Length of an `Idempotency-Key`.
pub const IDEMPOTENCY_KEY_CHARS: usize = 255;
/// Length of `user`.
pub const USER_CHARS: usize = 120;
/// Length of an event's `key`.
pub const KEY_CHARS: usize = 255;
/// Length of names, types, installation ids and other short texts.
pub const SHORT_TEXT_CHARS: usize = 255;
/// Length of a push token; providers warn against assuming a length, so this is only a bound.
pub const PUSH_TOKEN_CHARS: usize = 4096;
/// Size of `href`, in bytes.
pub const HREF_BYTES: usize = 2048;
/// Longest `ttl_s`: FCM keeps a message for at most four weeks.
pub const TTL_S: u32 = 2_419_200;
/// Credentials of one app.
pub const CREDENTIALS: usize = 50;
/// Polls a device may make: this many a minute …
pub const POLLS_PER_MINUTE: u32 = 60;
/// … and this many at once.
pub const POLLS_BURST: u32 = 20;
/// Failed authentications of one address, per minute.
pub const FAILED_AUTHENTICATIONS_PER_MINUTE: u32 = 10;
/// Checks of one credential, per minute, one at a time.
pub const CREDENTIAL_CHECKS_PER_MINUTE: u32 = 12;
/// Device tokens that stay valid beside the newest one.
pub const OLDER_DEVICE_TOKENS: usize = 4;

/// The table, by the names that clients see; each name carries its unit.
pub const TABLE: &[(&str, u64)] = &[
    ("request_body_bytes", BODY_BYTES as u64),
    ("data_bytes", DATA_BYTES as u64),
    ("batch_events", BATCH_EVENTS as u64),
    ("push_bytes", PUSH_BYTES as u64),
    ("page_events", PAGE_EVENTS as u64),
    ("page_bytes", PAGE_BYTES as u64),
    ("wait_s", WAIT_S),
    ("explicit_feeds_per_device", EXPLICIT_FEEDS as u64),
    ("idempotency_key_chars", IDEMPOTENCY_KEY_CHARS as u64),
    ("user_chars", USER_CHARS as u64),
    ("feed_name_chars", super::feed::FeedName::MAX_CHARS as u64),
    ("key_chars", KEY_CHARS as u64),
    ("type_chars", SHORT_TEXT_CHARS as u64),
    ("href_bytes", HREF_BYTES as u64),
    ("push_token_chars", PUSH_TOKEN_CHARS as u64),
    ("ttl_s", TTL_S as u64),
    ("credentials_per_app", CREDENTIALS as u64),
    ("polls_per_minute", POLLS_PER_MINUTE as u64),
    ("polls_burst", POLLS_BURST as u64),
    ("failed_authentications_per_minute", FAILED_AUTHENTICATIONS_PER_MINUTE as u64),
    ("credential_checks_per_minute", CREDENTIAL_CHECKS_PER_MINUTE as u64),
];
