//! A stand-in for the Telegram Bot API, faithful where it matters.
