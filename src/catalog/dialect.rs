//! The few words in which the SQL engines differ, as tokens inside statement texts.
//!
//! `{bytes}` type of byte strings · `{byte_order}` comparison of names byte by byte ·
//! `{skip_locked}` suffix of a claiming select · `{clustered}` table kept in the order of its key ·
//! `{row_number}` type of a whole-number key that needs no index of its own where rows are numbered.
//! A further token needs a written decision.

use std::borrow::Cow;

/// The words of one engine.
pub(crate) struct Dialect {
    tokens: [(&'static str, &'static str); 5],
}

/// SQLite's words.
pub(crate) const SQLITE: Dialect = Dialect {
    tokens: [
        ("{bytes}", "BLOB"),
        ("{byte_order}", "COLLATE BINARY"),
        ("{skip_locked}", ""),
        ("{clustered}", "WITHOUT ROWID"),
        ("{row_number}", "INTEGER"),
    ],
};

impl Dialect {
    /// Replaces the tokens; a text without any is returned as it is.
    pub(crate) fn render(&self, sql: &'static str) -> Cow<'static, str> {
        if !sql.contains('{') {
            return Cow::Borrowed(sql);
        }
        let replaced = self
            .tokens
            .iter()
            .fold(sql.to_owned(), |text, (token, word)| text.replace(token, word));
        Cow::Owned(replaced)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_token_is_replaced() {
        let text = SQLITE.render("{bytes} {byte_order} {skip_locked} {clustered} {row_number} b");
        assert_eq!(text, "BLOB COLLATE BINARY  WITHOUT ROWID INTEGER b");
    }
}
