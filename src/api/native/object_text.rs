//! JSON objects written member by member, for answers of which a page has thousands.
//!
//! Names of members, digits and words of ours need no escaping, and looking at each of their letters
//! for it would take most of the time that such a page takes.

use crate::domain::digits::push_digits;
use crate::domain::time::Millis;

/// A JSON object on its way into a text.
pub(crate) struct ObjectText<'t> {
    text: &'t mut String,
    is_empty: bool,
}

impl<'t> ObjectText<'t> {
    pub(crate) fn begin(text: &'t mut String) -> Self {
        text.push('{');
        Self { text, is_empty: true }
    }

    pub(crate) fn end(self) {
        self.text.push('}');
    }

    fn name(&mut self, name: &'static str) {
        self.text.push_str(if self.is_empty { "\"" } else { ",\"" });
        self.text.push_str(name);
        self.text.push_str("\":");
        self.is_empty = false;
    }

    /// A member whose value is JSON already.
    pub(crate) fn json(&mut self, name: &'static str, json: &str) {
        self.name(name);
        self.text.push_str(json);
    }

    /// A text without anything to escape: digits, words of ours.
    pub(crate) fn plain(&mut self, name: &'static str, value: &str) {
        self.plain_by(name, |text| text.push_str(value));
    }

    /// As [`ObjectText::plain`], with a text that `write` puts in its place.
    pub(crate) fn plain_by(&mut self, name: &'static str, write: impl FnOnce(&mut String)) {
        self.name(name);
        self.text.push('"');
        write(self.text);
        self.text.push('"');
    }

    pub(crate) fn opt_plain(&mut self, name: &'static str, value: Option<&str>) {
        match value {
            Some(value) => self.plain(name, value),
            None => self.json(name, "null"),
        }
    }

    /// Any text.
    pub(crate) fn text(&mut self, name: &'static str, value: &str) {
        if value.bytes().all(|byte| byte >= b' ' && byte != b'"' && byte != b'\\') {
            self.plain(name, value);
        } else {
            self.json(name, &serde_json::Value::from(value).to_string());
        }
    }

    pub(crate) fn number(&mut self, name: &'static str, value: u64) {
        self.name(name);
        push_digits::<10>(self.text, value, 1);
    }

    /// Milliseconds since 1970; negative ones are before that.
    pub(crate) fn time(&mut self, name: &'static str, value: Millis) {
        match u64::try_from(value.0) {
            Ok(value) => self.number(name, value),
            Err(_) => self.json(name, &value.0.to_string()),
        }
    }

    pub(crate) fn opt_time(&mut self, name: &'static str, value: Option<Millis>) {
        match value {
            Some(value) => self.time(name, value),
            None => self.json(name, "null"),
        }
    }

    pub(crate) fn object(&mut self, name: &'static str, fill: impl FnOnce(&mut ObjectText<'_>)) {
        self.name(name);
        let mut inside = ObjectText::begin(self.text);
        fill(&mut inside);
        inside.end();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_text_is_read_back_as_it_was(value in any::<String>()) {
            let mut text = String::new();
            let mut object = ObjectText::begin(&mut text);
            object.text("one", &value);
            object.opt_plain("two", None);
            object.object("three", |inside| {
                inside.number("four", 5);
                inside.time("five", Millis(-6));
                inside.opt_time("six", None);
            });
            object.end();
            let read: serde_json::Value = serde_json::from_str(&text).expect("it is JSON");
            let three = serde_json::json!({"four": 5, "five": -6, "six": null});
            let wanted = serde_json::json!({"one": value, "two": null, "three": three});
            prop_assert_eq!(read, wanted);
        }
    }
}
